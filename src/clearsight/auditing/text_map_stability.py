"""The maps of texts of which a few characters are replaced at random, where the answer stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, maps_of, note_on_budget, note_on_sample, shown, span, table
from clearsight.auditing.text_robustness import attacked_text
from clearsight.core import rng
from clearsight.core.places import occupied
from clearsight.core.similarity import constant, spearman
from clearsight.core.statistics import bootstrap, judge
from clearsight.core.targets import ClassScore
from clearsight.core.text import counted
from clearsight.data.text_marks import joined
from clearsight.drawing.text import runs
from clearsight.drawing.text_picture import stacked, text_picture
from clearsight.internals.scores import scores
from clearsight.reporting.findings import Cell, Evidence, Finding
from clearsight.reporting.wording import show
from clearsight.runner.run import explain

EVIDENCE = 6


@dataclass(frozen=True, eq=False)
class _MovedText:
    """A text, and how alike its map stays under each replacement that leaves the answer (at least one).

    worst: the text (letters, L) whose map is the least alike.  maps: (L,) of the text itself and of the worst.
    """

    row: int
    alike: tuple[float, ...]
    worst: Tensor
    maps: tuple[Tensor, Tensor]

    @property
    def least(self) -> float:
        return min(self.alike)


def text_map_stability(case: Case, *, characters: int, floor: float, tries: int, pictures: int) -> Finding:
    """The finding of the check map-stability on texts: the rank correlation of maps in the worst of some tries."""
    rows = case.sample(range(len(case.pictures)), pictures)
    moved: list[_MovedText] = []
    done, blank = 0, 0
    for part, x in case.batches(rows):
        done += len(part)
        varying, of_batch = _replace_and_explain(case, part, x, characters, tries)
        blank += len(part) - varying
        moved += of_batch
    n = len(moved)
    if not n:
        why = "All maps are constant" if blank == done else "No answer stays the same, or no character does"
        return Finding("note", f"{why} ({case.counted(done)}), so that no map can be compared.")
    least = [m.least for m in moved]
    value, interval = float(np.mean(least)), bootstrap(least, case.seed)
    mean = float(np.mean([np.mean(m.alike) for m in moved]))
    replaced = counted(characters, "character")
    order = sorted(moved, key=lambda m: (m.least, case.pictures[m.row].name))
    return Finding(
        judge(interval, floor=floor),
        f"With {replaced} replaced at random and the answer kept, the maps keep a rank correlation of {show(mean, '')} "
        f"on average, and of {show(value, '')} in the worst of {counted(tries, 'try', 'tries')} "
        f"({span(interval, n, shares=False)}).",
        quantity=f"map kept with {replaced} replaced",
        value=value,
        interval=interval,
        n=n,
        unit="",
        has_bar=True,
        notes=(
            f"Asked for: a rank correlation of at least {show(floor, '')} (option floor) in the worst try, with "
            f"{replaced} replaced (option characters) by others of the alphabet. The others are compared.",
            f"Maps: {case.method}, for the top class. Tries at random may miss replacements that move the map further.",
            *((f"{case.counted(blank, 'is', 'are')} left out: the map is constant.",) if blank else ()),
            *_note_on_changed(case, done - blank - n),
            *note_on_sample(case, len(rows), len(case.pictures)),
            *note_on_budget(case, done, len(rows)),
        ),
        tables=(
            *table("How alike the maps stay", _alike_rows(moved, case.seed)),
            *table("By text, the most moved first", [_text_row(case, m) for m in order]),
        ),
        evidence=_evidence(case, order),
    )


def replaced_at_random(x: Tensor, inside: Tensor, characters: int, tries: int) -> Tensor:
    """(B, tries, letters, L): texts x (B, letters, L) with so many characters replaced, each try at other places.

    inside: bool (B, L), where characters stand.  A shorter text gets all of them replaced.  New characters are others
    of the alphabet, never the last channel, which stands for the unknown.  Draws from ``rng``.
    """
    known = x.shape[1] - 1
    keys = rng.uniform(x.new_empty(len(x), tries, x.shape[2])).masked_fill(~inside[:, None], 2.0)
    places = keys.argsort(dim=2, stable=True)[:, :, :characters]
    gone = torch.zeros_like(keys, dtype=torch.bool).scatter(2, places, True) & inside[:, None]
    now = x.argmax(1)[:, None].expand_as(keys)
    drawn = (rng.uniform(torch.empty_like(keys)) * torch.where(now < known, known - 1, known)).long()
    letters = drawn + ((now < known) & (drawn >= now)).long()
    new = torch.nn.functional.one_hot(letters.clamp_max(known - 1), x.shape[1]).movedim(3, 2).to(x)
    return torch.where(gone[:, :, None], new, x[:, None])


def _replace_and_explain(
    case: Case, rows: list[int], x: Tensor, characters: int, tries: int
) -> tuple[int, list[_MovedText]]:
    """How many texts have a map that is not constant, and those of them whose answer stays in a try."""
    maps, inside = case.maps(rows, x), occupied(case.model, x)
    assert inside is not None
    with rng.seeded(case.seed, x, "map-stability"):
        versions = replaced_at_random(x, inside, characters, tries)
    varying = [j for j in range(len(rows)) if not constant(maps[j][inside[j]].double().numpy())]
    moved = [_move(case, rows[j], x[j], maps[j], inside[j], versions[j]) for j in varying]
    return len(varying), [m for m in moved if m is not None]


def _move(case: Case, row: int, x: Tensor, heat: Tensor, inside: Tensor, versions: Tensor) -> _MovedText | None:
    """One text with its map and its versions, as far as these leave the answer and two characters to compare."""
    before, stays = heat.double().numpy(), ((versions == x).all(1) & inside).numpy()
    with case.model.undisturbed():
        answers = scores(case.model, versions.to(case.model.device)).argmax(1).tolist()
    answer = int(case.predicted[row])
    kept = [k for k, a in enumerate(answers) if a == answer and stays[k].any() and not constant(before[stays[k]])]
    if not kept:
        return None
    after = explain(case.model, versions[kept], case.method, ClassScore(answer), seed=case.seed).maps
    alike = [spearman(before[stays[k]], m.double().numpy()[stays[k]]) for k, m in zip(kept, after, strict=True)]
    worst = int(np.argmin(alike))
    return _MovedText(row, tuple(alike), versions[kept[worst]], (heat, after[worst]))


def _note_on_changed(case: Case, changed: int) -> tuple[str, ...]:
    return (
        (f"{case.counted(changed, 'is', 'are')} left out: every try changed the answer, or what can be compared.",)
        if changed
        else ()
    )


def _alike_rows(moved: list[_MovedText], seed: int) -> list[dict[str, Cell]]:
    rows = []
    for what, values in (
        ("a try, on average", [float(np.mean(m.alike)) for m in moved]),
        ("the worst try", [m.least for m in moved]),
    ):
        row: dict[str, Cell] = {"rank correlation in": what, "mean": float(np.mean(values))}
        rows.append({**row, **bounds(bootstrap(values, seed)), "n": len(values)})
    return rows


def _text_row(case: Case, m: _MovedText) -> dict[str, Cell]:
    return {
        "text": case.pictures[m.row].name,
        "said": case.label(m.row),
        "worst try": m.least,
        "a try, on average": float(np.mean(m.alike)),
        "tries with the same answer": len(m.alike),
    }


def _evidence(case: Case, order: list[_MovedText]) -> tuple[Evidence, ...]:
    evidence = []
    for k, m in enumerate(order[:EVIDENCE], 1):
        before, after = case.pictures[m.row].text or "", attacked_text(case, m.row, m.worst)
        changed = joined((i, i + 1) for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
        drawn = [
            text_picture(runs(text, heat, signed=case.signed, marks=changed), grey=bool(case.maps_unreliable_by))
            for text, heat in zip((before, after), m.maps, strict=True)
        ]
        caption = (
            f"the text and its map, and below it with the underlined characters replaced: still {case.label(m.row)}, "
            f"rank correlation {show(m.least, '')}"
        )
        facts = _text_row(case, m)
        evidence.append(shown(case, m.row, f"map-stability-{k}", stacked(drawn), caption, facts, maps=maps_of(case)))
    return tuple(evidence)
