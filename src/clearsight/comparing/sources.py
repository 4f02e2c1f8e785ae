"""The runs to compare: models, audits and folders of training runs, by the words that name them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from clearsight.core.model import Model
from clearsight.core.preprocess import Preprocess
from clearsight.core.score_kinds import Scores
from clearsight.core.tables import read_table
from clearsight.data.annotations import read_boxes
from clearsight.data.datasets import Pictures, open_data
from clearsight.data.splits import named
from clearsight.errors import Refused
from clearsight.models.architectures import kind_of
from clearsight.models.exported import says_itself, silent
from clearsight.models.loading import load
from clearsight.models.model_folder import SPLIT, read_config
from clearsight.models.model_words import LIBRARIES, exported_file, is_run, names_exported
from clearsight.reporting.report import Report
from clearsight.training.several_runs import complete

FORMS = "the folder of a model, of an audit, or of clearsight train --repeat, or an exported file"


@dataclass(frozen=True)
class RunToCompare:
    """One run.

    name: a short name that no other run has.  words: as the caller named it.  load: loads its model, each time anew, so
    that not all models are in memory at once; None for an audit, which has its report.  given: whether load gives the
    caller's own model, which the words need not describe.
    """

    name: str
    words: str
    load: Callable[[], Model] | None = None
    report: Report | None = None
    given: bool = False

    @property
    def kind(self) -> str:
        """What it is a run of: "classifier", "detector" or "segmenter"."""
        if self.report is not None:
            return self.report.facts.model.kind
        if self.words and is_run(Path(self.words)):
            return read_config(Path(self.words)).kind
        if self.words.startswith(LIBRARIES):
            return kind_of(self.words)
        return self._loaded[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the model's classes; of a model alone."""
        if not self.given and self.words and is_run(Path(self.words)):
            return read_config(Path(self.words)).labels
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[str, tuple[str, ...]]:
        """The kind and the labels of the model where no file says them: it is loaded once for both."""
        assert self.load is not None
        model = self.load()
        return model.kind, model.labels


@dataclass(frozen=True)
class Stated:
    """What the caller states of exported files that do not say it themselves; of other runs it changes nothing."""

    labels: str | Path | list[str] | tuple[str, ...] | None = None
    preprocess: Preprocess | str | Path | None = None
    scores: Scores | None = None

    @property
    def options(self) -> list[str]:
        """The options that are given, as they are typed."""
        return [f"--{name}" for name, value in vars(self).items() if value is not None]


def opened(
    runs: Sequence[str | Path | Model | Report], stated: Stated, *, device: str, trust: bool
) -> tuple[list[RunToCompare], list[str]]:
    """The runs that these words, models and reports name, and sentences on what was left out.

    Refused: words that name no run, a run named twice, and fewer than two; an exported file that does not say its
    labels and preprocessing where they are not stated, and what is stated where no run lacks it.
    """
    compared: list[RunToCompare] = []
    notes: list[str] = []
    for run in runs:
        if isinstance(run, Model):
            compared.append(RunToCompare("", run.source, partial(_return_model, run), given=True))
        elif isinstance(run, Report):
            compared.append(RunToCompare("", run.facts.model.source, report=run))
        else:
            places, left_out = _runs_named(str(run))
            notes += left_out
            compared += [_opened(place, stated, device, trust) for place in places]
    if stated.options and not any(_is_silent(r.words) for r in compared if r.load is not None):
        raise Refused(
            f"{', '.join(stated.options)} is for exported files that do not say theirs, and each of these runs does",
            "leave it out",
        )
    folders = [os.path.realpath(r.words) for r in compared if Path(r.words).is_dir()]
    for folder in folders:
        if folders.count(folder) > 1:
            raise Refused(f"{folder} is named twice: name each run once")
    if len(compared) < 2:
        raise Refused(f"{compared[0].words if compared else 'nothing'} alone: name two runs or more, or {FORMS}")
    return [replace(r, name=name) for r, name in zip(compared, _names([r.words for r in compared]), strict=True)], notes


def one_kind(runs: Sequence[RunToCompare]) -> str:
    """The kind of model that all of these are runs of.  Refused: runs of several kinds."""
    kinds = {r.name: r.kind for r in runs}
    first, *_ = kinds
    if other := [name for name, kind in kinds.items() if kind != kinds[first]]:
        raise Refused(
            f"{first} is a {kinds[first]} and {other[0]} is a {kinds[other[0]]}, which give answers of other kinds",
            "compare runs of one kind",
        )
    return kinds[first]


def _return_model(model: Model) -> Model:
    return model


def _is_silent(words: str) -> bool:
    """Whether words name an exported file that does not say its labels and preprocessing."""
    file = exported_file(words) if names_exported(words) else None
    return file is not None and not says_itself(file)


def _opened(place: str, stated: Stated, device: str, trust: bool) -> RunToCompare:
    if Path(place).is_dir() and not is_run(Path(place)) and not names_exported(place):
        return RunToCompare("", place, report=Report.read(place))
    if _is_silent(place):
        if stated.labels is None or stated.preprocess is None:
            raise silent(place, stated.labels is not None, stated.preprocess is not None)
        labels, preprocess, scores = stated.labels, stated.preprocess, stated.scores or "logits"
        plain = partial(load, place, device=device, trust=trust)
        return RunToCompare("", place, partial(plain, labels=labels, preprocess=preprocess, scores=scores))
    return RunToCompare("", place, partial(load, place, device=device, trust=trust))


def _runs_named(words: str) -> tuple[list[str], list[str]]:
    """The runs that one word of the command line stands for."""
    folder = Path(words)
    if names_exported(words):
        return [words], []
    if not folder.is_dir():
        if words == "demo" or words.startswith(LIBRARIES) or (":" in words and not folder.exists()):
            return [words], []
        raise Refused(f"no run at {words}: name {FORMS}")
    if is_run(folder) or (folder / "report.json").is_file():
        return [words], []
    inside = [p for p in folder.iterdir() if re.fullmatch(r"(run|fold)-\d+", p.name)]
    inside.sort(key=lambda p: int(p.name.partition("-")[2]))
    complete_runs = [p for p in inside if is_run(p) and complete(p)]
    if not complete_runs:
        reason = ": none of its runs is complete; run the command that made it again to go on" if inside else ""
        raise Refused(f"{words} holds no run{reason or f': name {FORMS}'}")
    incomplete = [p.name for p in inside if p not in complete_runs]
    return [str(p) for p in complete_runs], [
        f"{named(incomplete)} of {words}: not complete, so left out"
    ] if incomplete else []


def _names(words: Sequence[str]) -> list[str]:
    """A short and unique name for each run."""
    short = [Path(w).name if Path(w).is_dir() else w for w in words]
    names = short if len({*short}) == len(short) else list(words)
    return [w if w and names.count(w) == 1 else f"{w or 'model'} ({i})" for i, w in enumerate(names, 1)]


def own_pictures(
    runs: Sequence[RunToCompare],
    *,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    split: str | None = None,
    classes: str | Path | None = None,
    voc_base: int | None = None,
) -> Pictures:
    """The pictures that none of these models was trained on: the test part of their split.csv, val where it has none.

    Each is named by its path below the folder that holds them all, so that annotations find them.

    Refused: a model that has no split.csv, and parts that differ.
    """
    own = own_part(runs, split)
    data = open_data(own.table, split=own.name, classes=classes)
    if data.are_texts:
        if of_pictures := [n for n, v in (("boxes", boxes), ("masks", masks), ("voc_base", voc_base)) if v is not None]:
            raise Refused(f"{', '.join(of_pictures)}: {own.table} holds texts, whose marks are in its column marks")
        return replace(data, notes=(*data.notes, *own.notes))
    common_folder = os.path.commonpath([os.path.dirname(file) for file in own.all_files])
    relative = {file: Path(os.path.relpath(file, common_folder)).as_posix() for file in own.all_files}
    files = [os.path.normpath(p.path) for p in data.pictures]
    pictures = [replace(p, path=Path(file), name=relative[file]) for p, file in zip(data.pictures, files, strict=True)]
    data = replace(data, notes=(*data.notes, *own.notes), pictures=tuple(sorted(pictures, key=lambda p: p.name)))
    source = boxes if boxes is not None else masks
    if voc_base is not None and boxes is None:
        raise Refused("voc_base is for boxes of Pascal VOC: give boxes too, or leave it out")
    if source is None:
        return data
    named_files = {name: Path(file) for file, name in relative.items()}
    annotations = read_boxes(source, named_files, {p.name for p in pictures}, voc_base=voc_base)
    note = f"{annotations.form} annotations for {len(annotations.regions)} of {len(pictures)} pictures"
    regions = tuple(replace(p, regions=annotations.regions.get(p.name)) for p in data.pictures)
    return replace(data, pictures=regions, notes=(*data.notes, note, *annotations.notes))


@dataclass(frozen=True)
class OwnPart:
    """The part of the data that none of several runs was trained on.

    table: the split.csv of the first.  name: "test", or "val" where there is no test.  files: the real paths of its
    pictures, or its texts.  all_files: the paths of all pictures of the table, () for texts.  notes: sentences.
    """

    table: Path
    name: str
    files: frozenset[str]
    all_files: tuple[str, ...]
    notes: tuple[str, ...]


def own_part(runs: Sequence[RunToCompare], split: str | None) -> OwnPart:
    """The part of the runs' own split.csv that this names, by default test, val where there is no test.

    Refused: a run without a split.csv, parts that differ, and one without a picture.
    """
    tables = [Path(r.words) / SPLIT for r in runs]
    for run, table in zip(runs, tables, strict=True):
        if not run.words or not table.is_file():
            raise Refused(
                f"{run.name} has no {SPLIT} that names what it was not trained on: name pictures or "
                "texts with --data DATA"
            )
    part = split or "test"
    notes: tuple[str, ...] = ()
    if split is None and not _part(tables[0], part):
        part, notes = "val", ("the runs have no test pictures: val chose the epoch, so its numbers are optimistic",)
    parts = [_part(table, part) for table in tables]
    other = [r.name for r, files_of_run in zip(runs, parts, strict=True) if files_of_run != parts[0]]
    if other:
        raise Refused(
            f"the {part} pictures of {named(other)} are not those of {runs[0].name}: name some for all with --data DATA"
        )
    if not parts[0]:
        raise Refused(
            f"no picture of {tables[0]} is in {part}: name another part with --split, or pictures with --data DATA"
        )
    rows = read_table(tables[0])[1]
    all_files = tuple(os.path.normpath(tables[0].parent / row["file"]) for row in rows if "file" in row)
    return OwnPart(tables[0], part, frozenset(parts[0]), all_files, notes)


def _part(table: Path, part: str) -> dict[str, str]:
    """File, or text -> label of one part of a split.csv.  Refused: one that names no files and holds no texts."""
    columns, rows = read_table(table)
    if {"text", "label", "split"} <= {*columns} and "file" not in columns:
        return {r["text"]: r["label"] for r in rows if r["split"] == part}
    if lost := [name for name in ("file", "label", "split") if name not in columns]:
        raise Refused(f"{table} has no column {lost[0]}: name pictures with --data DATA")
    return {os.path.realpath(table.parent / r["file"]): r["label"] for r in rows if r.get("split") == part}
