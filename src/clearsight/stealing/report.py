"""`clearsight steal`: a theft of a model, of one's own, as a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from clearsight.auditing.assemble import make
from clearsight.auditing.case import Case
from clearsight.auditing.evidence import shown
from clearsight.core.catalogue import Call, parse, split_calls
from clearsight.core.classifier import Classifier
from clearsight.core.progress import Progress
from clearsight.core.text import counted
from clearsight.data.datasets import Pictures
from clearsight.drawing.heatmaps import magnified_difference, photo, strip
from clearsight.errors import Refused
from clearsight.reporting.facts import ModelFacts
from clearsight.reporting.findings import Evidence, Finding
from clearsight.reporting.report import Report
from clearsight.runner.answer import answer_defences
from clearsight.stealing.clone import Lesson, new_clone
from clearsight.stealing.findings import frontier_finding, maps_finding, theft_finding, transfer_finding
from clearsight.stealing.frontier import frontier
from clearsight.stealing.maps import MapLeak, map_leak
from clearsight.stealing.oracle import Oracle, check_access
from clearsight.stealing.pool import Loot, exam_of, loot_of
from clearsight.stealing.theft import Exam, Stolen, adapted, steal
from clearsight.stealing.transfer import Transfer, transfer
from clearsight.stealing.victim import Victim

EVIDENCE = 4
CEILING = 0.8  # of the pictures on which a clone may agree


class StealReport(Report):
    """A Report on a theft: its first sentence is the theft's, its second that of the defences."""

    kind = "theft"

    @property
    def verdict(self) -> str:
        return self.findings[0].headline

    @property
    def opening(self) -> tuple[str, ...]:
        return tuple(f.headline for f in self.findings[:2])

    @property
    def sheet(self) -> tuple[Finding, ...]:
        return self.findings


@dataclass(frozen=True)
class StealRequest:
    """What the user wants of a theft, checked.

    thief: how pictures are chosen.  budget: answers in all; rounds: of questions, each with twice the answers of the
    one before.  access, digits: what an answer tells.  defences: chains of answer defences, each judged by itself.
    attack, eps: what the clone is attacked with.  leaks: maps that are told with the answers, undefended ones first.
    """

    thief: Call
    budget: int
    rounds: int
    access: str
    digits: int | None
    defences: tuple[tuple[Call, ...], ...]
    attack: str
    eps: float | None
    leaks: tuple[MapLeak, ...]
    lesson: Lesson
    ceiling: float


def steal_request(
    thief: str = "knockoff",
    *,
    budget: int = 1000,
    rounds: int = 4,
    access: str = "probs",
    digits: int | None = None,
    defences: Sequence[str] = (),
    attack: str = "pgd",
    eps: float | None = None,
    maps: str | None = None,
    map_cells: int = 4,
    map_levels: int = 4,
    arch: str = "auto",
    steps: int = Lesson.steps,
    ceiling: float = CEILING,
) -> StealRequest:
    """Check everything that the user wants of a theft, before any work.

    defences: spellings, each of one defence, or of several with commas between them that stand one behind the other.
    maps: an explainer whose maps are told with the answers; map_cells and map_levels say how coarse and how rounded the
    defended ones are.
    """
    call = parse(thief, "thieves")
    if call.method.validate is not None:
        call.method.validate(**{n: p.default for n, p in call.method.options.items()} | call.options)
    check_access(access, digits)
    if budget < 2 ** (rounds - 1) or rounds < 1:
        raise Refused(
            f"{counted(budget, 'answer')} in {counted(rounds, 'round')}",
            "give a larger budget (--budget), or fewer rounds (--rounds)",
        )
    if not 0 <= ceiling <= 1:
        raise Refused(f"ceiling {ceiling:g}", "give a share from 0 to 1")
    leaks: tuple[MapLeak, ...] = ()
    if maps is not None:
        cells, levels = map_leak(maps, cells=map_cells), map_leak(maps, levels=map_levels)
        leaks = (map_leak(maps), cells, levels)
    chains = tuple(answer_defences(split_calls(words)) for words in defences)
    parse(attack, "attacks")
    return StealRequest(
        call, budget, rounds, access, digits, chains, attack, eps, leaks, Lesson(arch=arch, steps=steps), ceiling
    )


def steal_pictures(
    victim: Victim,
    pool: Pictures,
    test: Pictures | None,
    request: StealRequest,
    *,
    seed: int = 0,
    seconds: float | None = None,
    command: str = "",
    model_words: Sequence[str] = (),
    data_words: Sequence[str] = (),
    progress: Progress | None = None,
) -> StealReport:
    """Steal a victim with pictures of one's own -> a Report.

    Args:
        victim: the model, or a served one.
        pool: pictures that a thief asks about.
        test: pictures on which clones are judged; None to keep a fifth of the pool for that, at most 1000.
        request: the theft.
        seed: of all randomness.
        seconds: time after which no further defence is judged.
    """
    began = time.monotonic()
    shell = victim.model
    if shell is None:  # of a served model only the size of its pictures is known
        shell = replace(new_clone(request.lesson, victim.preprocess, victim.labels, seed), source=victim.source)
    case, loot, exam = _open(shell, victim, pool, test, request, seed, model_words, data_words, progress)
    oracle = Oracle(victim, request.budget, request.access, request.digits, accounts=victim.keys)

    def is_late() -> bool:
        return seconds is not None and time.monotonic() - began > seconds

    command = command or case.commands.of("steal", "--pool", str(pool.root))
    stolen = steal(
        oracle, request.thief, loot.x, exam, lesson=request.lesson, rounds=request.rounds, seed=seed, progress=progress
    )
    findings = [_theft(stolen, request, loot, exam)]
    if request.defences:
        judged = frontier(
            adapted(oracle, "plain"), request.thief, loot.x, exam, request.defences, lesson=request.lesson,
            rounds=request.rounds, seed=seed, first=stolen, progress=progress, is_late=is_late,
        )  # fmt: skip
        findings.append(frontier_finding(judged, ceiling=request.ceiling, planned=len(request.defences)))
    if request.leaks:
        findings.append(maps_finding(stolen, _with_maps(oracle, request, loot.x, exam, seed)))
    moved = transfer(victim, stolen.clone, exam, request.attack, request.eps, seed=seed)
    findings.append(replace(transfer_finding(moved), evidence=_evidence(case, loot, moved, command)))
    names = ["theft", *(["defences"] if request.defences else []), *(["maps"] if request.leaks else []), "transfer"]
    papers = {"theft": request.thief.method.paper, "transfer": "arXiv:1602.02697"}
    named = [
        replace(f, check=name, summary=_SUMMARIES[name], paper=papers.get(name, ""), command=command)
        for name, f in zip(names, findings, strict=True)
    ]
    whole = make(case, named, seconds=time.monotonic() - began, command=command)
    facts = whole.facts
    if victim.model is None:
        unknown = ModelFacts(victim.source, "", "served, unknown", 0, len(victim.labels), victim.preprocess)
        facts = replace(facts, model=unknown)
    return StealReport(facts, whole.findings)


_SUMMARIES = {
    "theft": "How much of the model does a thief have who may ask it so often?",
    "defences": "What do defences of its answers leave to a thief who adapts, and what do they cost the honest?",
    "maps": "How much cheaper does theft become where maps are told with the answers?",
    "transfer": "Do attacks on the clone fool the model?",
}


def _open(
    shell: Classifier,
    victim: Victim,
    pool: Pictures,
    test: Pictures | None,
    request: StealRequest,
    seed: int,
    model_words: Sequence[str],
    data_words: Sequence[str],
    progress: Progress | None,
) -> tuple[Case, Loot, Exam]:
    """The pictures on which clones are judged as a case, those of the thief, and the exam."""
    loot = loot_of(shell, pool, test, seed=seed)
    case = Case(
        shell, loot.kept, seed=seed, model_words=model_words, data_words=data_words,
        progress=progress,
    )  # fmt: skip
    case.doing = "stealing"
    exam = exam_of(case, victim)
    if len(loot.x) < request.rounds:
        raise Refused(f"the pool has {counted(len(loot.x), 'picture')} that can be read", "give more (--pool)")
    return case, loot, exam


def _theft(stolen: Stolen, request: StealRequest, loot: Loot, exam: Exam) -> Finding:
    access = request.access if request.digits is None else f"{request.access} of {request.digits} digits"
    notes = [
        f"The thief's pool has {counted(len(loot.x), 'picture')}; the clone is {stolen.clone.source}, trained anew on "
        f"all answers after each round (at least {request.lesson.steps} steps).",
        f"Agreement is on {counted(len(exam.x), 'picture')} that the thief does not ask about; asking the model about "
        "these is not of the budget.",
        *loot.notes,
    ]
    if not bool(exam.labelled.any()):
        notes.append("None of these pictures has a label that the model knows, so nothing is said of accuracy.")
    return theft_finding(stolen, thief=request.thief.method.name, access=access, ceiling=request.ceiling, notes=notes)


def _with_maps(oracle: Oracle, request: StealRequest, pool: Tensor, exam: Exam, seed: int) -> list[tuple[str, Stolen]]:
    """The theft again, with the maps of each leak."""
    return [
        (
            str(leak),
            steal(
                adapted(oracle, "plain"), request.thief, pool, exam, lesson=request.lesson, rounds=request.rounds,
                leak=leak, seed=seed,
            ),
        )
        for leak in request.leaks
    ]  # fmt: skip


def _evidence(case: Case, loot: Loot, moved: Transfer, command: str) -> tuple[Evidence, ...]:
    """Pictures that were attacked on the clone and fool the model, with the change many times as large."""
    found = []
    for k, row in enumerate(moved.rows[:EVIDENCE]):
        before, after = (case.model.name(said[k]) for said in (moved.before, moved.after))
        factor = max(1, int(0.5 / max(moved.eps, 1e-3))) if moved.eps < 1 else 1
        change = magnified_difference(moved.clean[k], moved.attacked[k], factor)
        image = strip([photo(moved.clean[k]), photo(moved.attacked[k]), change])
        caption = f"attacked on the clone: the model says {before}, then {after}; right: the change, {factor} times"
        facts = {"picture": case.pictures[row].name, "said": before, "says now": after}
        found.append(shown(case, row, f"clone-attack-{k + 1}", image, caption, dict(facts), command))
    return tuple(found)
