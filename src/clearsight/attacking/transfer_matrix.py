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

from clearsight.attacking.report import FLOOR, AttackReport, AttackRequest, with_unique_names
from clearsight.attacking.sweep import run_sweep
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
    """Pictures attacked on the model number source, shown to the model number seen_by.

    n: the pictures that both models are right about while they are clean; fooled: how many of these the second model
    gets wrong once they are attacked.
    """

    source: int
    seen_by: int
    n: int
    fooled: int
    rows: tuple[int, ...]  # fooled


def transfer_matrix(
    models: Sequence[Classifier],
    data: Pictures,
    request: AttackRequest,
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

    All attacked pictures are shown, also those that did not fool their own model.  An attack that can go on after it
    has fooled its own model does so (`early_stop=False`), because a picture at that model's border seldom fools
    another.  A picture counts for a pair if both models are right about the clean picture.  Pictures are rounded to 8
    bits, and resized where the inputs of two models differ in size.

    Refused: models of different classes; a targeted attack; an attack that asks another model itself.
    """
    began = time.monotonic()
    if request.target is not None or "other" in request.call.method.injected:
        raise Refused(
            "a transfer matrix needs an untargeted attack on each model itself: leave target out (--target), and use "
            "another attack than transfer"
        )
    if "early_stop" in request.call.method.options and "early_stop" not in request.call.options:
        request = replace(request, call=request.call.with_options(early_stop=False))
    if any(m.labels != models[0].labels for m in models):
        raise Refused("a transfer matrix needs models of the same classes, in the same order")
    names = _names(models)
    crafted = [
        _craft(m, data, request, folder / name, pictures, seed, model_words, progress)
        for m, name in zip(models, names, strict=True)
    ]
    common_rows = [i for i in crafted[0].rows if all(i in c.rows for c in crafted)]
    pairs = [_transfer(i, j, crafted, common_rows) for i in range(len(models)) for j in range(len(models))]
    finding = replace(
        _finding(names, crafted, pairs, request, floor),
        check=str(request.call),
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
    request: AttackRequest,
    folder: Path,
    pictures: int,
    seed: int,
    model_words: Sequence[str],
    progress: Progress | None,
) -> Crafted:
    case = Case(model, with_unique_names(data), seed=seed, model_words=model_words, progress=progress)
    case.doing = f"attacking {model.source}"
    rows = case.sample(range(len(case.pictures)), pictures or len(case.pictures))
    sweep = run_sweep(
        case,
        request.call,
        request.eps,
        (),
        rows=rows,
        access=request.access,
        digits=request.digits,
        folder=folder,
        keep=True,
    )
    clean = case.pixels(sweep.rows)
    attacked_by_row = sweep.attacked | {i: sweep.adversarial[i].x for i in sweep.fooled(request.eps)}
    attacked = torch.stack(
        [attacked_by_row.get(i, x) for i, x in zip(sweep.rows, clean, strict=True)]
    )  # wrong before: left as it is
    right = torch.tensor([i not in sweep.already for i in sweep.rows])
    return Crafted(case, tuple(sweep.rows), (clean * 255).round() / 255, (attacked * 255).round() / 255, right)


def to_input_of(x: Tensor, model: Classifier) -> Tensor:
    """Turn pictures (n, C, H, W) into the input of another model: resized where its size differs, rounded to 8 bits."""
    size = model.preprocess.size
    if x.shape[1] != model.preprocess.channels:
        raise Refused(
            f"{model.source or 'a model'} takes {model.preprocess.channels} channels, but the pictures have "
            f"{x.shape[1]}: use models with the same number of channels"
        )
    if tuple(x.shape[2:]) == tuple(size):
        return x
    moved = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    return (moved * 255).round() / 255


def _transfer(i: int, j: int, crafted: Sequence[Crafted], rows: Sequence[int]) -> Pair:
    """Show the pictures attacked on model number i to model number j, and count the rows that fool it."""
    source, target = crafted[i], crafted[j].case.model
    places = [source.rows.index(r) for r in rows]
    truth = acceptable(crafted[j].case, rows)
    clean, attacked = (
        scores_of(target, to_input_of(x[places], target)).argmax(1) for x in (source.clean, source.attacked)
    )
    right = truth.gather(1, clean[:, None])[:, 0] & source.right[places]
    wrong = right & ~truth.gather(1, attacked[:, None])[:, 0]
    fooling = tuple(rows[k] for k in wrong.nonzero()[:, 0].tolist())
    return Pair(i, j, int(right.sum()), int(wrong.sum()), fooling)


def _finding(
    names: Sequence[str], crafted: Sequence[Crafted], pairs: Sequence[Pair], request: AttackRequest, floor: float
) -> Finding:
    between = [p for p in pairs if p.source != p.seen_by and p.n]
    attack_words = request.in_words
    if not between:
        return Finding("note", "No picture is right for two of the models: there is nothing to transfer.")
    worst = max(between, key=lambda p: (p.fooled / p.n, p.n))
    standing = worst.n - worst.fooled
    interval = wilson(standing, worst.n)
    k = len(names)
    matrix = [[float("nan")] * k for _ in range(k)]
    for p in pairs:
        if p.n:
            matrix[p.source][p.seen_by] = p.fooled / p.n
    data = charts.shares(names, names, matrix, of="attacked on", to="shown to")
    caption = f"Fooled by {attack_words}, of pictures that both models are right about."
    return Finding(
        judge(interval, floor=floor),
        f"Attacked by {attack_words} on {names[worst.source]}, {worst.fooled} of {counted(worst.n, 'picture')} fool "
        f"{names[worst.seen_by]} too, the most of {len(between)} pairs; {share(standing / worst.n)} stay right "
        f"({span(interval, worst.n)}).",
        quantity="right under the strongest transfer",
        value=standing / worst.n,
        interval=interval,
        n=worst.n,
        has_bar=True,
        notes=(
            f"Asked for: at least {share(floor)} right (option floor). A row is the model that was attacked, a column "
            "the model that is shown the pictures.",
            "Pictures are rounded to 8 bits, and resized where the inputs of two models differ in size. A picture "
            "counts where both models are right about the clean picture, rounded and resized likewise.",
        ),
        tables=(
            *table("Fooled: attacked on (down), shown to (across)", _matrix_rows(names, pairs)),
            *table("From model to model", [_pair_row(names, p) for p in pairs]),
        ),
        figures=(Figure("transfer-matrix.svg", data, caption, f"Shares fooled between {k} models; {caption}"),),
        evidence=_evidence(names, crafted, pairs, request),
    )


def _matrix_rows(names: Sequence[str], pairs: Sequence[Pair]) -> list[dict[str, Cell]]:
    """The matrix, a row for each model."""
    rows: list[dict[str, Cell]] = [{"attacked on": name} for name in names]
    for p in pairs:
        rows[p.source][names[p.seen_by]] = f"{p.fooled} of {p.n}, {share(p.fooled / p.n)}" if p.n else "–"
    return rows


def _pair_row(names: Sequence[str], p: Pair) -> dict[str, Cell]:
    return {
        "attacked on": names[p.source],
        "shown to": names[p.seen_by],
        "fooled": p.fooled,
        "n": p.n,
        "share": p.fooled / p.n if p.n else None,
        **bounds(wilson(p.fooled, p.n) if p.n else None),
    }


def _evidence(
    names: Sequence[str], crafted: Sequence[Crafted], pairs: Sequence[Pair], request: AttackRequest
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
            x = torch.cat([to_input_of(v[at : at + 1], target.model) for v in (source.clean, source.attacked)])
            before, logits = scores_of(target.model, x)
            label_before, label_now = (target.model.name(int(v.argmax())) for v in (before, logits))
            image = strip([photo(x[0]), photo(x[1])])
            facts: dict[str, Cell] = {
                "attacked on": names[p.source],
                "shown to": names[p.seen_by],
                "said": label_before,
                "says now": label_now,
                "probability": float(logits.softmax(0).max()),
            }
            caption = (
                f"attacked on {names[p.source]}, shown to {names[p.seen_by]}: {label_before} becomes {label_now} "
                f"({share(float(logits.softmax(0).max()))})"
            )
            words = ["-a", str(request.call), *(["--eps", word(request.eps)] if request.bounded else [])]
            shown_to = (target.model.source or "MODEL", target.commands.place(target.pictures[i]))
            command = source.case.commands.of("attack", *shown_to, *words, *target.commands.model_words)
            out.append(shown(target, i, f"transfer-{len(out) + 1}", image, caption, facts, command))
    return tuple(out)


def _names(models: Sequence[Classifier]) -> list[str]:
    """A short name for each model; no two are alike."""
    short = [re.sub(r"[^\w.-]+", "-", Path(m.source).name) if m.source else "" for m in models]
    alone = len({*short}) == len(short) and all(short)
    if alone:
        return short
    return [f"{name or 'model'}-{k}" for k, name in enumerate(short, 1)]
