"""The function features: pages on what layers and units respond to, and how the model groups pictures."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearsight._version import __version__
from clearsight.auditing.case import Case
from clearsight.core import rng
from clearsight.core.catalogue import Call, catalogue, parse
from clearsight.core.classifier import Classifier, classifier_of
from clearsight.core.label_names import plain
from clearsight.core.progress import Progress
from clearsight.data.datasets import Picture, Pictures, open_data, truth
from clearsight.data.text_inputs import refuse_texts
from clearsight.errors import Refused
from clearsight.internals.capture import Captured, capture, embedded, last_linear
from clearsight.internals.layers import find_layer
from clearsight.reporting.pages import INDEX, Page, joined

UNITS = 4  # of a layer are shown where none is named
CLASSES = 2  # are visualised where none is named
KEPT = 16  # pictures remembered for each unit


@dataclass(frozen=True)
class TopPictures:
    """For each unit the pictures with its highest activation: values (K, k) and rows (K, k), best first.

    n: pictures looked at; shape: (K, h, w) of the layer; maps: whether it has places.
    """

    values: Tensor
    rows: Tensor
    n: int
    shape: tuple[int, ...]
    maps: bool


@dataclass(eq=False)
class FeatureContext:
    """What all visualisations share: one model, its pictures, and the layers, units and classes to show.

    case: the model and the pictures that can be read.  layers: checked names; if there are none, no_layer says why.
    named_units: units that the user named; empty for those with the highest activations.  classes: classes to
    visualise; empty for those that the model answers most often.  words: the classes of each picture as the data spells
    them.
    """

    case: Case
    layers: tuple[str, ...]
    no_layer: str = ""
    named_units: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _best: dict[str, TopPictures] = field(default_factory=dict)

    @property
    def model(self) -> Classifier:
        return self.case.model

    @property
    def pictures(self) -> list[Picture]:
        return self.case.pictures

    def every_layer(self) -> tuple[str, ...]:
        """The layers to look at, at least one; refused where there is none."""
        if not self.layers:
            raise Refused(self.no_layer)
        return self.layers

    def name(self, row: int) -> str:
        return self.pictures[row].name

    def label(self, row: int) -> str:
        """The picture's first class in the words of the data, "" where it is unlabelled."""
        return next(iter(self.words.get(self.name(row), ())), "")

    def describe(self, row: int) -> str:
        """The label of a picture and the answer of the model, in words."""
        label = self.label(row)
        answer = self.case.label(row)
        return f"{label}, said {answer}" if label and plain(label) != plain(answer) else f"said {answer}"

    def passes(self, layer: str, rows: Sequence[int] | None = None) -> Iterator[tuple[list[int], Tensor, Captured]]:
        """(rows, pixels, what stands at the layer) of the pictures, a few at a time, while the budget lasts."""
        for part, x in self.case.batches(range(len(self.pictures)) if rows is None else rows):
            x = x.to(self.model.device)
            with torch.no_grad():
                yield part, x, capture(self.model, x, layer)

    def best(self, layer: str, most: int = KEPT) -> TopPictures:
        """For each unit of a layer the pictures with its highest activation, by one pass over all pictures."""
        cached = self._best.get(layer)
        if cached is not None and (cached.values.shape[1] >= most or cached.values.shape[1] == cached.n):
            return cached
        values = rows = torch.empty(0)
        n = 0
        for part, _, caught in self.passes(layer):
            peak = caught.preactivation.flatten(2).amax(2).float().cpu()
            row_of_peak = torch.tensor(part)[:, None].expand(peak.shape)
            values = torch.cat([values, peak]) if n else peak
            rows = torch.cat([rows, row_of_peak]) if n else row_of_peak
            values, order = values.sort(dim=0, descending=True, stable=True)
            values, rows = values[:most], rows.gather(0, order[:most])
            n += len(part)
            shape, maps = tuple(caught.preactivation.shape[1:]), caught.maps
        self._best[layer] = TopPictures(values.T, rows.T, n, shape, maps)
        return self._best[layer]

    def units(self, layer: str) -> tuple[int, ...]:
        """The units that the user named, checked; else the few with the highest activations."""
        best = self.best(layer)
        if self.named_units:
            _check_units(self.named_units, best.shape[0], layer)
            return self.named_units
        order = best.values[:, 0].argsort(descending=True, stable=True)
        return tuple(int(u) for u in order[:UNITS])

    @cached_property
    def linear(self) -> str:
        """The last linear layer, whose input is the embedding."""
        return last_linear(self.model, self.case.pixels([0]).to(self.model.device))

    @cached_property
    def embedding(self) -> tuple[list[int], Tensor]:
        """(rows, vectors (n, D) of length 1): the input of the last linear layer, for each picture."""
        rows: list[int] = []
        vectors = []
        for part, x in self.case.batches(range(len(self.pictures))):
            vectors.append(embedded(self.model, x.to(self.model.device), self.linear).float().cpu())
            rows += part
        return rows, torch.nn.functional.normalize(torch.cat(vectors), dim=1)

    def shown_classes(self) -> tuple[int, ...]:
        """The classes that the user named; else those that the model answers for most pictures."""
        if self.classes:
            return self.classes
        counts = self.case.predicted.bincount(minlength=len(self.model.labels))
        return tuple(int(k) for k in counts.argsort(descending=True, stable=True)[:CLASSES] if counts[k])

    def again(self, call: Call, layer: str = "", units: Sequence[int] = (), targets: Sequence[int] = ()) -> str:
        """The command that makes a block of a page again."""
        words = ["-m", str(call)]
        words += ["--layer", layer] if layer else []
        words += [w for u in units for w in ("--unit", str(u))]
        words += [w for k in targets for w in ("--target", str(k))]
        return self.case.commands.of_data("features", *words)


@dataclass(frozen=True)
class FeatureReport:
    """All pages of one run of ``features``.

    Args:
        pages: the pages, in their order.
        facts: what was looked at: model, data, seed and how much was read.
        left_out: (method, why) of the visualisations that do not apply.
    """

    pages: tuple[Page, ...]
    facts: dict[str, Any]
    left_out: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        methods = ", ".join(dict.fromkeys(b.method for p in self.pages for b in p.blocks))
        read, pages = self.facts.get("read", 0), len(self.pages)
        size = f"{pages} page{'s' if pages != 1 else ''} on {read} picture{'s' if read != 1 else ''}"
        return f"<FeatureReport of {self.facts.get('model', 'a model')}, {size}: {methods}>"

    def save(self, folder: str | Path) -> Path:
        """Write index.html, layers/ and units/ into a folder; returns the index."""
        from clearsight.feature_report.html import write

        return write(self.pages, self.facts, self.left_out, Path(folder))

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as plain data."""
        pages = [
            {
                "address": p.address,
                "title": p.title,
                "blocks": [
                    {
                        "method": b.method,
                        "title": b.title,
                        "words": b.words,
                        "notes": list(b.notes),
                        "shown": [{"name": s.name, "page": s.page, **s.facts} for s in b.shown],
                        "tables": [{"caption": t.caption, "rows": list(t.rows)} for t in b.tables],
                        "command": b.command,
                        "seconds": b.seconds,
                    }
                    for b in p.blocks
                ],
            }
            for p in self.pages
        ]
        left_out = [{"method": m, "why": why} for m, why in self.left_out]
        return {**self.facts, "left_out": left_out, "pages": pages}


def features(
    model: Classifier,
    data: Pictures | str | Path = "demo",
    *,
    layer: str | Sequence[str] = "auto",
    units: Sequence[int] = (),
    methods: str | Sequence[str] = (),
    target: str | int | Sequence[str | int] = (),
    seed: int = 0,
    budget: float | None = None,
    progress: Progress | None = None,
    model_words: Sequence[str] = (),
    data_words: Sequence[str] = (),
) -> FeatureReport:
    """Show what is inside a network, by every visualisation that applies or by those named -> a FeatureReport of pages.

    The model comes back as it was.

    Args:
        model: the classifier of pictures (H, W).
        data: pictures from `folder`, or the words of the command line.
        layer: name of a layer, or several; "auto" for the last feature maps.
        units: numbers of units of each layer, counted from 0; without them the few with the highest activations.
        methods: names of visualisations, with options as in "visualise(steps=200)"; without them all that apply.
        target: classes to visualise, by label or number; without them those said of most pictures.
        seed: start of all randomness.
        budget: time in seconds, above 0; None without a limit.
        progress: called with what is done, the number done and the total.
        model_words: options with which the command line loaded the model, for the commands that a page quotes.
        data_words: options with which the command line loaded the data, for the same commands.

    Refused: unknown layers, units, classes and methods, pictures of which none can be read, and models that do not take
    pictures.
    """
    model = classifier_of(model, "features")
    if not isinstance(data, Pictures | str | Path):
        raise Refused(f"features needs pictures in files, not a {type(data).__name__}: give a path")
    calls = [parse(m, "visualisations") for m in ([methods] if isinstance(methods, str) else methods)]
    pictures = data if isinstance(data, Pictures) else open_data(data)
    refuse_texts(pictures, "features")
    inside = prepare(
        model,
        pictures,
        [layer] if isinstance(layer, str) else layer,
        units,
        [target] if isinstance(target, str | int) else target,
        seed=seed,
        budget=budget,
        progress=progress,
        model_words=model_words,
        data_words=data_words,
    )
    return run_visualisations(inside, calls)


def prepare(
    model: Classifier,
    data: Pictures,
    layers: Sequence[str] = ("auto",),
    units: Sequence[int] = (),
    classes: Sequence[str | int] = (),
    *,
    seed: int = 0,
    budget: float | None = None,
    progress: Progress | None = None,
    model_words: Sequence[str] = (),
    data_words: Sequence[str] = (),
) -> FeatureContext:
    """Check the layers, units and classes before any work -> what all visualisations share."""
    if len(model.preprocess.size) != 2:
        raise Refused(f"features needs a model of pictures (H, W), and this model takes {model.preprocess.size}")
    chosen = tuple(dict.fromkeys(model.index(c) for c in classes))
    words = {p.name: p.labels for p in data.pictures}
    try:
        truth(data, model)
    except Refused:  # the data's classes are only compared with each other here
        notes = (
            *data.notes,
            "the model does not know the class words of the data; they are used as labels in the pages only",
        )
        data = replace(data, pictures=tuple(replace(p, labels=()) for p in data.pictures), notes=notes)
    case = Case(
        model, data, seed=seed, budget=budget, progress=progress, model_words=model_words, data_words=data_words
    )
    x = torch.zeros(1, model.preprocess.channels, *model.preprocess.size, device=model.device)
    layers_found: list[str] = []
    why = ""
    with model.undisturbed():
        for name in layers or ("auto",):
            try:
                layers_found.append(find_layer(model, x, name))
            except Refused as e:
                if name != "auto":
                    raise
                why = f"no layer was found: {e}"
        if units and not layers_found:
            raise Refused(why)
        for name in layers_found if units else ():
            with torch.no_grad():
                _check_units(units, capture(model, x, name).preactivation.shape[1], name)
    return FeatureContext(case, tuple(dict.fromkeys(layers_found)), why, tuple(dict.fromkeys(units)), chosen, words)


def _check_units(units: Sequence[int], count: int, layer: str) -> None:
    for u in units:
        if not 0 <= u < count:
            raise Refused(f"layer {layer} has no unit {u}: its units are 0 to {count - 1}")


def run_visualisations(inside: FeatureContext, calls: Sequence[Call] = ()) -> FeatureReport:
    """Run the visualisations, all that apply if none is named, and join their pages."""
    case, began = inside.case, time.monotonic()
    todo = list(calls) or [Call(m) for m in catalogue("visualisations").values()]
    case.clock.start()
    parts: list[Page] = []
    left_out: list[tuple[str, str]] = []
    with case.model.undisturbed():
        for i, call in enumerate(todo):
            case.clock.share(len(todo) - i + (i == 0))  # reading counts as one
            if i == 0:
                _ = case.pictures
            case.doing = call.method.name
            start = time.monotonic()
            try:
                with rng.seeded(case.seed, torch.zeros(1, 1), call.method.name):
                    pages_found = list(call.method(inside, **call.options))
            except Refused as e:
                left_out.append((str(call), str(e)))
                continue
            parts += [_add_origin(inside, p, call, time.monotonic() - start) for p in pages_found]
    if not parts:
        raise Refused("; ".join(f"{m}: {why}" for m, why in left_out) if len(left_out) > 1 else left_out[0][1])
    pages = list(joined(parts))
    if pages[0].address != INDEX:
        pages.insert(0, Page(INDEX, "", ()))
    return FeatureReport(tuple(pages), _facts(inside, time.monotonic() - began), tuple(left_out))


def _add_origin(inside: FeatureContext, page: Page, call: Call, seconds: float) -> Page:
    m = call.method
    blocks = tuple(
        replace(
            b,
            method=str(call),
            summary=m.summary,
            paper=m.paper,
            seconds=round(seconds, 3),
            command=inside.again(call, b.layer, b.units, b.targets),
        )
        for b in page.blocks
    )
    return replace(page, blocks=blocks)


def _facts(inside: FeatureContext, seconds: float) -> dict[str, Any]:
    case = inside.case
    return {
        "clearsight": __version__,
        "model": case.model.source or type(case.model.net).__name__,
        "fingerprint": case.model.fingerprint(),
        "data": str(case.data.root),
        "pictures": len(case.data.pictures) + len(case.data.broken),
        "read": len(case.pictures),
        "broken": [{"file": name, "reason": reason} for name, reason in case.broken],
        "notes": list(case.notes),
        "layers": list(inside.layers),
        "seed": case.seed,
        "budget": case.budget,
        "seconds": round(seconds, 3),
        "command": shlex.join(["clearsight", "features", case.model.source or "MODEL", str(case.data.root)]),
    }
