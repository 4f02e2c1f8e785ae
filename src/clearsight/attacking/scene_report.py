"""`attack` on a detector or a segmenter: its score over budgets, the fate of every object, and the worst pictures."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata

import torch

from clearsight.attacking.report import FLOOR, USUAL, AttackReport, budget_levels
from clearsight.attacking.scene_kinds import BoxReport, KindReport, PixelReport
from clearsight.attacking.scene_sweep import SceneOutcome, sweep_scenes
from clearsight.attacking.scenes import Aim, Scenes, goal_of_scenes, truth_of
from clearsight.auditing.assemble import environment, model_facts
from clearsight.auditing.evidence import bounds, share, span, table
from clearsight.core.catalogue import Call, parse
from clearsight.core.norms import norm_of, word
from clearsight.core.statistics import judge
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.heatmaps import png, strip
from clearsight.errors import Refused
from clearsight.kinds.box_goals import Objects
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter
from clearsight.reporting.facts import DataFacts, RunFacts
from clearsight.reporting.findings import Evidence, Figure, Finding
from clearsight.runner.run import budgeted

EVIDENCE = 12


def attack_scenes(
    model: Detector | Segmenter,
    scenes: Scenes,
    method: str | Call = USUAL,
    *,
    aim: Aim | None = None,
    target: str | None = None,
    eps: float | None = None,
    curve: Sequence[float] | None = None,
    access: str = "logits",
    score_floor: float = 0.5,
    floor: float = FLOOR,
    seed: int = 0,
    batch: int | None = None,
    budget: float | None = None,
    command: str = "",
) -> AttackReport:
    """Attack pictures of a detector or a segmenter -> a Report of what it still finds.

    Attacks that can go on once a picture meets the goal do so (early_stop=false), because the score falls further.  The
    report has AP at an IoU of 0.5, or mean IoU, over budgets with intervals over pictures; the fate of every object, or
    the share of misread pixels; and the worst pictures before and after.  Without truth, what the model says of the
    clean pictures counts as right, and the report says so.

    Args:
        model: a detector or a segmenter.
        scenes: the pictures, and the truth about them where it is known.
        method: the attack, with options as in "pgd(steps=40)".
        aim: "vanish", "appear", "become" or "anything" for a detector, "misread" or "become" for a segmenter; None for
            the first.
        target: class for "appear" and "become".
        eps: the main budget in pixels in [0, 1]; None for the usual one of its norm.
        curve: further budgets; None for an eighth, a quarter and a half of eps.
        access: what a black-box attack learns of the outputs: "logits" for all of them, "label" for whether the goal
            is met.
        score_floor: score above which a detector's box counts as found, at least the model's own floor, below 1.
        floor: the AP50 or mean IoU that should be left.
        seed: start of all randomness.
        batch: maximum number of pictures that go through the network at once.
        budget: time in seconds after which no further picture is attacked; None for no limit.  Pictures then come in
            an order drawn by seed.
        command: command that makes the report again.

    Refused: goals and truth of the other kind of model, an access other than these, a score floor below what the
    detector reports, and what the attack refuses.
    """
    began = time.monotonic()
    call, eps = budgeted(parse(method, "attacks"), eps)
    levels = budget_levels(call, eps, curve)
    if "early_stop" in call.method.options and "early_stop" not in call.options:
        call = call.with_options(early_stop=False)  # the score falls further than where the goal is just met
    _check_options(model, access, score_floor)
    planned, deadline = len(scenes.names), math.inf
    if budget is not None:
        deadline = began + budget
        scenes = scenes[torch.randperm(planned, generator=torch.Generator().manual_seed(seed))]
    truth = truth_of(model, scenes, score_floor, batch)
    goal = goal_of_scenes(model, truth, aim, target, score_floor)
    outcomes = sweep_scenes(
        model, scenes, truth, goal, call, levels, access=access, floor=score_floor, seed=seed, batch=batch,
        deadline=deadline,
    )  # fmt: skip
    reached = slice(len(outcomes[0].x))
    scenes, truth = scenes[reached], truth[reached]
    kind: KindReport
    if isinstance(truth, Objects):
        kind = BoxReport(model, truth, outcomes[0], score_floor)
    else:
        kind = PixelReport(model, truth)
    notes = _notes(kind, scenes, call, access, outcomes, floor, planned)
    finding = _finding(kind, scenes, call, eps, outcomes, floor, notes)
    seconds = round(time.monotonic() - began, 3)
    finding = _named(finding, call, seconds, command)
    return AttackReport(_facts(model, scenes, kind, planned, budget, seconds, seed, command), (finding,))


def _check_options(model: Detector | Segmenter, access: str, score_floor: float) -> None:
    """Refuse probabilities of one class, which only classifiers have, and a score floor below what is reported.

    Boxes below what the detector reports would count for the goal alone.
    """
    if access not in ("logits", "label"):
        raise Refused(f"access {access!r} is for classifiers, and the model is a {model.kind}", "give logits or label")
    if isinstance(model, Detector) and not model.floor <= score_floor < 1:
        raise Refused(
            f"score_floor {score_floor:g} (--score-floor): the detector reports scores above {model.floor:g} alone",
            "give one from there to below 1",
        )


def _finding(
    kind: KindReport, scenes: Scenes, call: Call, eps: float, outcomes: Sequence[SceneOutcome], floor: float,
    notes: tuple[str, ...],
) -> Finding:  # fmt: skip
    before = outcomes[0]
    after = next(o for o in outcomes if o.eps == eps)
    n, every = len(scenes.names), range(len(scenes.names))
    if after.score is None or before.score is None:
        none = f"None of {counted(n, 'picture')} has an object: there is nothing to find."
        lower = "No annotations, and no box has a score above the floor: lower it (--score-floor)."
        return Finding("note", none, notes=(lower,) if scenes.truth is None else ())
    bounded = "unbounded" not in call.method.claims
    named = f"{call.method.name} at eps {word(eps)}" if bounded else call.method.name
    headline = (
        f"Under {named}, {kind.score} is {share(after.score)} ({span(after.interval, n)}), of {share(before.score)} "
        f"without an attack: {kind.sentence(after)}."
    )
    levels = [{"eps": word(o.eps), kind.score: o.score, **bounds(o.interval), **kind.row(o, every)} for o in outcomes]
    order = sorted(every, key=lambda i: (*(-v for v in kind.harm(before, after, i)), i))
    pictures = [{"picture": scenes.names[i], **kind.row(after, [i])} for i in order]
    return Finding(
        judge(after.interval, floor=floor),
        headline,
        quantity=f"{kind.score} under attack",
        value=after.score,
        interval=after.interval,
        n=n,
        has_bar=True,
        notes=notes,
        tables=(*table("By budget", levels), *table("By picture, the worst first", pictures)),
        figures=_curve(kind, outcomes, n) if bounded and len(outcomes) > 2 else (),
        evidence=tuple(
            _evidence(kind, scenes, before, after, i, k + 1)
            for k, i in enumerate(order[:EVIDENCE])
            if any(v > 0 for v in kind.harm(before, after, i))
        ),
    )


def _notes(
    kind: KindReport, scenes: Scenes, call: Call, access: str, outcomes: Sequence[SceneOutcome], floor: float,
    planned: int,
) -> tuple[str, ...]:  # fmt: skip
    notes = [
        f"Asked for: {kind.score} of at least {share(floor)} (option floor). A failed attack proves nothing: other "
        "attacks may find more."
    ]
    if scenes.truth is None:
        notes.append(
            f"No annotations: the {kind.what} that the model finds in the clean pictures count as right, so it is "
            "right about them before the attack whatever they show."
        )
    already = int(outcomes[0].met.sum())
    if already:
        notes.append(
            f"{counted(already, 'picture meets', 'pictures meet')} the goal before any attack and "
            f"{'is' if already == 1 else 'are'} left as {'it is' if already == 1 else 'they are'}."
        )
    passes = sum(o.passes for o in outcomes)
    if "unbounded" not in call.method.claims:
        norm = norm_of(call)
        notes.append(f"Budgets are in {norm.upper() if norm == 'l2' else 'Linf'}, of pixels in [0, 1].")
    blind = ""
    if "black-box" in call.method.claims:
        blind = f" of a black box that tells {'its outputs' if access == 'logits' else 'only whether the goal is met'}"
    notes.append(f"The attack took {passes:.0f} passes forward{blind} for each picture, over all budgets.")
    if planned > len(scenes.names):
        notes.append(
            f"The time was up after {len(scenes.names)} of {counted(planned, 'picture')}, in an order drawn by seed."
        )
    return (*notes, *kind.notes, "Of each picture under Evidence the clean one stands above the attacked one.")


def _curve(kind: KindReport, outcomes: Sequence[SceneOutcome], n: int) -> tuple[Figure, ...]:
    values = [o.score or 0.0 for o in outcomes]
    intervals = [o.interval for o in outcomes]
    known = [i for i in intervals if i is not None]
    whole = len(known) == len(intervals)
    low, high = ([v[side] for v in known] if whole else None for side in (0, 1))
    data = charts.curves(
        list(range(len(outcomes))),  # budgets that double: as far apart as they are numbered
        [charts.Line(kind.score, values, low, high)],
        xlabel="budget",
        ylabel=kind.score,
        xticks=[(k, word(o.eps)) for k, o in enumerate(outcomes)],
    )
    words = ", ".join(f"{share(v)} at {word(o.eps)}" for v, o in zip(values, outcomes, strict=True))
    with_band = ", with 95 % intervals over pictures" if whole else ""
    caption = f"{kind.score} by budget, {counted(n, 'picture')}{with_band}."
    return (Figure("attack-curve.svg", data, caption, f"{kind.score} by budget: {words}."),)


def _evidence(kind: KindReport, scenes: Scenes, before: SceneOutcome, after: SceneOutcome, i: int, k: int) -> Evidence:
    """One picture before and after."""
    name = scenes.names[i]
    caption = f"before: {kind.caption(before, i)}; attacked at {word(after.eps)}: {kind.caption(after, i)}"
    image = strip([kind.drawn(before, i), kind.drawn(after, i)], down=True)
    return Evidence(
        name, Figure(f"attack-{k}.png", png(image), caption, f"{name}: {caption}"), kind.row(after, [i]), ""
    )


def _named(finding: Finding, call: Call, seconds: float, command: str) -> Finding:
    about = call.method
    return replace(finding, check=str(call), summary=about.summary, paper=about.paper, seconds=seconds, command=command)


def _facts(
    model: Detector | Segmenter,
    scenes: Scenes,
    kind: KindReport,
    planned: int,
    budget: float | None,
    seconds: float,
    seed: int,
    command: str,
) -> RunFacts:
    n = len(scenes.names)
    known = 0 if scenes.truth is None else n
    note = f"The truth is that of {kind.what}." if known else "The pictures have no annotations."
    digest = hashlib.sha256(scenes.x.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
    return RunFacts(
        clearsight=metadata.version("clearsight"),
        command=command,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 2),
        seed=seed,
        budget=budget,
        method="",
        model=model_facts(model),
        data=DataFacts(scenes.source, digest, planned, n, n, known, known, (), (note,)),
        environment=environment(str(model.device)),
    )
