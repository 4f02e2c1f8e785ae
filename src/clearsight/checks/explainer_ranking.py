"""Which explainer is evidence on this model, after Adebayo et al. 2018, arXiv:1810.03292: maps are evidence if they
pass tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, fewer, left_out, sampled, share, shown, span, table
from clearsight.auditing.map_tests import CEILING, FAITHFUL, RANDOMISED
from clearsight.auditing.tournament import Tournament, mean, run_tournament
from clearsight.core.catalogue import Call, catalogue, method, parse, split_calls
from clearsight.core.classifier import Classifier
from clearsight.core.statistics import FEWEST, Interval, Judgement
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.heatmaps import overlay, photo, strip
from clearsight.errors import Refused
from clearsight.models.loading import load
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding
from clearsight.reporting.wording import show

METRICS = f"{FAITHFUL}, relevance-mass, pointing-game, {RANDOMISED}, max-sensitivity(samples=2), complexity"
_EVIDENCE = 4
_SAME = 0.99  # rank correlation from which on two maps are not worth drawing side by side
_BESIDE = 4  # explainers that are compared metric by metric
_RANDOMISED = ("parameter-randomisation", "label-randomisation")


@dataclass(frozen=True)
class _Judged:
    """One explainer before the bars: what it wins against its strongest control, what it keeps on a random network."""

    player: int
    won: float
    interval: Interval | None
    control: str
    kept: float
    rank: float

    @property
    def faithful(self) -> bool:
        return self.interval is not None and self.interval[0] > 0.5


def _validate(case: Case, *, methods: str, metrics: str, calibrate: int, other: str, **others: object) -> None:
    chosen_explainers(methods)
    judges = [parse(m, "metrics") for m in split_calls(metrics)]
    if not any(is_voter(m) for m in judges):
        raise Refused(
            f"explainer-ranking(metrics={metrics}): none of them says how much the marked places matter to the network"
        )
    if calibrate < 0:
        raise Refused(f"explainer-ranking(calibrate={calibrate}): a number of pictures, 0 for none")
    if calibrate and not any("threshold" in m.method.options for m in judges):
        raise Refused(
            f"explainer-ranking(calibrate={calibrate}): none of the metrics has a threshold; add one to "
            "metrics, such as average-probability-increase"
        )
    _second(case, other)


@method(
    paper="arXiv:1810.03292",
    order=0,
    validate=_validate,
    advice="take no map of this report as evidence, and try other explainers (option methods)",
)
def explainer_ranking(
    case: Case,
    *,
    methods: str = "few-passes",
    metrics: str = METRICS,
    pictures: int = 8,
    ceiling: float = CEILING,
    calibrate: int = 0,
    other: str = "",
) -> Finding:
    """Which explainer is to be believed on this model?

    A tournament of explainers by metrics, with the three controls among them.  An explainer is believed if it wins
    against each control and changes with the network.  In a comparison, on one picture and by one metric, the
    better map wins.  The metrics of the comparisons are those of how much the marked places matter to the network: all
    but those that judge the explainer, the map alone or a region.

    Value: the share of comparisons that the winner wins against the control that does best against it, 0 to 1, with a
    bootstrap interval over pictures.  Chance: a half.  The winner is the believed explainer with the best mean place.
    The other checks use it if no method was asked for.

    pass: an explainer is believed.  fail: none can be, and later checks draw their maps in grey.  warn: else.

    Args:
        methods: explainers with commas between them, "few-passes" for those that cost little, or "all".
        metrics: metrics with commas between them.
        pictures: maximum number of pictures that judge, drawn by seed; at least 1.
        ceiling: largest mean rank correlation that a map may keep with that of a network with random parameters, or of
            other.
        calibrate: number of further pictures, on which every explainer's threshold is chosen by one search, for the
            metrics that see a picture through its map; 0 for none.
        other: words of a model trained on random labels (`clearsight train --random-labels`), for label randomisation;
            "" has none.

    Refused: metrics of which none says how much the marked places matter, a calibration without a metric that has a
    threshold, and a second model of other classes or another input size.
    """
    calls = chosen_explainers(methods)
    judges = [parse(m, "metrics") for m in split_calls(metrics)]
    second = _second(case, other)
    if second and "label-randomisation" not in {m.method.name for m in judges}:
        judges.append(parse("label-randomisation", "metrics"))
    rows, learn = _divided(case.sample(range(len(case.pictures)), pictures + calibrate), calibrate)
    played = run_tournament(case, calls, judges, rows, other=second, calibrate=learn)
    voting = [i for i, m in enumerate(played.metrics) if is_voter(m)]
    judged = sorted(judge_explainers(played, voting, case.seed), key=lambda j: j.rank)
    sane = [j for j in judged if not j.kept > ceiling]
    believed = [j for j in sane if j.faithful]
    best = (believed or sane or judged)[0]
    call = played.players[best.player].call
    chosen = str(call) if believed and case.asked == "auto" else ""
    n = len(played.rows)
    controls = [i for i, p in enumerate(played.players) if p.control]
    verdict: Judgement = "fail" if all(is_hopeless(j, ceiling) for j in judged) else "warn"
    if believed:
        verdict = "pass"
    return Finding(
        verdict,
        _headline(played, best, believed, ceiling, n),
        quantity=f"comparisons won by {call.method.name}",
        value=best.won,
        interval=best.interval,
        n=n,
        chance=0.5,
        has_bar=True,
        notes=(
            "Asked for: an interval above 50 % against each control, and maps that keep a rank correlation of at most "
            f"{ceiling:g} with those of a random network (option ceiling).",
            *((f"Next by mean place in these comparisons: {_names(played, believed[1:4])}.",) if believed[1:] else ()),
            *([f"The checks below use {chosen}."] if chosen else []),
            *(f"{name} gives the same maps as {twin} here, and is measured with it." for name, twin in played.same),
            *left_out(played.out),
            *_beside_other(played, judged, ceiling, other),
            *_calibration(played),
            *sampled(len(rows), len(case.pictures)),
            *fewer(n, len(rows)),
        ),
        tables=(
            *table("Explainers, the best mean place first", [_row(played, j, ceiling) for j in judged]),
            *table(
                f"By metric, beside {call.method.name}, picture by picture", _paired(played, judged, best, case.seed)
            ),
            *table(
                "Means by metric, the controls last", _means(played, [*(j.player for j in judged), *controls], voting)
            ),
            *table("Do the metrics agree?  Rank correlation over explainers", _agreement(played)),
        ),
        figures=(*_figure(played, judged, ceiling), *_matrix(played)),
        evidence=_evidence(case, played, [*believed, *(j for j in judged if j not in believed)]),
        chosen_explainer=chosen,
        maps_unreliable=verdict == "fail" and _is_judged(case, played, judged),
    )


def _is_judged(case: Case, played: Tournament, judged: list[_Judged]) -> bool:
    """Whether the explainer of the later checks is among those judged: one that was asked for need not be."""
    return case.asked == "auto" or str(case.method) in {str(played.players[j.player].call) for j in judged}


def _beside_other(played: Tournament, judged: list[_Judged], ceiling: float, other: str) -> tuple[str, ...]:
    """What label randomisation found, in a sentence."""
    at = next((i for i, m in enumerate(played.metrics) if m.method.name == "label-randomisation"), None)
    if at is None or not other:
        return ()
    kept = [float(np.nanmean(played.values[j.player, at])) for j in judged]
    alike = [j for j, k in zip(judged, kept, strict=True) if k > ceiling]
    least, most = (show(k, "") for k in (min(kept), max(kept)))
    which = f": {_names(played, alike)}" if alike else ""
    return (
        f"Label randomisation: maps keep a rank correlation of {least} to {most} with those of {other}; "
        f"{len(alike)} of {counted(len(judged), 'explainer')} more than {ceiling:g}{which}.",
    )


def chosen_explainers(methods: str) -> list[Call]:
    """The explainers in words; the controls play in any case."""
    if methods in ("few-passes", "all"):
        every = catalogue("explainers").values()
        return [Call(m) for m in every if methods == "all" or "few-passes" in m.claims]
    return [parse(m, "explainers") for m in split_calls(methods)]


def _second(case: Case, words: str) -> Classifier | None:
    """The model that was trained on random labels, where there is one; refused where it is one of other classes."""
    if not words:
        return None
    found = load(words)
    if found.labels != case.model.labels or found.preprocess.size != case.model.preprocess.size:
        raise Refused(
            f"explainer-ranking(other={words}): a model of the same classes and input as {case.model.source} is needed"
        )
    return found


def _divided(rows: list[int], calibrate: int) -> tuple[list[int], list[int]]:
    """The pictures that judge, and those on which thresholds are chosen: others, where there are enough."""
    if not calibrate:
        return rows, []
    return (rows[calibrate:], rows[:calibrate]) if len(rows) > calibrate else (rows, rows)


def _calibration(played: Tournament) -> tuple[str, ...]:
    """Where thresholds come from, with a warning where they have seen what they are judged by."""
    flattered = [str(m) for m in played.metrics if m.options.get("threshold", 0.0) is None]
    notes = [
        f"{m} chooses each map's threshold by the number that it then reports, so it is optimistic." for m in flattered
    ]
    if played.learned:
        chosen = ", ".join(f"{name} {t:g} %" for name, t in played.thresholds.items())
        same = bool({*played.learned} & {*played.rows})
        where = (
            "on the pictures that are judged, too few for others, so these numbers are optimistic"
            if same
            else "on other pictures"
        )
        notes.append(f"Thresholds, calibrated on {counted(len(played.learned), 'picture')}, {where}: {chosen}.")
    return tuple(notes)


def _paired(played: Tournament, judged: list[_Judged], best: _Judged, seed: int) -> list[dict[str, Cell]]:
    """What the first explainers and the controls come to by each metric, and by how much the winner is better."""
    shown = [best.player, *(j.player for j in judged if j is not best)][:_BESIDE]
    shown += [i for i, p in enumerate(played.players) if p.control]
    rows = []
    for k, metric in enumerate(played.metrics):
        for i in shown:
            value, interval = mean(played.values[i, k], seed)
            by, span_ = mean(played.beside(k, best.player, i), seed)
            rows.append(
                {
                    "metric": str(metric),
                    "explainer": str(played.players[i].call),
                    "mean": _number(value),
                    **bounds(interval),
                    "the winner is better by": _number(by) if i != best.player else None,
                    "at least": span_[0] if span_ and i != best.player else None,
                    "at most": span_[1] if span_ and i != best.player else None,
                }
            )
    return rows


def _matrix(played: Tournament) -> tuple[Figure, ...]:
    """Which metrics say the same of the explainers."""
    if len(played.metrics) < 2:
        return ()
    names = [m.method.name for m in played.metrics]
    data = charts.correlations(names, played.agreement().tolist())
    caption = (
        "Do the metrics agree? Rank correlation over explainers of two metrics, each signed so that higher is better."
    )
    return (Figure("explainer-ranking-agreement.svg", data, caption, f"Rank correlations of {len(names)} metrics"),)


def is_voter(metric: Call) -> bool:
    """Whether a metric asks how much the marked places matter to the network."""
    return "regions" not in metric.method.injected and not any(c.startswith("judges") for c in metric.method.claims)


def judge_explainers(played: Tournament, voting: list[int], seed: int) -> list[_Judged]:
    """Each explainer against the control that is hardest to beat, by the metrics in ``voting``."""
    controls = [i for i, p in enumerate(played.players) if p.control]
    places = np.nanmean(played.rank(voting), axis=1)
    random = [i for i, m in enumerate(played.metrics) if m.method.name in _RANDOMISED]
    found = []
    for i, player in enumerate(played.players):
        if player.control:
            continue
        wins = {c: mean(played.pairwise_wins(voting, i, c), seed) for c in controls}
        hardest = min(wins, key=lambda c: wins[c][0])
        kept = max((float(np.nanmean(played.values[i, k])) for k in random), default=float("nan"))
        name = played.players[hardest].call.method.name
        found.append(_Judged(i, *wins[hardest], name, kept, float(places[i])))
    return found


def is_hopeless(j: _Judged, ceiling: float) -> bool:
    """Whether an explainer ignores what the network has learned, or does not beat a control."""
    return j.kept > ceiling or (j.interval is not None and j.interval[1] <= 0.5)


def _headline(played: Tournament, best: _Judged, believed: list[_Judged], ceiling: float, n: int) -> str:
    call = played.players[best.player].call
    won = (
        f"it wins {share(best.won)} of its comparisons with {best.control}, the strongest control map "
        f"({span(best.interval, n)})"
    )
    kept = (
        ""
        if np.isnan(best.kept)
        else f", and its maps keep a rank correlation of {show(best.kept, '')} with those of a random network"
    )
    if believed:
        others = len(believed) - 1
        more = f"; {counted(others, 'other explainer')} can be believed too" if others else "; no other can be believed"
        return f"Use {call}: {won}{kept}{more}."
    if n < FEWEST:
        return (
            f"{counted(n, 'picture')} are too few to say which explainer can be believed, give at least {FEWEST}. "
            f"The best was {call}: {won}{kept}."
        )
    why = (
        "its maps do not change when the network is random"
        if best.kept > ceiling
        else "none is surely better than the controls"
    )
    return f"No explainer can be believed on this model: {why}. The best was {call}: {won}{kept}."


def _names(played: Tournament, judged: list[_Judged]) -> str:
    return ", ".join(played.players[j.player].call.method.name for j in judged)


def _row(played: Tournament, j: _Judged, ceiling: float) -> dict[str, Cell]:
    player = played.players[j.player]
    bad = [
        *(["alike on a random network"] if j.kept > ceiling else []),
        *([] if j.faithful else [f"no better than {j.control}"]),
    ]
    return {
        "explainer": str(player.call),
        "believed": f"no: {', '.join(bad)}" if bad else "yes",
        "comparisons won": j.won,
        **bounds(j.interval),
        "against": j.control,
        "kept": _number(j.kept),
        "mean place": j.rank,
        "passes a picture": player.passes,
    }


def _means(played: Tournament, order: list[int], voting: list[int]) -> list[dict[str, Cell]]:
    """What every explainer and control comes to by every metric."""
    places = np.nanmean(played.rank(voting), axis=1)
    return [
        {
            "explainer": str(played.players[i].call),
            "mean place": float(places[i]),
            **{str(m): _number(mean(played.values[i, k], 0)[0]) for k, m in enumerate(played.metrics)},
        }
        for i in order
    ]


def _agreement(played: Tournament) -> list[dict[str, Cell]]:
    names = [m.method.name for m in played.metrics]
    rows = played.agreement()
    return [
        {"metric": name, **dict(zip(names, map(_number, row), strict=True))}
        for name, row in zip(names, rows, strict=True)
    ]


def _figure(played: Tournament, judged: list[_Judged], ceiling: float) -> tuple[Figure, ...]:
    dots = [
        charts.Dot(str(played.players[j.player].call), j.won, 0.5, hollow=not j.faithful or j.kept > ceiling)
        for j in judged
    ]
    data = charts.dots(
        dots,
        xlabel="comparisons won against the strongest control",
        value="believed",
        chance="chance",
        hollow="not believed",
    )
    caption = (
        f"Comparisons won against the strongest control map, {counted(len(played.rows), 'picture')}; "
        "best mean place first."
    )
    top = played.players[judged[0].player].call
    return (
        Figure(
            "explainer-ranking-wins.svg",
            data,
            caption,
            f"Comparisons won by {len(dots)} explainers; {top} has the best place.",
        ),
    )


def _evidence(case: Case, played: Tournament, judged: list[_Judged]) -> tuple[Evidence, ...]:
    """The pictures on which the best explainers disagree most, their maps side by side."""
    among = _unlike(played, [j.player for j in judged])
    alike = played.disputed(among)
    out = []
    for k, i in enumerate(np.argsort(alike, kind="stable")[:_EVIDENCE], 1):
        row = played.rows[int(i)]
        x = case.pixels([row])[0]
        names = [played.players[p].call.method.name for p in among]
        maps = [played.players[p].maps[int(i)] for p in among]
        image = strip([photo(x), *(overlay(x, m, signed=bool((m < 0).any())) for m in maps)])
        facts: dict[str, Cell] = {
            "picture": case.pictures[row].name,
            "said": case.label(row),
            "rank correlation of the maps": float(alike[i]),
        }
        caption = f"{case.label(row)}: {', '.join(names)}; alike at {show(float(alike[i]), '')}"
        words = [w for p in among for w in ("-m", str(played.players[p].call))]
        command = case.commands.of_picture("explain", case.pictures[row], *words)
        out.append(shown(case, row, f"explainer-ranking-{k}", image, caption, facts, command, "colour"))
    return tuple(out)


def _unlike(played: Tournament, order: list[int], most: int = 3) -> list[int]:
    """The first players whose maps are not the same as those of one before them."""
    found: list[int] = []
    for i in order:
        if len(found) < most and all(played.disputed([i, other]).mean() < _SAME for other in found):
            found.append(i)
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
