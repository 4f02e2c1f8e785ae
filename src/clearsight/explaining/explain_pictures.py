"""What `clearsight explain` does: tested heatmaps side by side as a PNG, and the raw maps as .npz, for each picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearsight.auditing.map_tests import FAR, MapTest, examine
from clearsight.core.catalogue import Call, method_name, parse
from clearsight.core.classifier import Classifier
from clearsight.core.diagnostics import SHARE
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.core.remembered import remembering
from clearsight.core.targets import ClassScore, Margin, Of, Target
from clearsight.data.annotations import region_mask
from clearsight.data.datasets import Picture, Pictures
from clearsight.data.file_stems import named
from clearsight.data.images import open_picture, to_pixels
from clearsight.data.text_inputs import refuse_texts
from clearsight.drawing.heatmaps import png
from clearsight.engines.facts import gives_scores_alone
from clearsight.errors import Refused
from clearsight.explaining.sheet import explanation_sheet
from clearsight.internals.scores import scores
from clearsight.runner.results import Explanation
from clearsight.runner.run import explain
from clearsight.runner.sharded import require_cpu, spelled
from clearsight.sharding.shards import spread

DEFAULT = ("grad-cam", "integrated-gradients")
OF_SCORES = ("occlusion", "kernel-shap")  # of an exported file that gives scores alone


@dataclass(frozen=True)
class SavedMap:
    """The map of one method on one picture, saved as .npz.

    Args:
        method: the call, with its options as far as they were given.
        target: what each map answers, in words: n questions, one for each class of top3, say.
        file: the .npz file with the raw maps (n, *S).
        forwards: forward passes per map.
        backwards: backward passes per map.
        seconds: time that all n maps took.
        diagnostics: what the method measures of itself; by name n values, in the method's own units.
        tests: the tests of each of the n maps; None where none was asked for.
    """

    method: str
    target: tuple[str, ...]
    file: Path
    forwards: float
    backwards: float
    seconds: float
    diagnostics: dict[str, tuple[float, ...]]
    tests: tuple[MapTest, ...] | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return {
            "method": self.method,
            "target": list(self.target),
            "file": str(self.file),
            "forwards": self.forwards,
            "backwards": self.backwards,
            "seconds": self.seconds,
            "diagnostics": {name: list(values) for name, values in self.diagnostics.items()},
            "tests": None if self.tests is None else [test.as_dict() for test in self.tests],
        }

    def diagnostic_lines(self) -> list[str]:
        """A line for each diagnostic: its values, and whether the map is far from complete."""
        rows = [(name, torch.tensor(values)) for name, values in self.diagnostics.items()]
        return [f"  {self.method}: {name} {_list(values)}{far_from_complete(name, values)}" for name, values in rows]

    def test_lines(self) -> list[str]:
        """A line for each target: the outcome of the map's tests on this picture."""
        several = len(self.target) > 1
        names = [f"{self.method}, {target}" if several else self.method for target in self.target]
        return [f"  {name}: {'; '.join(test.lines())}" for name, test in zip(names, self.tests or (), strict=False)]


@dataclass(frozen=True)
class ExplainedPicture:
    """One picture with its maps.

    Args:
        picture: name of the picture, as its data names it.
        sheet: the PNG with the picture and its maps side by side.
        answers: up to three classes that the model ranks first: class (number), label and probability in [0, 1]; of a
            model that predicts values, value instead of probability.
        maps: the maps, one record for each method.
        left_out: (method, why) of the methods that cannot explain this network.
    """

    picture: str
    sheet: Path
    answers: tuple[dict[str, Any], ...]
    maps: tuple[SavedMap, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return {
            "picture": self.picture,
            "sheet": str(self.sheet),
            "answers": list(self.answers),
            "maps": [saved.as_dict() for saved in self.maps],
            "left_out": [{"method": method, "why": why} for method, why in self.left_out],
        }

    def lines(self) -> list[str]:
        """The same for the terminal: the model's answers, the diagnostics, the tests, and where the sheet is."""
        return [
            f"{self.picture}: {', '.join(map(_say, self.answers))}",
            *(f"  left out: {method}: {why}" for method, why in self.left_out),
            *(line for saved in self.maps for line in saved.diagnostic_lines()),
            *(line for saved in self.maps for line in saved.test_lines()),
            f"  {self.sheet}",
        ]


@dataclass(frozen=True)
class ExplainedPictures:
    """All pictures that ``explain_pictures`` explained.

    Args:
        folder: the folder of the results.
        seed: the seed of all randomness.
        pictures: the explained pictures, in the order of the data.
        broken: (file, reason) of the pictures that cannot be read.
        notes: remarks on how the data was read.
    """

    folder: Path
    seed: int
    pictures: tuple[ExplainedPicture, ...]
    broken: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        methods = ", ".join(dict.fromkeys(saved.method for picture in self.pictures for saved in picture.maps))
        n = len(self.pictures)
        return f"<ExplainedPictures in {self.folder}, {n} picture{'s' if n != 1 else ''}: {methods}>"

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return {
            "folder": str(self.folder),
            "seed": self.seed,
            "pictures": [picture.as_dict() for picture in self.pictures],
            "broken": [{"file": file, "reason": reason} for file, reason in self.broken],
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The same for the terminal: notes, pictures left out, then the lines of each picture."""
        return [
            *(f"note: {note}" for note in self.notes),
            *(f"left out {file}: {reason}" for file, reason in self.broken),
            *(line for picture in self.pictures for line in picture.lines()),
        ]


def explain_pictures(
    model: Classifier,
    data: Sequence[Pictures],
    methods: Sequence[str],
    target: str,
    folder: Callable[[], Path],
    *,
    seed: int = 0,
    tests: bool = True,
    progress: Progress,
) -> ExplainedPictures:
    """Explain every picture by every method -> ExplainedPictures; the files go into the folder that ``folder()`` makes.

    ``folder()`` is called once, when the first picture is explained.  Pictures that cannot be read and methods that
    the network refuses are named and left out.

    Args:
        model: the classifier.
        data: the pictures, from one place or several.
        methods: calls of explainers; without any, Grad-CAM and integrated gradients, or of an exported file that gives
            scores alone occlusion and Kernel SHAP.
        target: a class (label or number), "top1", "top3", ..., or "a rather than b".
        folder: makes the folder of the results.
        seed: start of all randomness.
        tests: whether each map is tested on its picture (see `examine`), and drawn in grey where it fails.
        progress: called with what is done, the number done and the total.

    Refused: an unknown class, pictures of which none can be read, and methods that the network refuses if none is left.
    """
    require_cpu(model)
    calls = [parse(m, "explainers") for m in methods or (OF_SCORES if gives_scores_alone(model.net) else DEFAULT)]
    ask(model, target, torch.zeros(1, len(model.labels)))  # a class that does not exist is refused before any work
    for source in data:
        refuse_texts(source, "a model of pictures")
    pictures = [p for d in data for p in d.pictures]
    broken = [entry for d in data for entry in d.broken]
    total = len(pictures) + len(broken)
    place = cache(folder)
    explained: list[ExplainedPicture] = []
    progress("explaining", len(broken), total)
    shared = (model, tuple(spelled(c, "explainers") for c in calls), target, seed, tests)
    shards = ((replace(p, path=p.path.absolute()),) for p in pictures)
    with remembering():  # random networks; what is known of one picture is let go with it
        drawn_pictures = zip(named(pictures), spread(_draw_picture, shared, shards), strict=True)
        for i, ((picture, stem), drawn) in enumerate(drawn_pictures, len(broken) + 1):
            if isinstance(drawn, Refused):
                broken.append((picture.name, str(drawn)))
            else:
                explained.append(_write(picture, drawn, stem, place()))
            progress("explaining", i, total)
    if not explained:
        raise Refused(f"none of the pictures can be read ({broken[0][0]}: {broken[0][1]})")
    notes = tuple(dict.fromkeys(note for d in data for note in d.notes))
    return ExplainedPictures(place(), seed, tuple(explained), tuple(broken), notes)


@dataclass(frozen=True, eq=False)
class _DrawnPicture:
    """One picture explained: the PNG of its sheet, the maps, the tests of each, and what else is told of it."""

    sheet: bytes
    maps: tuple[Explanation, ...]
    tests: tuple[Sequence[MapTest] | None, ...]
    answers: tuple[dict[str, Any], ...]
    left_out: tuple[tuple[str, str], ...]


def _draw_picture(
    shared: tuple[Classifier, Sequence[str | Call], str, int, bool], picture: Picture
) -> _DrawnPicture | Refused:
    """Explain one picture by every method, test the maps and draw them; or why it cannot be read."""
    model, methods, target, seed, tests = shared
    try:
        image = open_picture(picture.path)
    except Refused as e:
        return e
    x = to_pixels(image, model.preprocess)[None].to(model.device)
    with remembering():
        with model.undisturbed():
            logits = scores(model, x)
        question, rows, chances = ask(model, target, logits)
        calls = [parse(m, "explainers") for m in methods]
        found, left_out = _run(model, x.expand(rows, *x.shape[1:]), calls, question, seed)
        tested = examine(model, found) if tests else []
    regions = region_mask(picture.regions, image.size, model.preprocess) if picture.regions else None
    sheet = explanation_sheet(
        found,
        names=[picture.name] * rows,
        probabilities=chances,
        regions=None if regions is None else regions.expand(rows, *regions.shape),
        tests=tested,
    )
    each = tuple(tested) if tests else (None,) * len(found)
    return _DrawnPicture(png(sheet), tuple(found), each, tuple(top(model, logits[0], 3)), left_out)


def _write(picture: Picture, drawn: _DrawnPicture, stem: str, folder: Path) -> ExplainedPicture:
    """Write the sheet stem.png and the maps stem-METHOD.npz."""
    sheet = write_whole(folder / f"{stem}.png", drawn.sheet)
    files = [folder / f"{stem}-{name}.npz" for name in file_names(e.method for e in drawn.maps)]
    maps = tuple(_save(e, file, tests) for e, file, tests in zip(drawn.maps, files, drawn.tests, strict=True))
    return ExplainedPicture(picture.name, sheet, drawn.answers, maps, drawn.left_out)


def _save(e: Explanation, file: Path, tests: Sequence[MapTest] | None) -> SavedMap:
    """Write the maps of one method, and record what is known of them."""
    return SavedMap(
        e.method,
        tuple(e.questions()),
        e.save(file),
        e.forwards,
        e.backwards,
        round(e.seconds, 3),
        {name: tuple(values.tolist()) for name, values in e.diagnostics.items()},
        None if tests is None else tuple(tests),
    )


def ask(model: Classifier, words: str, logits: Tensor) -> tuple[Target, int, Tensor | None]:
    """The target in words -> the target, how many rows it asks about, and the probability of each row's class.

    logits (1, K).

    Refused: a class that the model does not have, a top-k beyond its classes.
    """
    of: Of = "value" if model.scores == "values" else "logit"
    chances = None if of == "value" else model.chances(logits[0])

    def asked(index: Tensor) -> tuple[Target, int, Tensor | None]:
        return ClassScore(index, of), len(index), None if chances is None else chances[index]

    if of == "value" and words.strip() == "top1" and len(model.labels) == 1:
        return asked(torch.tensor([0]))
    if of == "value" and re.fullmatch(r"top\d+", words.strip()):
        raise Refused(f"target {words!r}: none of several values is the top one; name one, such as {model.labels[0]!r}")
    if m := re.fullmatch(r"top(\d+)", words.strip()):
        k = int(m[1])
        if not 1 <= k <= len(model.labels):
            raise Refused(
                f"target {words!r}: the model has {len(model.labels)} classes, top1 to top{len(model.labels)}"
            )
        return asked(logits[0].topk(k).indices)
    a, versus, b = words.partition(" rather than ")
    if versus:
        return Margin(model.index(a), model.index(b)), 1, None
    return asked(torch.tensor([model.index(words)]))


def top(model: Classifier, logits: Tensor, k: int) -> list[dict[str, Any]]:
    """The k most probable classes of one picture, logits (K,), with their probabilities; of a regressor the values."""
    p = model.chances(logits)
    k = min(k, len(p))
    what = "value" if model.scores == "values" else "probability"
    best = range(k) if what == "value" else p.topk(k).indices.tolist()
    return [{"class": i, "label": model.name(i), what: round(float(p[i]), 6)} for i in best]


def _say(answer: dict[str, Any]) -> str:
    if "value" in answer:
        return f"{answer['label']} {answer['value']:.4g}"
    return f"{answer['label']} {100 * answer['probability']:.1f} %"


def _list(values: Tensor) -> str:
    return ", ".join(f"{v:.3g}" for v in values.tolist())


def far_from_complete(name: str, values: Tensor) -> str:
    """What is said behind a share that is missing, where it is above FAR."""
    return " (far from complete)" if name == SHARE and bool((values.abs() > FAR).any()) else ""


def file_names(methods: Iterable[str]) -> Iterator[str]:
    taken: list[str] = []
    for m in methods:
        name = re.sub(r"[^\w+-]+", "_", method_name(m)).strip("_")
        taken.append(name)
        yield name if taken.count(name) == 1 else f"{name}-{taken.count(name)}"


def _run(
    model: Classifier, x: Tensor, calls: Sequence[Call], target: Target, seed: int
) -> tuple[list[Explanation], tuple[tuple[str, str], ...]]:
    """The maps of each method, and (method, why) of those that the network refuses; refused where none is left."""
    explanations: list[Explanation] = []
    refusals: list[tuple[str, str]] = []
    for call in calls:
        try:
            explanations.append(explain(model, x, call, target, seed=seed))
        except Refused as e:
            refusals.append((str(call), str(e)))
    if not explanations:
        several = len(refusals) > 1
        raise Refused("; ".join(f"{call}: {why}" for call, why in refusals) if several else refusals[0][1])
    return explanations, tuple(refusals)
