"""Sentences, tables and pictures of evidence that several checks share."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.common_case import CommonCase
from clearsight.core.statistics import Interval
from clearsight.core.text import counted
from clearsight.data.records import Pictures
from clearsight.data.text_encoding import decode
from clearsight.data.text_marks import joined
from clearsight.drawing.heatmaps import GREY_WORDS, overlay, photo, png
from clearsight.drawing.side_by_side import side_by_side
from clearsight.drawing.text import runs
from clearsight.drawing.text_picture import text_picture
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding, Maps, Table
from clearsight.reporting.wording import number, show, show_range


def share(value: float | None) -> str:
    """A share as people read it: "81.2 %"."""
    return show(value, "share")


def points(gap: float) -> str:
    """A difference of shares in percentage points, without their name: "4.5"."""
    return number(gap, "share")


def span(interval: Interval | None, n: int, *, shares: bool = True) -> str:
    """What stands in brackets behind a value: "95 % 49.0 to 94.3 %, n = 10"."""
    if interval is None:
        return f"n = {n}, too few for an interval"
    unit = "share" if shares else ""
    return f"95 % {show_range(*interval, unit)}, n = {n}"


def unlabelled(case: Case) -> Finding:
    """The finding of a check that needs labels where there are none, and how to give some."""
    file, column = ("class/x.txt", "text") if case.data.are_texts else ("class/x.jpg", "file")
    return Finding(
        "note",
        f"None of the {case.counted(len(case.pictures))} has a label: put them in class folders ({file}) or give a CSV "
        f"with the columns {column} and label.",
    )


def not_of_texts(check: str, why: str) -> Finding:
    """The finding of a check that does not apply to texts: why, and what answers instead."""
    return Finding("note", f"{check} was not run, because these are texts: {why}.")


def note_on_budget(case: CommonCase, done: int, planned: int) -> tuple[str, ...]:
    """A note where the budget cut the work short."""
    if done >= planned:
        return ()
    return (f"The budget was used up after {done} of {case.counted(planned)}, a seeded draw.",)


def note_on_sample(data: CommonCase | Pictures, done: int, of: int) -> tuple[str, ...]:
    """A note where only a sample was planned."""
    return () if done >= of else (f"A seeded sample of {done} from {counted(of, data.thing)} (option pictures).",)


def left_out(excluded: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Sentences on what is left out, (name, reason) each: one sentence for each reason."""
    names: dict[str, list[str]] = {}
    for name, reason in excluded:
        names.setdefault(reason, []).append(name)
    return tuple(f"Left out: {', '.join(who)}: {reason}." for reason, who in names.items())


def bounds(interval: Interval | None) -> dict[str, Cell]:
    """The two columns of a table that hold an interval."""
    low, high = interval or (None, None)
    return {"from (95 %)": low, "to (95 %)": high}


def shown(
    case: Case,
    row: int,
    name: str,
    image: Image.Image,
    caption: str,
    facts: dict[str, Cell],
    command: str = "",
    maps: Maps = "none",
) -> Evidence:
    """One picture of the data as evidence, with the command that draws its map again unless another is given.

    maps: how the image draws maps, `maps_of(case)` where they are those of the case's explainer.  Grey ones say why.
    """
    picture = case.pictures[row].name
    if maps == "grey":
        reason = f"no explainer can be believed on this model (check {case.maps_unreliable_by})"
        caption = f"{caption}; {GREY_WORDS}, because {reason}"
    figure = Figure(f"{name}.png", png(image), caption, f"{picture}: {caption}")
    command = command or case.commands.of_picture("explain", case.pictures[row], "-m", str(case.method))
    return Evidence(picture, figure, facts, command, maps)


def maps_of(case: Case) -> Maps:
    """How maps of the case's explainer are drawn: in grey where it is not to be believed."""
    return "grey" if case.maps_unreliable_by else "colour"


def draw_map(case: Case, x: Tensor, heat: Tensor, region: Tensor | None = None) -> Image.Image:
    """A map (*S) of the case's method over its picture (C, *S), in grey where the method is not to be believed."""
    if case.model.preprocess.alphabet:
        return _text_drawn(case, x, heat, region)
    return overlay(x, heat, signed=case.signed, region=region, grey=maps_of(case) == "grey")


def draw_maps(case: Case, row: int, x: Tensor, maps: Sequence[Tensor]) -> Image.Image:
    """A picture or text (C, *S), that of a row, and maps (*S) of it, side by side, or of a text below each other."""
    return side_by_side(x, maps, [bool((m < 0).any()) for m in maps], text=case.pictures[row].text)


def draw_input(case: Case, x: Tensor) -> Image.Image:
    """A picture or text (C, *S) by itself."""
    return _text_drawn(case, x, x[0] * 0) if case.model.preprocess.alphabet else photo(x)


def _text_drawn(case: Case, x: Tensor, heat: Tensor, region: Tensor | None = None) -> Image.Image:
    text = decode(x, case.model.preprocess.alphabet)
    text = case.texts.get(text, text)
    marks = [] if region is None else joined((i, i + 1) for i in region.nonzero()[:, 0].tolist() if i < len(text))
    pieces = runs(text, heat, signed=case.signed, marks=marks)
    return text_picture(pieces, grey=bool(case.maps_unreliable_by))


def table(caption: str, rows: Sequence[dict[str, Cell]]) -> tuple[Table, ...]:
    """A table, or none where it has no rows."""
    return (Table(caption, tuple(rows)),) if rows else ()
