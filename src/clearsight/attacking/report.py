"""`clearsight attack` on one model: robust accuracy within a budget, the curve over budgets, and each picture."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from clearsight.attacking.sweep import AttackSweep, run_sweep
from clearsight.attacks.patch import learned_patch, printable
from clearsight.auditing.assemble import make
from clearsight.auditing.case import Case, is_black_box
from clearsight.auditing.evidence import bounds, share, shown, span, table
from clearsight.auditing.goals import acceptable, goal_of
from clearsight.auditing.mending import mend_by_attacks, mending_command
from clearsight.core.access import classes_told
from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Measure, norm_of, word
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


USUAL = "pgd"
BLACK_BOX = "square(queries=500)"  # of models that give scores alone; square's own 5000 take minutes for a photograph


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
class AttackRequest:
    """What the user wants of an attack, checked.

    call: the attack with its options.  eps: the main budget; levels: the budgets of the curve, eps among them.  target:
    the class that pictures should become, None for any wrong one.  access, digits: what a black-box attack learns of
    the scores.  other: the model that the attack transfer attacks instead.
    """

    call: Call
    eps: float
    levels: tuple[float, ...]
    target: int | None
    access: str
    digits: int | None
    other: Classifier | None

    @property
    def norm(self) -> Measure:
        return norm_of(self.call)

    @property
    def bounded(self) -> bool:
        """Whether the attack keeps a budget in pixels."""
        return "unbounded" not in self.call.method.claims

    @property
    def in_words(self) -> str:
        """The attack, with its budget if it keeps one: "pgd at eps 8/255"."""
        return f"{self.call.method.name} at eps {word(self.eps)}" if self.bounded else self.call.method.name


def usual_attack(models: Sequence[Classifier]) -> str:
    """The attack of these models where none is named: pgd, and square where one of them gives scores alone.

    They are probed on noise, so that nothing need be read before.
    """
    for model in models:
        shape = (1, model.preprocess.channels, *model.preprocess.size)
        if is_black_box(model, torch.rand(shape, generator=torch.Generator().manual_seed(0))):
            return BLACK_BOX
    return USUAL


def attack_request(
    model: Classifier,
    method: str | Call,
    *,
    eps: float | None = None,
    curve: Sequence[float] | None = None,
    target: str | None = None,
    other: Classifier | None = None,
    access: str = "logits",
    digits: int | None = None,
) -> AttackRequest:
    """Check everything that the user wants of an attack, before any work.

    curve: budgets.  None means an eighth, a quarter and a half of eps for attacks that run anew for each budget.  A
    black box then runs at eps alone, because its curve is over queries.
    """
    call, eps = budgeted(parse(method, "attacks"), eps)
    needs_other(call, other)
    classes_told(access, digits)
    levels = budget_levels(call, eps, curve)
    target_class = None if target is None else model.index(target)
    return AttackRequest(call, eps, levels, target_class, access, digits, other)


def budget_levels(call: Call, eps: float, curve: Sequence[float] | None) -> tuple[float, ...]:
    """The budgets of the curve, eps among them, the smallest first; see `attack_request` for curve None."""
    if eps == math.inf:
        raise Refused(
            f"{call.method.name} with eps inf: robust accuracy needs a finite budget; give one, such as 8/255"
        )
    levels = {eps, *(curve or ())}
    black_box, free = "black-box" in call.method.claims, "unbounded" in call.method.claims
    if curve and free:
        raise Refused(f"{call.method.name} keeps no budget, so it has no curve: leave curve out (--curve)")
    if min(levels) == 0:
        raise Refused("eps must be above 0, because within eps 0 nothing can be changed: give a budget such as 8/255")
    if black_box and "minimal" in call.method.claims and max(levels) > eps:
        raise Refused(f"{call.method.name} runs once, within eps: give the largest budget of curve as eps (--eps)")
    for level in levels:
        budgeted(call, level)
    if curve is None and not black_box and not free:
        levels |= {eps / 8, eps / 4, eps / 2}
    return tuple(sorted(levels))


def attack_pictures(
    model: Classifier,
    data: Pictures,
    request: AttackRequest,
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
    """Attack pictures -> a Report of how many stay right; each adversarial picture is a PNG in folder/attacked.

    floor: the share that should stay right.  pictures: maximum number of pictures, drawn by seed; 0 for all.
    explainer: the method of the maps before and after.  budget: time in seconds.
    """
    began = time.monotonic()
    case = Case(
        model, with_unique_names(data), seed=seed, budget=budget, method=explainer, progress=progress,
        model_words=model_words, data_words=data_words,
    )  # fmt: skip
    case.doing = "attacking"
    if budget:
        case.clock.deadline = began + budget
    rows = case.sample(range(len(case.pictures)), pictures or len(case.pictures))
    sweep = run_sweep(
        case, request.call, request.eps, request.levels, rows=rows, target=request.target, other=request.other,
        access=request.access, digits=request.digits, folder=folder,
    )  # fmt: skip
    _write_patch(case, request, sweep, folder)
    finding = _finding(case, request, sweep, len(rows), floor, command)
    mend = mend_by_attacks(request.call, request.eps) if finding.verdict == "fail" else ""
    finding = replace(
        finding,
        check=str(request.call),
        summary=request.call.method.summary,
        paper=request.call.method.paper,
        seconds=round(time.monotonic() - began, 3),
        command=command,
        mend=mending_command(case.commands, request.call, mend) if mend else "",
    )
    whole = make(case, [finding], seconds=time.monotonic() - began, command=command)
    return AttackReport(whole.facts, whole.findings)


def _write_patch(case: Case, request: AttackRequest, sweep: AttackSweep, folder: Path) -> None:
    """Write the patch as a file to print.  It is learned again, with the same result."""
    if request.call.method.name != "patch" or not sweep.lesson_rows:
        return
    lessons = case.pixels(sweep.lesson_rows)
    goal = goal_of(case, sweep.lesson_rows, request.target)
    patch = learned_patch(case.model, lessons, goal, seed=case.seed, **request.call.options)
    shape = request.call.options.get("shape", request.call.method.options["shape"].default)
    printable(patch, folder / "patch.png", shape=shape)


def with_unique_names(data: Pictures) -> Pictures:
    """Give each picture a name that no other has."""
    names = [p.name for p in data.pictures]
    if len({*names}) == len(names):
        return data
    return replace(data, pictures=tuple(replace(p, name=str(p.path)) for p in data.pictures))


# In numbers -----------------------------------------------------------------------------------------------------------


def _finding(
    case: Case, request: AttackRequest, sweep: AttackSweep, planned: int, floor: float, command: str
) -> Finding:
    n = len(sweep.rows)
    evidence, maps_note = _evidence(case, request, sweep, command)
    blank = sum(not bool(case.truth[i].any()) for i in sweep.rows)
    before = n - len(sweep.already)
    if request.target is None:
        k, of, quantity = len(sweep.standing(request.eps)), n, "right answers under attack"
        interval = wilson(k, of)
        stay = f"{k} of {counted(n, 'picture')} {'stay' if n > 1 else 'stays'} right, {share(k / of)}"
        if not before:
            return Finding(
                "note", f"None of {counted(n, 'picture')} is right without an attack: there is nothing to attack."
            )
        headline = (
            f"Under {request.in_words}, {stay} ({span(interval, of)}), of {share(before / n)} that are right without "
            "an attack."
        )
        if fallen_earlier := [
            i for i in sweep.standing(request.eps) if i in sweep.adversarial and sweep.adversarial[i].eps < request.eps
        ]:
            fall = "fall" if len(fallen_earlier) > 1 else "falls"
            headline += f" {len(fallen_earlier)} of these {fall} at a smaller budget."
        verdict = judge(interval, floor=floor)
    else:
        name = case.model.name(request.target)
        if not before:
            return Finding(
                "note",
                f"The model classifies all {counted(n, 'picture')} as {name} without an attack: nothing to attack.",
            )
        k, of, quantity = before - len(sweep.standing(request.eps)), before, f"made to say {name}"
        interval = wilson(k, of)
        headline = (
            f"Under {request.in_words}, the model classifies {k} of {counted(of, 'picture')} as {name}, "
            f"{share(k / of)} ({span(interval, of)})."
        )
        verdict = judge(interval, ceiling=1 - floor)
    return Finding(
        verdict,
        headline,
        quantity=quantity,
        value=k / of,
        interval=interval,
        n=of,
        has_bar=True,
        notes=(*_notes(case, request, sweep, floor, blank), maps_note, *_note_unfinished(sweep, planned)),
        tables=(
            *_budget_table(request, sweep),
            *_query_table(sweep),
            *table("By class", _class_rows(case, request, sweep) if request.target is None else []),
            *table(
                "By picture, the easiest first",
                [_picture_row(case, request, sweep, i) for i in _order_rows(case, sweep)],
            ),
        ),
        figures=(*_budget_curve(request, sweep), *_query_curve(sweep)),
        evidence=evidence,
    )


def _notes(case: Case, request: AttackRequest, sweep: AttackSweep, floor: float, blank: int) -> tuple[str, ...]:
    stored = [sweep.adversarial[i] for i in sweep.fooled(request.eps) if sweep.adversarial[i].file is not None]
    survive, opened = sum(bool(f.bits) for f in stored), sum(bool(f.opened) for f in stored)
    attempted = max(len(sweep.rows) - len(sweep.already), 1)
    bar = f"at least {share(floor)} right" if request.target is None else f"at most {share(1 - floor)} made to say it"
    notes = [f"Asked for: {bar} (option floor). A failed attack proves nothing: other attacks may find more."]
    if stored:
        notes.append(
            f"{survive} of {counted(len(stored), 'adversarial picture')} still {'fools' if survive == 1 else 'fool'} "
            f"the model as 8-bit PNG, read back from the file, and {opened} when that file is opened like any other "
            "picture, resized and cropped again."
        )
    if request.bounded:
        if "minimal" in request.call.method.claims and sweep.adversarial:
            needed = sorted(f.eps for f in sweep.adversarial.values())
            notes.append(
                f"The smallest change found has a median of {word(statistics.median(needed))}, from {word(needed[0])} "
                f"to {word(needed[-1])} ({counted(len(needed), 'picture')})."
            )
        notes.append(f"Budgets are in {request.norm.upper() if request.norm == 'l2' else 'Linf'}, of pixels in [0, 1].")
    if sweep.spent:
        answers = "" if request.access == "logits" else f" that answers with {request.access}"
        if answers and request.digits:
            answers += f" of {request.digits} digits"
        paid = sum(sweep.spent.values()) / len(sweep.spent)
        notes.append(
            f"A black box{answers}: the attack paid {paid:.0f} queries for a picture, "
            f"{max(sweep.spent.values())} at most."
        )
    else:
        notes.append(
            f"The attack took {sweep.queries / attempted:.0f} passes forward and {sweep.backwards / attempted:.0f} "
            "back for each picture, over all budgets."
        )
    if sweep.start_rows:
        notes.append(
            f"The attack could begin at {counted(len(sweep.start_rows), 'picture')} of the data, the nearest first."
        )
    if sweep.lesson_rows:
        shared = bool({*sweep.lesson_rows} & {*sweep.rows})
        which = "the attacked ones themselves, too few to divide" if shared else "others than the attacked ones"
        notes.append(f"The attack learned from {counted(len(sweep.lesson_rows), 'picture')}, {which}.")
    if sweep.lesson_rows and request.call.method.name == "patch":
        notes.append("patch.png beside this report is the patch to print: 10 cm wide at 300 dots per inch.")
    if blank:
        notes.append(
            f"{counted(blank, 'picture has', 'pictures have')} no label: the model's own answer counts as right there."
        )
    return tuple(notes)


def _note_unfinished(sweep: AttackSweep, planned: int) -> tuple[str, ...]:
    done = len(sweep.rows) + (len({*sweep.lesson_rows} - {*sweep.rows}))
    return () if done >= planned else (f"The time budget was used up after {done} of {counted(planned, 'picture')}.",)


def _budget_table(request: AttackRequest, sweep: AttackSweep) -> tuple[Table, ...]:
    levels = request.levels
    if len(levels) < 2:
        return ()
    n = len(sweep.rows)
    rows: list[dict[str, Cell]] = []
    for eps in [0.0, *levels]:
        k = len(sweep.standing(eps))
        rows.append({"eps": word(eps), "not fooled": k, "n": n, "share": k / n, **bounds(wilson(k, n))})
    return table("By budget", rows)


def _budget_curve(request: AttackRequest, sweep: AttackSweep) -> tuple[Figure, ...]:
    """The share that is not fooled, by budget; for an attack that looks for the smallest change, a step per picture."""
    levels = list(request.levels)
    minimal = "minimal" in request.call.method.claims
    if not request.bounded or (len(levels) < 2 and not minimal):
        return ()
    n = len(sweep.rows)
    if minimal:
        levels = sorted({*levels, *(f.eps for f in sweep.adversarial.values() if f.eps <= max(levels))})
    x = [0.0, *levels]
    standing = [len(sweep.standing(e)) for e in x]
    low, high = zip(*(wilson(k, n) for k in standing), strict=True)
    ticks = [(e, word(e)) for e in [0.0, *request.levels] if e >= max(request.levels) / 4.5 or not e]
    if not minimal:  # a few budgets that double: as far apart as they are numbered
        ticks = [(k, word(e)) for k, e in enumerate(x)]
    data = charts.curves(
        x if minimal else list(range(len(x))),
        [charts.Line("not fooled", [k / n for k in standing], low, high)],
        xlabel="largest change of a pixel" if request.norm == "linf" else "length of the change (L2)",
        ylabel="right answers" if request.target is None else "not fooled",
        xticks=ticks,
    )
    shares = ", ".join(f"{share(len(sweep.standing(e)) / n)} at {word(e)}" for e in [0.0, *sorted(request.levels)])
    caption = f"Pictures that are not fooled, by budget, {counted(n, 'picture')}, with 95 % intervals."
    return (Figure("attack-curve.svg", data, caption, f"The share falls with the budget: {shares}."),)


def _query_marks(sweep: AttackSweep) -> list[int]:
    """Numbers of queries at which success is reported: 1, 2, 5, 10, ... and the last one paid."""
    most = max(sweep.spent.values(), default=0)
    steps = [k * 10**e for e in range(7) for k in (1, 2, 5)]
    return [s for s in steps if s < most] + ([most] if most else [])


def _fooled_by(sweep: AttackSweep, queries: int) -> int:
    """How many pictures are fooled within so many queries."""
    return sum(0 < f <= queries for f in sweep.first.values())


def _query_table(sweep: AttackSweep) -> tuple[Table, ...]:
    n = len(sweep.spent)
    return table(
        "Success by queries",
        [
            {
                "queries": q,
                "fooled": _fooled_by(sweep, q),
                "n": n,
                "share": _fooled_by(sweep, q) / n,
                **bounds(wilson(_fooled_by(sweep, q), n)),
            }
            for q in _query_marks(sweep)
        ],
    )


def _query_curve(sweep: AttackSweep) -> tuple[Figure, ...]:
    marks, n = _query_marks(sweep), len(sweep.spent)
    if len(marks) < 2:
        return ()
    hits = [_fooled_by(sweep, q) for q in marks]
    low, high = zip(*(wilson(k, n) for k in hits), strict=True)
    data = charts.curves(
        [math.log10(q) for q in marks],
        [charts.Line("fooled", [k / n for k in hits], low, high)],
        xlabel="queries paid for a picture",
        ylabel="fooled within the budget",
        xticks=[(math.log10(q), str(q)) for q in marks if str(q)[0] == "1" or q == marks[-1]],
    )
    shares = ", ".join(f"{share(k / n)} by {q}" for k, q in zip(hits, marks, strict=True))
    return (
        Figure(
            "attack-queries.svg",
            data,
            f"Success against queries, {counted(n, 'picture')}.",
            f"The share rises: {shares}.",
        ),
    )


def _class_rows(case: Case, request: AttackRequest, sweep: AttackSweep) -> list[dict[str, Cell]]:
    """A row for each class; the class of a picture is its first acceptable one."""
    class_of = {i: int(acceptable(case, [i])[0].float().argmax()) for i in sweep.rows}
    standing = {*sweep.standing(request.eps)}
    rows: list[dict[str, Cell]] = []
    for k in sorted({*class_of.values()}):
        of_class = [i for i in sweep.rows if class_of[i] == k]
        stay = sum(i in standing for i in of_class)
        rows.append(
            {
                "class": case.model.name(k),
                "n": len(of_class),
                "right before": sum(i not in sweep.already for i in of_class),
                "right under attack": stay,
                "share": stay / len(of_class),
                **bounds(wilson(stay, len(of_class))),
            }
        )
    return sorted(rows, key=lambda r: (float(r["share"] or 0), str(r["class"])))


def _order_rows(case: Case, sweep: AttackSweep) -> list[int]:
    """Rows fooled by the smallest change first, then those that stand, then those that met the goal before."""
    fooled = sorted(sweep.adversarial, key=lambda i: (sweep.adversarial[i].eps, sweep.adversarial[i].distance, i))
    others = [i for i in sweep.rows if i not in sweep.adversarial]
    return [*fooled, *sorted(others, key=lambda i: (i in sweep.already, case.pictures[i].name))]


def _picture_row(case: Case, request: AttackRequest, sweep: AttackSweep, i: int) -> dict[str, Cell]:
    f = sweep.adversarial.get(i)
    state = "fooled" if i in sweep.fooled(request.eps) else "stands"
    if i in sweep.already:
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
    if sweep.spent:
        row["queries"] = sweep.first.get(i) or None
    row["file"] = None if f is None or f.file is None else f"attacked/{f.file.name}"
    return row


# In pictures ----------------------------------------------------------------------------------------------------------


def _evidence(case: Case, request: AttackRequest, sweep: AttackSweep, command: str) -> tuple[tuple[Evidence, ...], str]:
    """The pictures that fell first, before and after, and a note on the maps beside them."""
    note = f"Maps before and after: {case.method}, for the top class of each; no map was tested."
    rows = [i for i in _order_rows(case, sweep) if i in sweep.fooled(request.eps)][:EVIDENCE]
    if not rows:
        return (), note
    attacked = torch.stack([sweep.adversarial[i].x for i in rows])
    clean = case.pixels(rows)
    logits = torch.stack([sweep.adversarial[i].logits for i in rows])
    maps: list[tuple[Tensor, Tensor] | None]
    try:
        after = explain(case.model, attacked, case.method, ClassScore(logits.argmax(1)), seed=case.seed).maps
        maps = list(zip(case.maps(rows, clean), after, strict=True))
    except NoGradient as e:  # a black box needs none, and is shown without maps
        maps, note = [None] * len(rows), f"No maps before and after: {e}."
    # An attack that rests on other pictures cannot be repeated on one alone: then the whole command is quoted
    whole = command if sweep.lesson_rows or sweep.start_rows else ""
    pairs = [_draw_pair(case, request, sweep, i, k + 1, clean[k], maps[k], whole) for k, i in enumerate(rows)]
    return tuple(pairs), note


def _draw_pair(
    case: Case,
    request: AttackRequest,
    sweep: AttackSweep,
    i: int,
    k: int,
    clean: Tensor,
    maps: tuple[Tensor, Tensor] | None,
    whole: str,
) -> Evidence:
    """Draw the picture before and after, with the two maps and the change magnified."""
    adversarial = sweep.adversarial[i]
    moved = float(distance((adversarial.x - clean)[None], "linf"))
    times = max(1.0, min(0.5 / max(moved, 1e-6), 127.0))
    facts = _picture_row(case, request, sweep, i) | {"probability before": float(case.logits[i].softmax(0).max())}
    caption = [
        f"{facts['said']} ({share(float(facts['probability before'] or 0))})",
        f"attacked at {word(adversarial.shown_eps)}, {facts['says now']} ({share(float(facts['probability'] or 0))})",
    ]
    images = [photo(clean), photo(adversarial.x)]
    if maps is not None:
        before, after = maps
        correlation = spearman(before.double().numpy(), after.double().numpy())
        facts["rank correlation of the maps"] = correlation
        caption = [caption[0] + " and its map", f"{caption[1]} and its map, rank correlation {show(correlation, '')}"]
        images.insert(1, overlay(clean, before, signed=case.signed))
        images.append(overlay(adversarial.x, after, signed=case.signed))
    image = strip([*images, magnified_difference(clean, adversarial.x, times)])
    caption.append(f"the change, {times:.0f} times")
    again = whole or case.commands.of_picture("attack", case.pictures[i], *_command_options(case, request))
    words = "; ".join(caption)
    return shown(case, i, f"attack-{k}", image, words, facts, again, "none" if maps is None else "colour")


def _command_options(case: Case, request: AttackRequest) -> list[str]:
    """The options that the user gave, as typed on the command line."""
    values = {
        "-a": str(request.call),
        "--eps": word(request.eps) if request.bounded else None,
        "--target": None if request.target is None else case.model.name(request.target),
        "--access": None if request.access == "logits" else request.access,
        "--digits": None if request.digits is None else str(request.digits),
        "--other": None if request.other is None else request.other.source,
        "-m": None if case.method_words == "auto" else case.method_words,
    }
    return [w for option, value in values.items() if value is not None for w in (option, value)]
