"""Athalye, Carlini & Wagner 2018, arXiv:1802.00420: attacks through what hides the gradient (BPDA, section 4.1)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, note_on_budget, note_on_sample, share, shown, span, table
from clearsight.auditing.goals import acceptable
from clearsight.auditing.mending import mend_by_attacks
from clearsight.core.catalogue import Call, method, parse, split_calls
from clearsight.core.classifier import Classifier
from clearsight.core.norms import word
from clearsight.core.passes import counted as passes_counted
from clearsight.core.statistics import judge, wilson
from clearsight.core.targets import Misclassify
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.heatmaps import magnified_difference, photo, strip
from clearsight.errors import Notice, Refused
from clearsight.internals.scores import scores_of
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding, Table
from clearsight.runner.purify import purified, purify
from clearsight.runner.run import attack as run_attack
from clearsight.runner.run import budgeted, needs_other

_EVIDENCE = 8


@dataclass
class _Answers:
    """Which pictures are answered right by one network: rows of the case.

    clean: without an attack.  grey: attacked on the network without a purifier.  through: attacked on this one.
    """

    clean: set[int] = field(default_factory=set)
    grey: set[int] = field(default_factory=set)
    through: set[int] = field(default_factory=set)

    @property
    def both(self) -> set[int]:
        """Right under either attack."""
        return self.grey & self.through

    @property
    def undone(self) -> set[int]:
        """Right while the attack does not know the purifier, and wrong once it does."""
        return self.grey - self.through


@dataclass
class _Trials:
    """What became of the pictures that were attacked, with no purifier and with each one.

    pixels: by purifier and row, what the attack through it made of the clean picture, and its new class.  passes: of
    pictures forward and back, through the network with and without a purifier.
    """

    done: list[int] = field(default_factory=list)
    undefended: _Answers = field(default_factory=_Answers)
    defended: dict[str, _Answers] = field(default_factory=dict)
    pixels: dict[tuple[str, int], tuple[Tensor, Tensor, int]] = field(default_factory=dict)
    passes: int = 0

    def worst_first(self) -> list[str]:
        """The purifiers, the one of which most is undone first."""
        return sorted(self.defended, key=lambda name: (-len(self.defended[name].undone), name))


def _validate(case: Case, *, purifiers: str, attack: str, eps: float, ceiling: float, **others: object) -> None:
    for call in _purifier_calls(purifiers):
        purified(case.model, call)
    _attack_call(attack, eps)
    if not 0 <= ceiling <= 1:
        raise Refused(f"purification(ceiling={ceiling:g}): a share from 0 to 1")


@method(
    paper="arXiv:1802.00420",
    claims="by-name",
    order=8,
    validate=_validate,
    advice="do not count a purifier as a defence, and train on attacked pictures instead",
)
def purification(
    case: Case,
    *,
    purifiers: str = "jpeg, bit-depth-reduction, median, total-variation",
    attack: str = "pgd",
    eps: float = 4 / 255,
    ceiling: float = 0.1,
    pictures: int = 50,
) -> Finding:
    """Do answers on purified pictures stay right when the attack knows of the purifier?

    A purifier changes every picture before the network sees it.  It is prone to gradient masking: what it does has no
    useful gradient, so an attack that does not know of it fails, and the network seems robust.  The same attack is run
    twice: on the network alone, whose attacked pictures are then purified (grey box), and through the purifier, whose
    way back is taken to be the identity (BPDA).  One table for each purifier holds both, beside the answers without an
    attack.  Where no picture has a label, the network's own answer on the unpurified picture counts as right.

    Value: the share of pictures that are right under the grey box and wrong under the attack through the purifier, 0 to
    1, with the Wilson interval, of the purifier with the largest.  It costs two attacks for each picture and more for
    each purifier, so it only runs when it is named.

    pass: the whole interval lies at or below ceiling.  fail: all of it lies above.  warn: else.  A purifier that helps
    against no attack passes as well: the tables say how many answers stay right.

    Args:
        purifiers: names of purifiers with commas between them, with options as in "jpeg(quality=75), median".
        attack: name of the attack, with options as in "pgd(steps=40)".  It goes on after the first success.
        eps: budget in pixels in [0, 1], in the norm of the attack; that of its spelling goes before.
        ceiling: share of answers that the attack through a purifier may undo, 0 to 1.
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: unknown purifiers and attacks, a purifier that is named twice, attacks that need other models or learn from
    other pictures, options outside their ranges, and models of anything but pictures with 1 or 3 channels.

    Source: Athalye et al. 2018, section 4.1; the purifiers are those of Guo et al. 2018 and Xu et al. 2018.
    """
    calls, (attack_call, budget) = _purifier_calls(purifiers), _attack_call(attack, eps)
    candidates = case.labelled or list(range(len(case.pictures)))
    rows = case.sample(candidates, pictures)
    models = {str(call): purified(case.model, call) for call in calls}
    trials = _Trials(defended={name: _Answers() for name in models})
    with case.model.undisturbed():
        for part, x in case.batches(rows):
            _try_attack(case, part, x, attack_call, budget, models, trials)
    n, worst = len(trials.done), trials.worst_first()[0]
    answers = trials.defended[worst]
    undone, interval = len(answers.undone), wilson(len(answers.undone), n)
    at = f"{attack_call.method.name} at {word(budget)}"
    return Finding(
        judge(interval, ceiling=ceiling),
        f"Behind {worst}, {share(len(answers.grey) / n)} of the answers stay right under {at} that does not know the "
        f"purifier, and {share(len(answers.through) / n)} under the same attack through it: {undone} of "
        f"{counted(n, 'answer')} are undone, {share(undone / n)} ({span(interval, n)}).",
        quantity="undone by the attack through it",
        value=undone / n,
        interval=interval,
        n=n,
        has_bar=True,
        notes=(
            f"Asked for: at most {share(ceiling)} undone (option ceiling), of each purifier.",
            "Purification is prone to gradient masking: what stays right under the grey box is no sign of robustness.",
            "Through the purifier the gradient is taken as that of the identity (BPDA); an attack that fits the "
            "purifier better, or needs no gradient (attack=square), may undo more.",
            _note_on_network(case, trials),
            f"The attack is {attack_call} at {word(budget)} (options attack and eps); it took "
            f"{trials.passes / n:.0f} passes a picture.",
            *note_on_sample(case, len(rows), len(candidates)),
            *note_on_budget(case, n, len(rows)),
        ),
        tables=_tables(trials, attack_call, n),
        figures=(_figure(trials, n),),
        evidence=_evidence(case, trials, attack_call, budget),
        mend=mend_by_attacks(attack_call, budget),
    )


def _purifier_calls(words: str) -> list[Call]:
    """The purifiers that words name, each once."""
    calls = [parse(part, "purifiers") for part in split_calls(words)]
    if not calls or len({str(c) for c in calls}) < len(calls):
        raise Refused(f'purification(purifiers="{words}"): names, each once, such as "jpeg(quality=75), median"')
    return calls


def _attack_call(words: str, eps: float) -> tuple[Call, float]:
    """The attack and its budget.  It goes on after its first success, which carries over better to other networks."""
    call = parse(words, "attacks")
    needs_other(call, None)
    if "lessons" in call.method.injected:
        raise Refused(f"{call.method.name} learns from other pictures: give an attack on each picture, such as pgd")
    if "early_stop" in call.method.options and "early_stop" not in call.options:
        call = call.with_options(early_stop=False)
    return budgeted(call, None if "eps" in call.options else eps)


def _try_attack(
    case: Case, rows: list[int], x: Tensor, call: Call, eps: float, models: dict[str, Classifier], trials: _Trials
) -> None:
    """Attack pictures x (B, C, *S) of the rows without a purifier and through each one, and record what stays right."""
    goal = Misclassify(acceptable(case, rows))

    def right(model: Classifier, z: Tensor) -> set[int]:
        return {i for i, wrong in zip(rows, goal.met(scores_of(model, z)).tolist(), strict=True) if not wrong}

    trials.done += rows
    with passes_counted(case.model.net) as spent:
        alone = run_attack(case.model, x, goal, call, eps=eps, seed=case.seed).x
        trials.undefended.clean |= right(case.model, x)
        trials.undefended.through |= right(case.model, alone)
    trials.passes += spent.forwards + spent.backwards
    for name, model in models.items():
        answers = trials.defended[name]
        with warnings.catch_warnings(), passes_counted(model.net) as spent:
            warnings.simplefilter("ignore", Notice)  # that the gradient is not the scores' is what BPDA means
            attacked = run_attack(model, x, goal, call, eps=eps, seed=case.seed).x
            classes = scores_of(model, attacked).argmax(1)
            answers.clean |= right(model, x)
            answers.grey |= right(model, alone)
            answers.through |= right(model, attacked)
        trials.passes += spent.forwards + spent.backwards
        undone = answers.undone & {*rows}
        trials.pixels |= {(name, i): (x[k], attacked[k], int(classes[k])) for k, i in enumerate(rows) if i in undone}
    for key in _shown(trials)[_EVIDENCE:]:
        trials.pixels.pop(key)


def _shown(trials: _Trials) -> list[tuple[str, int]]:
    """What is shown first: of each purifier in turn one picture, in the order in which they were attacked."""
    place = {i: k for k, i in enumerate(trials.done)}
    turn: dict[str, list[tuple[str, int]]] = {}
    for key in sorted(trials.pixels, key=lambda key: place[key[1]]):
        turn.setdefault(key[0], []).append(key)
    ranked = [(k, name, key) for name, keys in turn.items() for k, key in enumerate(keys)]
    return [key for _, _, key in sorted(ranked)]


def _note_on_network(case: Case, trials: _Trials) -> str:
    n, alone = len(trials.done), trials.undefended
    what = f"Without a purifier {len(alone.clean)} of {counted(n, 'answer')} are right, {len(alone.through)} attacked."
    return what if case.labelled else f"No picture has a label: the network's own answers count as right. {what}"


def _tables(trials: _Trials, call: Call, n: int) -> tuple[Table, ...]:
    """One for each purifier, the worst first, and that of the network without any."""

    def row(attack: str, right: set[int]) -> dict[str, Cell]:
        k = len(right)
        return {"attack": attack, "right": k, "n": n, "share": k / n, **bounds(wilson(k, n))}

    tables: list[Table] = []
    for name in trials.worst_first():
        answers = trials.defended[name]
        rows = [
            row("none", answers.clean),
            row(f"{call.method.name} that does not know it (grey box)", answers.grey),
            row(f"{call.method.name} through it (BPDA)", answers.through),
            row("the worse of the two", answers.both),
        ]
        tables += table(f"Right answers behind {name}, which is prone to gradient masking", rows)
    alone = [row("none", trials.undefended.clean), row(call.method.name, trials.undefended.through)]
    return (*tables, *table("Right answers without a purifier", alone))


def _figure(trials: _Trials, n: int) -> Figure:
    names = trials.worst_first()
    answers = [trials.defended[name] for name in names]
    dots = [charts.Dot(name, len(a.through) / n, len(a.grey) / n) for name, a in zip(names, answers, strict=True)]
    data = charts.dots(dots, xlabel="right answers under attack", value="through it", chance="does not know it")
    words = ", ".join(f"{d.name} from {share(d.chance)} to {share(d.value)}" for d in dots)
    caption = f"Right answers when the attack learns of the purifier, {counted(n, 'picture')}."
    return Figure("purification.svg", data, caption, f"Right answers fall when the attack knows the purifier: {words}.")


def _evidence(case: Case, trials: _Trials, call: Call, eps: float) -> tuple[Evidence, ...]:
    """Pictures whose answer a purifier seemed to save, as the attack through it changed them, and purified."""
    evidence = []
    for k, (name, i) in enumerate(_shown(trials)):
        clean, attacked, new_class = trials.pixels[name, i]
        times = min(0.5 / max(float((attacked - clean).abs().max()), 1e-6), 127.0)
        new_label = case.model.name(new_class)
        images = [clean, attacked, purify(attacked[None], name)[0]]
        image = strip([*map(photo, images), magnified_difference(clean, attacked, times)])
        facts: dict[str, Cell] = {
            "picture": case.pictures[i].name,
            "said": case.label(i),
            "purifier": name,
            "says now": new_label,
            "attack": str(call),
            "eps": word(eps),
        }
        options: dict[str, Any] = {"purifiers": name, "attack": str(call), "eps": eps}
        check = Call(purification, {o: v for o, v in options.items() if v != purification.options[o].default})
        command = case.commands.of_picture("audit", case.pictures[i], "--only", str(check))
        caption = (
            f"{case.label(i)} behind {name}, until the attack goes through it: {new_label}; then purified, and the "
            f"change, {times:.0f} times"
        )
        evidence.append(shown(case, i, f"purification-{k + 1}", image, caption, facts, command))
    return tuple(evidence)
