"""The model card of a detector or a segmenter: what it is, how good it is, what it was trained on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clearsight.auditing.evidence import share
from clearsight.core.model import Model
from clearsight.core.text import counted
from clearsight.data.splits import PARTS
from clearsight.training.card_lines import class_line, count_rows, licence_line, measure_row
from clearsight.training.objects.run import ObjectRun

_TITLES = {
    "ap50": "AP50",
    "ap": "AP, mean over IoU 0.5 to 0.95",
    "ap75": "AP75",
    "mean_iou": "mean IoU",
    "pixel_accuracy": "share of pixels that are right",
}


def card(folder: Path, model: Model, run: ObjectRun, why: Sequence[str], metrics: Mapping[str, Any]) -> str:
    """The card as Markdown (after Mitchell et al. 2019, arXiv:1810.03993)."""
    start, data, judged = run.start, run.data, metrics["judged_on"]
    initial = f"weights of {start.pretrained}" if start.pretrained else "random weights"
    channels, (height, width) = model.preprocess.channels, model.preprocess.size
    labels = model.labels
    lines = [
        f"# {folder.name}: a {model.kind} of {counted(len(labels), 'class', 'classes')} by "
        f"{start.architecture.partition(':')[2]}",
        "",
        f"- Network: {start.architecture}, {sum(p.numel() for p in model.net.parameters()):,} parameters, initialised "
        f"with {initial}",
        f"- Input: {channels} x {height} x {width} pixels; config.json holds the preprocessing",
        class_line(labels),
        f"- Weights: {model.fingerprint()}; pictures: {data.digest}",
        "",
        f"## How good it is, on {judged}",
        "",
        "| measure | value | 95 % interval | pictures |",
        "|---|---:|---:|---:|",
        *(measure_row(title, metrics[name]) for name, title in _TITLES.items() if name in metrics),
        "",
        "| class | AP50 |" if model.kind == "detector" else "| class | IoU |",
        "|---|---:|",
        *(f"| {name} | {share(value) if value is not None else '–'} |" for name, value in metrics["classes"].items()),
        "",
        "Test pictures were used for no choice."
        if judged == "test"
        else "Val also chose the epoch, so these numbers are optimistic.",
        "",
        "## What it was trained on",
        "",
        f"| class | {' | '.join(f'{data.thing}s of {part}' for part in PARTS)} |",
        "|---|---:|---:|---:|",
        *count_rows(data.labels, [data.counts(part) for part in PARTS]),
        "",
        *(f"- {note}" for note in data.notes),
        "",
        "## How it was trained",
        "",
        *(f"- {name}: {value}" for name, value in run.recipe.as_dict().items() if value is not None),
        "",
        *(f"- {word}" for word in why),
        f"- epoch {metrics['epoch']} of {run.history[-1].number} is kept; training took {metrics['seconds']:.0f} s, "
        f"{metrics['processor_seconds']:.0f} s of processor time",
        "",
        "## What was not evaluated",
        "",
        "Pictures of another kind than these, how small a change of a picture changes what is found, and what decides.",
        "An audit looks closer:",
        "",
        "```console",
        shlex.join(
            ["clearsight", "audit", str(folder), str(folder / "split.csv"), "--split", judged, *data.data.words]
        ),
        "```",
        "",
        licence_line("pictures"),
    ]
    return "\n".join(lines) + "\n"
