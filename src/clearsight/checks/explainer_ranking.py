"""Rank explainers by whether their maps are evidence on this model, after Adebayo et al. 2018, arXiv:1810.03292."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import (
    bounds,
    draw_maps,
    left_out,
    note_on_budget,
    note_on_sample,
    share,
    shown,
    span,
    table,
)
from clearsight.auditing.map_tests import CEILING, FAITHFUL, RANDOMISED
from clearsight.auditing.tournament import (
    Tournament,
    Values,
    complete_players,
    mean,
    mean_of_known,
    measure_players,
    run_tournament,
)
from clearsight.core.catalogue import Call, catalogue, method, parse, split_calls
from clearsight.core.classifier import Classifier
from clearsight.core.statistics import FEWEST, Interval, Judgement
from clearsight.core.taking import takes_kind
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.errors import Refused
from clearsight.models.loading import load_classifier
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding, Table
from clearsight.reporting.wording import show

METRICS = f"{FAITHFUL}, relevance-mass, pointing-game, {RANDOMISED}, max-sensitivity(samples=2), complexity"
_EVIDENCE = 4
_SAME = 0.99  # rank correlation from which on two maps are not worth drawing side by side
_COMPARED = 4  # explainers that are compared metric by metric
_BLACK_BOX = (
    "The model gives scores and no gradients, so those took part that ask for scores alone, at few queries each; "
    "whether their maps change with the network, and how steady they are, was not asked."
)
_QUERIES = 200  # of explainers that ask for scores alone and say how many they take, for each picture
_RANDOMISED = ("parameter-randomisation", "label-randomisation")


@dataclass(frozen=True)
class RankedExplainer:
    """One explainer: its wins against its strongest control, and its maps' likeness to those of a random network."""

    player: int
    won: float
    interval: Interval | None
    control: str
    likeness: float
    rank: float

    @property
    def faithful(self) -> bool:
        return _is_sure(self.interval)


def _validate(case: Case, *, methods: str, metrics: str, calibrate: int, other: str, **others: object) -> None:
    chosen_explainers(methods)
    judges = [parse(m, "metrics") for m in split_calls(metrics)]
    if not any(is_voter(m) for m in _applying(case, judges)[0]):
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
    _load_other(case, other)


@method(
    paper="arXiv:1810.03292",
    claims="of-texts",
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
    everything: bool = False,
) -> Finding:
    """Which explainer is to be believed on this model?

    A tournament of explainers by metrics, with the three controls among them.  An explainer is believed if it wins
    against each control and changes with the network.  In a comparison, on one picture and by one metric, the
    better map wins.  The metrics of the comparisons are those of how much the marked places matter to the network: all
    but those that judge the explainer, the map alone or a region.

    Value: the share of comparisons that the winner wins against the control that does best against it, 0 to 1, with a
    bootstrap interval over pictures.  Chance: a half.  The winner is the believed explainer with the best mean place
    among those that win against each control, and the controls.  The other checks use it if no method was asked for.

    It is a race: an explainer that can no longer win surely against each control, whatever the pictures that are left,
    is dropped, and measured on them only if no other is believed.  The pictures of whose class the model is least sure
    come first, on which most are dropped; under a budget they come as drawn.  Verdict, winner and the numbers of all
    that are believed are those of a tournament in which nobody is dropped.

    pass: an explainer is believed.  fail: none can be, and later checks draw their maps in grey.  warn: else.

    Args:
        methods: explainers with commas between them, "few-passes" for those that cost little, or "all".  Of a model
            that gives no gradients "few-passes" are those that ask for scores alone, by 200 queries where they let that
            be chosen, and the metrics that run an explainer again are left out.
        metrics: metrics with commas between them.
        pictures: maximum number of pictures that judge, drawn by seed; at least 1.
        ceiling: largest mean rank correlation that a map may keep with that of a network with random parameters, or of
            other.
        calibrate: number of further pictures, on which every explainer's threshold is chosen by one search, for the
            metrics that see a picture through its map; 0 for none.
        other: words of a model trained on random labels (`clearsight train --random-labels`), for label randomisation;
            "" has none.
        everything: whether all explainers are measured on all pictures by all metrics.  By default those that can no
            longer win are dropped, and the metrics that run an explainer again are measured for those that win against
            each control; of all where none of these is believed.

    Refused: metrics of which none says how much the marked places matter, a calibration without a metric that has a
    threshold, and a second model of other classes or another input size.
    """
    calls, judges, not_of_texts, about_entrants = _entrants(case, methods, metrics)
    other_model = _load_other(case, other)
    if other_model and "label-randomisation" not in {m.method.name for m in judges}:
        judges.append(parse("label-randomisation", "metrics"))
    rows, calibration_rows = _split_rows(case, pictures, calibrate)
    later = (lambda _: False) if everything else reruns_explainer
    race = None if everything or len(rows) < FEWEST else is_voter  # on fewer pictures nobody wins surely
    tournament = run_tournament(
        case, calls, judges, rows, other=other_model, calibrate=calibration_rows, later=later, race=race
    )
    voting = [i for i, m in enumerate(tournament.metrics) if is_voter(m)]
    if not everything:
        tournament = _measure_winners(case, tournament, voting, ceiling, other_model)
    judged = sorted(judge_explainers(tournament, voting, case.seed), key=lambda j: j.rank)
    sane = [j for j in judged if not j.likeness > ceiling]
    believed = [j for j in sane if j.faithful]
    best = (believed or sane or judged)[0]
    call = tournament.players[best.player].call
    chosen = str(call) if believed and case.method_words == "auto" else ""
    n = len(tournament.rows)
    verdict: Judgement = "fail" if all(is_hopeless(j, ceiling) for j in judged) else "warn"
    if believed:
        verdict = "pass"
    return Finding(
        verdict,
        _headline(tournament, best, believed, ceiling, n),
        quantity=f"comparisons won by {call.method.name}",
        value=best.won,
        interval=best.interval,
        n=n,
        chance=0.5,
        has_bar=True,
        notes=(
            "Asked for: an interval above 50 % against each control, and maps that keep a rank correlation of at most "
            f"{ceiling:g} with those of a random network (option ceiling).",
            *(
                (f"Next by mean place in these comparisons: {_explainer_names(tournament, believed[1:4])}.",)
                if believed[1:]
                else ()
            ),
            *([f"The checks below use {chosen}."] if chosen else []),
            *(
                f"{name} gives the same maps as {twin} here, and is measured with it."
                for name, twin in tournament.same_maps
            ),
            *left_out([*tournament.left_out, *not_of_texts]),
            *_note_on_label_randomisation(tournament, judged, ceiling, other),
            *_notes_on_thresholds(tournament),
            *_note_on_dropped(tournament),
            *_note_on_unmeasured(tournament),
            *about_entrants,
            *note_on_sample(case, len(rows), len(case.pictures)),
            *note_on_budget(case, n, len(rows)),
        ),
        tables=_tables(tournament, judged, best, ceiling, voting, case.seed),
        figures=(*_wins_figure(tournament, judged, ceiling), *_agreement_figure(tournament)),
        evidence=_evidence(case, tournament, [*believed, *(j for j in judged if j not in believed)]),
        chosen_explainer=chosen,
        maps_unreliable=verdict == "fail" and _is_judged(case, tournament, judged),
    )


def _applying(case: Case, metrics: list[Call]) -> tuple[list[Call], list[tuple[str, str]]]:
    """The metrics that apply to the data, and (name, reason) of others: to texts none that change pixels a little."""
    of_pixels = [m for m in metrics if case.data.are_texts and "of-pixels" in m.method.claims]
    why = "it changes pixels a little, which characters cannot"
    return [m for m in metrics if m not in of_pixels], [(str(m), why) for m in of_pixels]


def least_sure_first(case: Case, rows: list[int]) -> list[int]:
    """These pictures in the order in which a race is soonest decided: first where the model is least sure of its class.

    There little depends on the marked places, and explainers lose to controls.  Under a budget, which may end the race
    at any picture, they stay as they were drawn.
    """
    if case.budget:
        return rows
    sure = case.model.chances(case.logits[rows]).amax(1).tolist()
    return [row for _, row in sorted(zip(sure, rows, strict=True))]


def reruns_explainer(metric: Call) -> bool:
    """Whether a metric runs the explainer again, which costs most, and says nothing about who wins."""
    return "again" in metric.method.injected and not is_voter(metric)


def _measure_winners(
    case: Case, tournament: Tournament, voting: list[int], ceiling: float, other: Classifier | None
) -> Tournament:
    """Measure by the other metrics who wins against each control; and all, where none of the winners is believed."""
    controls = {i for i, p in enumerate(tournament.players) if p.control}
    winners = {j.player for j in judge_explainers(tournament, voting, case.seed) if j.faithful}
    tournament = measure_players(case, tournament, winners | controls, reruns_explainer, other=other)
    judged = [j for j in judge_explainers(tournament, voting, case.seed) if j.player in winners]
    if any(not j.likeness > ceiling for j in judged):
        return tournament
    losers = {*range(len(tournament.players))} - winners - controls
    tournament = complete_players(case, tournament, reruns_explainer, other=other)
    return measure_players(case, tournament, losers, reruns_explainer, other=other)


def _tables(
    tournament: Tournament,
    judged: list[RankedExplainer],
    best: RankedExplainer,
    ceiling: float,
    voting: list[int],
    seed: int,
) -> tuple[Table, ...]:
    winner = tournament.players[best.player].call.method.name
    controls = [i for i, p in enumerate(tournament.players) if p.control]
    players = [*(j.player for j in judged), *controls]
    ranking = [_explainer_row(tournament, j, ceiling) for j in judged]
    comparison = _compare_by_metric(tournament, judged, best, seed)
    agreement = _agreement_rows(tournament)
    return (
        *table("Explainers, the best mean place first", ranking),
        *table(f"By metric, beside {winner}, {tournament.thing} by {tournament.thing}", comparison),
        *table(
            "Means by metric, the controls last",
            _means_by_metric(tournament, players, _places(tournament, judged, voting)),
        ),
        *table(f"Do the metrics agree?  Rank correlation over explainers{_agreed_on(tournament)}", agreement),
    )


def _is_judged(case: Case, tournament: Tournament, judged: list[RankedExplainer]) -> bool:
    """Whether the explainer of the later checks is among those judged: one that was asked for need not be."""
    return case.method_words == "auto" or str(case.method) in {str(tournament.players[j.player].call) for j in judged}


def _note_on_label_randomisation(
    tournament: Tournament, judged: list[RankedExplainer], ceiling: float, other: str
) -> tuple[str, ...]:
    """A sentence on how alike the maps stay to those of the model trained on random labels."""
    index = next((i for i, m in enumerate(tournament.metrics) if m.method.name == "label-randomisation"), None)
    if index is None or not other:
        return ()
    judged = [j for j in judged if not np.isnan(tournament.values[j.player, index]).all()]
    likenesses = [float(mean_of_known(tournament.values[j.player, index])) for j in judged]
    alike = [j for j, k in zip(judged, likenesses, strict=True) if k > ceiling]
    lowest, highest = (show(k, "") for k in (min(likenesses), max(likenesses)))
    names = f": {_explainer_names(tournament, alike)}" if alike else ""
    return (
        f"Label randomisation: maps keep a rank correlation of {lowest} to {highest} with those of {other}; "
        f"{len(alike)} of {counted(len(judged), 'explainer')} more than {ceiling:g}{names}.",
    )


def _note_on_dropped(tournament: Tournament) -> tuple[str, ...]:
    """A sentence on the explainers that were dropped, where there are such."""
    explainers = sum(not p.control for p in tournament.players)
    if not tournament.dropped:
        return ()
    return (
        f"{len(tournament.dropped)} of {explainers} explainers were dropped when they could no longer win surely "
        f"against each control: their numbers are of the {tournament.thing}s until then (option everything).",
    )


def _agreed_on(tournament: Tournament) -> str:
    """On which pictures the metrics are compared, where these are not all."""
    if not tournament.dropped:
        return ""
    n = min(tournament.pictures_of(i) for i in tournament.dropped)
    return f", on the first {counted(n, tournament.thing)}, before any was dropped"


def _note_on_unmeasured(tournament: Tournament) -> tuple[str, ...]:
    """A sentence on the explainers that were not run again, where there are such."""
    again = [k for k, m in enumerate(tournament.metrics) if reruns_explainer(m)]
    explainers = [i for i, p in enumerate(tournament.players) if not p.control]
    left = [i for i in explainers if again and np.isnan(tournament.values[i][again]).all()]
    if not left:
        return ()
    names = " and ".join(tournament.metrics[k].method.name for k in again) + (" is" if len(again) == 1 else " are")
    return (
        f"{names} measured for the {len(explainers) - len(left)} of {len(explainers)} explainers that win against "
        "each control (option everything).",
    )


def chosen_explainers(methods: str, kind: str = "classifier") -> list[Call]:
    """The explainers in words, of all that take this kind of model; the controls play in any case."""
    if methods in ("few-passes", "all"):
        available = [m for m in catalogue("explainers").values() if takes_kind(m, kind)]
        return [Call(m) for m in available if methods == "all" or "few-passes" in m.claims]
    return [parse(m, "explainers") for m in split_calls(methods)]


def _entrants(
    case: Case, methods: str, metrics: str
) -> tuple[list[Call], list[Call], list[tuple[str, str]], tuple[str, ...]]:
    """The explainers; the metrics, and (name, reason) of those left out; and a sentence where scores alone are given.

    A model that gives scores alone leaves no choice of explainers.
    """
    judges, left_out = _applying(case, [parse(m, "metrics") for m in split_calls(metrics)])
    if methods == "few-passes" and case.is_black_box:
        return _of_scores_alone(), [m for m in judges if "again" not in m.method.injected], left_out, (_BLACK_BOX,)
    return chosen_explainers(methods), judges, left_out, ()


def _of_scores_alone() -> list[Call]:
    """The explainers that ask a model for scores alone, at few queries."""
    able = [m for m in catalogue("explainers").values() if takes_kind(m, "classifier")]
    calls = [Call(m) for m in able if "scores-only" in m.claims]
    return [
        c.with_options(**{name: _QUERIES for name in ("samples", "masks") if name in c.method.options}) for c in calls
    ]


def _load_other(case: Case, words: str) -> Classifier | None:
    """The model that was trained on random labels, where there is one; refused where it is one of other classes."""
    if not words:
        return None
    model = load_classifier(words, "explainer-ranking")
    if model.labels != case.model.labels or model.preprocess.size != case.model.preprocess.size:
        raise Refused(
            f"explainer-ranking(other={words}): a model of the same classes and input as {case.model.source} is needed"
        )
    return model


def _split_rows(case: Case, pictures: int, calibrate: int) -> tuple[list[int], list[int]]:
    """The rows that judge, and the rows on which thresholds are chosen: others, where there are enough."""
    rows = case.sample(range(len(case.pictures)), pictures + calibrate)
    judged = rows[calibrate:] if len(rows) > calibrate else rows
    return least_sure_first(case, judged), rows[:calibrate]


def _notes_on_thresholds(tournament: Tournament) -> tuple[str, ...]:
    """Sentences on where thresholds come from, and on which numbers are optimistic for it."""
    optimistic = [str(m) for m in tournament.metrics if m.options.get("threshold", 0.0) is None]
    notes = [
        f"{m} chooses each map's threshold by the number that it then reports, so it is optimistic." for m in optimistic
    ]
    if tournament.calibrated_on:
        chosen = ", ".join(f"{name} {t:g} %" for name, t in tournament.thresholds.items())
        on_judged = bool({*tournament.calibrated_on} & {*tournament.rows})
        where = (
            f"on the {tournament.thing}s that are judged, too few for others, so these numbers are optimistic"
            if on_judged
            else f"on other {tournament.thing}s"
        )
        notes.append(
            f"Thresholds, calibrated on {counted(len(tournament.calibrated_on), tournament.thing)}, {where}: {chosen}."
        )
    return tuple(notes)


def _compare_by_metric(
    tournament: Tournament, judged: list[RankedExplainer], best: RankedExplainer, seed: int
) -> list[dict[str, Cell]]:
    """By metric, the means of the first explainers and the controls, and by how much the winner is better."""
    on_all = [j for j in judged if j is not best and j.player not in tournament.dropped]
    compared = [best.player, *(j.player for j in on_all)][:_COMPARED]
    compared += [i for i, p in enumerate(tournament.players) if p.control]
    rows = []
    for k, metric in enumerate(tournament.metrics):
        for i in compared:
            value, interval = mean(tournament.values[i, k], seed)
            gain, gain_interval = mean(tournament.advantage(k, best.player, i), seed)
            rows.append(
                {
                    "metric": str(metric),
                    "explainer": str(tournament.players[i].call),
                    "mean": _finite_or_none(value),
                    **bounds(interval),
                    "the winner is better by": _finite_or_none(gain) if i != best.player else None,
                    "at least": gain_interval[0] if gain_interval and i != best.player else None,
                    "at most": gain_interval[1] if gain_interval and i != best.player else None,
                }
            )
    return rows


def _agreement_figure(tournament: Tournament) -> tuple[Figure, ...]:
    """The figure of how far the metrics agree on the explainers."""
    if len(tournament.metrics) < 2:
        return ()
    names = [m.method.name for m in tournament.metrics]
    data = charts.correlations(names, tournament.agreement().tolist())
    caption = (
        "Do the metrics agree? Rank correlation over explainers of two metrics, each signed so that higher is better"
        f"{_agreed_on(tournament)}."
    )
    return (Figure("explainer-ranking-agreement.svg", data, caption, f"Rank correlations of {len(names)} metrics"),)


def is_voter(metric: Call) -> bool:
    """Whether a metric asks how much the marked places matter to the network."""
    return "regions" not in metric.method.injected and not any(c.startswith("judges") for c in metric.method.claims)


def judge_explainers(tournament: Tournament, voting: list[int], seed: int) -> list[RankedExplainer]:
    """Each explainer against the control that is hardest to beat, by the metrics in ``voting``.

    Of the controls that it does not surely beat the one with the least wins; of all where it beats all.
    """
    controls = [i for i, p in enumerate(tournament.players) if p.control]
    random = [i for i, m in enumerate(tournament.metrics) if m.method.name in _RANDOMISED]
    ranked = []
    for i, player in enumerate(tournament.players):
        if player.control:
            continue
        wins = {c: mean(tournament.pairwise_wins(voting, i, c), seed) for c in controls}
        hardest = min(wins, key=lambda c: (_is_sure(wins[c][1]), wins[c][0]))
        likeness = max((float(mean_of_known(tournament.values[i, k])) for k in random), default=float("nan"))
        name = tournament.players[hardest].call.method.name
        ranked.append(RankedExplainer(i, *wins[hardest], name, likeness, float("nan")))
    places = _places(tournament, ranked, voting)
    return [replace(j, rank=float(places[j.player])) for j in ranked]


def _places(tournament: Tournament, ranked: list[RankedExplainer], voting: list[int]) -> Values:
    """(players,) each one's mean place among those that win against each control, and the controls.

    Who was dropped is none of them, so that it does not matter on how many pictures.  Among all where nobody wins.
    """
    winners = [j.player for j in ranked if j.faithful]
    controls = [i for i, p in enumerate(tournament.players) if p.control]
    return tournament.places(voting, [*winners, *controls] if winners else range(len(tournament.players)))


def _is_sure(interval: Interval | None) -> bool:
    return interval is not None and interval[0] > 0.5


def is_hopeless(j: RankedExplainer, ceiling: float) -> bool:
    """Whether an explainer ignores what the network has learned, or does not beat a control."""
    return j.likeness > ceiling or (j.interval is not None and j.interval[1] <= 0.5)


def _headline(
    tournament: Tournament, best: RankedExplainer, believed: list[RankedExplainer], ceiling: float, n: int
) -> str:
    call = tournament.players[best.player].call
    wins = (
        f"it wins {share(best.won)} of its comparisons with {best.control}, the strongest control map "
        f"({span(best.interval, n)})"
    )
    likeness = (
        ""
        if np.isnan(best.likeness)
        else f", and its maps keep a rank correlation of {show(best.likeness, '')} with those of a random network"
    )
    if believed:
        others = len(believed) - 1
        more = f"; {counted(others, 'other explainer')} can be believed too" if others else "; no other can be believed"
        return f"Use {call}: {wins}{likeness}{more}."
    if n < FEWEST:
        return (
            f"{counted(n, f'{tournament.thing} is', f'{tournament.thing}s are')} too few to say which explainer can be "
            f"believed, give at least {FEWEST}. The best was {call}: {wins}{likeness}."
        )
    why = (
        "its maps do not change when the network is random"
        if best.likeness > ceiling
        else "none is surely better than the controls"
    )
    return f"No explainer can be believed on this model: {why}. The best was {call}: {wins}{likeness}."


def _explainer_names(tournament: Tournament, judged: list[RankedExplainer]) -> str:
    return ", ".join(tournament.players[j.player].call.method.name for j in judged)


def _explainer_row(tournament: Tournament, j: RankedExplainer, ceiling: float) -> dict[str, Cell]:
    player = tournament.players[j.player]
    reasons = [
        *(["alike on a random network"] if j.likeness > ceiling else []),
        *([] if j.faithful else [f"no better than {j.control}"]),
    ]
    return {
        "explainer": str(player.call),
        "believed": f"no: {', '.join(reasons)}" if reasons else "yes",
        "comparisons won": j.won,
        **bounds(j.interval),
        "against": j.control,
        "kept": _finite_or_none(j.likeness),
        "mean place": j.rank,
        f"passes a {tournament.thing}": player.passes,
        "n": tournament.pictures_of(j.player),
    }


def _means_by_metric(tournament: Tournament, order: list[int], places: Values) -> list[dict[str, Cell]]:
    """The mean of every explainer and control by every metric."""
    return [
        {
            "explainer": str(tournament.players[i].call),
            "mean place": float(places[i]),
            "n": tournament.pictures_of(i),
            **{str(m): _finite_or_none(mean(tournament.values[i, k], 0)[0]) for k, m in enumerate(tournament.metrics)},
        }
        for i in order
    ]


def _agreement_rows(tournament: Tournament) -> list[dict[str, Cell]]:
    names = [m.method.name for m in tournament.metrics]
    rows = tournament.agreement()
    return [
        {"metric": name, **dict(zip(names, map(_finite_or_none, row), strict=True))}
        for name, row in zip(names, rows, strict=True)
    ]


def _wins_figure(tournament: Tournament, judged: list[RankedExplainer], ceiling: float) -> tuple[Figure, ...]:
    dots = [
        charts.Dot(str(tournament.players[j.player].call), j.won, 0.5, hollow=not j.faithful or j.likeness > ceiling)
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
        f"Comparisons won against the strongest control map, {counted(len(tournament.rows), tournament.thing)}; "
        "best mean place first."
    )
    top = tournament.players[judged[0].player].call
    return (
        Figure(
            "explainer-ranking-wins.svg",
            data,
            caption,
            f"Comparisons won by {len(dots)} explainers; {top} has the best place.",
        ),
    )


def _evidence(case: Case, tournament: Tournament, judged: list[RankedExplainer]) -> tuple[Evidence, ...]:
    """The pictures on which the best explainers disagree most, their maps side by side."""
    players = _differing_players(tournament, [j.player for j in judged if j.player not in tournament.dropped])
    likeness = tournament.disputed(players)
    evidence = []
    for k, i in enumerate(np.argsort(likeness, kind="stable")[:_EVIDENCE], 1):
        row = tournament.rows[int(i)]
        x = case.pixels([row])[0]
        names = [tournament.players[p].call.method.name for p in players]
        maps = [tournament.players[p].maps[int(i)] for p in players]
        image = draw_maps(case, row, x, maps)
        facts: dict[str, Cell] = {
            case.thing: case.pictures[row].name,
            "said": case.label(row),
            "rank correlation of the maps": float(likeness[i]),
        }
        caption = f"{case.label(row)}: {', '.join(names)}; alike at {show(float(likeness[i]), '')}"
        words = [w for p in players for w in ("-m", str(tournament.players[p].call))]
        command = case.commands.of_picture("explain", case.pictures[row], *words)
        evidence.append(shown(case, row, f"explainer-ranking-{k}", image, caption, facts, command, "colour"))
    return tuple(evidence)


def _differing_players(tournament: Tournament, order: list[int], count: int = 3) -> list[int]:
    """The first players whose maps are not the same as those of one before them."""
    chosen: list[int] = []
    for i in order:
        if len(chosen) < count and all(tournament.disputed([i, other]).mean() < _SAME for other in chosen):
            chosen.append(i)
    return chosen


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
