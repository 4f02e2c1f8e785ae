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

from clearsight.auditing.map_tests import FAR, MapTest
from clearsight.core.catalogue import method_name, parse
from clearsight.core.classifier import Classifier
from clearsight.core.diagnostics import SHARE
from clearsight.core.model import Model
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.core.remembered import remembering
from clearsight.data.annotations import region_mask
from clearsight.data.datasets import Picture, Pictures
from clearsight.data.file_stems import named
from clearsight.data.images import open_picture, to_pixels
from clearsight.data.text_inputs import refuse_texts
from clearsight.drawing.heatmaps import png
from clearsight.engines.facts import gives_scores_alone
from clearsight.errors import Refused
from clearsight.explaining.ask_kinds import words_of
from clearsight.explaining.explain_input import Asked, ExplainedInput, ask, explain_input
from clearsight.explaining.sheet import explanation_sheet
from clearsight.runner.results import Explanation
from clearsight.runner.sharded import require_cpu, spelled
from clearsight.sharding.shards import spread

DEFAULT = ("grad-cam", "integrated-gradients")
OF_PLACES = ("hires-cam", "integrated-gradients")  # of a box or a region: grad-cam cannot tell equal objects apart
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
            model that predicts values, value instead of probability.  Of a detector up to three boxes, each with its
            score as probability and its box; of a segmenter up to three classes with their share of the pixels.
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
            f"{self.picture}: {', '.join(map(_say, self.answers)) or 'nothing is found'}",
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
    model: Model,
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
        model: the classifier, detector or segmenter.
        data: the pictures, from one place or several.
        methods: calls of explainers; without any, Grad-CAM (of a detector or a segmenter HiResCAM) and integrated
            gradients, or of an exported file that gives scores alone occlusion and Kernel SHAP.
        target: a class (label or number), "top1", "top3", ..., or "a rather than b".  Of a detector these are its
            surest boxes, a row for each, of a segmenter the largest classes of its pixels; see `ask_kind`.
        folder: makes the folder of the results.
        seed: start of all randomness.
        tests: whether each map is tested on its picture (see `examine`), and drawn in grey where it fails.
        progress: called with what is done, the number done and the total.

    Refused: an unknown class, pictures of which none can be read, and methods that the network refuses if none is left.
    """
    require_cpu(model)
    calls = [parse(m, "explainers") for m in methods or _usual_methods(model)]
    if isinstance(model, Classifier):  # a class that does not exist is refused before any work
        ask(model, target, torch.zeros(1, len(model.labels)))
    else:
        words_of(model, target)
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


def _usual_methods(model: Model) -> tuple[str, ...]:
    if gives_scores_alone(model.net):
        return OF_SCORES
    return DEFAULT if model.kind == "classifier" else OF_PLACES


@dataclass(frozen=True, eq=False)
class _DrawnPicture:
    """One picture explained, and the PNG of its sheet."""

    sheet: bytes
    explained: ExplainedInput


def _draw_picture(asked: Asked, picture: Picture) -> _DrawnPicture | Refused:
    """Explain one picture by every method, test the maps and draw them; or why it cannot be read."""
    model = asked[0]
    try:
        image = open_picture(picture.path)
    except Refused as e:
        return e
    explained = explain_input(asked, to_pixels(image, model.preprocess))
    rows = len(explained.maps[0].maps)
    marks, regions = explained.marks, None
    if marks is not None:
        regions = marks.outlines
    elif picture.regions:
        mask = region_mask(picture.regions, image.size, model.preprocess)
        regions = mask.expand(rows, *mask.shape)
    sheet = explanation_sheet(
        explained.maps,
        names=[picture.name] * rows,
        probabilities=explained.chances,
        regions=regions,
        tests=explained.tests,
        boxes=None if marks is None else marks.boxes,
        outlined="the annotated object" if marks is None else marks.words,
    )
    return _DrawnPicture(png(sheet), explained)


def _write(picture: Picture, drawn: _DrawnPicture, stem: str, folder: Path) -> ExplainedPicture:
    """Write the sheet stem.png and the maps stem-METHOD.npz."""
    sheet = write_whole(folder / f"{stem}.png", drawn.sheet)
    explained = drawn.explained
    files = [folder / f"{stem}-{name}.npz" for name in file_names(e.method for e in explained.maps)]
    tests = explained.tests or (None,) * len(files)
    maps = tuple(_save(e, file, of) for e, file, of in zip(explained.maps, files, tests, strict=True))
    return ExplainedPicture(picture.name, sheet, explained.answers, maps, explained.left_out)


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


def _say(answer: dict[str, Any]) -> str:
    if "value" in answer:
        return f"{answer['label']} {answer['value']:.4g}"
    if "share" in answer:
        return f"{answer['label']} {100 * answer['share']:.1f} % of the pixels"
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
