"""Madry et al. 2018, arXiv:1706.06083; the FGSM is Goodfellow et al. 2015, arXiv:1412.6572."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, note_on_budget, note_on_sample, share, shown, span, table, unlabelled
from clearsight.auditing.mending import BY_PGD
from clearsight.auditing.text_robustness import text_robustness
from clearsight.core.catalogue import Call, method, parse, write_value
from clearsight.core.passes import Passes
from clearsight.core.passes import counted as passes_counted
from clearsight.core.statistics import judge, wilson
from clearsight.core.targets import Misclassify
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.heatmaps import magnified_difference, photo, strip
from clearsight.errors import Refused
from clearsight.internals.scores import scores
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding
from clearsight.runner.run import attack

_LEVELS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
_EVIDENCE = 8


@dataclass
class _FoolingChanges:
    """The changes that fool pictures.  fgsm, worst: row -> the smallest eps that fools it, by FGSM alone and by any."""

    fgsm: dict[int, float] = field(default_factory=dict)
    worst: dict[int, float] = field(default_factory=dict)
    by: dict[int, Call] = field(default_factory=dict)
    pixels: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # clean and attacked


def _validate(case: Case, *, eps: float, characters: int, **others: object) -> None:
    if characters < 1:
        raise Refused(f"robustness(characters={characters}): at least 1")
    if not 0 < eps <= 1:
        raise Refused(f"robustness(eps={eps:g}): a budget above 0 and at most 1, in pixels in [0, 1] (4/255)")


@method(
    paper="arXiv:1706.06083",
    claims="of-texts",
    order=6,
    validate=_validate,
    advice="do not rely on the answers where somebody else can change the input a little, and train on attacked inputs",
    mend=BY_PGD,
)
def robustness(
    case: Case,
    *,
    eps: float = 4 / 255,
    floor: float = 0.3,
    steps: int = 10,
    restarts: int = 1,
    characters: int = 4,
    pictures: int = 100,
) -> Finding:
    """How many answers stay right when every pixel may change a little, or a few characters, in the worst way found?

    Value: the share of labelled pictures that are right and stay right under FGSM and PGD with changes of at most eps,
    0 to 1, with the Wilson interval.  A picture is lost if either attack fools it.  The share is given at 0, 1/255,
    2/255, 4/255 and 8/255.  FGSM goes first, and PGD attacks only what is left.  A picture fooled at a smaller eps
    stays fooled at a larger one, because the smaller change is allowed there too.  A model that gives scores and no
    gradients is attacked by squares (square), of few queries first, and steps and restarts play no part.

    pass: the whole interval lies at or above floor.  fail: all of it lies below.  warn: else.

    Args:
        eps: largest change of a pixel, in pixels in [0, 1]; above 0 and at most 1.  4/255 is hardly visible.
        floor: share of right answers under attack that is asked for, 0 to 1.
        steps: number of steps of PGD.  Few steps and restarts give an upper bound on robustness.
        restarts: number of restarts of PGD.
        characters: of texts, the number of characters that character-substitution may replace, from 1; the share is
            given at 1, 2, 4 and 8 too, and the options of pixels play no part.
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: an eps outside its range, and fewer than one picture.

    Source: Madry et al. 2018.
    """
    if not case.labelled:
        return unlabelled(case)
    if case.data.are_texts:
        return text_robustness(case, characters=characters, floor=floor, pictures=pictures)
    rows, levels = case.sample(case.labelled, pictures), sorted({*_LEVELS, eps})
    attacks = _attacks(case, steps, restarts)
    changes, done = _FoolingChanges(), list[int]()
    with passes_counted(case.model.net) as passes:
        for part, x in case.batches(rows):
            done += part
            _attack_pictures(case, part, x, levels, attacks, changes)
    n = len(done)
    right = [i for i in done if case.right[i]]
    still_right = sum(changes.worst.get(i, 2.0) > eps for i in right)
    value, interval = still_right / n, wilson(still_right, n)
    budget = write_value(eps)
    return Finding(
        judge(interval, floor=floor),
        f"With pixels changed by at most {budget}, {still_right} of {counted(n, 'picture')} stay right, {share(value)} "
        f"({span(interval, n)}), of {share(len(right) / n)} that are right without an attack.",
        quantity=f"accuracy under attack at {budget}",
        value=value,
        interval=interval,
        n=n,
        has_bar=True,
        notes=(
            f"Asked for: at least {share(floor)} (option floor) at eps {budget} (option eps).",
            f"{attacks[1]} may miss changes that exist: robustness is at most this, and more steps may lower it.",
            "A picture fooled at a smaller eps counts as fooled at all larger ones; "
            f"{_word(attacks[1])} attacks only what {_word(attacks[0])} left.",
            *((_BLACK_BOX,) if case.is_black_box else ()),
            _note_on_cost(passes, n),
            *note_on_sample(case, len(rows), len(case.labelled)),
            *note_on_budget(case, n, len(rows)),
        ),
        tables=(
            *table("Right answers under attack", _level_rows(changes, right, n, levels, attacks)),
            *table("By picture, the easiest to fool first", _picture_rows(case, right, changes)),
        ),
        figures=(_curve_figure(changes, right, n, levels, attacks),),
        evidence=_evidence(case, changes),
    )


def _attacks(case: Case, steps: int, restarts: int) -> list[Call]:
    """The attack that goes first, and the one for what it leaves; of a model that gives scores alone, black boxes."""
    if case.is_black_box:
        square = parse("square", "attacks")
        return [square.with_options(queries=20), square.with_options(queries=100)]
    return [parse("fgsm", "attacks"), parse("pgd", "attacks").with_options(steps=steps, restarts=restarts)]


def _word(call: Call) -> str:
    """An attack in a sentence: FGSM and PGD by their names, others as they are spelled."""
    return call.method.name.upper() if call.method.name in ("fgsm", "pgd") else str(call)


_BLACK_BOX = (
    "The model gives scores and no gradients, so a black box attacks it: whoever has its network finds more, and its "
    "robustness is lower."
)


def _attack_pictures(
    case: Case, rows: list[int], x: Tensor, levels: list[float], attacks: list[Call], changes: _FoolingChanges
) -> None:
    """The smallest eps that fools each of the pictures that are right, from small to large."""
    places = {i: j for j, i in enumerate(rows)}
    right = [i for i in rows if case.right[i]]
    for eps in levels:
        for call, smallest in zip(attacks, (changes.fgsm, changes.worst), strict=True):
            todo = [i for i in right if i not in smallest]
            if not todo:
                continue
            clean = x[[places[i] for i in todo]]
            result = attack(case.model, clean, Misclassify(case.truth[todo]), call, eps=eps, seed=case.seed)
            for k in (result.fooled | result.already).nonzero()[:, 0].tolist():
                i = todo[k]
                smallest[i] = eps
                if i not in changes.by:
                    changes.worst[i], changes.by[i] = eps, call
                    changes.pixels[i] = (clean[k], result.x[k])
    for i in _easiest_first(case, changes)[_EVIDENCE:]:
        changes.pixels.pop(i, None)


def _easiest_first(case: Case, changes: _FoolingChanges) -> list[int]:
    """The fooled rows: the smallest change first, and among equals the most confident answer."""
    confidence = case.logits.softmax(1).amax(1)
    return sorted(changes.worst, key=lambda i: (changes.worst[i], -float(confidence[i]), i))


def _note_on_cost(passes: Passes, n: int) -> str:
    return (
        f"It took {passes.forwards} passes forward and {passes.backwards} back, "
        f"{(passes.forwards + passes.backwards) / n:.0f} a picture, recounting included."
    )


def _count_right(smallest: dict[int, float], right: list[int], eps: float) -> int:
    return sum(smallest.get(i, 2.0) > eps for i in right)


def _level_rows(
    changes: _FoolingChanges, right: list[int], n: int, levels: list[float], attacks: list[Call]
) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for eps in [0.0, *levels]:
        by_attack = {str(attacks[0]): changes.fgsm, f"{attacks[0]}, then {attacks[1]}": changes.worst}
        for name, smallest in by_attack.items() if eps else [("none", {})]:
            k = _count_right(smallest, right, eps)
            rows.append(
                {
                    "eps": write_value(eps) if eps else "0",
                    "attack": name,
                    "right": k,
                    "n": n,
                    "share": k / n,
                    **bounds(wilson(k, n)),
                }
            )
    return rows


def _picture_rows(case: Case, right: list[int], changes: _FoolingChanges) -> list[dict[str, Cell]]:
    unfooled = sorted((i for i in right if i not in changes.worst), key=lambda i: case.pictures[i].name)
    return [
        {
            "picture": case.pictures[i].name,
            "said": case.label(i),
            "fooled at eps": write_value(changes.worst[i]) if i in changes.worst else "never",
            "by": changes.by[i].method.name if i in changes.by else None,
        }
        for i in [*_easiest_first(case, changes), *unfooled]
    ]


def _curve_figure(
    changes: _FoolingChanges, right: list[int], n: int, levels: list[float], attacks: list[Call]
) -> Figure:
    x = [0.0, *levels]
    lines = []
    first, second = map(_word, attacks)
    for name, where, control in (
        (f"worst of {first} and {second}", changes.worst, False),
        (f"{first} alone", changes.fgsm, True),
    ):
        still_right = [_count_right(where, right, eps) for eps in x]
        low, high = zip(*(wilson(k, n) for k in still_right), strict=True)
        lines.append(charts.Line(name, [k / n for k in still_right], low, high, control))
    data = charts.curves(
        list(range(len(x))),
        lines,
        xlabel="largest change of a pixel",
        ylabel="right answers",
        xticks=[(k, write_value(eps) if eps else "0") for k, eps in enumerate(x)],
    )
    caption = f"Right answers under attack, {counted(n, 'picture')}, with 95 % intervals."
    shares = ", ".join(f"{share(v)} at {write_value(e) if e else '0'}" for v, e in zip(lines[0].values, x, strict=True))
    return Figure("robustness-curve.svg", data, caption, f"The share of right answers falls with the change: {shares}.")


def _evidence(case: Case, changes: _FoolingChanges) -> tuple[Evidence, ...]:
    rows = [i for i in _easiest_first(case, changes) if i in changes.pixels][:_EVIDENCE]
    if not rows:
        return ()
    with case.model.undisturbed():
        attacked = torch.stack([changes.pixels[i][1] for i in rows]).to(case.model.device)
        p = scores(case.model, attacked).softmax(1)
    evidence = []
    for k, i in enumerate(rows):
        clean, z = changes.pixels[i]
        eps, call = changes.worst[i], changes.by[i]
        new_label = case.model.name(int(p[k].argmax()))
        new_probability, before = float(p[k].max()), float(case.logits[i].softmax(0).max())
        times = min(0.5 / eps, 127.0)
        image = strip([photo(clean), photo(z), magnified_difference(clean, z, times)])
        facts: dict[str, Cell] = {
            "picture": case.pictures[i].name,
            "said": case.label(i),
            "probability": before,
            "says now": new_label,
            "its probability": new_probability,
            "eps": write_value(eps),
            "attack": str(call),
        }
        options = ("-a", str(call), "--eps", write_value(eps))
        command = case.commands.of_picture("attack", case.pictures[i], *options)
        caption = (
            f"{case.label(i)} ({share(before)}) becomes {new_label} ({share(new_probability)}) at {write_value(eps)} "
            f"by {call.method.name}; right: the change, {times:.0f} times"
        )
        evidence.append(shown(case, i, f"robustness-{k + 1}", image, caption, facts, command))
    return tuple(evidence)
