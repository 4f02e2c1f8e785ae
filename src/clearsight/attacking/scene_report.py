"""`attack` on a detector or a segmenter: its score over budgets, the fate of every object, and the worst pictures."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata

from PIL import Image
from torch import Tensor

from clearsight.attacking.report import FLOOR, USUAL, AttackReport, budget_levels
from clearsight.attacking.scene_sweep import SceneOutcome, sweep_scenes
from clearsight.attacking.scenes import Aim, Scenes, goal_of_scenes, truth_of
from clearsight.auditing.assemble import environment, model_facts
from clearsight.auditing.evidence import bounds, share, span, table
from clearsight.core.catalogue import Call, parse
from clearsight.core.norms import norm_of, word
from clearsight.core.statistics import judge
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.box_picture import BLUE, ORANGE, BoxGroup, box_picture
from clearsight.drawing.heatmaps import overlay, photo, png, strip
from clearsight.kinds.attack_outcomes import FATES
from clearsight.kinds.box_goals import Objects
from clearsight.kinds.detector import Detector
from clearsight.kinds.region_goals import UNJUDGED
from clearsight.kinds.segmenter import Segmenter
from clearsight.reporting.facts import DataFacts, RunFacts
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding
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
    score_floor: float = 0.5,
    floor: float = FLOOR,
    seed: int = 0,
    batch: int | None = None,
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
        score_floor: score above which a box counts as found.
        floor: the AP50 or mean IoU that should be left.
        seed: start of all randomness.
        batch: maximum number of pictures that go through the network at once.
        command: command that makes the report again.

    Refused: goals and truth of the other kind of model, and what the attack refuses.
    """
    began = time.monotonic()
    call, eps = budgeted(parse(method, "attacks"), eps)
    levels = budget_levels(call, eps, curve)
    if "early_stop" in call.method.options and "early_stop" not in call.options:
        call = call.with_options(early_stop=False)  # the score falls further than where the goal is just met
    truth = truth_of(model, scenes, score_floor, batch)
    goal = goal_of_scenes(model, truth, aim, target, score_floor)
    outcomes = sweep_scenes(model, scenes, truth, goal, call, levels, floor=score_floor, seed=seed, batch=batch)
    kind = _Boxes(model, truth) if isinstance(truth, Objects) else _Pixels(model, truth)
    finding = _finding(kind, scenes, call, eps, outcomes, floor)
    seconds = round(time.monotonic() - began, 3)
    finding = _named(finding, call, seconds, command)
    return AttackReport(_facts(model, scenes, kind, seconds, seed, command), (finding,))


class _Boxes:
    """What the report says of a detector."""

    score, what = "AP50", "objects"

    def __init__(self, model: Detector | Segmenter, truth: Objects) -> None:
        self.model, self.truth = model, truth

    def row(self, outcome: SceneOutcome, rows: Sequence[int]) -> dict[str, Cell]:
        """The fates of the objects of some pictures, and the boxes of nothing."""
        assert outcome.fates is not None
        every = [fate for i in rows for fate in outcome.fates.of_objects[i]]
        cells: dict[str, Cell] = {"objects": len(every)}
        cells |= {fate: every.count(fate) for fate in FATES}
        return cells | {"fabricated": int(outcome.fates.fabricated[list(rows)].sum())}

    def harm(self, before: SceneOutcome, after: SceneOutcome, i: int) -> tuple[float, ...]:
        """What orders the pictures, the worst first: objects lost, then boxes that came up."""
        lost, made = (
            float(sum(self.row(o, [i])[key] * sign for o, sign in ((before, a), (after, b))))  # type: ignore[misc, operator]
            for key, a, b in (("kept", 1, -1), ("fabricated", -1, 1))
        )
        return lost, made

    def sentence(self, after: SceneOutcome) -> str:
        cells = self.row(after, range(len(after.x)))
        fabricated = int(cells["fabricated"] or 0)
        made = f", and {counted(fabricated, 'box', 'boxes')} of nothing {'is' if fabricated == 1 else 'are'} found"
        kept = f"{cells['kept']} of {counted(int(cells['objects'] or 0), 'object')} stay found"
        return kept + (made if fabricated else "")

    def drawn(self, outcome: SceneOutcome, i: int) -> Image.Image:
        """The boxes that are found, and dashed the objects that are not."""
        assert outcome.fates is not None
        name, found, boxes = self.model.name, outcome.found[i], self.truth.boxes[i][self.truth.present[i]]
        classes = self.truth.classes[i][self.truth.present[i]].tolist()
        fates = outcome.fates.of_objects[i]
        lost = [k for k, fate in enumerate(fates) if fate != "kept"]
        scores = zip(found.labels.tolist(), found.scores.tolist(), strict=True)
        groups = [
            BoxGroup("found", found.boxes, BLUE, words=[f"{name(k)} {100 * p:.0f} %" for k, p in scores]),
            BoxGroup(
                "not found",
                boxes[lost],
                ORANGE,
                dashed=True,
                words=[f"{name(classes[k])} {fates[k]}" for k in lost],
            ),
        ]
        return box_picture(outcome.x[i], groups)

    def caption(self, outcome: SceneOutcome, i: int) -> str:
        return f"{counted(len(outcome.found[i]), 'box', 'boxes')} found"

    notes = (
        "kept: a box of its class with an IoU of 0.5 or more; mislabelled: of another class; displaced: an IoU of 0.1 "
        "to 0.5; vanished: none of these; fabricated: boxes that overlap every object by less than 0.1.",
        "AP counts boxes of every score that the model reports, and so hardly falls where objects are found with lower "
        "scores or boxes of nothing with low ones; the fates count boxes above the score that an attack is for.",
    )


class _Pixels:
    """What the report says of a segmenter."""

    score, what = "mean IoU", "pixels"

    def __init__(self, model: Detector | Segmenter, truth: Tensor) -> None:
        self.model, self.truth = model, truth

    def row(self, outcome: SceneOutcome, rows: Sequence[int]) -> dict[str, Cell]:
        assert outcome.misread is not None
        return {"pixels misread": float(outcome.misread[list(rows)].mean())}

    def harm(self, before: SceneOutcome, after: SceneOutcome, i: int) -> tuple[float, ...]:
        assert before.misread is not None
        assert after.misread is not None
        return (float(after.misread[i] - before.misread[i]),)

    def sentence(self, after: SceneOutcome) -> str:
        misread = self.row(after, range(len(after.x)))["pixels misread"]
        return f"{share(float(misread or 0))} of the pixels of a picture are misread in the mean"

    def drawn(self, outcome: SceneOutcome, i: int) -> Image.Image:
        """The picture, and the pixels that are misread in ink over it."""
        assert outcome.predicted is not None
        wrong = (outcome.predicted[i] != self.truth[i]) & (self.truth[i] != UNJUDGED)
        return strip([photo(outcome.x[i]), overlay(outcome.x[i], wrong.float(), signed=False)])

    def caption(self, outcome: SceneOutcome, i: int) -> str:
        assert outcome.predicted is not None
        counts = outcome.predicted[i].flatten().bincount(minlength=len(self.model.labels))
        order = [k for k in counts.argsort(descending=True).tolist() if counts[k]][:3]
        return ", ".join(f"{self.model.name(k)} {share(float(counts[k] / counts.sum()))}" for k in order)

    notes = ("In ink: pixels that are misread.",)


def _finding(
    kind: _Boxes | _Pixels, scenes: Scenes, call: Call, eps: float, outcomes: Sequence[SceneOutcome], floor: float
) -> Finding:
    before = outcomes[0]
    after = next(o for o in outcomes if o.eps == eps)
    n, every = len(scenes.names), range(len(scenes.names))
    if after.score is None or before.score is None:
        return Finding("note", f"None of {counted(n, 'picture')} has an object: there is nothing to find.")
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
        notes=_notes(kind, scenes, call, outcomes, floor),
        tables=(*table("By budget", levels), *table("By picture, the worst first", pictures)),
        figures=_curve(kind, outcomes, n) if bounded and len(outcomes) > 2 else (),
        evidence=tuple(
            _evidence(kind, scenes, before, after, i, k + 1)
            for k, i in enumerate(order[:EVIDENCE])
            if any(v > 0 for v in kind.harm(before, after, i))
        ),
    )


def _notes(
    kind: _Boxes | _Pixels, scenes: Scenes, call: Call, outcomes: Sequence[SceneOutcome], floor: float
) -> tuple[str, ...]:
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
    notes.append(f"The attack took {passes:.0f} passes forward for each picture, over all budgets.")
    return (*notes, *kind.notes)


def _curve(kind: _Boxes | _Pixels, outcomes: Sequence[SceneOutcome], n: int) -> tuple[Figure, ...]:
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


def _evidence(
    kind: _Boxes | _Pixels, scenes: Scenes, before: SceneOutcome, after: SceneOutcome, i: int, k: int
) -> Evidence:
    """One picture before and after."""
    name = scenes.names[i]
    caption = f"before: {kind.caption(before, i)}; attacked at {word(after.eps)}: {kind.caption(after, i)}"
    image = strip([kind.drawn(before, i), kind.drawn(after, i)])
    return Evidence(
        name, Figure(f"attack-{k}.png", png(image), caption, f"{name}: {caption}"), kind.row(after, [i]), ""
    )


def _named(finding: Finding, call: Call, seconds: float, command: str) -> Finding:
    about = call.method
    return replace(finding, check=str(call), summary=about.summary, paper=about.paper, seconds=seconds, command=command)


def _facts(
    model: Detector | Segmenter, scenes: Scenes, kind: _Boxes | _Pixels, seconds: float, seed: int, command: str
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
        method="",
        model=model_facts(model),
        data=DataFacts(scenes.source, digest, n, n, n, known, known, (), (note,)),
        environment=environment(str(model.device)),
    )
