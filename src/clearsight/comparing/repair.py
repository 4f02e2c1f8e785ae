"""What a repair changed: two runs on the same pictures, paired picture by picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clearsight.auditing.evidence import points, share, table
from clearsight.comparing.answers import Answers, LabelledAnswers, PictureAnswer
from clearsight.comparing.outcomes import Outcomes, pair
from clearsight.comparing.paired_groups import paired_groups, worst_groups
from clearsight.comparing.paired_maps import MOST, OF_MAPS, RunMaps, on_the_object, paired_maps
from clearsight.comparing.paired_measures import ON_THE_MARKS, ON_THE_OBJECT, PairedMeasure, paired_measures
from clearsight.comparing.repair_evidence import draw_evidence, drawn_answers, notes_on_maps
from clearsight.comparing.repair_tables import margins_figure, measure_rows, outcome_table, rows_of
from clearsight.core.catalogue import method_name
from clearsight.core.label_names import first_name
from clearsight.core.progress import Progress
from clearsight.core.statistics import Interval
from clearsight.core.text import counted
from clearsight.data.datasets import Pictures
from clearsight.data.splits import named
from clearsight.reporting.findings import Cell, Finding, Table
from clearsight.reporting.report import Report
from clearsight.reporting.wording import p_value, signed_points

NAME = "repair"
SUMMARY = "What did the second run mend, and what did it break, on the same data?"
NEEDS_MODELS = (
    "An audit keeps the answers of wrong pictures alone: what the probabilities of right answers were, margins and "
    "maps need the models, so name their folders with --data DATA."
)


@dataclass(frozen=True, eq=False)
class RepairedRun:
    """One of the two runs.  answers: all of a model's, None for an audit; labelled: None where an audit keeps none."""

    name: str
    report: Report
    answers: Answers | None
    labelled: LabelledAnswers | None

    @property
    def thing(self) -> str:
        """What the data are, in a word: "picture" or "text"."""
        return "picture" if self.report is None else self.report.facts.thing


def compare_repair(
    before: RepairedRun, after: RepairedRun, pictures: Pictures | None, *, method: str, seed: int, tell: Progress
) -> Finding:
    """What changed from the first run to the second, picture by picture; without a value where nothing can be paired.

    Value: the difference of the two accuracies, -1 to 1, with Newcombe's interval for paired shares.

    Source: McNemar 1947, exact; Newcombe 1998, method 10 for paired data.
    """
    unkept = [run.name for run in (before, after) if run.labelled is None]
    if before.labelled is None or after.labelled is None:
        return _not_paired(
            f"{named(unkept)} does not say {before.thing} by {before.thing} what is right, so the runs were not "
            "paired: audit again with the check accuracy, or name the folders of the models with --data DATA."
        )
    if before.labelled.n != after.labelled.n:
        return _not_paired(
            f"{before.name} was judged on {counted(before.labelled.n, before.thing)} and {after.name} on "
            f"{after.labelled.n}, so the runs were not paired."
        )
    if not before.labelled.n:
        return _without_labels(before, after)
    outcomes = pair(before.labelled, after.labelled)
    maps = _maps(before, after, outcomes, pictures, method, seed, tell)
    on_object, object_rows = on_the_object(*maps, seed) if maps is not None else (None, [])
    measures, other_explainers = _measures(before, after, on_object, seed)
    groups = paired_groups(outcomes, pictures) if pictures is not None else []
    return Finding(
        "note",
        _headline(before, after, outcomes, measures),
        quantity="accuracy gained",
        value=outcomes.gain,
        interval=outcomes.interval,
        n=outcomes.n,
        notes=(
            _cost(outcomes.interval, before.thing),
            *worst_groups(groups),
            *other_explainers,
            *(notes_on_maps(outcomes, *maps) if maps is not None else ()),
            *(() if before.answers is not None and after.answers is not None else (NEEDS_MODELS,)),
            *_explanations(outcomes, measures, before.thing),
        ),
        tables=(
            outcome_table(outcomes, before.thing),
            Table("Before and after, on the same data", tuple(measure_rows(outcomes, measures))),
            *table("Mended, the largest gain first", rows_of(outcomes.mended, before.thing)),
            *table("Broken, the largest loss first", rows_of(outcomes.broken, before.thing)),
            *table("Wrong in both, the least margin after first", rows_of(outcomes.wrong, before.thing)),
            *table(
                f"{(ON_THE_MARKS if before.thing == 'text' else ON_THE_OBJECT).capitalize()}, the least after first",
                object_rows,
            ),
            *table("By group, the least accurate after first", [g.row() for g in groups]),
        ),
        figures=margins_figure(outcomes, before.thing),
        evidence=draw_evidence(outcomes, *maps) if maps is not None else (),
        check=NAME,
        summary=SUMMARY,
        paper="doi:10.1007/BF02295996",
    )


def _not_paired(why: str, *, tables: tuple[Table, ...] = ()) -> Finding:
    return Finding("note", why, tables=tables, check=NAME, summary=SUMMARY)


def _without_labels(before: RepairedRun, after: RepairedRun) -> Finding:
    """How many answers changed, which is all that can be said of pictures without a label."""
    why = f"No {before.thing} has a label, so none can be called mended or broken"
    if before.answers is None or after.answers is None:
        return _not_paired(f"{why}.")
    second = {a.picture: a for a in after.answers.pictures}
    both = [(a, second[a.picture]) for a in before.answers.pictures if a.picture in second]
    changed = [(a, b) for a, b in both if a.said != b.said]
    rows = [
        _changed_row(before.thing, a, b)
        for a, b in sorted(changed, key=lambda c: (-(c[0].probability or 0.0), c[0].picture))
    ]
    return _not_paired(
        f"{why}; the answers for {len(changed)} of {counted(len(both), before.thing)} changed.",
        tables=table("Answers that changed, the most confident before first", rows),
    )


def _changed_row(thing: str, before: PictureAnswer, after: PictureAnswer) -> dict[str, Cell]:
    return {
        thing: before.picture,
        "before": first_name(before.said),
        "before, probability": before.probability,
        "after": first_name(after.said),
        "after, probability": after.probability,
    }


def _maps(
    before: RepairedRun,
    after: RepairedRun,
    outcomes: Outcomes,
    pictures: Pictures | None,
    method: str,
    seed: int,
    tell: Progress,
) -> tuple[RunMaps, RunMaps] | None:
    """The maps of both runs; None for audits, and where no picture changed and none is annotated."""
    if before.answers is None or after.answers is None or pictures is None:
        return None
    drawn = {a.picture for answers in drawn_answers(outcomes).values() for a in answers}
    return paired_maps(before.answers, after.answers, pictures, drawn, method=method, seed=seed, tell=tell)


def _measures(
    before: RepairedRun, after: RepairedRun, on_object: PairedMeasure | None, seed: int
) -> tuple[list[PairedMeasure], tuple[str, ...]]:
    """What was measured picture by picture; nothing of maps, and a note, where these are by different explainers."""
    measures = [
        m for m in (on_object, *paired_measures(before.report, after.report, seed, before.thing)) if m is not None
    ]
    methods = {method_name(r.report.facts.method) for r in (before, after)} - {""}
    if len(methods) < 2 or not any(m.of_maps for m in measures):
        return measures, ()
    why = f"Reasons were not paired: the maps are by {' and '.join(sorted(methods))}."
    return [m for m in measures if not m.of_maps], (why,)


# Words ----------------------------------------------------------------------------------------------------------------


def _headline(before: RepairedRun, after: RepairedRun, outcomes: Outcomes, measures: Sequence[PairedMeasure]) -> str:
    low, high = outcomes.interval
    sentence = (
        f"From {before.name} to {after.name}: mended {len(outcomes.mended)}, broke {len(outcomes.broken)} of "
        f"{counted(outcomes.n, before.thing)}; accuracy {share(outcomes.before)} before, {share(outcomes.after)} "
        f"after, {signed_points(outcomes.gain)} points (95 % {signed_points(low)} to {signed_points(high)}, McNemar "
        f"p {p_value(outcomes.p)})."
    )
    reasons = next((m for m in measures if m.of_maps), None)
    if reasons is None:
        return sentence
    words = f"{reasons.words[0].upper()}{reasons.words[1:]}"
    return (
        f"{sentence} {words}: {share(reasons.before)} before, {share(reasons.after)} after, "
        f"{signed_points(reasons.gain)} points ({_span(reasons.interval, reasons.n)})."
    )


def _span(interval: Interval | None, n: int) -> str:
    if interval is None:
        return f"n = {n}, too few for an interval"
    return f"95 % {signed_points(interval[0])} to {signed_points(interval[1])}, n = {n}"


def _cost(interval: Interval, thing: str = "picture") -> str:
    """What the repair cost in accuracy, in a sentence.

    >>> _cost((0.021, 0.092))
    'Cost in accuracy: none. It gained 2.1 to 9.2 points.'
    >>> _cost((-0.05, -0.01))
    'Cost in accuracy: 1.0 to 5.0 points.'
    """
    low, high = interval
    if low > 0:
        return f"Cost in accuracy: none. It gained {points(low)} to {points(high)} points."
    if high < 0:
        return f"Cost in accuracy: {points(-high)} to {points(-low)} points."
    return (
        f"Cost in accuracy: not decided. Between a loss of {points(-low)} and a gain of {points(high)} points "
        f"everything is possible; more {thing}s would narrow it."
    )


def _explanations(outcomes: Outcomes, measures: Sequence[PairedMeasure], thing: str) -> tuple[str, ...]:
    changed = len(outcomes.mended) + len(outcomes.broken)
    notes = [
        "Mended: wrong before and right after. Broken: right before and wrong after. Margin: the probability of the "
        "likeliest acceptable class less that of the likeliest other; above 0 the answer is right.",
        f"McNemar's exact test asks how likely a fair coin divides the {changed} {thing}s that changed at least as "
        "unequally. The interval of the difference is Newcombe's for paired shares (1998, method 10), so that the two "
        "need not agree to the last digit.",
    ]
    if any(m.check == OF_MAPS for m in measures):
        notes.append(
            f"Relevance on the {'marked characters' if thing == 'text' else 'object'}: the share of a map's positive "
            f"relevance {'there' if thing == 'text' else 'inside the annotated boxes or masks'}, on at most {MOST} "
            f"annotated {thing}s, a seeded draw, however they are answered."
        )
    if measures:
        notes.append(
            f"What checks measured is paired on the {thing}s that they measured in both runs; of those that look at "
            "right answers alone these are right in both. Intervals are bootstraps over "
            f"{thing}s."
        )
    return tuple(notes)
