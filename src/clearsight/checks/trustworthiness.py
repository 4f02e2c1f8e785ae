"""Trust of right answers by annotated regions; erasing as in Ribeiro et al. 2016, arXiv:1602.04938, section 6.4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import (
    bounds,
    draw_map,
    maps_of,
    note_on_budget,
    note_on_sample,
    share,
    shown,
    span,
    table,
)
from clearsight.auditing.mending import mend_by_marks
from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.places import share_inside
from clearsight.core.statistics import judge, wilson
from clearsight.core.targets import ClassScore
from clearsight.core.text import counted
from clearsight.errors import Refused
from clearsight.internals.scores import scores
from clearsight.perturbation.removal import Removal, instead, taken
from clearsight.reporting.findings import Cell, Evidence, Finding
from clearsight.runner.run import measure

Word = Literal["acceptable", "suspicious", "rejectable"]
_EVIDENCE = 12


@dataclass(frozen=True)
class _RightAnswer:
    """One right answer: its focus, and the top class without the region, without all else, and on another picture."""

    row: int
    focus: float  # share of the positive relevance inside the region; 0 for a map without any
    area: float
    word: Word
    without_region: int
    without_rest: int
    swapped: int | None  # the top class with the region on another picture; None where there is no other
    x: Tensor
    map: Tensor
    region: Tensor


def _validate(case: Case, *, acceptable: float, rejectable: float, **others: object) -> None:
    if not 0 <= rejectable <= acceptable <= 1:
        raise Refused(
            f"acceptable={acceptable:g}, rejectable={rejectable:g}: two shares, the second not above the first"
        )


@method(
    paper="arXiv:1602.04938",
    claims="of-texts",
    order=3,
    validate=_validate,
    advice="look at the rejectable answers, which come first in its evidence",
    mend="--guide {marks}",
)
def trustworthiness(
    case: Case,
    *,
    acceptable: float = 0.5,
    rejectable: float = 0.25,
    floor: float = 0.6,
    fill: Removal = "inpaint",
    pictures: int = 100,
) -> Finding:
    """How many right answers are given for a reason that lies on the annotated region?

    For each annotated picture that is answered right, the focus is the share of the map's positive relevance inside the
    region.  A reason is acceptable, suspicious or rejectable by its focus.  Value: the share of acceptable reasons, 0
    to 1, with its interval.  Chance: the share of pictures whose region is so large that a map of one value would pass.

    Beside it stands what the model does: how often its answer changes if the region is erased, how often it stays if
    all else is erased, and how often it comes along if the region is put on the picture of another class.

    pass: the whole interval lies at or above floor.  fail: all of it lies below.  warn: else.

    Args:
        acceptable: focus from which on a reason is acceptable, 0 to 1.
        rejectable: focus below which a reason is rejectable, 0 to acceptable; in between it is suspicious.
        floor: share of acceptable reasons that is asked for, 0 to 1.
        fill: what erased pixels become: "mean" (of the preprocessing), "black", "blur", or "inpaint" (solved from what
            is left).  Characters are taken out, and their places stay empty, whatever the fill.
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: acceptable and rejectable outside 0 to 1, rejectable above acceptable, and fewer than one picture.
    """
    rows = [i for i in case.annotated if bool(case.truth[i].any())]
    if not rows:
        where = "a column marks" if case.data.are_texts else "--boxes FILE or --masks FOLDER"
        missing = f"says which region should decide: give {where}"
        missing = "has a label beside its region" if case.annotated else missing
        return Finding("note", f"None of the {case.counted(len(case.pictures))} {missing}.")
    right = [i for i in rows if bool(case.right[i])]
    chosen = case.sample(right, pictures) if right else []
    judged, left_out, done = _judge_answers(case, chosen, acceptable, rejectable, fill)
    if not judged:
        return Finding(
            "note", f"None of {counted(len(rows), f'annotated {case.thing}')} is answered right with a region in view."
        )
    n = len(judged)
    counts = {word: sum(f.word == word for f in judged) for word in ("acceptable", "suspicious", "rejectable")}
    value, interval = counts["acceptable"] / n, wilson(counts["acceptable"], n)
    chance = sum(f.area >= acceptable for f in judged) / n
    behaviour = _behaviour_rows(case, judged)
    order = sorted(judged, key=lambda f: (f.focus, case.pictures[f.row].name))
    return Finding(
        judge(interval, floor=floor),
        f"Of {counted(n, 'right answer')} {share(value)} have an acceptable reason ({span(interval, n)}), "
        f"{counts['suspicious']} are suspicious and {counts['rejectable']} rejectable: less than {share(rejectable)} "
        "of their positive relevance lies on the region.",
        quantity="acceptable reasons",
        value=value,
        interval=interval,
        n=n,
        chance=chance,
        has_bar=True,
        notes=(
            f"Asked for: at least {share(floor)} (option floor). Acceptable: from {share(acceptable)} of the positive "
            f"relevance inside the region on; rejectable: below {share(rejectable)}.",
            f"Maps: {case.method}, for the top class.",
            _note_on_fill(case, fill),
            *_note_on_behaviour(behaviour),
            *(f"{name} is left out: {why}." for name, why in left_out),
            *note_on_sample(case, len(chosen), len(right)),
            *note_on_budget(case, done, len(chosen)),
        ),
        tables=(
            *table("Reasons", [_reason_row(case, word, k, n) for word, k in counts.items()]),
            *table("What the model does", behaviour),
            *table(f"By {case.thing}, the least focus first", [_picture_row(case, f) for f in order]),
        ),
        evidence=_evidence(case, order),
        mend=mend_by_marks(case.data.are_texts),
    )


def _note_on_fill(case: Case, fill: Removal) -> str:
    if case.data.are_texts:
        return "Erased characters leave their places empty, as behind the end of a text."
    return f"Erased pixels are {'inpainted from what is left' if fill == 'inpaint' else f'filled with: {fill}'}."


def _judge_answers(
    case: Case, rows: list[int], acceptable: float, rejectable: float, fill: Removal
) -> tuple[list[_RightAnswer], list[tuple[str, str]], int]:
    judged: list[_RightAnswer] = []
    left_out: list[tuple[str, str]] = []
    done = 0
    for part, x in case.batches(rows):
        done += len(part)
        in_view, regions, out_of_view = case.in_view(part)
        left_out += out_of_view
        if not in_view:
            continue
        pixels, inside = x[[part.index(i) for i in in_view]], torch.stack(regions)
        maps = case.maps(in_view, pixels)
        target = ClassScore(case.predicted[in_view], of="prob")
        focus = measure(case.model, pixels, maps, "relevance-mass", target, regions=inside, seed=case.seed).nan_to_num(
            0
        )
        area = share_inside(case.model, pixels, inside)
        without_region, without_rest, swapped = _answers_without(case, in_view, rows, pixels, inside, fill)
        for j, i in enumerate(in_view):
            f = float(focus[j])
            word: Word = "rejectable" if f < rejectable else "suspicious"
            if f >= acceptable:
                word = "acceptable"
            judged.append(
                _RightAnswer(
                    i,
                    f,
                    float(area[j]),
                    word,
                    without_region[j],
                    without_rest[j],
                    swapped[j],
                    pixels[j],
                    maps[j],
                    inside[j],
                )
            )
    return judged, left_out, done


def _answers_without(
    case: Case, rows: list[int], all_rows: list[int], x: Tensor, inside: Tensor, fill: Removal
) -> tuple[list[int], list[int], list[int | None]]:
    """The top class without the region, without the rest, and of the region on the next picture of another class."""
    model = case.model
    pixels, inside = x.to(model.device), inside.to(model.device)
    indices = torch.arange(len(rows), device=pixels.device)
    with model.undisturbed(), rng.seeded(case.seed, pixels, "trustworthiness"):
        replacement = instead(model, pixels, fill)
        without_region = scores(model, taken(pixels, inside, replacement, indices)).argmax(1)
        without_rest = scores(model, taken(pixels, ~inside, replacement, indices)).argmax(1)
        others = {j: o for j, row in enumerate(rows) if (o := _next_of_other_class(case, all_rows, row)) is not None}
        with_other = list(others)
        if with_other:
            on = case.pixels([others[j] for j in with_other]).to(pixels)
            mixed = torch.where(inside[with_other][:, None], pixels[with_other], on)
        answers = dict(zip(with_other, scores(model, mixed).argmax(1).tolist(), strict=True)) if with_other else {}
    return without_region.tolist(), without_rest.tolist(), [answers.get(j) for j in range(len(rows))]


def _next_of_other_class(case: Case, rows: list[int], row: int) -> int | None:
    """The next row, after this one, with another top class; None where there is none."""
    place = rows.index(row)
    others = [*rows[place + 1 :], *rows[:place]]
    return next((r for r in others if case.predicted[r] != case.predicted[row]), None)


def _behaviour_rows(case: Case, judged: list[_RightAnswer]) -> list[dict[str, Cell]]:
    swapped = [f for f in judged if f.swapped is not None]
    answers = {f.row: int(case.predicted[f.row]) for f in judged}
    rows = [
        ("the answer changes without the region", sum(f.without_region != answers[f.row] for f in judged), len(judged)),
        ("the answer stays without all else", sum(f.without_rest == answers[f.row] for f in judged), len(judged)),
        (
            f"the answer comes along to another {case.thing}",
            sum(f.swapped == answers[f.row] for f in swapped),
            len(swapped),
        ),
    ]
    return [{"what": word, "share": k / n, **bounds(wilson(k, n)), "n": n} for word, k, n in rows if n]


def _note_on_behaviour(behaviour: list[dict[str, Cell]]) -> tuple[str, ...]:
    changes, stays = float(behaviour[0]["share"] or 0), float(behaviour[1]["share"] or 0)
    if changes < 0.5 and stays < 0.5:
        return ("Behaviour: the answers depend more on what is not annotated than on the regions.",)
    return ()


def _reason_row(case: Case, word: str, k: int, n: int) -> dict[str, Cell]:
    return {"reason": word, f"{case.thing}s": k, "share": k / n, **bounds(wilson(k, n))}


def _picture_row(case: Case, f: _RightAnswer) -> dict[str, Cell]:
    return {
        case.thing: case.pictures[f.row].name,
        "said": case.label(f.row),
        "reason": f.word,
        "focus": f.focus,
        "chance": f.area,
        "without the region": case.model.name(f.without_region),
        "without all else": case.model.name(f.without_rest),
    }


def _evidence(case: Case, order: list[_RightAnswer]) -> tuple[Evidence, ...]:
    evidence = []
    for k, f in enumerate(order[:_EVIDENCE], 1):
        facts = _picture_row(case, f)
        image = draw_map(case, f.x, f.map, f.region)
        caption = f"{facts['said']}, {f.word}: {share(f.focus)} on the region, chance {share(f.area)}"
        evidence.append(shown(case, f.row, f"trustworthiness-{k}", image, caption, facts, maps=maps_of(case)))
    return tuple(evidence)
