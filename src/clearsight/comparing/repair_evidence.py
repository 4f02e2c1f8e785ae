"""The pictures that a repair mended or broke, each with the maps of both runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clearsight.comparing.outcomes import Outcomes, PairedAnswer
from clearsight.comparing.paired_maps import RunMaps
from clearsight.drawing.heatmaps import png
from clearsight.drawing.side_by_side import side_by_side
from clearsight.reporting.findings import Evidence, Figure

DRAWN = 6  # pictures of the mended, and of the broken


def drawn_answers(outcomes: Outcomes) -> dict[str, Sequence[PairedAnswer]]:
    """The pictures that are drawn: the worst of the mended, then the worst of the broken."""
    return {"mended": outcomes.mended[:DRAWN], "broken": outcomes.broken[:DRAWN]}


def draw_evidence(outcomes: Outcomes, before: RunMaps, after: RunMaps) -> tuple[Evidence, ...]:
    """The photo of each drawn picture and, where both are by the same explainer, the map before and the map after."""
    chosen = [(word, answer) for word, answers in drawn_answers(outcomes).items() for answer in answers]
    return tuple(_draw(word, answer, k, before, after) for k, (word, answer) in enumerate(chosen, 1))


def _draw(word: str, answer: PairedAnswer, k: int, before: RunMaps, after: RunMaps) -> Evidence:
    name, row = answer.picture, answer.row()
    alike = before.method == after.method
    signed = before.signed or after.signed
    text = before.texts.get(name)
    maps = [run.maps[name] for run in (before, after)] if alike else []
    drawn = side_by_side(before.pixels[name], maps, [signed] * len(maps), region=before.regions.get(name), text=text)
    caption = word
    if alike:
        order = "from left: the photo" if text is None else "from above: the text"
        caption = f"{word}; {order}, what spoke for {row['before']} before, and for {row['after']} after"
    facts = {"outcome": word, **{k: v for k, v in row.items() if not k.endswith(("margin", "picture"))}}
    figure = Figure(f"repair-{k}.png", png(drawn), caption, f"{name}: {caption}")
    command = f"{before.commands[name]} && {after.commands[name]}"
    return Evidence(name, figure, facts, command, "colour" if alike else "none")


def notes_on_maps(outcomes: Outcomes, before: RunMaps, after: RunMaps) -> tuple[str, ...]:
    """How many of the changed pictures are drawn, and by which explainers."""
    drawn: Mapping[str, Sequence[PairedAnswer]] = drawn_answers(outcomes)
    totals = {"mended": len(outcomes.mended), "broken": len(outcomes.broken)}
    counts = " and ".join(f"{len(drawn[word])} of {n} {word}" for word, n in totals.items() if n)
    drawn_words = f"Drawn: {counts}. " if counts else ""
    if before.method != after.method:
        return (
            f"{drawn_words}There are no maps side by side, because the networks need different explainers: name one "
            "for both, such as -m integrated-gradients.",
        )
    explainers = " and ".join(dict.fromkeys([before.explainer, after.explainer]))
    return (f"{drawn_words}Maps: {explainers}, each for the answer of its run.",)
