"""Device, threads and PyTorch version of a training run, on which its weights depend to the last bit.

Sums are rounded in the order in which they are added up, and that order follows from the number of threads, the device
and the version of PyTorch.  So a run records these when it starts, and compares them when it resumes.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clearsight.core.output import write_whole
from clearsight.errors import Notice
from clearsight.models.model_folder import RECIPE

COMPUTED = "computed"  # the field of recipe.json


def current_arithmetic(device: torch.device, epoch: int = 0, step: int = 0) -> dict[str, Any]:
    """Device, threads and PyTorch version of the steps from here on; epoch, step: how many of them were done before."""
    return {
        "epoch": epoch + 1,
        "step": step + 1,
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "torch": torch.__version__,
    }


def slow_precision(precision: str, device: torch.device) -> list[str]:
    """A sentence where training would be slow, because the processor does not compute in the precision."""
    known = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if precision != "bf16" or device.type != "cpu" or not known or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return []
    return [
        "precision bf16: this processor does not compute in bfloat16, so a step takes many times as long as in fp32, "
        "which --precision fp32 asks for"
    ]


def record_resume(folder: Path, current: Mapping[str, Any]) -> None:
    """Record with what a run resumes; a Notice says if its last steps were computed with something else."""
    record = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    before = record.get(COMPUTED) or []
    if current["epoch"] == current["step"] == 1:
        record[COMPUTED] = [dict(current)]  # nothing was kept of what was done before
    elif before and _describe(before[-1]) == _describe(current):
        return
    else:
        earlier = _describe(before[-1]) if before else "an unrecorded number of threads"
        warnings.warn(
            f"the run in {folder} was computed with {earlier}, and resumes with {_describe(current)}: its weights will "
            "not be bit for bit those of an uninterrupted run (OMP_NUM_THREADS sets the number of threads)",
            Notice,
            stacklevel=3,
        )
        record[COMPUTED] = [*before, dict(current)]
    write_whole(folder / RECIPE, json.dumps(record, indent=1) + "\n")


def card_sentences(computed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences for the card: with what the weights were computed, and when the same command gives the same bits."""
    if not computed:
        return ["device, threads and PyTorch version were not recorded: the same command may give other weights"]
    first, *later = computed
    parts = [f"computed with {_describe(first)}", *(f"from {_position(c)} on with {_describe(c)}" for c in later)]
    if later:
        how = "so its weights are not bit for bit those of an uninterrupted run"
    elif first["device"].startswith("cpu"):
        how = "with these the same command gives the same weights bit for bit, with others it may not"
    else:
        how = "the same command is promised to give the same weights bit for bit on a CPU only"
    return [f"{'; '.join(parts)}: {how}"]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type


def _describe(c: Mapping[str, Any]) -> str:
    threads = f"{c['threads']} thread{'s' if c['threads'] != 1 else ''}"
    several = f" in each of {c['processes']} processes" if c["processes"] != 1 else ""
    return f"{threads}{several} on {c['device']}, PyTorch {c['torch']}"


def _position(c: Mapping[str, Any]) -> str:
    return f"epoch {c['epoch']}" + (f", step {c['step']}," if c["step"] != 1 else "")
