"""What `clearsight attack` does with texts: how many stay right with a few characters replaced, and the new texts."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearsight.auditing.assemble import make
from clearsight.auditing.audit import with_model_notes
from clearsight.auditing.case import Case
from clearsight.auditing.mending import mending_command
from clearsight.auditing.text_robustness import ATTACK, FooledTexts, attacked_text, text_robustness
from clearsight.core.catalogue import Call, catalogue, method_name, parse
from clearsight.core.classifier import Classifier
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.data.records import Pictures
from clearsight.errors import Refused
from clearsight.reporting.report import Report

FILE = "attacked.jsonl"


def attack_text_report(
    model: Classifier,
    data: Pictures,
    attack: str,
    eps: float | None,
    folder: Path,
    *,
    floor: float = 0.3,
    pictures: int = 0,
    seed: int = 0,
    budget: float | None = None,
    command: str = "",
    model_words: Sequence[str] = (),
    data_words: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """The report of an attack on texts; the texts that it fools go to attacked.jsonl in the folder, with their labels.

    eps: the number of characters that may be replaced; None for that of the spelling, or 8.

    Refused: another attack, and a budget that is no number of characters.
    """
    if method_name(attack) != ATTACK:
        raise Refused(f"{method_name(attack)} changes pixels, and these are texts: give -a {ATTACK}")
    call = parse(attack, "attacks")
    spelled = call.options.get("eps")
    most = next((n for n in (eps, spelled) if n is not None), 8.0)
    if most < 1 or most != int(most):
        raise Refused(f"--eps {most}: give the number of characters that may be replaced, such as 8")
    case = Case(
        model, with_model_notes(data, model), seed=seed, budget=budget, progress=progress, model_words=model_words,
        data_words=data_words,
    )  # fmt: skip
    if not case.labelled:
        case = _for_its_own_answers(case)
    fooled, began = FooledTexts(), time.monotonic()
    of_all = pictures or len(data.pictures)
    bare = Call(call.method, {k: v for k, v in call.options.items() if k != "eps"})
    finding = text_robustness(case, characters=int(most), floor=floor, pictures=of_all, call=bare, fooled=fooled)
    method = catalogue("checks")["robustness"]
    finding = replace(
        finding,
        check=f"robustness(characters={int(most)})",
        summary=method.summary,
        paper=call.method.paper,
        advice=method.advice,
        seconds=time.monotonic() - began,
        command=command,
        mend=mending_command(case.commands, Call(method), finding.mend) if finding.verdict == "fail" else "",
    )
    _write_fooled(case, int(most), fooled, folder / FILE)
    return make(case, [finding], seconds=finding.seconds, command=command)


def _for_its_own_answers(case: Case) -> Case:
    """The same case, with the model's answer as the label of each text."""
    answers = [case.model.labels[int(k)] for k in case.predicted]
    inputs = tuple(replace(p, labels=(answer,)) for p, answer in zip(case.pictures, answers, strict=True))
    note = "No text has a label: each is attacked for the model's own answer."
    data = replace(case.data, pictures=inputs, broken=case.broken, notes=(*case.data.notes, note))
    words = case.commands.model_words, case.commands.data_words
    return Case(
        case.model, data, seed=case.seed, budget=case.budget, progress=case.progress, model_words=words[0],
        data_words=words[1],
    )  # fmt: skip


def _write_fooled(case: Case, most: int, fooled: FooledTexts, file: Path) -> None:
    """A line of JSON for each text that is fooled by at most so many characters."""
    lines = []
    for i in sorted(i for i, n in fooled.least.items() if n <= most):
        entry = case.pictures[i]
        text = attacked_text(case, i, fooled.attacked[i])
        row: dict[str, Any] = {"text": text, "label": "|".join(entry.labels), "name": entry.name}
        row |= {"before": entry.text, "replaced": fooled.least[i]}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_whole(file, "".join(lines))
