"""Where the findings of a report come from: its model, its data and its run, as records."""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, dataclass
from types import NoneType, UnionType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from clearsight.core.preprocess import Preprocess
from clearsight.errors import Refused
from clearsight.reporting.findings import Cell

_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "a text"),
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    NoneType: ((NoneType,), "null"),
}


@dataclass(frozen=True)
class ModelFacts:
    """The model of a report.

    Args:
        source: words that load it again.
        fingerprint: hash of the names and values of its weights.
        network: class of its network.
        parameters: number of its weights.
        classes: number of its classes.
        preprocess: how its pictures become pixels.
        kind: "classifier", "detector" or "segmenter".
    """

    source: str
    fingerprint: str
    network: str
    parameters: int
    classes: int
    preprocess: Preprocess
    kind: str = "classifier"

    def as_dict(self) -> dict[str, Any]:
        """The fields as report.json holds them."""
        return {**dataclasses.asdict(self), "preprocess": self.preprocess.as_dict()}


@dataclass(frozen=True)
class BrokenFile:
    """A file of the data that is left out, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class DataFacts:
    """The pictures of a report.

    Args:
        source: folder, table or words that open them again.
        digest: hash of the pictures, their labels and annotations.
        pictures: number of files found, broken ones too.
        tried: number of files opened within the budget.
        read: number of files that could be read.
        labelled: number of pictures read that have a label.
        annotated: number of pictures read that have boxes or masks.
        broken: the files that are left out.
        notes: sentences on what was chosen, skipped and changed.
    """

    source: str
    digest: str
    pictures: int
    tried: int
    read: int
    labelled: int
    annotated: int
    broken: tuple[BrokenFile, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BarResult:
    """One bar of the gate: the check it is for, the bar and what was found, both in words, and whether it held."""

    check: str
    bar: str
    value: Cell
    held: bool


@dataclass(frozen=True)
class NotJudged:
    """A check that cannot judge this kind of model, and why, as a sentence without its full stop."""

    check: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The run that made a report, with its model and its data; the fields of report.json, in its order.

    Args:
        clearsight: version that made the report.
        complete: False where the audit was stopped before all checks were run.
        command: command that makes the report again; "" where it was made from Python.
        made: date and time, ISO 8601, UTC.
        seconds: time that it took.
        case: hash of all that the findings depend on but the checks' options and the budget.
        seed: start of all randomness.
        budget: time limit in seconds; None without a limit.
        asked: explainer that was asked for, or "auto" where the audit was to choose it.
        method: explainer that the checks used; "" where no check was done.
        signed: whether its maps have a sign: relevance for and against the class.
        model: the model.
        data: the pictures.
        gate: bars and whether they held; None where no gate was given.
        environment: versions and device that it ran on.
        not_judged: checks that cannot judge this kind of model.
    """

    clearsight: str
    complete: bool = True
    command: str = ""
    made: str
    seconds: float
    case: str = ""
    seed: int
    budget: float | None = None
    asked: str = ""
    method: str
    signed: bool = False
    model: ModelFacts
    data: DataFacts
    gate: tuple[BarResult, ...] | None = None
    environment: dict[str, str]
    not_judged: tuple[NotJudged, ...] = ()

    @property
    def thing(self) -> str:
        """What the data are, in a word: "picture" or "text"."""
        return "text" if self.model.preprocess.alphabet else "picture"

    def as_dict(self) -> dict[str, Any]:
        """The fields as report.json holds them, but for tuples, which are lists there."""
        return {**dataclasses.asdict(self), "model": self.model.as_dict()}


def read_facts(fields: dict[str, Any]) -> RunFacts:
    """The record of what report.json holds.  Fields that it does not know are left out.

    Refused, by the field's name: a field that is missing and has no default, and one of a wrong type.
    """
    return cast(RunFacts, _read_record(RunFacts, fields, ""))


def _read_record(kind: Any, value: object, name: str) -> Any:
    """A record of a kind, from the JSON object with this name ("" for the whole file)."""
    if not isinstance(value, dict):
        raise _wrong_type(name, value, "an object")
    hints = get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):
        path = f"{name}.{field.name}" if name else field.name
        if field.name in value:
            values[field.name] = _read_value(hints[field.name], value[field.name], path)
        elif field.default is MISSING:
            raise Refused(f"{path} is missing")
    return kind(**values)


def _read_value(hint: Any, value: object, name: str) -> Any:
    """A JSON value as the type says: lists become tuples, objects become records."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return _read_one_of(args, value, name)
    if origin is Literal:  # the record itself refuses other words
        return _read_one_of((str,), value, name)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong_type(name, value, "a list")
        return tuple(_read_value(args[0], v, f"{name}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong_type(name, value, "an object")
        return {k: _read_value(args[1], v, f"{name}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return _read_record(hint, value, name)
    return _read_one_of((hint,), value, name)


def _read_one_of(kinds: tuple[Any, ...], value: object, name: str) -> Any:
    """A JSON value that may be of several types."""
    if value is None and NoneType in kinds:
        return None
    for kind in kinds:
        if kind not in _KINDS:  # a list or an object, which are never one of several but for null
            return _read_value(kind, value, name)
        if isinstance(value, _KINDS[kind][0]) and (kind is bool or not isinstance(value, bool)):
            return value
    raise _wrong_type(name, value, " or ".join(_KINDS[kind][1] for kind in kinds))


def _wrong_type(name: str, value: object, kind: str) -> Refused:
    text = repr(value)
    return Refused(f"{name or 'it'} is {text if len(text) <= 60 else text[:57] + '...'}, not {kind}")
