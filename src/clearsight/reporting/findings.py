"""The finding of a check: a number with its interval, the pictures it rests on, and the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from clearsight.core.catalogue import method_name
from clearsight.core.statistics import Interval

Verdict = Literal["pass", "warn", "fail", "note", "error"]
Cell = str | int | float | None
Maps = Literal["none", "colour", "grey"]


@dataclass(frozen=True)
class Figure:
    """A chart (.svg) or a picture (.png) of the report.  name: its file under figures/; alt: it in words."""

    name: str
    data: bytes
    caption: str
    alt: str


@dataclass(frozen=True)
class Table:
    """Rows with the same columns, in the order in which they are to be read."""

    caption: str
    rows: tuple[dict[str, Cell], ...]


@dataclass(frozen=True)
class Evidence:
    """One picture of the data with what was found on it, and the command that shows it again.

    maps: how the figure draws maps of what the model looks at: "none", in "colour", or in "grey" because the explainer
    is not to be believed.
    """

    picture: str
    figure: Figure
    facts: dict[str, Cell]
    command: str
    maps: Maps = "none"


@dataclass(frozen=True)
class BoxTable:
    """Boxes in pictures.  name: the file beside report.json; text: what it holds, a CSV that `train --avoid` reads."""

    name: str
    text: str


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        verdict: "pass", "fail", "warn" (too few pictures to say, or in between), "note" (nothing to judge) or "error".
        headline: one sentence with the numbers in it.
        quantity: what value is, in two or three words.
        value: the number; None if there is nothing to judge.
        interval: 95 % interval of the value.
        n: number of pictures that the value rests on.
        unit: "share" (0 to 1, shown as per cent) or "" (a plain number).
        chance: what the value would be without any skill.
        notes: sentences that belong to it.
        has_bar: whether the first of the notes says what the value was held against.
        tables: its tables.
        figures: its charts.
        evidence: pictures of the data with what was found on them.
        chosen_explainer: explainer that the checks after this one use, if none was asked for; "" where it chose none.
        maps_unreliable: whether the maps of the checks after this one are no evidence and are drawn in grey; None where
            the check does not judge explainers.
        check: spelling of the check; filled in by the audit, as what follows.
        summary: first line of the check.
        paper: paper of the check.
        advice: what to do first if the check fails.
        mend: command that trains against what the check fails for; "" where it does not fail, or none is known.  From
            options of that training, which a check may give here, the audit makes the command.
        boxes: places that mend avoids, where the audit found them itself; mend calls their file MARKS until the report
            is saved.
        command: command that runs the check again.
        seconds: time that it took.
    """

    verdict: Verdict
    headline: str
    quantity: str = ""
    value: float | None = None
    interval: Interval | None = None
    n: int = 0
    unit: Literal["share", ""] = "share"
    chance: float | None = None  # what the value would be without any skill
    notes: tuple[str, ...] = ()
    has_bar: bool = False  # whether the first of the notes says what the value was held against
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    chosen_explainer: str = ""
    maps_unreliable: bool | None = None
    check: str = ""
    summary: str = ""
    paper: str = ""
    advice: str = ""  # what to do first where the check fails
    mend: str = ""
    boxes: BoxTable | None = None
    command: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The check without its options."""
        return method_name(self.check)


def named_in(row: Mapping[str, Cell]) -> str | None:
    """The picture or text that a row of a table is about; None where it is about none.

    >>> named_in({"text": "row 2", "said": "spam"})
    'row 2'
    """
    name = row.get("picture", row.get("text"))
    return None if name is None else str(name)
