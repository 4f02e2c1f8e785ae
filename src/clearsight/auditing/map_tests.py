"""Test whether a map is evidence on its own picture: against control maps, random networks and other methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearsight.auditing.tournament import Entrant, Tournament
from clearsight.core.catalogue import Call, catalogue, parse, split_calls
from clearsight.core.classifier import Classifier
from clearsight.core.diagnostics import SHARE
from clearsight.core.model import Model
from clearsight.core.places import cropped, occupied
from clearsight.core.similarity import constant, spearman
from clearsight.core.taking import takes_kind
from clearsight.core.targets import ClassScore, Of, Target
from clearsight.errors import Refused
from clearsight.internals.randomisation import from_output_to_input
from clearsight.kinds.box_targets import BoxScore
from clearsight.kinds.region_targets import RegionScore
from clearsight.runner.results import Explanation
from clearsight.runner.run import explain, measure

FAITHFUL = "road(steps=1), insertion(steps=6), deletion(steps=6)"  # do the marked places matter to the network?
RANDOMISED = "parameter-randomisation(stages=1)"  # does the map depend on the network?
CEILING = 0.5  # the highest likeness that a map may keep to those of networks with random parameters
FAR = 0.1  # of the target's difference missing or too much
NETWORKS = 5  # random ones: whether a coarse map is like that of one alone is luck of the draw
FEW = 10  # passes through the network, forward and back: what costs more meets the others only if the first is alike


@dataclass(frozen=True)
class MapTest:
    """The results of the tests of one map, on one picture.  None means that a test was not made.

    Args:
        pairwise_wins: for each control the number of metrics by which the map is better, a tie counting half; empty if
            it was not tested.
        metrics: number of metrics in all.
        kept: mean |rank correlation|, 0 to 1, with the maps of networks with random parameters.
        networks: number of such networks.
        residual: what the map's sum lacks of the target's difference, or has too much, as a share of it.
        agreement: mean rank correlation, -1 to 1, with other methods' maps.
        blank: whether the map is the same everywhere.
        left_out: what does not apply, and why.

    >>> MapTest({"centre": 1.5, "edge": 3.0}, 3, kept=0.25, networks=5, residual=None, agreement=None).failed
    ('wins only 1.5 of 3 against centre, 3 against edge',)
    """

    pairwise_wins: dict[str, float]
    metrics: int
    kept: float | None
    networks: int
    residual: float | None
    agreement: float | None
    blank: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[str, ...]:
        """The tests that the map fails, in words; empty if it passes all that were made."""
        if self.blank:
            return ("the same everywhere, so it says nothing",)
        return (
            *((f"wins only {self._wins_in_words()}",) if self._loses_to_a_control() else ()),
            *((f"{self._likeness_in_words()}, at most {CEILING:g} asked for",) if self._ignores_the_network() else ()),
            *(
                (f"{self._gap_in_words()} from complete, at most {_share(FAR)} asked for",)
                if self._is_incomplete()
                else ()
            ),
        )

    @property
    def passed(self) -> tuple[str, ...]:
        """The tests that it passes, in words."""
        return (
            *((f"wins {self._wins_in_words()}",) if self.pairwise_wins and not self._loses_to_a_control() else ()),
            *((self._likeness_in_words(),) if self.kept is not None and not self._ignores_the_network() else ()),
            *(
                (f"{self._gap_in_words()} from complete",)
                if self.residual is not None and not self._is_incomplete()
                else ()
            ),
        )

    def lines(self) -> list[str]:
        """The results in words: failed tests, then passed ones, the agreement with other maps, and tests left out."""
        alike = (
            [] if self.agreement is None else [f"rank correlation {_two_decimals(self.agreement)} with the other maps"]
        )
        return [
            *(f"fails: {words}" for words in self.failed),
            *(f"passes: {words}" for words in self.passed),
            *alike,
            *(f"not tested: {words}" for words in self.left_out),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in the JSON of ``clearsight explain``."""
        numbers = {
            "pairwise_wins": dict(self.pairwise_wins),
            "metrics": self.metrics,
            "kept": self.kept,
            "networks": self.networks,
        }
        numbers |= {"residual": self.residual, "agreement": self.agreement}
        words = {"failed": list(self.failed), "passed": list(self.passed), "left_out": list(self.left_out)}
        return {**numbers, **words}

    def _loses_to_a_control(self) -> bool:
        return any(not won > self.metrics / 2 for won in self.pairwise_wins.values())

    def _wins_in_words(self) -> str:
        return _list_wins(self.pairwise_wins, self.metrics, worst_first=self._loses_to_a_control())

    def _ignores_the_network(self) -> bool:
        return self.kept is not None and self.kept > CEILING

    def _is_incomplete(self) -> bool:
        return self.residual is not None and self.residual > FAR

    def _likeness_in_words(self) -> str:
        networks = "a random network" if self.networks == 1 else f"{self.networks} random networks"
        return f"rank correlation {_two_decimals(self.kept or 0.0)} with {networks}"

    def _gap_in_words(self) -> str:
        return _share(self.residual or 0.0)


def tests_in_words(thing: str) -> str:
    """What tests are and are not, as it stands below tested maps."""
    return (
        f"Tests are of one {thing} and say nothing of others: wins are of the metrics road, insertion and deletion "
        "against maps that know nothing of the model, and a map like those of networks with random parameters shows "
        "nothing learnt."
    )


def examine(model: Model, explanations: Sequence[Explanation]) -> list[tuple[MapTest, ...]]:
    """Test the maps of explainers, all of the same pictures and question: M explanations -> M times (B,) tests.

    A map fails on its picture in four cases.  First, by road, insertion and deletion (few steps), it does not win more
    than half against each control map.  Second, its rank correlation with the maps of five networks with random
    parameters is above 0.5 on average (for an explainer that costs more than ten passes one network is enough, if that
    map is not alike).  Third, a map that should be complete misses more than a tenth of the target's difference.
    Fourth, it is the same everywhere.

    Of a text the characters count, and not the places behind its end.

    One picture is a small sample: the check `explainer-ranking` asks the same of several.  Metrics ask for the
    probability of the target's class, for the margin if the question is "a rather than b", and for the value of a
    regressor; of a box for its score, and of a region for the mean probability.

    Args:
        model: the classifier, detector or segmenter that the maps explain.
        explanations: explanations (M) of the same pictures x (B, C, *S), with the same question and seed.

    Refused: no explanations at all, and explanations of another model, of different pictures, questions or seeds.

    Sources: arXiv:1806.07421, arXiv:2202.00449, arXiv:1810.03292.

    Where all hangs on the last pixel, a map that marks it is better by each metric than one that marks the centre:

    >>> from clearsight.testing import linear
    >>> model, x = linear([[0.0, 0.0, 0.0, 8.0], [0.0] * 4]), torch.tensor([[[[1.0, 0.0, 0.5, 1.0]]]])
    >>> ((test,),) = examine(model, [explain(model, x, "occlusion(window=1, stride=1)", ClassScore(0))])
    >>> test.pairwise_wins["centre"], test.metrics
    (3.0, 3)
    """
    _refuse_unlike(model, explanations)
    wins, no_wins = _count_wins(model, explanations)
    tests, inside = [], occupied(model, explanations[0].x)
    for i, e in enumerate(explanations):
        likenesses, no_likeness = _likeness_to_random_networks(model, e)
        agreement = _agreement_with_others(e, [*explanations[:i], *explanations[i + 1 :]], inside)
        unsigned = isinstance(model, Classifier) and model.scores == "values" and not e.signed
        sign = "against controls: a map without a sign does not say whether a place raises or lowers a value"
        left_out = tuple(w for w in (no_wins or (sign if unsigned else ""), no_likeness) if w)
        of_explanation = []
        for b, m in enumerate(cropped(e.maps, inside)):
            blank = bool(m.min() == m.max())
            compared = not (blank or no_wins or unsigned)
            of_explanation.append(
                MapTest(
                    pairwise_wins={c: won[i, b].item() for c, won in wins.items()} if compared else {},
                    metrics=len(split_calls(FAITHFUL)),
                    kept=float(np.mean(likenesses[b])) if likenesses[b] and not blank else None,
                    networks=0 if blank else len(likenesses[b]),
                    residual=e.diagnostics[SHARE][b].abs().item() if SHARE in e.diagnostics else None,
                    agreement=agreement[b],
                    blank=blank,
                    left_out=left_out,
                )
            )
        tests.append(tuple(of_explanation))
    return tests


def _refuse_unlike(model: Model, explanations: Sequence[Explanation]) -> None:
    """Refuse what cannot be tested together."""
    if not explanations:
        raise Refused("no explanation to test: give those of cs.explain")
    first = explanations[0]
    if any(e.fingerprint != model.fingerprint() for e in explanations):
        raise Refused("the maps are of a model with other weights: give the model that they explain")
    if any(e.questions() != first.questions() or e.seed != first.seed for e in explanations):
        raise Refused("the maps answer different questions, or have different seeds: test them one by one")
    if any(e.x.shape != first.x.shape or not torch.equal(e.x, first.x) for e in explanations):
        raise Refused("the maps are of different pictures: test them one by one")


def _count_wins(model: Model, explanations: Sequence[Explanation]) -> tuple[dict[str, Tensor], str]:
    """By control, how many metrics each map wins on each picture, (M, B); or why that cannot be tested.

    All maps of a picture, and the controls', go through the network side by side.
    """
    first, metrics = explanations[0], [parse(m, "metrics") for m in split_calls(FAITHFUL)]
    able = [m for m in catalogue("explainers").values() if takes_kind(m, model.kind)]
    calls = [Call(m) for m in able if "control" in m.claims]
    compared = [*explanations, *(explain(model, first.x, c, first.target, seed=first.seed) for c in calls)]
    n = len(first.x)
    rows = torch.arange(n).repeat(len(compared))
    maps, target = torch.cat([e.maps for e in compared]), metric_target(model, first.target)[rows]
    try:
        values = [measure(model, first.x[rows], maps, m, target, seed=first.seed) for m in metrics]
    except Refused as refused:
        return {}, f"against controls: {refused}"
    table = np.stack([v.double().numpy().reshape(len(compared), n) for v in values], 1)
    for i, e in enumerate(compared):  # a control that was asked for ties with itself, however batches are rounded
        first_alike = next(k for k, other in enumerate(compared) if torch.equal(other.maps, e.maps))
        table[i] = table[first_alike]
    players = tuple(Entrant(parse(e.method, "explainers"), e.maps, e.forwards + e.backwards) for e in compared)
    if not np.isfinite(table).all():
        return {}, "against controls: the network's scores of altered pictures are not finite"
    tournament = Tournament(tuple(range(n)), players, tuple(metrics), table, ())
    which = range(len(metrics))
    return {
        c.method.name: torch.tensor(
            np.array([tournament.pairwise_wins(which, i, len(explanations) + k) for i in range(len(explanations))])
        )
        * len(metrics)
        for k, c in enumerate(calls)
    }, ""


def metric_target(model: Model, target: Target) -> Target:
    """What maps explain as metrics ask for it: of a class its probability, of a box its score; the rest as it is."""
    if isinstance(model, Classifier) and isinstance(target, ClassScore) and model.scores != "values":
        of: Of = "prob" if model.one_of_many else "sigmoid"
        return ClassScore(target.index, of)
    if isinstance(target, BoxScore) and target.of in ("class", "log-score"):
        return replace(target, of="score", match="matched")
    if isinstance(target, RegionScore) and target.of in ("logit", "log-prob"):
        return replace(target, of="prob")
    return target


def _likeness_to_random_networks(model: Model, e: Explanation) -> tuple[list[list[float]], str]:
    """For each picture |rank correlation| with the map of each random network; or why that cannot be tested."""
    likenesses: list[list[float]] = [[] for _ in e.x]
    if "references" in parse(e.method, "explainers").options:
        return likenesses, "with a random network: all references would have to be run through that one too"
    try:
        if not from_output_to_input(model, e.x[:1]):
            return likenesses, "with a random network: this one has no parameters"
    except Refused as refused:
        return likenesses, f"with a random network: {refused}"
    rows = torch.arange(len(e.x))
    for k in range(NETWORKS):
        x, maps, seed = e.x[rows], e.maps[rows], (e.seed + k) % 2**63
        try:
            values = measure(model, x, maps, RANDOMISED, e.target[rows], method=e.method, seed=seed)
        except Refused as refused:
            return [[] for _ in e.x], f"with a random network: {refused}"
        for row, value in zip(rows.tolist(), values.tolist(), strict=True):
            likenesses[row].append(value)
        if k == 0 and e.forwards + e.backwards > FEW:
            rows = rows[values > CEILING]
        if not len(rows):
            break
    return likenesses, ""


def _agreement_with_others(e: Explanation, others: Sequence[Explanation], inside: Tensor | None) -> list[float | None]:
    """(B,) the mean rank correlation with the maps of others that are not the same everywhere; None without any."""
    agreement: list[float | None] = []
    own, *theirs = ([m.double().numpy() for m in cropped(of.maps, inside)] for of in (e, *others))
    for b, m in enumerate(own):
        others_here = [o for other in theirs if not constant(o := other[b])]
        correlations = [spearman(m, o) for o in others_here]
        agreement.append(float(np.mean(correlations)) if correlations and not constant(m) else None)
    return agreement


def _list_wins(wins: dict[str, float], metrics: int, worst_first: bool) -> str:
    """How many were won against whom, in words.

    >>> _list_wins({"centre": 2.0, "edge": 3.0, "random": 2.0}, 3, worst_first=False)
    '3 of 3 against edge, 2 against centre and random'
    """
    counts = sorted(set(wins.values()), reverse=not worst_first)
    parts: list[str] = []
    for n in counts:
        of = "" if parts else f" of {metrics}"
        parts.append(f"{n:g}{of} against {_join_names([c for c, won in wins.items() if won == n])}")
    return ", ".join(parts)


def _join_names(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _two_decimals(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"
