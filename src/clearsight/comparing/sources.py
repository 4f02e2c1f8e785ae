"""What is compared: models, audits, and the folders of training runs, by the words that name them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from clearsight.core.classifier import Classifier
from clearsight.core.tables import read_table
from clearsight.data.annotations import read_boxes
from clearsight.data.datasets import Pictures, open_data
from clearsight.data.splits import named
from clearsight.errors import Refused
from clearsight.models.architectures import LIBRARIES
from clearsight.models.loading import load
from clearsight.models.model_folder import SPLIT, is_run
from clearsight.reporting.report import Report
from clearsight.training.several_runs import complete

FORMS = "the folder of a model, of an audit, or of clearsight train --repeat"


@dataclass(frozen=True)
class RunToCompare:
    """One run.

    name: short, and no other's.  words: as it was named.  load: gives its model, anew each time, so that not all of
    them are in memory at once; None for an audit, which has its report.
    """

    name: str
    words: str
    load: Callable[[], Classifier] | None = None
    report: Report | None = None


def opened(
    runs: Sequence[str | Path | Classifier | Report], *, device: str, trust: bool
) -> tuple[list[RunToCompare], list[str]]:
    """The runs that these words, models and reports are, and sentences on what was left out.

    Refused: words that name no run, a run named twice, and fewer than two.
    """
    found: list[RunToCompare] = []
    notes: list[str] = []
    for run in runs:
        if isinstance(run, Classifier):
            found.append(RunToCompare("", run.source, partial(_itself, run)))
        elif isinstance(run, Report):
            found.append(RunToCompare("", run.facts.model.source, report=run))
        else:
            places, left = _places(str(run))
            notes += left
            found += [_opened(place, device, trust) for place in places]
    folders = [os.path.realpath(r.words) for r in found if Path(r.words).is_dir()]
    for folder in folders:
        if folders.count(folder) > 1:
            raise Refused(f"{folder} is named twice: name every run once")
    if len(found) < 2:
        raise Refused(f"{found[0].words if found else 'nothing'} alone: name two runs or more, or {FORMS}")
    return [replace(r, name=name) for r, name in zip(found, _names([r.words for r in found]), strict=True)], notes


def _itself(model: Classifier) -> Classifier:
    return model


def _opened(place: str, device: str, trust: bool) -> RunToCompare:
    if Path(place).is_dir() and not is_run(Path(place)):
        return RunToCompare("", place, report=Report.read(place))
    return RunToCompare("", place, partial(load, place, device=device, trust=trust))


def _places(words: str) -> tuple[list[str], list[str]]:
    """The runs that one word of the command line stands for."""
    folder = Path(words)
    if not folder.is_dir():
        if words == "demo" or words.startswith(LIBRARIES) or (":" in words and not folder.exists()):
            return [words], []
        raise Refused(f"no run at {words}: name {FORMS}")
    if is_run(folder) or (folder / "report.json").is_file():
        return [words], []
    inside = [p for p in folder.iterdir() if re.fullmatch(r"(run|fold)-\d+", p.name)]
    inside.sort(key=lambda p: int(p.name.partition("-")[2]))
    whole = [p for p in inside if is_run(p) and complete(p)]
    if not whole:
        told = ": none of its runs has come to its end; the command that made it goes on" if inside else ""
        raise Refused(f"{words} holds no run{told or f': name {FORMS}'}")
    left = [p.name for p in inside if p not in whole]
    return [str(p) for p in whole], [f"{named(left)} of {words} not complete, and left out"] if left else []


def _names(words: Sequence[str]) -> list[str]:
    """Something short for each, by which it is told from the others."""
    short = [Path(w).name if Path(w).is_dir() else w for w in words]
    told = short if len({*short}) == len(short) else list(words)
    return [w if w and told.count(w) == 1 else f"{w or 'model'} ({i})" for i, w in enumerate(told, 1)]


def own_pictures(
    runs: Sequence[RunToCompare],
    *,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    split: str | None = None,
    classes: str | Path | None = None,
    voc_base: int | None = None,
) -> Pictures:
    """The pictures that were kept from all of these models: the test part of their own split.csv, val where none is.

    They are called by their path below the folder that holds them all, so that annotations find them.  Refused: a model
    that has no split.csv, and parts that differ.
    """
    tables = [Path(r.words) / SPLIT for r in runs]
    for run, table in zip(runs, tables, strict=True):
        if not run.words or not table.is_file():
            raise Refused(
                f"{run.name} has no {SPLIT} that says which pictures were kept from it: name some, --data DATA"
            )
    part, notes = split or "test", list[str]()
    if split is None and not _part(tables[0], part):
        part, notes = "val", ["no test pictures were kept: val chose the epoch, so its numbers flatter"]
    kept = [_part(table, part) for table in tables]
    other = [r.name for r, own in zip(runs, kept, strict=True) if own != kept[0]]
    if other:
        raise Refused(
            f"the {part} pictures of {named(other)} are not those of {runs[0].name}: name pictures for all, --data DATA"
        )
    if not kept[0]:
        raise Refused(f"no picture of {tables[0]} is in {part}: name another --split, or pictures, --data DATA")
    found = open_data(tables[0], split=part, classes=classes)
    every = [os.path.normpath(tables[0].parent / row["file"]) for row in read_table(tables[0])[1]]
    home = os.path.commonpath([os.path.dirname(file) for file in every])
    below = {file: Path(os.path.relpath(file, home)).as_posix() for file in every}
    files = [os.path.normpath(p.path) for p in found.pictures]
    pictures = [replace(p, path=Path(file), name=below[file]) for p, file in zip(found.pictures, files, strict=True)]
    found = replace(found, notes=(*found.notes, *notes), pictures=tuple(sorted(pictures, key=lambda p: p.name)))
    source = boxes if boxes is not None else masks
    if voc_base is not None and boxes is None:
        raise Refused("voc_base is for boxes of Pascal VOC: give boxes too, or leave it out")
    if source is None:
        return found
    named_files = {name: Path(file) for file, name in below.items()}
    marked = read_boxes(source, named_files, {p.name for p in pictures}, voc_base=voc_base)
    told = f"{marked.form} annotations for {len(marked.regions)} of {len(pictures)} pictures"
    regions = tuple(replace(p, regions=marked.regions.get(p.name)) for p in found.pictures)
    return replace(found, pictures=regions, notes=(*found.notes, told, *marked.notes))


def _part(table: Path, part: str) -> dict[str, str]:
    """File -> label of one part of a split.csv."""
    _, rows = read_table(table)
    return {os.path.realpath(table.parent / r["file"]): r["label"] for r in rows if r.get("split") == part}
