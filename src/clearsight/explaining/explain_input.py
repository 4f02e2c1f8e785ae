"""One input explained by every method, and every map tested: what pictures and texts share before they are drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clearsight.auditing.map_tests import MapTest, examine
from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.model import Model
from clearsight.core.remembered import remembering
from clearsight.core.targets import ClassScore, Margin, Of, Target
from clearsight.errors import Refused
from clearsight.explaining.ask_kinds import Marks, ask_kind, marks_of, told
from clearsight.internals.scores import scores
from clearsight.runner.results import Explanation
from clearsight.runner.run import explain

# model, explainers, target, seed, whether maps are tested
Asked = tuple[Model, Sequence[str | Call], str, int, bool]


@dataclass(frozen=True, eq=False)
class ExplainedInput:
    """One input explained: a map of each method for each question, its tests, and what else is told of the input.

    maps: M explanations of (n, *S) for n questions.  tests: n tests of each, none where none was asked for.  chances
    (n,): of the class of each question, None where there is none.  answers: as `top` gives them.  left_out: (method,
    why) of those that the network refuses.  marks: what is outlined of a detector's or a segmenter's answer.
    """

    maps: tuple[Explanation, ...]
    tests: tuple[tuple[MapTest, ...], ...]
    chances: Tensor | None
    answers: tuple[dict[str, Any], ...]
    left_out: tuple[tuple[str, str], ...]
    marks: Marks | None = None


def explain_input(asked: Asked, x: Tensor) -> ExplainedInput:
    """Explain one input x (C, *S) by every method, and test the maps."""
    model, methods, target, seed, tests = asked
    x = x[None].to(model.device)
    with remembering():
        with model.undisturbed():
            logits = scores(model, x)
        marks = None
        if isinstance(model, Classifier):
            question, rows, chances = ask(model, target, logits)
            answers = top(model, logits[0], 3)
        else:
            question, chances = ask_kind(model, target, logits)
            rows, answers, marks = len(chances), told(model, logits), marks_of(model, question, logits)
        calls = [parse(m, "explainers") for m in methods]
        maps, left_out = _run(model, x.expand(rows, *x.shape[1:]), calls, question, seed)
        tested = examine(model, maps) if tests else []
    return ExplainedInput(tuple(maps), tuple(tested), chances, tuple(answers), left_out, marks)


def ask(model: Classifier, words: str, logits: Tensor) -> tuple[Target, int, Tensor | None]:
    """The target in words -> the target, how many rows it asks about, and the probability of each row's class.

    logits (1, K).

    Refused: a class that the model does not have, a top-k beyond its classes.
    """
    of: Of = "value" if model.scores == "values" else "logit"
    chances = None if of == "value" else model.chances(logits[0])

    def asked(index: Tensor) -> tuple[Target, int, Tensor | None]:
        return ClassScore(index, of), len(index), None if chances is None else chances[index]

    if of == "value" and words.strip() == "top1" and len(model.labels) == 1:
        return asked(torch.tensor([0]))
    if of == "value" and re.fullmatch(r"top\d+", words.strip()):
        raise Refused(f"target {words!r}: none of several values is the top one; name one, such as {model.labels[0]!r}")
    if m := re.fullmatch(r"top(\d+)", words.strip()):
        k = int(m[1])
        if not 1 <= k <= len(model.labels):
            raise Refused(
                f"target {words!r}: the model has {len(model.labels)} classes, top1 to top{len(model.labels)}"
            )
        return asked(logits[0].topk(k).indices)
    a, versus, b = words.partition(" rather than ")
    if versus:
        return Margin(model.index(a), model.index(b)), 1, None
    return asked(torch.tensor([model.index(words)]))


def top(model: Classifier, logits: Tensor, k: int) -> list[dict[str, Any]]:
    """The k most probable classes of one picture, logits (K,), with their probabilities; of a regressor the values."""
    p = model.chances(logits)
    k = min(k, len(p))
    what = "value" if model.scores == "values" else "probability"
    best = range(k) if what == "value" else p.topk(k).indices.tolist()
    return [{"class": i, "label": model.name(i), what: round(float(p[i]), 6)} for i in best]


def _run(
    model: Model, x: Tensor, calls: Sequence[Call], target: Target, seed: int
) -> tuple[list[Explanation], tuple[tuple[str, str], ...]]:
    """The maps of each method, and (method, why) of those that the network refuses; refused where none is left."""
    explanations: list[Explanation] = []
    refusals: list[tuple[str, str]] = []
    for call in calls:
        try:
            explanations.append(explain(model, x, call, target, seed=seed))
        except Refused as e:
            refusals.append((str(call), str(e)))
    if not explanations:
        several = len(refusals) > 1
        raise Refused("; ".join(f"{call}: {why}" for call, why in refusals) if several else refusals[0][1])
    return explanations, tuple(refusals)
