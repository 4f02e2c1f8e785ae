"""A tournament: explainers and control maps, measured by the same metrics on the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.core.batching import SIZE
from clearsight.core.catalogue import Call, catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.places import cropped, occupied
from clearsight.core.remembered import remembering
from clearsight.core.similarity import spearman
from clearsight.core.statistics import FEWEST, Interval, bootstrap
from clearsight.core.taking import takes_kind
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.internals.fused_forward import PAYS, fused_forward
from clearsight.perturbation.map_thresholds import LEVELS, best_level, rises_through, stretched
from clearsight.runner.results import Explanation
from clearsight.runner.run import explain, measure, resolve

_ROUNDS = 4  # of a race, after each of which players are dropped; more where a round has more than SIZE pictures
Values = npt.NDArray[np.float64]
Batch = tuple[list[int], Tensor]  # rows, and their pixels


@dataclass(frozen=True, eq=False)
class Entrant:
    """One explainer: its maps (n, *S) of the pictures, and passes through the network, both ways, for one of them.

    Of a player that was dropped there are maps of the first pictures alone.
    """

    call: Call
    maps: Tensor
    passes: float

    @property
    def control(self) -> bool:
        return "control" in self.call.method.claims


@dataclass(eq=False)
class Standing:
    """What is measured so far: by explainer its maps and values (metrics, B) batch by batch, and its passes.

    twins_of: by explainer those before it whose maps are the same as its own.
    """

    metrics: tuple[Call, ...]
    maps: dict[str, list[Tensor]]
    values: dict[str, list[Values]]
    passes: dict[str, float]
    twins_of: dict[str, set[str]]

    @classmethod
    def of(cls, calls: Sequence[Call], metrics: Sequence[Call]) -> Standing:
        """Nothing measured yet."""
        names = [str(c) for c in calls]
        twins_of = {name: {*names[:i]} for i, name in enumerate(names)}
        return cls(tuple(metrics), {n: [] for n in names}, {n: [] for n in names}, dict.fromkeys(names, 0.0), twins_of)

    def player(self, call: Call) -> Entrant:
        """What there is of one explainer."""
        maps = torch.cat(self.maps[str(call)])
        return Entrant(call, maps, self.passes[str(call)] / len(maps))

    def enter(self, name: str, explanation: Explanation, values: Values) -> None:
        """One explainer's maps of a batch, and their values (metrics, B)."""
        self.maps[name].append(explanation.maps)
        self.values[name].append(values)
        self.passes[name] += (explanation.forwards + explanation.backwards) * len(explanation.maps)

    def can_win(self, name: str, control: str, voting: list[int], ends: Sequence[int], seed: int) -> bool:
        """Whether an explainer can still come to win surely against a control, wherever the pictures end.

        If it won every comparison from here on: an interval's draws are those of its seed, so that no other course
        gives a higher one.  voting: the metrics that count.
        """
        signs = _signs(self.metrics)[voting][:, None]
        ours, theirs = (np.concatenate(self.values[n], axis=1)[voting] * signs for n in (name, control))
        won = _shares_won(ours, theirs)
        if np.isnan(won).any():
            return True
        best = [bootstrap([*won, *[1.0] * (n - len(won))], seed) for n in ends if n >= len(won)]
        return any(interval is not None and interval[0] > 0.5 for interval in best)


@dataclass(frozen=True, eq=False)
class Tournament:
    """The values of every explainer by every metric on the same pictures.

    rows: the pictures.  values (players, metrics, n): as measured, nan where a metric has no value, and for a player
    that was dropped on the pictures after that.  left_out:
    explainers that could not take part, and why.  thresholds: of each player's maps, in per cent of the places, where
    they were calibrated, on the pictures calibrated_on.  same_maps: (player, the player with the same maps that was
    measured for both).  thing: what the data are, in a word.  inside: bool (n, *S), the places of texts that hold
    characters; None for pictures, of which all places count.
    """

    rows: tuple[int, ...]
    players: tuple[Entrant, ...]
    metrics: tuple[Call, ...]
    values: Values
    left_out: tuple[tuple[str, str], ...]
    thresholds: dict[str, float] = field(default_factory=dict)
    calibrated_on: tuple[int, ...] = ()
    same_maps: tuple[tuple[str, str], ...] = ()
    thing: str = "picture"
    inside: Tensor | None = None

    def oriented(self) -> Values:
        """The values with their sign turned where low is good: high is good everywhere."""
        turned: Values = self.values * _signs(self.metrics)[None, :, None]
        return turned

    def pairwise_wins(self, metrics: Sequence[int], one: int, other: int) -> Values:
        """(n,) the share of these metrics by which one is better than the other on each picture; a tie is half."""
        a, b = (self.oriented()[i][list(metrics)] for i in (one, other))
        return _shares_won(a, b)

    def places(self, metrics: Sequence[int], among: Collection[int]) -> Values:
        """(players,): each player's place among some players, itself one of them, 1 the best; ties share.

        The mean over the pictures on which it was measured, and over these metrics.
        """
        values = self.oriented()[:, list(metrics)]
        places = np.ones_like(values)
        for other in among:
            theirs = values[other]
            places += np.where(np.arange(len(values)) == other, 0.0, 1.0)[:, None, None] * (
                (theirs > values) + 0.5 * (theirs == values)
            )
        return mean_of_known(np.where(np.isnan(values), np.nan, places).reshape(len(values), -1))

    def pictures_of(self, player: int) -> int:
        """On how many pictures a player was measured: on fewer than there are, if it was dropped."""
        return len(self.players[player].maps)

    @property
    def dropped(self) -> list[int]:
        """The players that were not measured on all pictures."""
        return [i for i in range(len(self.players)) if self.pictures_of(i) < len(self.rows)]

    def agreement(self) -> Values:
        """(metrics, metrics): rank correlation over the players of what two metrics say of them on average.

        Of the pictures on which all players were measured.
        """
        means = mean_of_known(self.oriented()[:, :, : min(map(self.pictures_of, range(len(self.players))))])
        n = len(self.metrics)
        correlations = np.eye(n)
        for i in range(n):
            for j in range(i):
                both = np.isfinite(means[:, i]) & np.isfinite(means[:, j])
                correlations[i, j] = correlations[j, i] = (
                    spearman(means[both, i], means[both, j]) if both.sum() > 2 else np.nan
                )
        return correlations

    def advantage(self, metric: int, one: int, other: int) -> Values:
        """(n,) by how much one is better than the other on each picture by a metric, in its units."""
        difference: Values = self.oriented()[one, metric] - self.oriented()[other, metric]
        return difference

    def disputed(self, among: Sequence[int]) -> Values:
        """(n,) how alike the maps of these players are on each picture: the mean rank correlation of all pairs."""
        pairs = [(a, b) for i, a in enumerate(among) for b in among[:i]]
        maps = {k: [m.double().numpy() for m in cropped(self.players[k].maps, self.inside)] for k in among}
        return np.array(
            [np.mean([spearman(maps[a][i], maps[b][i]) for a, b in pairs] or [1.0]) for i in range(len(self.rows))]
        )


def _signs(metrics: Sequence[Call]) -> Values:
    """(metrics,) -1 where low is good."""
    return np.array([-1.0 if "lower-is-better" in m.method.claims else 1.0 for m in metrics])


def _shares_won(ours: Values, theirs: Values) -> Values:
    """(n,) the share of the metrics (metrics, n) by which ours are higher; a tie is half."""
    won = np.where(np.isnan(ours) | np.isnan(theirs), np.nan, (ours > theirs) + 0.5 * (ours == theirs))
    return mean_of_known(won.T)


def run_tournament(
    case: Case,
    methods: Sequence[Call],
    metrics: Sequence[Call],
    rows: Sequence[int],
    *,
    other: Classifier | None = None,
    calibrate: Sequence[int] = (),
    later: Callable[[Call], bool] = lambda _: False,
    race: Callable[[Call], bool] | None = None,
) -> Tournament:
    """Run every explainer on the pictures and every metric on its maps, all controls among them, batch by batch.

    The case's share of the budget decides how many pictures there are, and on the first of them how many explainers;
    each picture has been through all of these but those that were dropped.  The question
    is the top class's logit for the maps and its probability for the metrics.  Metrics that need annotated objects are
    asked where every picture has one.  other: a second model, for metrics that compare maps with its.  calibrate: the
    pictures on which every player's threshold is chosen, by one search, for metrics that have one and leave it open.
    later: which metrics are left for `measure_players`; their values are nan until then.  race: by which metrics a
    player is dropped after some of the pictures, once it can no longer win surely against each control, whatever the
    pictures that are left; None drops nobody.
    Refused: no explainer that the network allows.
    """
    calls, left_out = _resolve_explainers(case, methods, rows[0])
    if case.budget:  # controls first, without which nothing is judged, then those that cost least: of one layer
        calls.sort(key=lambda c: (not _is_control(c.method), "layer" not in c.method.options))
    are_annotated = all(case.pictures[i].regions or case.pictures[i].marks for i in rows)
    metrics = [m for m in metrics if "regions" not in m.method.injected or are_annotated]
    thresholds = _calibrate_explainers(case, calls, calibrate, left_out) if calibrate else {}
    standing = Standing.of(calls, metrics)
    running = list(calls)  # those that were not dropped
    done: list[int] = []
    size = SIZE if race is None else min(SIZE, -(-len(rows) // _ROUNDS))
    for part, pixels in _remembering_each(case.batches(rows, size)):
        regions = case.regions(part) if any("regions" in m.method.injected for m in metrics) else None
        batch = _PlayedBatch(case, standing, part, pixels, regions, other, thresholds, later)
        playing = list(running)
        together = 1 if case.budget and not done else players_together(part)
        for k in range(0, len(playing), together):
            players, started = playing[k : k + together], case.clock.now()
            case.progress(case.doing, len(done) + len(part) * k // len(playing), len(rows))  # a batch takes minutes
            for call, why in batch.play(players):
                left_out.append((str(call), why))
                calls.remove(call)
                running.remove(call)
            timed = case.budget and not done and not _is_control(players[0].method)
            if timed and case.clock.is_late(case.clock.now() - started):
                left_out += [(str(c), "the budget left no time for it") for c in playing[k + 1 :]]
                calls = [c for c in calls if c not in playing[k + 1 :]]
                running = [c for c in running if c not in playing[k + 1 :]]
                break
        done += part
        if race is not None:
            voting = [k for k, m in enumerate(metrics) if race(m)]
            ends = range(FEWEST, len(rows) + 1) if case.budget else (len(rows),)  # where pictures may end
            running = still_able(standing, running, voting, ends, case.seed)
    tournament = _tournament(standing, calls, done, left_out, thresholds, calibrate)
    inside = occupied(case.model, case.pixels(done)) if case.data.are_texts else None
    return replace(tournament, thing=case.thing, inside=inside)


def players_together(part: Sequence[int]) -> int:
    """How many players' maps of these pictures are measured side by side: as many as go through the network at once."""
    return max(1, SIZE // len(part))


@dataclass(frozen=True, eq=False)
class _PlayedBatch:
    """A batch of pictures that explainers are measured on, and where their maps and values are entered.

    later: which metrics are not asked.  unscaled: the maps of those that played before, without their scale.
    """

    case: Case
    standing: Standing
    part: list[int]
    pixels: Tensor
    regions: Tensor | None
    other: Classifier | None
    thresholds: dict[str, float]
    later: Callable[[Call], bool]
    unscaled: dict[str, Tensor] = field(default_factory=dict)

    def play(self, calls: Sequence[Call]) -> list[tuple[Call, str]]:
        """Explain the pictures, measure all the maps side by side, and enter both -> who could not, and why.

        Equal maps are measured once.
        """
        refused: list[tuple[Call, str]] = []
        explanations: dict[str, Explanation] = {}
        for call in calls:
            target = ClassScore(self.case.predicted[self.part])
            try:
                explanations[str(call)] = explain(self.case.model, self.pixels, call, target, seed=self.case.seed)
            except Refused as e:
                refused.append((call, str(e)))
        twins = {name: self._twin(name, _unscaled(e.maps)) for name, e in explanations.items()}
        measured = [call for call in calls if str(call) in twins and twins[str(call)] is None]
        found = self._measure(measured, [explanations[str(c)].maps for c in measured])
        outcomes = dict(zip(map(str, measured), found, strict=True))
        for call in calls:
            name = str(call)
            if name not in explanations:
                continue
            twin = twins[name] or name
            outcome = outcomes[twin] if twin in outcomes else self.standing.values[twin][-1]
            if isinstance(outcome, Refused):
                refused.append((call, str(outcome)))
                del self.unscaled[name]
            else:
                self.standing.enter(name, explanations[name], outcome)
        return refused

    def _twin(self, name: str, maps: Tensor) -> str | None:
        """The first of those that played before whose maps (B, *S) and metrics are the same, here and until now."""
        earlier = self.standing.twins_of[name] & self.unscaled.keys()
        same = {o for o in earlier if torch.allclose(self.unscaled[o], maps, atol=1e-5)}
        self.standing.twins_of[name] &= same
        equals = [o for o in self.unscaled if o in same and self.thresholds.get(o) == self.thresholds.get(name)]
        self.unscaled[name] = maps
        return equals[0] if equals else None

    def _measure(self, calls: Sequence[Call], maps: Sequence[Tensor]) -> list[Values | Refused]:
        """The values (metrics, B) of each player's maps (B, *S), or why there are none."""
        metrics = [
            [None if self.later(m) else _with_threshold(m, self.thresholds.get(str(c))) for m in self.standing.metrics]
            for c in calls
        ]
        try:
            return [*_measure_maps(self.case, calls, metrics, self.part, self.pixels, maps, self.regions, self.other)]
        except Refused as e:
            if len(calls) == 1:
                return [e]
        return [v for c, m in zip(calls, maps, strict=True) for v in self._measure([c], [m])]


def still_able(
    standing: Standing, running: list[Call], voting: list[int], ends: Sequence[int], seed: int
) -> list[Call]:
    """The players that may go on: all controls, and who can still win surely against each of them."""
    controls = [str(c) for c in running if _is_control(c.method)]
    return [
        c
        for c in running
        if _is_control(c.method) or all(standing.can_win(str(c), other, voting, ends, seed) for other in controls)
    ]


def _tournament(
    standing: Standing,
    calls: Sequence[Call],
    done: Sequence[int],
    left_out: Sequence[tuple[str, str]],
    thresholds: dict[str, float],
    calibrate: Sequence[int],
) -> Tournament:
    """What was measured, as a tournament; nan on the pictures after a player was dropped."""
    players = tuple(standing.player(c) for c in calls)
    if all(p.control for p in players):
        why = f"none of the explainers runs on this network: {': '.join(left_out[0])}" if left_out else "no explainer"
        raise Refused(why)
    values = np.full((len(calls), len(standing.metrics), len(done)), np.nan)
    for of_player, player in zip(values, players, strict=True):
        of_player[:, : len(player.maps)] = np.concatenate(standing.values[str(player.call)], axis=1)
    same_maps = _same_maps(standing.twins_of, [str(c) for c in calls])
    return Tournament(
        tuple(done), players, standing.metrics, values, tuple(left_out), thresholds, tuple(calibrate), same_maps
    )


def complete_players(
    case: Case, tournament: Tournament, later: Callable[[Call], bool], *, other: Classifier | None = None
) -> Tournament:
    """The tournament with those that were dropped measured on the other pictures too, but by the metrics for later."""
    players, values = list(tournament.players), tournament.values.copy()
    dropped = tournament.dropped
    metrics = tournament.metrics
    for start in sorted({tournament.pictures_of(i) for i in dropped}):
        calls = [players[i].call for i in dropped if tournament.pictures_of(i) == start]
        standing, at = Standing.of(calls, metrics), start
        for part, pixels in _remembering_each(case.lots(tournament.rows[start:])):
            regions = case.regions(part) if any("regions" in m.method.injected for m in metrics) else None
            batch = _PlayedBatch(case, standing, part, pixels, regions, other, tournament.thresholds, later)
            for k in range(0, len(calls), players_together(part)):
                case.progress(case.doing, at, len(tournament.rows))
                for _, why in batch.play(calls[k : k + players_together(part)]):
                    raise Refused(why)
            at += len(part)
        for i in dropped:
            if players[i].call in calls:
                rest = standing.player(players[i].call)
                passes = (players[i].passes * start + rest.passes * len(rest.maps)) / len(tournament.rows)
                values[i, :, start:] = np.concatenate(standing.values[str(players[i].call)], axis=1)
                players[i] = replace(players[i], maps=torch.cat([players[i].maps, rest.maps]), passes=passes)
    return replace(tournament, players=tuple(players), values=values)


def measure_players(
    case: Case,
    tournament: Tournament,
    players: Collection[int],
    later: Callable[[Call], bool],
    *,
    other: Classifier | None = None,
) -> Tournament:
    """The tournament with the values of these players by the metrics that were left for later.

    Of players with the same maps the first is measured for all.
    """
    names = [str(p.call) for p in tournament.players]
    first = {i: names.index(dict(tournament.same_maps).get(name, name)) for i, name in enumerate(names)}
    metrics = [m if later(m) else None for m in tournament.metrics]
    which = [k for k, m in enumerate(metrics) if m is not None]
    values = tournament.values.copy()
    done = 0
    for part, pixels in _remembering_each(case.lots(tournament.rows)):
        columns = slice(done, done + len(part))
        for i in sorted({first[i] for i in players}):
            player = tournament.players[i]
            case.progress(case.doing, done, len(tournament.rows))
            maps = [player.maps[columns]]
            (found,) = _measure_maps(case, [player.call], [metrics], part, pixels, maps, None, other)
            values[i, which, columns] = found[which]
        done += len(part)
    for i in players:
        values[i, which] = values[first[i], which]
    return replace(tournament, values=values)


def _remembering_each(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; what is worked out once for all players is kept while one of them is worked on."""
    for batch in batches:
        with remembering():
            yield batch


def _resolve_explainers(case: Case, methods: Sequence[Call], row: int) -> tuple[list[Call], list[tuple[str, str]]]:
    """The explainers and all controls with their layers named, and (name, reason) of those that the network refuses."""
    able = [m for m in catalogue("explainers").values() if takes_kind(m, case.model.kind)]
    calls_by_name = {str(c): c for c in (*methods, *(Call(m) for m in able if _is_control(m)))}
    x = case.pixels([row]).to(case.model.device)
    calls, refused = [], []
    for call in calls_by_name.values():
        try:
            calls.append(resolve(case.model, x, call))
        except Refused as e:
            refused.append((str(call), str(e)))
    return calls, refused


def _calibrate_explainers(
    case: Case, calls: list[Call], rows: Sequence[int], left_out: list[tuple[str, str]]
) -> dict[str, float]:
    """By explainer, the threshold of its maps; explainers that refuse go from the calls to those left out."""
    thresholds: dict[str, float] = {}
    for call in list(calls):
        try:
            thresholds[str(call)] = _calibrate_threshold(case, call, rows)
        except Refused as e:
            left_out.append((str(call), str(e)))
            calls.remove(call)
    return thresholds


def _same_maps(twins_of: dict[str, set[str]], names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(explainer, the first one with the same maps) of the explainers that took part."""
    return tuple((name, next(o for o in names if o in twins_of[name])) for name in names if twins_of[name] & {*names})


def _measure_maps(
    case: Case,
    calls: Sequence[Call],
    metrics: Sequence[Sequence[Call | None]],
    part: Sequence[int],
    pixels: Tensor,
    maps: Sequence[Tensor],
    regions: Tensor | None,
    other: Classifier | None,
) -> list[Values]:
    """The values (metrics, B) of each player's maps (B, *S) by metrics of its own; nan for None.

    The maps of all that have the same metric are measured side by side, so that their pictures go through the network
    together; a metric that runs the explainer again is asked about each player alone.
    """
    values = [np.full((len(own), len(part)), np.nan) for own in metrics]
    alike: dict[tuple[int, str, str], tuple[Call, list[int]]] = {}  # a metric, and the players that have it
    for player, own in enumerate(metrics):
        for k, metric in enumerate(own):
            if metric is not None:
                alone = str(calls[player]) if "again" in metric.method.injected else ""
                alike.setdefault((k, str(metric), alone), (metric, []))[1].append(player)
    for (k, _, alone), (metric, players) in alike.items():
        rows = torch.arange(len(part)).repeat(len(players))
        # what the maps explain, of metrics that judge the explainer; others ask for the probability
        of_the_explainer = "judges-the-explainer" in metric.method.claims
        target = ClassScore(case.predicted[list(part)][rows], of="logit" if of_the_explainer else "prob")
        wanted_regions = regions[rows] if regions is not None and "regions" in metric.method.injected else None
        side_by_side = torch.cat([maps[player] for player in players])
        method = calls[players[0]] if alone else None
        # the explainer itself may look inside the network; a metric only asks for scores, often hundreds
        with nullcontext() if alone else fused_forward(case.model, pixels, PAYS):
            found = measure(
                case.model, pixels[rows], side_by_side, metric, target, regions=wanted_regions, method=method,
                other=other, seed=case.seed,
            )  # fmt: skip
        for player, of_player in zip(players, found.double().numpy().reshape(len(players), -1), strict=True):
            values[player][k] = of_player
    return values


def _unscaled(maps: Tensor) -> Tensor:
    """Maps (B, *S) without their scale, which no metric asks for."""
    top = maps.flatten(1).abs().amax(1).clamp_min(torch.finfo(maps.dtype).tiny)
    return maps / top.view(-1, *[1] * (maps.dim() - 1))


def _with_threshold(metric: Call, threshold: float | None) -> Call:
    """The metric with a threshold where it has one that was left open."""
    is_open = threshold is not None and "threshold" in metric.method.options and "threshold" not in metric.options
    return metric.with_options(threshold=threshold) if is_open else metric


def _calibrate_threshold(case: Case, call: Call, rows: Sequence[int]) -> float:
    """The share of the lowest places, in per cent, without which pictures gain the most chance through their maps.

    The mean gain over these pictures decides, as Lee & Han 2022 do it for one picture.
    """
    x = case.pixels(rows).to(case.model.device)
    top = ClassScore(case.predicted[list(rows)])
    maps = explain(case.model, x, call, top, seed=case.seed).maps.to(x)
    with case.model.undisturbed():
        rises = rises_through(case.model, x, top, stretched(maps))
    return float(LEVELS[int(best_level(rises.clamp_min(0).mean(0, keepdim=True)))])


def _is_control(method: object) -> bool:
    return "control" in getattr(method, "claims", ())


def mean_of_known(values: Values) -> Values:
    """The means along the last axis of what is not nan; nan where all is."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    means: Values = np.where(count > 0, np.where(known, values, 0.0).sum(-1) / np.maximum(count, 1), np.nan)
    return means


def mean(values: Values, seed: int) -> tuple[float, Interval | None]:
    """The mean of what is there, and its interval over pictures."""
    finite = values[np.isfinite(values)]
    return (float(finite.mean()), bootstrap(finite.tolist(), seed)) if len(finite) else (float("nan"), None)
