"""What `clearsight explain` does: tested heatmaps side by side as a PNG, and the raw maps as .npz, for each picture."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearsight.auditing.map_tests import FAR, MapTest, examine
from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.diagnostics import SHARE
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.core.targets import ClassScore, Margin, Of, Target
from clearsight.data.annotations import region_mask
from clearsight.data.datasets import Pictures
from clearsight.data.file_stems import named
from clearsight.data.images import open_picture, to_pixels
from clearsight.drawing.heatmaps import png
from clearsight.errors import Refused
from clearsight.explaining.sheet import explanation_sheet
from clearsight.internals.scores import scores
from clearsight.runner.results import Explanation
from clearsight.runner.run import explain

DEFAULT = ("grad-cam", "integrated-gradients")


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
) -> dict[str, Any]:
    """Explain every picture by every method; results go into the folder that ``folder()`` makes when there is one.

    target: a class, "top1", "top3", ..., or "a rather than b".  tests: each map is tested on its picture, and drawn in
    grey where it fails (see testimony.examine).  Pictures that cannot be read are named and left out;
    it is an error if that leaves none; so are methods that the network refuses.
    """
    calls = [parse(m, "explainers") for m in methods or DEFAULT]
    ask(model, target, torch.zeros(1, len(model.labels)))  # a class that does not exist is refused before any work
    pictures = [p for d in data for p in d.pictures]
    broken = [{"file": name, "reason": reason} for d in data for name, reason in d.broken]
    total = len(pictures) + len(broken)
    where: Path | None = None
    lines: list[str] = []
    told: list[dict[str, Any]] = []
    for i, (picture, stem) in enumerate(named(pictures), len(broken)):
        progress("explaining", i, total)
        try:
            image = open_picture(picture.path)
        except Refused as e:
            broken.append({"file": picture.name, "reason": str(e)})
            continue
        x = to_pixels(image, model.preprocess)[None].to(model.device)
        with model.undisturbed():
            logits = scores(model, x)
        question, rows, chances = ask(model, target, logits)
        found, refused = _run(model, x.expand(rows, *x.shape[1:]), calls, question, seed)
        tested = examine(model, found) if tests else []
        where = where or folder()
        regions = region_mask(picture.regions, image.size, model.preprocess) if picture.regions else None
        drawn = explanation_sheet(
            found,
            names=[picture.name] * rows,
            probabilities=chances,
            regions=None if regions is None else regions.expand(rows, *regions.shape),
            tests=tested,
        )
        sheet = write_whole(where / f"{stem}.png", png(drawn))
        maps = [
            {
                "method": e.method,
                "target": e.questions(),
                "file": str(e.save(where / f"{stem}-{n}.npz")),
                "forwards": e.forwards,
                "backwards": e.backwards,
                "seconds": round(e.seconds, 3),
                "diagnostics": {k: v.tolist() for k, v in e.diagnostics.items()},
                "tests": [t.as_dict() for t in told_by] if tests else None,
            }
            for n, e, told_by in zip(
                file_names(e.method for e in found), found, tested or [()] * len(found), strict=True
            )
        ]
        answers = top(model, logits[0], 3)
        told.append({"picture": picture.name, "sheet": str(sheet), "answers": answers, "maps": maps})
        said = ", ".join(map(_say, answers))
        lines += [f"{picture.name}: {said}", *(f"  left out: {r}" for r in refused)]
        lines += [
            f"  {e.method}: {name} {_list(v)}{far_from_complete(name, v)}"
            for e in found
            for name, v in e.diagnostics.items()
        ]
        lines += [line for e, each in zip(found, tested, strict=False) for line in _tests(e, each)]
        lines.append(f"  {sheet}")
    progress("explaining", total, total)
    notes = list(dict.fromkeys(note for d in data for note in d.notes))
    lines = [*(f"note: {note}" for note in notes), *(f"left out {b['file']}: {b['reason']}" for b in broken), *lines]
    if where is None:
        raise Refused(f"none of the pictures can be read ({broken[0]['file']}: {broken[0]['reason']})")
    return {"lines": lines, "folder": str(where), "seed": seed, "pictures": told, "broken": broken, "notes": notes}


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
        raise Refused(
            f"--target {words}: none of several values is the top one; name one, --target {model.labels[0]!r}"
        )
    if m := re.fullmatch(r"top(\d+)", words.strip()):
        k = int(m[1])
        if not 1 <= k <= len(model.labels):
            raise Refused(
                f"--target {words}: the model has {len(model.labels)} classes, top1 to top{len(model.labels)}"
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


def _tests(e: Explanation, tests: Sequence[MapTest]) -> list[str]:
    """A line for each question: what the map's tests on this picture came to."""
    asked = [f"{e.method}, {q}" for q in e.questions()] if len(tests) > 1 else [e.method]
    return [f"  {a}: {'; '.join(t.lines())}" for a, t in zip(asked, tests, strict=True)]


def file_names(methods: Iterable[str]) -> Iterator[str]:
    """A file name for each method; a name that comes again gets a number."""
    taken: list[str] = []
    for m in methods:
        name = re.sub(r"[^\w+-]+", "_", m.partition("(")[0]).strip("_")
        taken.append(name)
        yield name if taken.count(name) == 1 else f"{name}-{taken.count(name)}"


def _run(
    model: Classifier, x: Tensor, calls: Sequence[Call], target: Target, seed: int
) -> tuple[list[Explanation], list[str]]:
    """Each method's maps; those that the network refuses are left out and named, and refused where none is left."""
    found: list[Explanation] = []
    refused: list[tuple[Call, Refused]] = []
    for call in calls:
        try:
            found.append(explain(model, x, call, target, seed=seed))
        except Refused as e:
            refused.append((call, e))
    named = [f"{call}: {e}" for call, e in refused]
    if not found:
        raise Refused("; ".join(named) if len(named) > 1 else str(refused[0][1]))
    return found, named
