"""Madry et al. 2018, arXiv:1706.06083; the FGSM is Goodfellow et al. 2015, arXiv:1412.6572."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, fewer, sampled, share, shown, span, table, unlabelled
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
class _Found:
    """What fooled the pictures.  fgsm, worst: row -> the smallest eps that was enough, by it alone and by any."""

    fgsm: dict[int, float] = field(default_factory=dict)
    worst: dict[int, float] = field(default_factory=dict)
    by: dict[int, Call] = field(default_factory=dict)
    pixels: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # clean and attacked


def _validate(case: Case, *, eps: float, **others: object) -> None:
    if not 0 < eps <= 1:
        raise Refused(f"robustness(eps={eps:g}): a budget above 0 and at most 1, in pixels in [0, 1] (4/255)")


@method(
    paper="arXiv:1706.06083",
    order=6,
    validate=_validate,
    advice="do not rely on the answers where somebody else can change the pixels, and train on attacked pictures",
)
def robustness(
    case: Case, *, eps: float = 4 / 255, floor: float = 0.3, steps: int = 10, restarts: int = 1, pictures: int = 100
) -> Finding:
    """How many answers stay right when every pixel may change a little, in the worst direction found?

    Value: the share of labelled pictures that are right and stay right under FGSM and PGD with changes of at most eps,
    0 to 1, with the Wilson interval.  A picture is lost if either attack fools it.  The same is told at 0, 1/255,
    2/255, 4/255 and 8/255.  FGSM goes first, and PGD attacks only what is left.  A picture fooled at a smaller eps
    stays fooled at a larger one, because the smaller change is allowed there too.

    pass: the whole interval lies at or above floor.  fail: all of it lies below.  warn: else.

    Args:
        eps: largest change of a pixel, in pixels in [0, 1]; above 0 and at most 1.  4/255 is hardly visible.
        floor: share of right answers under attack that is asked for, 0 to 1.
        steps: number of steps of PGD.  Few steps and restarts give an upper bound on robustness.
        restarts: number of restarts of PGD.
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: an eps outside its range, and fewer than one picture.

    Source: Madry et al. 2018.
    """
    if not case.labelled:
        return unlabelled(case)
    rows, levels = case.sample(case.labelled, pictures), sorted({*_LEVELS, eps})
    attacks = [parse("fgsm", "attacks"), parse("pgd", "attacks").with_options(steps=steps, restarts=restarts)]
    found, done = _Found(), list[int]()
    with passes_counted(case.model.net) as passes:
        for part, x in case.batches(rows):
            done += part
            _attack(case, part, x, levels, attacks, found)
    n = len(done)
    right = [i for i in done if case.right[i]]
    kept = sum(found.worst.get(i, 2.0) > eps for i in right)
    value, interval = kept / n, wilson(kept, n)
    word = write_value(eps)
    return Finding(
        judge(interval, floor=floor),
        f"With pixels changed by at most {word}, {kept} of {counted(n, 'picture')} stay right, {share(value)} "
        f"({span(interval, n)}), of {share(len(right) / n)} that are right without an attack.",
        quantity=f"accuracy under attack at {word}",
        value=value,
        interval=interval,
        n=n,
        has_bar=True,
        notes=(
            f"Asked for: at least {share(floor)} (option floor) at eps {word} (option eps).",
            f"{attacks[1]} may miss changes that exist: robustness is at most this, and more steps may lower it.",
            "A picture fooled at a smaller eps counts as fooled at all larger ones; PGD attacks only what FGSM left.",
            _cost(passes, n),
            *sampled(len(rows), len(case.labelled)),
            *fewer(n, len(rows)),
        ),
        tables=(
            *table("Right answers under attack", _levels(found, right, n, levels, attacks)),
            *table("By picture, the easiest to fool first", _by_picture(case, right, found)),
        ),
        figures=(_figure(found, right, n, levels),),
        evidence=_evidence(case, found),
    )


def _attack(case: Case, rows: list[int], x: Tensor, levels: list[float], attacks: list[Call], found: _Found) -> None:
    """The smallest eps that fools each of the pictures that are right, from small to large."""
    places = {i: j for j, i in enumerate(rows)}
    right = [i for i in rows if case.right[i]]
    for eps in levels:
        for call, where in zip(attacks, (found.fgsm, found.worst), strict=True):
            todo = [i for i in right if i not in where]
            if not todo:
                continue
            clean = x[[places[i] for i in todo]]
            result = attack(case.model, clean, Misclassify(case.truth[todo]), call, eps=eps, seed=case.seed)
            for k in (result.fooled | result.already).nonzero()[:, 0].tolist():
                i = todo[k]
                where[i] = eps
                if i not in found.by:
                    found.worst[i], found.by[i] = eps, call
                    found.pixels[i] = (clean[k], result.x[k])
    for i in _easiest(case, found)[_EVIDENCE:]:
        found.pixels.pop(i, None)


def _easiest(case: Case, found: _Found) -> list[int]:
    """Fooled by the smallest change first, and among those the most confident."""
    sure = case.logits.softmax(1).amax(1)
    return sorted(found.worst, key=lambda i: (found.worst[i], -float(sure[i]), i))


def _cost(passes: Passes, n: int) -> str:
    return (
        f"It took {passes.forwards} passes forward and {passes.backwards} back, "
        f"{(passes.forwards + passes.backwards) / n:.0f} a picture, recounting included."
    )


def _kept(where: dict[int, float], right: list[int], eps: float) -> int:
    return sum(where.get(i, 2.0) > eps for i in right)


def _levels(found: _Found, right: list[int], n: int, levels: list[float], attacks: list[Call]) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for eps in [0.0, *levels]:
        named = {str(attacks[0]): found.fgsm, f"{attacks[0]}, then {attacks[1]}": found.worst}
        for name, where in named.items() if eps else [("none", {})]:
            k = _kept(where, right, eps)
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


def _by_picture(case: Case, right: list[int], found: _Found) -> list[dict[str, Cell]]:
    left = sorted((i for i in right if i not in found.worst), key=lambda i: case.pictures[i].name)
    return [
        {
            "picture": case.pictures[i].name,
            "said": case.label(i),
            "fooled at eps": write_value(found.worst[i]) if i in found.worst else "never",
            "by": found.by[i].method.name if i in found.by else None,
        }
        for i in [*_easiest(case, found), *left]
    ]


def _figure(found: _Found, right: list[int], n: int, levels: list[float]) -> Figure:
    x = [0.0, *levels]
    lines = []
    for name, where, control in (("worst of FGSM and PGD", found.worst, False), ("FGSM alone", found.fgsm, True)):
        kept = [_kept(where, right, eps) for eps in x]
        low, high = zip(*(wilson(k, n) for k in kept), strict=True)
        lines.append(charts.Line(name, [k / n for k in kept], low, high, control))
    data = charts.curves(
        list(range(len(x))),
        lines,
        xlabel="largest change of a pixel",
        ylabel="right answers",
        xticks=[(k, write_value(eps) if eps else "0") for k, eps in enumerate(x)],
    )
    caption = f"Right answers under attack, {counted(n, 'picture')}, with 95 % intervals."
    told = ", ".join(f"{share(v)} at {write_value(e) if e else '0'}" for v, e in zip(lines[0].values, x, strict=True))
    return Figure("robustness-curve.svg", data, caption, f"The share of right answers falls with the change: {told}.")


def _evidence(case: Case, found: _Found) -> tuple[Evidence, ...]:
    rows = [i for i in _easiest(case, found) if i in found.pixels][:_EVIDENCE]
    if not rows:
        return ()
    with case.model.undisturbed():
        attacked = torch.stack([found.pixels[i][1] for i in rows]).to(case.model.device)
        p = scores(case.model, attacked).softmax(1)
    out = []
    for k, i in enumerate(rows):
        clean, z = found.pixels[i]
        eps, call = found.worst[i], found.by[i]
        now = case.model.name(int(p[k].argmax()))
        sure, before = float(p[k].max()), float(case.logits[i].softmax(0).max())
        times = min(0.5 / eps, 127.0)
        image = strip([photo(clean), photo(z), magnified_difference(clean, z, times)])
        facts: dict[str, Cell] = {
            "picture": case.pictures[i].name,
            "said": case.label(i),
            "probability": before,
            "says now": now,
            "its probability": sure,
            "eps": write_value(eps),
            "attack": str(call),
        }
        options = ("-a", str(call), "--eps", write_value(eps))
        command = case.commands.of_picture("attack", case.pictures[i], *options)
        caption = (
            f"{case.label(i)} ({share(before)}) becomes {now} ({share(sure)}) at {write_value(eps)} "
            f"by {call.method.name}; right: the change, {times:.0f} times"
        )
        out.append(shown(case, i, f"robustness-{k + 1}", image, caption, facts, command))
    return tuple(out)
