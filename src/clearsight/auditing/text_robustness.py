"""Right answers about texts of which a few characters are replaced, by the attack character-substitution."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, note_on_budget, note_on_sample, share, shown, span, table
from clearsight.core.catalogue import Call, parse
from clearsight.core.statistics import judge, wilson
from clearsight.core.targets import Misclassify
from clearsight.core.text import counted
from clearsight.data.text_encoding import decode
from clearsight.data.text_marks import joined
from clearsight.drawing import charts
from clearsight.drawing.text import runs
from clearsight.drawing.text_picture import stacked, text_picture
from clearsight.internals.scores import scores
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding
from clearsight.runner.run import attack

ATTACK = "character-substitution"
EVIDENCE = 8


@dataclass
class FooledTexts:
    """What fools texts: row -> the smallest number of replaced characters, and the text (letters, L) then."""

    least: dict[int, int] = field(default_factory=dict)
    attacked: dict[int, Tensor] = field(default_factory=dict)


def text_robustness(
    case: Case,
    *,
    characters: int,
    floor: float,
    pictures: int,
    call: Call | None = None,
    fooled: FooledTexts | None = None,
) -> Finding:
    """The finding of the check robustness on texts: the share that stays right with so many characters replaced.

    A text that few characters fool counts as fooled by more of them too.  call: the attack, with its options; fooled:
    a record to be filled.
    """
    rows, levels = case.sample(case.labelled, pictures), sorted({1, 2, 4, 8, characters})
    call = call or parse(ATTACK, "attacks")
    fooled, done = FooledTexts() if fooled is None else fooled, list[int]()
    for part, x in case.batches(rows):
        done += part
        attack_texts(case, part, x, levels, call, fooled)
    n = len(done)
    right = [i for i in done if case.right[i]]
    still = sum(fooled.least.get(i, characters + 1) > characters for i in right)
    value, interval = still / n, wilson(still, n)
    return Finding(
        judge(interval, floor=floor),
        f"With at most {counted(characters, 'character')} replaced, {still} of {counted(n, 'text')} stay right, "
        f"{share(value)} ({span(interval, n)}), of {share(len(right) / n)} that are right without an attack.",
        quantity=f"accuracy with {counted(characters, 'character')} replaced",
        value=value,
        interval=interval,
        n=n,
        has_bar=True,
        notes=(
            f"Asked for: at least {share(floor)} (option floor) with {counted(characters, 'character')} replaced "
            "(option characters).",
            f"{call} may miss replacements that exist: robustness is at most this. A replaced text may be one that "
            "nobody would send, or one of another class: look at them.",
            *note_on_sample(case, len(rows), len(case.labelled)),
            *note_on_budget(case, n, len(rows)),
        ),
        tables=(
            *table("Right answers under attack", level_rows(fooled, right, n, levels)),
            *table("By text, the easiest to fool first", _text_rows(case, right, fooled)),
        ),
        figures=(_curve(fooled, right, n, levels),),
        evidence=_evidence(case, fooled, call),
        mend=f"--perturb 'character-substitution(eps={characters})'",
    )


def attack_texts(case: Case, rows: list[int], x: Tensor, levels: list[int], call: Call, fooled: FooledTexts) -> None:
    """Attack the texts that are right with more and more characters, each until it is fooled."""
    places = {i: j for j, i in enumerate(rows)}
    for most in levels:
        todo = [i for i in rows if case.right[i] and i not in fooled.least]
        if not todo:
            return
        result = attack(
            case.model, x[[places[i] for i in todo]], Misclassify(case.truth[todo]), call, eps=most, seed=case.seed
        )
        for k in result.fooled.nonzero()[:, 0].tolist():
            fooled.least[todo[k]], fooled.attacked[todo[k]] = int(result.distance[k]), result.x[k]


def attacked_text(case: Case, row: int, x: Tensor) -> str:
    """The attacked text, with the characters of its own that the alphabet does not have."""
    return decode(x, case.model.preprocess.alphabet, case.pictures[row].text or "")


def level_rows(fooled: FooledTexts, right: list[int], n: int, levels: list[int]) -> list[dict[str, Cell]]:
    """A row for each number of characters: how many stay right."""
    rows: list[dict[str, Cell]] = []
    for most in [0, *levels]:
        k = sum(fooled.least.get(i, most + 1) > most for i in right)
        rows.append({"characters": most, "right": k, "n": n, "share": k / n, **bounds(wilson(k, n))})
    return rows


def _easiest(case: Case, fooled: FooledTexts) -> list[int]:
    confidence = case.logits.softmax(1).amax(1)
    return sorted(fooled.least, key=lambda i: (fooled.least[i], -float(confidence[i]), i))


def _text_rows(case: Case, right: list[int], fooled: FooledTexts) -> list[dict[str, Cell]]:
    others = sorted(i for i in right if i not in fooled.least)
    return [
        {
            "text": case.pictures[i].name,
            "said": case.label(i),
            "fooled by replacing": fooled.least.get(i, "none found"),
            "characters": len(case.pictures[i].text or ""),
        }
        for i in [*_easiest(case, fooled), *others]
    ]


def _curve(fooled: FooledTexts, right: list[int], n: int, levels: list[int]) -> Figure:
    rows = level_rows(fooled, right, n, levels)
    kept = [int(row["right"] or 0) for row in rows]
    low, high = zip(*(wilson(k, n) for k in kept), strict=True)
    line = charts.Line(ATTACK, [k / n for k in kept], low, high)
    ticks = [(float(k), str(row["characters"])) for k, row in enumerate(rows)]
    x = [float(k) for k in range(len(rows))]
    chart = charts.curves(x, [line], xlabel="replaced characters", ylabel="right answers", xticks=ticks)
    shares = ", ".join(f"{share(k / n)} at {row['characters']}" for k, row in zip(kept, rows, strict=True))
    caption = f"Right answers under attack, {counted(n, 'text')}, with 95 % intervals."
    return Figure("robustness-curve.svg", chart, caption, f"The share of right answers falls: {shares}.")


def _evidence(case: Case, fooled: FooledTexts, call: Call) -> tuple[Evidence, ...]:
    rows = _easiest(case, fooled)[:EVIDENCE]
    if not rows:
        return ()
    with case.model.undisturbed():
        attacked = torch.stack([fooled.attacked[i] for i in rows]).to(case.model.device)
        p = scores(case.model, attacked).softmax(1)
    evidence = []
    for k, i in enumerate(rows):
        before, after = case.pictures[i].text or "", attacked_text(case, i, fooled.attacked[i])
        changed = joined((j, j + 1) for j, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
        nothing = torch.zeros(len(before))
        drawn = [text_picture(runs(t, nothing, signed=False, marks=changed)) for t in (before, after)]
        facts: dict[str, Cell] = {
            "text": case.pictures[i].name,
            "said": case.label(i),
            "probability": float(case.logits[i].softmax(0).max()),
            "says now": case.model.name(int(p[k].argmax())),
            "its probability": float(p[k].max()),
            "characters replaced": fooled.least[i],
        }
        command = case.commands.of_picture("attack", case.pictures[i], "-a", str(call), "--eps", str(fooled.least[i]))
        caption = (
            f"{facts['said']} becomes {facts['says now']} with {counted(fooled.least[i], 'character')} replaced, "
            "underlined; before, and below it after"
        )
        evidence.append(shown(case, i, f"robustness-{k + 1}", stacked(drawn), caption, facts, command))
    return tuple(evidence)
