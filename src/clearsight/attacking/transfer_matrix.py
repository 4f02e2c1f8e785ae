"""Do pictures that were attacked on one model fool the others?  The n x n transfer matrix (Papernot et al. 2016,
arXiv:1605.07277)."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.attacking.report import FLOOR, Asked, AttackReport, apart
from clearsight.attacking.sweep import strike
from clearsight.auditing.assemble import make
from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, share, shown, span, table
from clearsight.auditing.goals import acceptable
from clearsight.core.classifier import Classifier
from clearsight.core.norms import word
from clearsight.core.progress import Progress
from clearsight.core.statistics import judge, wilson
from clearsight.core.text import counted
from clearsight.data.datasets import Pictures
from clearsight.drawing import charts
from clearsight.drawing.heatmaps import photo, strip
from clearsight.errors import Refused
from clearsight.internals.scores import scores_of
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding

EVIDENCE = 8


@dataclass(frozen=True, eq=False)
class Crafted:
    """The pictures attacked on one model: clean and attacked (n, C, *S) as it sees them, and who was right before."""

    case: Case
    rows: tuple[int, ...]
    clean: Tensor
    attacked: Tensor
    right: Tensor  # (n,) bool


@dataclass(frozen=True, eq=False)
class Pair:
    """Pictures attacked on one model, shown to another.

    kept: carried over clean, they are right there as well as at their source, n of them; fooled: of these, wrong once
    attacked.
    """

    source: int
    seen_by: int
    n: int
    fooled: int
    rows: tuple[int, ...]  # fooled


def transfer_matrix(
    models: Sequence[Classifier],
    data: Pictures,
    want: Asked,
    folder: Path,
    *,
    floor: float = FLOOR,
    pictures: int = 0,
    seed: int = 0,
    command: str = "",
    model_words: Sequence[str] = (),
    progress: Progress | None = None,
) -> AttackReport:
    """Attack the pictures on each model and show them to all -> a Report.

    Shown are all attacked pictures, those that their own model withstood too; an attack that can go on where it has
    fooled its own model does, for what stops there seldom fools another.  A picture counts for a pair if both models
    are right about it before; carried from one input size to another it is saved as 8 bits and resized.  Refused:
    models of different classes; a targeted attack; an attack that asks another model itself; more than one budget.
    """
    began = time.monotonic()
    if want.target is not None or "other" in want.call.method.injected:
        raise Refused(
            "a transfer matrix is of untargeted attacks on each model itself: leave target out (--target), and take "
            "another attack than transfer"
        )
    if "early_stop" in want.call.method.options and "early_stop" not in want.call.options:
        want = replace(want, call=want.call.with_options(early_stop=False))
    if any(m.labels != models[0].labels for m in models):
        raise Refused("a transfer matrix needs models of the same classes, in the same order")
    names = _names(models)
    crafted = [
        _craft(m, data, want, folder / name, pictures, seed, model_words, progress)
        for m, name in zip(models, names, strict=True)
    ]
    same = [i for i in crafted[0].rows if all(i in c.rows for c in crafted)]
    pairs = [_shown_to(i, j, crafted, same) for i in range(len(models)) for j in range(len(models))]
    finding = replace(
        _finding(names, crafted, pairs, want, floor),
        check=str(want.call),
        summary="Do pictures that were attacked on one model fool the others?",
        paper="arXiv:1605.07277",
        seconds=round(time.monotonic() - began, 3),
        command=command,
    )
    whole = make(crafted[0].case, [finding], seconds=time.monotonic() - began, command=command)
    sources = " ".join(m.source or "model" for m in models)
    facts = replace(whole.facts, model=replace(whole.facts.model, source=sources))
    return AttackReport(facts, whole.findings)


def _craft(
    model: Classifier,
    data: Pictures,
    want: Asked,
    folder: Path,
    pictures: int,
    seed: int,
    model_words: Sequence[str],
    progress: Progress | None,
) -> Crafted:
    case = Case(model, apart(data), seed=seed, model_words=model_words, progress=progress)
    case.doing = f"attacking {model.source}"
    rows = case.sample(range(len(case.pictures)), pictures or len(case.pictures))
    found = strike(
        case, want.call, want.eps, (), rows=rows, access=want.access, digits=want.digits, folder=folder, keep=True
    )
    clean = case.pixels(found.rows)
    made = found.made | {i: found.fallen[i].x for i in found.fooled(want.eps)}
    attacked = torch.stack([made.get(i, x) for i, x in zip(found.rows, clean, strict=True)])  # wrong before: as it is
    right = torch.tensor([i not in found.already for i in found.rows])
    return Crafted(case, tuple(found.rows), (clean * 255).round() / 255, (attacked * 255).round() / 255, right)


def carried(x: Tensor, model: Classifier) -> Tensor:
    """Pictures (n, C, H, W) as another model's input: resized where its size differs, on the grid of 8 bits."""
    size = model.preprocess.size
    if x.shape[1] != model.preprocess.channels:
        raise Refused(
            f"{model.source or 'a model'} wants {model.preprocess.channels} channels, the pictures have {x.shape[1]}"
        )
    if tuple(x.shape[2:]) == tuple(size):
        return x
    moved = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    return (moved * 255).round() / 255


def _shown_to(i: int, j: int, crafted: Sequence[Crafted], same: Sequence[int]) -> Pair:
    source, target = crafted[i], crafted[j].case.model
    at = [source.rows.index(r) for r in same]
    truth = acceptable(crafted[j].case, same)
    clean, attacked = (scores_of(target, carried(x[at], target)).argmax(1) for x in (source.clean, source.attacked))
    right = truth.gather(1, clean[:, None])[:, 0] & source.right[at]
    wrong = right & ~truth.gather(1, attacked[:, None])[:, 0]
    rows = tuple(same[k] for k in wrong.nonzero()[:, 0].tolist())
    return Pair(i, j, int(right.sum()), int(wrong.sum()), rows)


def _finding(
    names: Sequence[str], crafted: Sequence[Crafted], pairs: Sequence[Pair], want: Asked, floor: float
) -> Finding:
    between = [p for p in pairs if p.source != p.seen_by and p.n]
    at = f"{want.call.method.name} at eps {word(want.eps)}" if want.bounded else want.call.method.name
    if not between:
        return Finding(
            "note", "There is no picture about which two of the models are right: nothing can be carried over."
        )
    worst = max(between, key=lambda p: (p.fooled / p.n, p.n))
    left = worst.n - worst.fooled
    interval = wilson(left, worst.n)
    k = len(names)
    matrix = [[float("nan")] * k for _ in range(k)]
    for p in pairs:
        if p.n:
            matrix[p.source][p.seen_by] = p.fooled / p.n
    data = charts.shares(names, names, matrix, of="attacked on", to="shown to")
    caption = f"Fooled by {at}, of pictures that both models are right about."
    return Finding(
        judge(interval, floor=floor),
        f"Attacked by {at} on {names[worst.source]}, {worst.fooled} of {counted(worst.n, 'picture')} fool "
        f"{names[worst.seen_by]} too, the most of {len(between)} pairs; {share(left / worst.n)} stay right "
        f"({span(interval, worst.n)}).",
        quantity="right under the strongest transfer",
        value=left / worst.n,
        interval=interval,
        n=worst.n,
        has_bar=True,
        notes=(
            f"Asked for: at least {share(floor)} right (option floor). Rows are attacked on, columns are shown it.",
            "Carried over, pictures are on the grid of 8 bits and resized where inputs differ in size. A picture "
            "counts where both models are right about it, the second about the clean one, carried over likewise.",
        ),
        tables=(
            *table("Fooled: attacked on (down), shown to (across)", _rows(names, pairs)),
            *table("From model to model", [_row(names, p) for p in pairs]),
        ),
        figures=(Figure("transfer-matrix.svg", data, caption, f"Shares fooled between {k} models; {caption}"),),
        evidence=_evidence(names, crafted, pairs, want),
    )


def _rows(names: Sequence[str], pairs: Sequence[Pair]) -> list[dict[str, Cell]]:
    """The matrix, a row for each model."""
    rows: list[dict[str, Cell]] = [{"attacked on": name} for name in names]
    for p in pairs:
        rows[p.source][names[p.seen_by]] = f"{p.fooled} of {p.n}, {share(p.fooled / p.n)}" if p.n else "–"
    return rows


def _row(names: Sequence[str], p: Pair) -> dict[str, Cell]:
    return {
        "attacked on": names[p.source],
        "shown to": names[p.seen_by],
        "fooled": p.fooled,
        "n": p.n,
        "share": p.fooled / p.n if p.n else None,
        **bounds(wilson(p.fooled, p.n) if p.n else None),
    }


def _evidence(
    names: Sequence[str], crafted: Sequence[Crafted], pairs: Sequence[Pair], want: Asked
) -> tuple[Evidence, ...]:
    """Pictures that fool another model than the one they were made on, from each pair in turn."""
    out: list[Evidence] = []
    between = sorted((p for p in pairs if p.source != p.seen_by and p.rows), key=lambda p: -p.fooled / p.n)
    for depth in range(EVIDENCE):
        for p in between:
            if depth >= len(p.rows) or len(out) >= EVIDENCE:
                continue
            source, target = crafted[p.source], crafted[p.seen_by].case
            i = p.rows[depth]
            at = source.rows.index(i)
            x = torch.cat([carried(v[at : at + 1], target.model) for v in (source.clean, source.attacked)])
            before, logits = scores_of(target.model, x)
            said, now = (target.model.name(int(v.argmax())) for v in (before, logits))
            image = strip([photo(x[0]), photo(x[1])])
            facts: dict[str, Cell] = {
                "attacked on": names[p.source],
                "shown to": names[p.seen_by],
                "said": said,
                "says now": now,
                "probability": float(logits.softmax(0).max()),
            }
            caption = (
                f"attacked on {names[p.source]}, shown to {names[p.seen_by]}: {said} becomes {now} "
                f"({share(float(logits.softmax(0).max()))})"
            )
            words = ["-a", str(want.call), *(["--eps", word(want.eps)] if want.bounded else [])]
            shown_to = (target.model.source or "MODEL", target.commands.place(target.pictures[i]))
            command = source.case.commands.of("attack", *shown_to, *words, *target.commands.model_words)
            out.append(shown(target, i, f"transfer-{len(out) + 1}", image, caption, facts, command))
    return tuple(out)


def _names(models: Sequence[Classifier]) -> list[str]:
    """What each model is called, in a few words, no two alike."""
    short = [re.sub(r"[^\w.-]+", "-", Path(m.source).name) if m.source else "" for m in models]
    alone = len({*short}) == len(short) and all(short)
    if alone:
        return short
    return [f"{name or 'model'}-{k}" for k, name in enumerate(short, 1)]
