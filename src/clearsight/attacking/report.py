"""What `clearsight attack` does with one model: a report on what an attack came to, picture by picture."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from clearsight.attacking.sweep import AttackSweep, strike
from clearsight.attacks.patch import learned_patch, printable
from clearsight.auditing.assemble import make
from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, share, shown, span, table
from clearsight.auditing.goals import acceptable, goal_of
from clearsight.core.blackbox import classes_told
from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm, norm_of, word
from clearsight.core.norms import perturbation_norm as distance
from clearsight.core.progress import Progress
from clearsight.core.similarity import spearman
from clearsight.core.statistics import judge, wilson
from clearsight.core.targets import ClassScore
from clearsight.core.text import counted
from clearsight.data.datasets import Pictures
from clearsight.drawing import charts
from clearsight.drawing.heatmaps import magnified_difference, overlay, photo, strip
from clearsight.errors import NoGradient, Refused
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding, Table
from clearsight.reporting.report import Report
from clearsight.reporting.wording import show
from clearsight.runner.run import budgeted, explain, needs_other

EVIDENCE = 12
FLOOR = 0.3  # of right answers under attack, as the check robustness asks for


class AttackReport(Report):
    """A Report on an attack: its sentence is the finding's."""

    kind = "attack"

    @property
    def verdict(self) -> str:
        return self.findings[0].headline

    @property
    def opening(self) -> tuple[str, ...]:
        return (self.verdict,)

    @property
    def sheet(self) -> tuple[Finding, ...]:
        return self.findings


@dataclass(frozen=True)
class Asked:
    """What the user asks of an attack.

    call; eps; levels: the budgets of the curve, eps among them; target: the class to become, None for any wrong one;
    queries are in the call.  access, digits: what a black box is told.
    """

    call: Call
    eps: float
    levels: tuple[float, ...]
    target: int | None
    access: str
    digits: int | None
    other: Classifier | None

    @property
    def norm(self) -> Norm:
        return norm_of(self.call)

    @property
    def bounded(self) -> bool:
        """Whether the attack keeps a budget in pixels."""
        return "unbounded" not in self.call.method.claims


def asked(
    model: Classifier,
    method: str | Call,
    *,
    eps: float | None = None,
    curve: Sequence[float] | None = None,
    target: str | None = None,
    other: Classifier | None = None,
    access: str = "logits",
    digits: int | None = None,
) -> Asked:
    """Everything that is asked, or a refusal before any work.

    curve: budgets; none is an eighth, a quarter and a half of eps, for attacks that are run for each budget anew.  A
    black box is asked at eps alone where none are given: its curve runs over queries.
    """
    call, eps = budgeted(parse(method, "attacks"), eps)
    needs_other(call, other)
    classes_told(access, digits)
    if eps == math.inf:
        raise Refused(f"{call.method.name} at eps inf: an accuracy is that within a budget; give one, such as 8/255")
    levels = {eps, *(curve or ())}
    blind, free = "black-box" in call.method.claims, "unbounded" in call.method.claims
    if curve and free:
        raise Refused(f"{call.method.name} has no curve over budgets: leave curve out (--curve)")
    if min(levels) == 0:
        raise Refused("eps 0: within it nothing can be changed; give a budget above 0, such as 8/255")
    if blind and "minimal" in call.method.claims and max(levels) > eps:
        raise Refused(f"{call.method.name} asks once, within eps: give the largest budget of curve as eps (--eps)")
    for level in levels:
        budgeted(call, level)
    if curve is None and not blind and not free:
        levels |= {eps / 8, eps / 4, eps / 2}
    wanted = None if target is None else model.index(target)
    return Asked(call, eps, tuple(sorted(levels)), wanted, access, digits, other)


def attack_pictures(
    model: Classifier,
    data: Pictures,
    want: Asked,
    folder: Path,
    *,
    floor: float = FLOOR,
    pictures: int = 0,
    explainer: str = "auto",
    seed: int = 0,
    budget: float | None = None,
    command: str = "",
    model_words: Sequence[str] = (),
    data_words: Sequence[str] = (),
    progress: Progress | None = None,
) -> AttackReport:
    """Attack pictures and say what it came to -> a Report; each attacked picture is a PNG in folder/attacked.

    floor: the share that should stay right; pictures: at most so many, a seeded draw, 0 for all; explainer: of the maps
    before and after.
    """
    began = time.monotonic()
    case = Case(
        model, apart(data), seed=seed, budget=budget, method=explainer, progress=progress, model_words=model_words,
        data_words=data_words,
    )  # fmt: skip
    case.doing = "attacking"
    if budget:
        case.clock.deadline = began + budget
    every = range(len(case.pictures))
    rows = case.sample(every, pictures or len(case.pictures))
    found = strike(
        case, want.call, want.eps, want.levels, rows=rows, target=want.target, other=want.other, access=want.access,
        digits=want.digits, folder=folder,
    )  # fmt: skip
    _print(case, want, found, folder)
    finding = replace(
        _finding(case, want, found, len(rows), floor, command),
        check=str(want.call),
        summary=want.call.method.summary,
        paper=want.call.method.paper,
        seconds=round(time.monotonic() - began, 3),
        command=command,
    )
    whole = make(case, [finding], seconds=time.monotonic() - began, command=command)
    return AttackReport(whole.facts, whole.findings)


def _print(case: Case, want: Asked, found: AttackSweep, folder: Path) -> None:
    """Write a patch by itself, to be printed: it is learned once more, and comes out as it was."""
    if want.call.method.name != "patch" or not found.taught:
        return
    lessons = case.pixels(found.taught)
    goal = goal_of(case, found.taught, want.target)
    patch = learned_patch(case.model, lessons, goal, seed=case.seed, **want.call.options)
    shape = want.call.options.get("shape", want.call.method.options["shape"].default)
    printable(patch, folder / "patch.png", shape=shape)


def apart(data: Pictures) -> Pictures:
    """The pictures, each with a name that no other has."""
    names = [p.name for p in data.pictures]
    if len({*names}) == len(names):
        return data
    return replace(data, pictures=tuple(replace(p, name=str(p.path)) for p in data.pictures))


# In numbers -----------------------------------------------------------------------------------------------------------


def _finding(case: Case, want: Asked, found: AttackSweep, planned: int, floor: float, command: str) -> Finding:
    n = len(found.rows)
    evidence, drawn = _evidence(case, want, found, command)
    blank = sum(not bool(case.truth[i].any()) for i in found.rows)
    at = f"{want.call.method.name} at eps {word(want.eps)}" if want.bounded else want.call.method.name
    before = n - len(found.already)
    if want.target is None:
        k, of, quantity = len(found.standing(want.eps)), n, "right answers under attack"
        interval = wilson(k, of)
        stay = f"{k} of {counted(n, 'picture')} {'stay' if n > 1 else 'stays'} right, {share(k / of)}"
        if not before:
            return Finding("note", f"None of {counted(n, 'picture')} is right untouched: there is nothing to attack.")
        said = f"Under {at}, {stay} ({span(interval, of)}), of {share(before / n)} that are right untouched."
        if besides := [i for i in found.standing(want.eps) if i in found.fallen and found.fallen[i].eps < want.eps]:
            said += f" {len(besides)} of these {'fall' if len(besides) > 1 else 'falls'} at a smaller budget."
        verdict = judge(interval, floor=floor)
    else:
        name = case.model.name(want.target)
        if not before:
            return Finding("note", f"All {counted(n, 'picture')} are said to be {name} already: nothing to attack.")
        k, of, quantity = before - len(found.standing(want.eps)), before, f"made to say {name}"
        interval = wilson(k, of)
        said = (
            f"By {at}, {k} of {counted(of, 'picture')} are made to say {name}, {share(k / of)} ({span(interval, of)})."
        )
        verdict = judge(interval, ceiling=1 - floor)
    return Finding(
        verdict,
        said,
        quantity=quantity,
        value=k / of,
        interval=interval,
        n=of,
        has_bar=True,
        notes=(*_notes(case, want, found, floor, blank), drawn, *_short(found, planned)),
        tables=(
            *_over_budgets(want, found),
            *_over_queries(found),
            *table("By class", _by_class(case, want, found) if want.target is None else []),
            *table("By picture, the easiest first", [_row(case, want, found, i) for i in _order(case, found)]),
        ),
        figures=(*_curve(want, found), *_query_curve(found)),
        evidence=evidence,
    )


def _notes(case: Case, want: Asked, found: AttackSweep, floor: float, blank: int) -> tuple[str, ...]:
    fell = found.fooled(want.eps)
    stored = [found.fallen[i] for i in fell if found.fallen[i].file is not None]
    kept, opened = sum(bool(f.bits) for f in stored), sum(bool(f.opened) for f in stored)
    tried = max(len(found.rows) - len(found.already), 1)
    asked_for = (
        f"at least {share(floor)} right" if want.target is None else f"at most {share(1 - floor)} made to say it"
    )
    notes = [
        f"Asked for: {asked_for} (option floor). An attack that finds nothing proves nothing: others may find more."
    ]
    if stored:
        notes.append(
            f"Of {counted(len(stored), 'picture')} that were fooled {kept} still are as 8-bit PNG, read back from the "
            f"file, and {opened} when that file is opened like any other picture, resized and cropped again."
        )
    if want.bounded:
        if "minimal" in want.call.method.claims and found.fallen:
            far = sorted(f.eps for f in found.fallen.values())
            notes.append(
                f"The smallest change found has a median of {word(statistics.median(far))}, from {word(far[0])} to "
                f"{word(far[-1])} ({counted(len(far), 'picture')})."
            )
        notes.append(f"Budgets are in {want.norm.upper() if want.norm == 'l2' else 'Linf'}, of pixels in [0, 1].")
    if found.spent:
        told = "" if want.access == "logits" else f", told {want.access}"
        if told and want.digits:
            told += f" of {want.digits} digits"
        paid = sum(found.spent.values()) / len(found.spent)
        notes.append(f"A black box{told}: {paid:.0f} queries paid for a picture, {max(found.spent.values())} at most.")
    else:
        notes.append(
            f"It took {found.queries / tried:.0f} passes forward and {found.backwards / tried:.0f} back for each "
            "picture that was attacked, over all budgets."
        )
    if found.begun:
        notes.append(f"It could begin at {counted(len(found.begun), 'picture')} of the data, the nearest first.")
    if found.taught:
        own = bool({*found.taught} & {*found.rows})
        where = "the very pictures that are attacked, too few to divide" if own else "others than those attacked"
        notes.append(f"It learned from {counted(len(found.taught), 'picture')}, {where}.")
    if found.taught and want.call.method.name == "patch":
        notes.append("The patch by itself is patch.png beside this report: 10 cm wide at 300 dots per inch, to print.")
    if blank:
        notes.append(
            f"{counted(blank, 'picture has', 'pictures have')} no label: the model's own answer is right there."
        )
    return tuple(notes)


def _short(found: AttackSweep, planned: int) -> tuple[str, ...]:
    done = len(found.rows) + (len({*found.taught} - {*found.rows}))
    return (
        () if done >= planned else (f"The budget of time was used up after {done} of {counted(planned, 'picture')}.",)
    )


def _over_budgets(want: Asked, found: AttackSweep) -> tuple[Table, ...]:
    levels = want.levels
    if len(levels) < 2:
        return ()
    n = len(found.rows)
    rows: list[dict[str, Cell]] = []
    for eps in [0.0, *levels]:
        k = len(found.standing(eps))
        rows.append({"eps": word(eps), "not fooled": k, "n": n, "share": k / n, **bounds(wilson(k, n))})
    return table("By budget", rows)


def _curve(want: Asked, found: AttackSweep) -> tuple[Figure, ...]:
    """The share that is not fooled, by budget; of an attack for the smallest change it steps where a picture falls."""
    levels = list(want.levels)
    minimal = "minimal" in want.call.method.claims
    if not want.bounded or (len(levels) < 2 and not minimal):
        return ()
    n = len(found.rows)
    if minimal:
        levels = sorted({*levels, *(f.eps for f in found.fallen.values() if f.eps <= max(levels))})
    x = [0.0, *levels]
    kept = [len(found.standing(e)) for e in x]
    low, high = zip(*(wilson(k, n) for k in kept), strict=True)
    ticks = [(e, word(e)) for e in [0.0, *want.levels] if e >= max(want.levels) / 4.5 or not e]
    if not minimal:  # a few budgets that double: as far apart as they are numbered
        ticks = [(k, word(e)) for k, e in enumerate(x)]
    data = charts.curves(
        x if minimal else list(range(len(x))),
        [charts.Line("not fooled", [k / n for k in kept], low, high)],
        xlabel="largest change of a pixel" if want.norm == "linf" else "length of the change (L2)",
        ylabel="right answers" if want.target is None else "not fooled",
        xticks=ticks,
    )
    told = ", ".join(f"{share(len(found.standing(e)) / n)} at {word(e)}" for e in [0.0, *sorted(want.levels)])
    caption = f"Pictures that are not fooled, by budget, {counted(n, 'picture')}, with 95 % intervals."
    return (Figure("attack-curve.svg", data, caption, f"The share falls with the budget: {told}."),)


def _marks(found: AttackSweep) -> list[int]:
    """Numbers of queries at which success is told: 1, 2, 5, 10, ... and the last one paid."""
    most = max(found.spent.values(), default=0)
    steps = [k * 10**e for e in range(7) for k in (1, 2, 5)]
    return [s for s in steps if s < most] + ([most] if most else [])


def _by(found: AttackSweep, queries: int) -> int:
    return sum(0 < f <= queries for f in found.first.values())


def _over_queries(found: AttackSweep) -> tuple[Table, ...]:
    n = len(found.spent)
    return table(
        "Success by queries",
        [
            {
                "queries": q,
                "fooled": _by(found, q),
                "n": n,
                "share": _by(found, q) / n,
                **bounds(wilson(_by(found, q), n)),
            }
            for q in _marks(found)
        ],
    )


def _query_curve(found: AttackSweep) -> tuple[Figure, ...]:
    marks, n = _marks(found), len(found.spent)
    if len(marks) < 2:
        return ()
    hits = [_by(found, q) for q in marks]
    low, high = zip(*(wilson(k, n) for k in hits), strict=True)
    data = charts.curves(
        [math.log10(q) for q in marks],
        [charts.Line("fooled", [k / n for k in hits], low, high)],
        xlabel="queries paid for a picture",
        ylabel="fooled within the budget",
        xticks=[(math.log10(q), str(q)) for q in marks if str(q)[0] == "1" or q == marks[-1]],
    )
    told = ", ".join(f"{share(k / n)} by {q}" for k, q in zip(hits, marks, strict=True))
    return (
        Figure("attack-queries.svg", data, f"Success against queries, {counted(n, 'picture')}.", f"It rises: {told}."),
    )


def _by_class(case: Case, want: Asked, found: AttackSweep) -> list[dict[str, Cell]]:
    """By what is right of each picture: its first acceptable class."""
    kind = {i: int(acceptable(case, [i])[0].float().argmax()) for i in found.rows}
    left = {*found.standing(want.eps)}
    rows: list[dict[str, Cell]] = []
    for k in sorted({*kind.values()}):
        mine = [i for i in found.rows if kind[i] == k]
        stay = sum(i in left for i in mine)
        rows.append(
            {
                "class": case.model.name(k),
                "n": len(mine),
                "right before": sum(i not in found.already for i in mine),
                "right under attack": stay,
                "share": stay / len(mine),
                **bounds(wilson(stay, len(mine))),
            }
        )
    return sorted(rows, key=lambda r: (float(r["share"] or 0), str(r["class"])))


def _order(case: Case, found: AttackSweep) -> list[int]:
    """Fooled by the smallest change first, then those that stand, then those that met the goal before."""
    fell = sorted(found.fallen, key=lambda i: (found.fallen[i].eps, found.fallen[i].distance, i))
    rest = [i for i in found.rows if i not in found.fallen]
    return [*fell, *sorted(rest, key=lambda i: (i in found.already, case.pictures[i].name))]


def _row(case: Case, want: Asked, found: AttackSweep, i: int) -> dict[str, Cell]:
    f = found.fallen.get(i)
    state = "fooled" if i in found.fooled(want.eps) else "stands"
    if i in found.already:
        state = "met before"
    row: dict[str, Cell] = {"picture": case.pictures[i].name, "said": case.label(i), "state": state}
    row["says now"] = None if f is None else case.model.name(int(f.logits.argmax()))
    row["probability"] = None if f is None else float(f.logits.softmax(0).max())
    row["falls at eps"] = None if f is None else word(f.eps)
    row["shown at eps"] = None if f is None else word(f.shown_eps)
    row["moved by"] = None if f is None else f.distance
    fools = {None: None, True: "fools", False: "does not"}
    row["as 8 bits"] = None if f is None else fools[f.bits]
    row["opened as a file"] = None if f is None else fools[f.opened]
    if found.spent:
        row["queries"] = found.first.get(i) or None
    row["file"] = None if f is None or f.file is None else f"attacked/{f.file.name}"
    return row


# In pictures ----------------------------------------------------------------------------------------------------------


def _evidence(case: Case, want: Asked, found: AttackSweep, command: str) -> tuple[tuple[Evidence, ...], str]:
    """The pictures that fell first, before and after, and a note on the maps beside them."""
    drawn = f"Maps before and after: {case.method}, for the top class of each; none of them was tested."
    rows = [i for i in _order(case, found) if i in found.fooled(want.eps)][:EVIDENCE]
    if not rows:
        return (), drawn
    attacked = torch.stack([found.fallen[i].x for i in rows])
    clean = case.pixels(rows)
    now = torch.stack([found.fallen[i].logits for i in rows])
    maps: list[tuple[Tensor, Tensor] | None]
    try:
        after = explain(case.model, attacked, case.method, ClassScore(now.argmax(1)), seed=case.seed).maps
        maps = list(zip(case.maps(rows, clean), after, strict=True))
    except NoGradient as e:  # a black box needs none, and is shown without maps
        maps, drawn = [None] * len(rows), f"No maps before and after: {e}."
    whole = command if found.taught or found.begun else ""  # what rests on other pictures is not shown by one alone
    pairs = [_shown(case, want, found, i, k + 1, clean[k], maps[k], whole) for k, i in enumerate(rows)]
    return tuple(pairs), drawn


def _shown(
    case: Case,
    want: Asked,
    found: AttackSweep,
    i: int,
    k: int,
    clean: Tensor,
    maps: tuple[Tensor, Tensor] | None,
    whole: str,
) -> Evidence:
    f = found.fallen[i]
    moved = float(distance((f.x - clean)[None], "linf"))
    times = max(1.0, min(0.5 / max(moved, 1e-6), 127.0))
    facts = _row(case, want, found, i) | {"probability before": float(case.logits[i].softmax(0).max())}
    said = [f"{facts['said']} ({share(float(facts['probability before'] or 0))})"]
    said += [f"attacked at {word(f.shown_eps)}, {facts['says now']} ({share(float(facts['probability'] or 0))})"]
    images = [photo(clean), photo(f.x)]
    if maps is not None:
        before, after = maps
        kept = spearman(before.double().numpy(), after.double().numpy())
        facts["rank correlation of the maps"] = kept
        said = [said[0] + " and its map", said[1] + f" and its map, alike at {show(kept, '')}"]
        images.insert(1, overlay(clean, before, signed=case.signed))
        images.append(overlay(f.x, after, signed=case.signed))
    image = strip([*images, magnified_difference(clean, f.x, times)])
    caption = "; ".join([*said, f"the change, {times:.0f} times"])
    again = whole or case.commands.of_picture("attack", case.pictures[i], *_options(case, want))
    return shown(case, i, f"attack-{k}", image, caption, facts, again, "none" if maps is None else "colour")


def _options(case: Case, want: Asked) -> list[str]:
    """What was asked for, as the command line says it."""
    said = {
        "-a": str(want.call),
        "--eps": word(want.eps) if want.bounded else None,
        "--target": None if want.target is None else case.model.name(want.target),
        "--access": None if want.access == "logits" else want.access,
        "--digits": None if want.digits is None else str(want.digits),
        "--other": None if want.other is None else want.other.source,
        "-m": None if case.method_words == "auto" else case.method_words,
    }
    return [w for option, value in said.items() if value is not None for w in (option, value)]
