"""On what a training run computes: to the last bit its weights depend on that, too.

Sums are rounded in the order in which they are added up, and that order follows from the number of threads, the device
and the version of PyTorch.  So these are written down when a run begins, and held against those with which it goes on.
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


def computing(device: torch.device, epoch: int = 0, step: int = 0) -> dict[str, Any]:
    """What the steps from here on are computed with; epoch, step: how many of them were done before."""
    return {
        "epoch": epoch + 1,
        "step": step + 1,
        "device": _named(device),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "torch": torch.__version__,
    }


def goes_on(folder: Path, now: Mapping[str, Any]) -> None:
    """Write down with what a run goes on; a Notice says where its last steps were computed with something else."""
    says = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    before = says.get(COMPUTED) or []
    if now["epoch"] == now["step"] == 1:
        says[COMPUTED] = [dict(now)]  # nothing was kept of what was done before
    elif before and _with(before[-1]) == _with(now):
        return
    else:
        was = _with(before[-1]) if before else "a number of threads that it did not write down"
        warnings.warn(
            f"the run in {folder} was computed with {was}, and goes on with {_with(now)}: it will not end bit for bit "
            "as if it had never been stopped (OMP_NUM_THREADS sets the number of threads)",
            Notice,
            stacklevel=3,
        )
        says[COMPUTED] = [*before, dict(now)]
    write_whole(folder / RECIPE, json.dumps(says, indent=1) + "\n")


def words(computed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences for the card: with what the weights were computed, and for what they are the same to the bit."""
    if not computed:
        return ["with what it was computed was not written down: its weights may differ from those of a run like it"]
    first, *later = computed
    told = [f"computed with {_with(first)}", *(f"from {_at(c)} on with {_with(c)}" for c in later)]
    if later:
        how = "so its weights are not to the bit those of a run that was never stopped"
    elif first["device"].startswith("cpu"):
        how = "with these the same command gives the same weights to the bit, with others it need not"
    else:
        how = "that the same command gives the same weights to the bit is promised on a CPU alone"
    return [f"{'; '.join(told)}: {how}"]


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type


def _with(c: Mapping[str, Any]) -> str:
    threads = f"{c['threads']} thread{'s' if c['threads'] != 1 else ''}"
    several = f" in each of {c['processes']} processes" if c["processes"] != 1 else ""
    return f"{threads}{several} on {c['device']}, PyTorch {c['torch']}"


def _at(c: Mapping[str, Any]) -> str:
    return f"epoch {c['epoch']}" + (f", step {c['step']}," if c["step"] != 1 else "")
