"""Ghorbani, Abid & Zou 2019, arXiv:1710.10547: interpretation of neural networks is fragile."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import (
    bounds,
    draw_map,
    maps_of,
    note_on_budget,
    note_on_sample,
    share,
    shown,
    span,
    table,
)
from clearsight.auditing.text_map_stability import text_map_stability
from clearsight.core import rng
from clearsight.core.catalogue import method, parse, write_value
from clearsight.core.passes import counted as passes_counted
from clearsight.core.remembered import remembering
from clearsight.core.similarity import Map, constant, spearman, ssim
from clearsight.core.sorting import descending
from clearsight.core.statistics import FEWEST, Interval, bootstrap, judge, tails
from clearsight.core.targets import ClassScore, Misclassify
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.heatmaps import photo, strip
from clearsight.errors import Refused
from clearsight.internals.scores import scores
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding
from clearsight.reporting.wording import show
from clearsight.runner.move_map import move_map
from clearsight.runner.run import attack, explain

_EVIDENCE = 6
_TOP = 0.1  # share of the places that count as those a map marks most
_NOISE, _FOOLED, _MOVED = "random noise", "answer changed", "answer kept, map moved"
_KINDS = ("rank correlation", "SSIM", "top 10 % in common")


@dataclass
class _MovedPicture:
    """A picture and the picture as `move_map` changes it.

    alike: by kind of change, how alike its maps stay, in the order of _KINDS.
    drift: by kind of picture (clean, _FOOLED, _MOVED), how unlike its map and that of its smoothed copy are.
    """

    row: int
    alike: dict[str, tuple[float, float, float]]
    drift: dict[str, float]
    same_answer: bool  # under random noise
    pixels: tuple[Tensor, Tensor] = field(repr=False)  # clean and moved
    maps: tuple[Tensor, Tensor] = field(repr=False)

    @property
    def rank(self) -> float:
        """The rank correlation with the map of the moved picture; NaN where that is answered otherwise."""
        return self.alike[_MOVED][0]


def _validate(case: Case, *, eps: float, floor: float, steps: int, characters: int, **others: object) -> None:
    if characters < 1:
        raise Refused(f"map-stability(characters={characters}): at least one")
    if not 0 < eps <= 1:
        raise Refused(f"map-stability(eps={eps:g}): a budget above 0 and at most 1, in pixels in [0, 1] (4/255)")
    if not -1 <= floor <= 1:
        raise Refused(f"map-stability(floor={floor:g}): a rank correlation, from -1 to 1")
    if steps < 1:
        raise Refused(f"map-stability(steps={steps}): at least one step")


@method(
    paper="arXiv:1710.10547",
    claims="of-texts of-gradients",
    order=7,
    validate=_validate,
    advice="do not show these maps where somebody else can change the input",
)
def map_stability(
    case: Case,
    *,
    eps: float = 4 / 255,
    floor: float = 0.5,
    steps: int = 10,
    characters: int = 1,
    pictures: int = 10,
) -> Finding:
    """How far do the maps move when the input changes a little and the answer stays?

    Value: the mean Spearman rank correlation, -1 to 1, between the map of a picture and that of the picture as
    `move_map` changes it within eps, with a bootstrap interval over pictures.  The top class is the same; a picture
    that is answered otherwise is left out.  Beside it stand SSIM and the share in common of the tenth of the places
    marked most.  The same numbers stand there under noise of that size (each pixel up or down by eps, at random) and
    under PGD that changes the answer, where the map is that of the new answer.

    pass: the whole interval lies at or above floor.  fail: all of it lies below.  warn: else.

    Map drift as a detector: for each picture as it comes, one less the rank correlation of its map with that of its
    copy smoothed by the weights 1, 2, 1 along each axis, for the same class.  With it stands the area under the ROC
    curve of attacked pictures against clean ones, which is 0.5 by chance.

    Of a text some characters are replaced by others of the alphabet, drawn by seed, several times.  Value: the mean
    over texts of the lowest rank correlation among those tries that leave the answer, over the other characters.

    Args:
        eps: largest change of a pixel, in pixels in [0, 1]; above 0 and at most 1.  4/255 is hardly visible.
        floor: mean rank correlation that is asked for, -1 to 1.
        steps: number of steps of both attacks, and of tries for each text, at least 1.  Few steps give an upper bound
            on how steady the maps are.
        characters: of texts, the number of characters that are replaced, from 1; eps plays no part there.
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: options outside their ranges.  Of a model that gives no gradients a note says that nothing was tried.

    Source: Ghorbani et al. 2019; PGD is Madry et al. 2018.
    """
    if case.data.are_texts:
        return text_map_stability(case, characters=characters, floor=floor, tries=steps, pictures=pictures)
    rows = case.sample(range(len(case.pictures)), pictures)
    moved: list[_MovedPicture] = []
    done, through = 0, ""
    with passes_counted(case.model.net) as passes:
        for part, x in case.batches(rows):
            done += len(part)
            maps = case.maps(part, x)
            varying = [j for j in range(len(part)) if not constant(maps[j].double().numpy())]
            if varying:
                with remembering():
                    of_batch, through = _change_pictures(
                        case, [part[j] for j in varying], x[varying], maps[varying], eps, steps
                    )
                moved += of_batch
    constant_maps, compared = done - len(moved), len(moved)
    moved = [s for s in moved if not np.isnan(s.rank)]  # the others cannot be compared: the answer did not stay
    n, changed_answers = len(moved), compared - len(moved)
    if not compared:
        return Finding("note", f"All maps are constant ({counted(done, 'picture')}): nothing can change.")
    if not n:
        return Finding(
            "note", f"No answer stays the same ({counted(changed_answers, 'picture')}), so no map can be compared."
        )
    correlations = [s.rank for s in moved]
    value, interval = float(np.mean(correlations)), bootstrap(correlations, case.seed)
    noise = float(np.mean([s.alike[_NOISE][0] for s in moved]))
    budget = write_value(eps)
    return Finding(
        judge(interval, floor=floor),
        f"With pixels changed by at most {budget} and the answer kept, the maps keep a rank correlation of "
        f"{show(value, '')} ({span(interval, n, shares=False)}); under random noise of that size "
        f"{show(noise, '')}.",
        quantity=f"map kept under attack at {budget}",
        value=value,
        interval=interval,
        n=n,
        unit="",
        has_bar=True,
        notes=(
            f"Asked for: a rank correlation of at least {show(floor, '')} (option floor) at eps {budget} (option eps).",
            f"Maps: {case.method}, for the top class; move_map follows {_followed(case, through)}.",
            f"move_map and pgd with {counted(steps, 'step')} may miss changes that exist: the maps are at most as "
            "stable as this, and more steps may change them further.",
            *_notes(moved, constant_maps, changed_answers, noise, floor),
            f"It took {passes.forwards} passes forward and {passes.backwards} back, "
            f"{(passes.forwards + passes.backwards) / compared:.0f} a picture.",
            *note_on_sample(case, len(rows), len(case.pictures)),
            *note_on_budget(case, done, len(rows)),
        ),
        tables=(
            *table("How alike the maps stay", [_row(moved, kind, case.seed) for kind in (_NOISE, _FOOLED, _MOVED)]),
            *table("Map drift as a detector of attacked pictures", _detection_rows(moved, case.seed)),
            *table("By picture, the most moved first", [_picture_row(case, s) for s in _most_moved_first(case, moved)]),
        ),
        figures=_roc_figure(moved),
        evidence=_evidence(case, moved, eps),
    )


def _followed(case: Case, through: str) -> str:
    """Whose map the attack goes after, in words."""
    if through == str(case.method):
        return "them"
    return f"the maps of {through} in their place, so that an attack on them themselves may move them further"


def _change_pictures(
    case: Case, rows: list[int], x: Tensor, maps: Tensor, eps: float, steps: int
) -> tuple[list[_MovedPicture], str]:
    """Change pictures by noise, PGD and move_map, and compare their maps -> one record each, and the map followed."""
    model, call, seed, top = case.model, case.method, case.seed, ClassScore(case.predicted[rows])
    with rng.seeded(seed, x, "drift"):
        noisy = (x + eps * (rng.uniform(x) - 0.5).sign()).clamp(0, 1)
    pgd = parse("pgd", "attacks").with_options(steps=steps)
    fooled = attack(model, x, Misclassify(case.predicted[rows]), pgd, eps=eps, seed=seed)
    moved = move_map(model, x, call, eps=eps, steps=steps, seed=seed)
    with model.undisturbed():
        noisy_classes, new_classes = (scores(model, v.to(model.device)).argmax(1) for v in (noisy, fooled.x))
    after = {
        _NOISE: explain(model, noisy, call, top, seed=seed).maps,
        _FOOLED: explain(model, fooled.x, call, ClassScore(new_classes), seed=seed).maps,
        _MOVED: moved.after,
    }
    smooth = {
        "clean": (maps, explain(model, smoothed(x), call, top, seed=seed).maps),
        _FOOLED: (after[_FOOLED], explain(model, smoothed(fooled.x), call, ClassScore(new_classes), seed=seed).maps),
        _MOVED: (moved.after, explain(model, smoothed(moved.x), call, top, seed=seed).maps),
    }
    pictures = []
    for j, row in enumerate(rows):
        comparable = {_NOISE: True, "clean": True, _FOOLED: bool(fooled.fooled[j]), _MOVED: bool(moved.kept[j])}
        pictures.append(
            _MovedPicture(
                row,
                {k: likeness(maps[j], m[j]) if comparable[k] else (float("nan"),) * 3 for k, m in after.items()},
                {k: 1 - likeness(m[j], s[j])[0] for k, (m, s) in smooth.items() if comparable[k]},
                bool(noisy_classes[j] == case.predicted[row]),
                (x[j], moved.x[j]),
                (maps[j], moved.after[j]),
            )
        )
    return pictures, moved.through


def smoothed(x: Tensor) -> Tensor:
    """Pictures (B, C, *S) averaged with the weights 1, 2, 1 along each axis, borders repeated.

    >>> smoothed(torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])).tolist()
    [[[0.25, 0.5, 0.25, 0.0]]]
    """
    for axis in range(2, x.dim()):
        i = torch.arange(x.shape[axis], device=x.device)
        before, after = (x.index_select(axis, k.clamp(0, x.shape[axis] - 1)) for k in (i - 1, i + 1))
        x = (before + 2 * x + after) / 4
    return x


def likeness(before: Tensor, after: Tensor) -> tuple[float, float, float]:
    """Of two maps (*S): Spearman's correlation, SSIM, and the share in common of the tenth of places marked most.

    0 each where the second map is constant.
    """
    a, b = before.double().numpy(), after.double().numpy()
    if constant(b):
        return (0.0, 0.0, 0.0)
    return spearman(a, b), ssim(a / np.abs(a).max(), b / np.abs(b).max()), overlap(a, b)


def overlap(a: Map, b: Map) -> float:
    """The share in common of the tenth of their places, one at least, with the highest values.

    >>> overlap(np.array([0.0, 5.0, 1.0]), np.array([2.0, 3.0, 1.0]))
    1.0
    """
    k = max(1, round(_TOP * a.size))
    top = np.zeros(a.size, bool)
    top[descending(a.ravel())[:k]] = True
    return int(top[descending(b.ravel())[:k]].sum()) / k


def auc(clean: list[float], attacked: list[float]) -> float:
    """The area under the ROC curve: how often an attacked picture's score is above a clean one's, ties half.

    >>> auc([0.1, 0.4], [0.4, 0.3])
    0.625
    """
    a, c = np.array(attacked)[:, None], np.array(clean)[None]
    return float(((a > c) + 0.5 * (a == c)).mean())


def auc_interval(pairs: list[tuple[float, float | None]], seed: int, times: int = 2000) -> Interval | None:
    """The 95 % bootstrap interval of auc over pictures, each (its clean score, its attacked one or None).

    None where fewer than seven pictures have both.
    """
    n = sum(a is not None for _, a in pairs)
    if n < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    areas: list[float] = []
    while len(areas) < times:
        draw = [pairs[i] for i in rng.integers(0, len(pairs), len(pairs))]
        attacked = [a for _, a in draw if a is not None]
        if attacked:
            areas.append(auc([c for c, _ in draw], attacked))
    low, high = np.percentile(areas, tails(n))
    return float(low), float(high)


def roc(clean: list[float], attacked: list[float]) -> list[float]:
    """The share of attacked pictures found at 0, 1, 2, ... false alarms among the clean ones.

    >>> roc([0.1, 0.4], [0.4, 0.3])
    [0.0, 1.0, 1.0]
    """
    bars = [*sorted(clean, reverse=True), -np.inf]  # with the k-th as the bar, k clean pictures lie above it
    return [float(np.mean([a > bar for a in attacked])) for bar in bars]


def _drifts(pictures: list[_MovedPicture], kind: str) -> tuple[list[float], list[float]]:
    return [s.drift["clean"] for s in pictures], [s.drift[kind] for s in pictures if kind in s.drift]


def _notes(
    pictures: list[_MovedPicture], constant_maps: int, changed_answers: int, noise: float, floor: float
) -> list[str]:
    notes = []
    fooled, n = sum(_FOOLED in s.drift for s in pictures), len(pictures)
    notes.append(
        f"PGD changed {fooled} of {counted(n, 'answer')}; noise changed {sum(not s.same_answer for s in pictures)}."
    )
    if noise < floor:
        notes.append(
            "Under noise alone the rank correlation is below what is asked for: "
            "the maps are unstable without any attacker."
        )
    if constant_maps:
        notes.append(f"{counted(constant_maps, 'picture is', 'pictures are')} left out: the map is constant.")
    if changed_answers:
        notes.append(
            f"{counted(changed_answers, 'picture is', 'pictures are')} left out: the answer to the moved picture "
            "differs when the network is run once more."
        )
    return notes


def _row(pictures: list[_MovedPicture], kind: str, seed: int) -> dict[str, Cell]:
    values = np.array([s.alike[kind] for s in pictures if not np.isnan(s.alike[kind][0])]).reshape(-1, 3)
    n = len(values)
    means: list[Cell] = [_finite_or_none(float(v)) for v in values.mean(0)] if n else [None] * 3
    row = {"what was done": kind, _KINDS[0]: means[0], **bounds(bootstrap(values[:, 0].tolist(), seed))}
    return {**row, _KINDS[1]: means[1], _KINDS[2]: means[2], "n": n}


def _finite_or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _detection_rows(pictures: list[_MovedPicture], seed: int) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for kind in (_FOOLED, _MOVED):
        clean, attacked = _drifts(pictures, kind)
        if attacked:
            interval = auc_interval([(s.drift["clean"], s.drift.get(kind)) for s in pictures], seed)
            row: dict[str, Cell] = {"pictures": kind, "area under the ROC curve": auc(clean, attacked)}
            rows.append({**row, **bounds(interval), "attacked": len(attacked), "clean": len(clean)})
    return rows


def _most_moved_first(case: Case, pictures: list[_MovedPicture]) -> list[_MovedPicture]:
    return sorted(pictures, key=lambda s: (s.rank, case.pictures[s.row].name))


def _picture_row(case: Case, s: _MovedPicture) -> dict[str, Cell]:
    others: dict[str, Cell] = {f"under {k}": _finite_or_none(s.alike[k][0]) for k in (_NOISE, _FOOLED)}
    row: dict[str, Cell] = {"picture": case.pictures[s.row].name, "said": case.label(s.row)}
    correlations: dict[str, Cell] = {
        _MOVED: s.rank,
        "SSIM": _finite_or_none(s.alike[_MOVED][1]),
        _KINDS[2]: s.alike[_MOVED][2],
    }
    return {
        **row,
        **correlations,
        **others,
        "drift when clean": s.drift["clean"],
        "drift when moved": s.drift.get(_MOVED),
    }


def _roc_figure(pictures: list[_MovedPicture]) -> tuple[Figure, ...]:
    lines: list[charts.Line] = []
    areas: list[str] = []
    x = [k / len(pictures) for k in range(len(pictures) + 1)]
    for kind in (_MOVED, _FOOLED):
        clean, attacked = _drifts(pictures, kind)
        if attacked:
            lines.append(
                charts.Line(f"{kind}, area {auc(clean, attacked):.2f}", roc(clean, attacked), control=bool(lines))
            )
            areas.append(f"{auc(clean, attacked):.2f} ({kind})")
    lines.append(charts.Line("chance", x, control=True))
    data = charts.curves(
        x,
        lines,
        xlabel="clean pictures that raise a false alarm",
        ylabel="attacked pictures found",
        xticks=[(v / 4, f"{25 * v} %") for v in range(5)],
    )
    caption = f"Map drift as a detector, {counted(len(pictures), 'clean picture')}."
    return (
        Figure("map-stability-roc.svg", data, caption, f"ROC curves; the area under them is {' and '.join(areas)}."),
    )


def _evidence(case: Case, pictures: list[_MovedPicture], eps: float) -> tuple[Evidence, ...]:
    chosen = _most_moved_first(case, pictures)[:_EVIDENCE]
    with case.model.undisturbed():
        p = scores(case.model, torch.stack([s.pixels[1] for s in chosen]).to(case.model.device)).softmax(1)
    evidence = []
    for k, s in enumerate(chosen):
        clean, moved = s.pixels
        image = strip([photo(clean), draw_map(case, clean, s.maps[0]), photo(moved), draw_map(case, moved, s.maps[1])])
        before, after = float(case.logits[s.row].softmax(0).max()), float(p[k].max())
        similarities: dict[str, Cell] = {
            kind: _finite_or_none(v) for kind, v in zip(_KINDS, s.alike[_MOVED], strict=True)
        }
        facts: dict[str, Cell] = {
            "picture": case.pictures[s.row].name,
            "said": case.label(s.row),
            "probability": before,
            "says now": case.model.name(int(p[k].argmax())),
            "its probability": after,
            "eps": write_value(eps),
            **similarities,
        }
        caption = (
            f"the picture and its map, the picture moved by at most {write_value(eps)} and its map: still "
            f"{case.label(s.row)} ({share(before)}, then {share(after)}), rank correlation {show(s.rank, '')}"
        )
        evidence.append(shown(case, s.row, f"map-stability-{k + 1}", image, caption, facts, maps=maps_of(case)))
    return tuple(evidence)
