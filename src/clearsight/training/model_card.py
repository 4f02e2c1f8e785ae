"""The model card: what a model is, how accurate it is, what it was trained on, and what was not evaluated."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clearsight.core.classifier import Classifier
from clearsight.core.text import counted
from clearsight.data.splits import PARTS
from clearsight.models.model_folder import AT_RANDOM
from clearsight.training.card_lines import class_line, count_rows, licence_line, measure_row
from clearsight.training.fine_tuning import TrainableNetwork
from clearsight.training.recipe import Recipe
from clearsight.training.training_data import TrainingData


def card(
    folder: Path,
    model: Classifier,
    start: TrainableNetwork,
    data: TrainingData,
    recipe: Recipe,
    why: Sequence[str],
    metrics: Mapping[str, Any],
) -> str:
    """The card as Markdown (after Mitchell et al. 2019, arXiv:1810.03993)."""
    judged = metrics["judged_on"]
    initial = f"weights of {start.pretrained}" if start.pretrained else "random weights"
    parameters = sum(p.numel() for p in model.net.parameters())
    split = shlex.quote(str(folder / "split.csv"))
    run = shlex.quote(str(folder))
    lines = [
        f"# {folder.name}: {counted(len(data.labels), 'class', 'classes')} by {start.architecture.partition('(')[0]}",
        "",
        *([f"**This model was {AT_RANDOM}.**", ""] if recipe.random_labels else []),
        f"- Network: {start.architecture}, {parameters:,} parameters, initialised with {initial}",
        f"- Input: {_input(model)}; config.json holds the preprocessing",
        class_line(data.labels),
        f"- Weights: {model.fingerprint()}; {data.data.thing}s: {data.digest}",
        "",
        f"## Accuracy and calibration, on {judged}",
        "",
        "| measure | value | 95 % interval | n |",
        "|---|---:|---:|---:|",
        measure_row("accuracy", metrics["accuracy"]),
        measure_row("calibration error (ECE)", metrics["calibration_error"]),
        "",
        f"Test {data.data.thing}s were used for no choice."
        if judged == "test"
        else "Val also chose the epoch, so these numbers are optimistic.",
        "report.html shows the wrong answers, the confusion matrix and the curves.",
        "",
        "## What it was trained on",
        "",
        "| class | " + " | ".join(PARTS) + " |",
        "|---|---:|---:|---:|",
        *count_rows(data.labels, [data.counts(part) for part in PARTS]),
        "",
        *(f"- {note}" for note in data.notes),
        "",
        "## How it was trained",
        "",
        *(f"- {name}: {_word(value)}" for name, value in recipe.as_dict().items()),
        "",
        *(f"- {word}" for word in why),
        f"- {_kept(metrics)}; training took {metrics['seconds']:.0f} s",
        "",
        "## What was not evaluated",
        "",
        "Whether it is right for an acceptable reason, how small a change of the input changes its answer, and how",
        f"accurate it is on {data.data.thing}s of another kind. An audit measures the first two:",
        "",
        "```console",
        f"clearsight audit {run} {split} --split {judged}",
        "```",
        "",
        licence_line(f"{data.data.thing}s"),
    ]
    return "\n".join(lines) + "\n"


def _input(model: Classifier) -> str:
    """What the network takes, in words."""
    p = model.preprocess
    if p.alphabet:
        return f"at most {p.size[0]} characters, each one of an alphabet of {len(p.alphabet)} or unknown"
    return f"{p.channels} x {' x '.join(map(str, p.size))} pixels"


def _kept(metrics: Mapping[str, Any]) -> str:
    """Which weights the folder holds."""
    if not metrics["finished"]:
        return "this is the first model, the head alone: training is not finished"
    if metrics["epoch"] == 0:
        return (
            f"the first model, the head alone, is kept, and none of {counted(metrics['epochs'][-1]['number'], 'epoch')}"
        )
    return f"epoch {metrics['epoch']} of {metrics['epochs'][-1]['number']} is kept"


def _word(value: Any) -> str:
    """A setting in words; None is the network's own value."""
    if value is None:
        return "the network's own"
    return str(value).lower() if isinstance(value, bool) else str(value)
