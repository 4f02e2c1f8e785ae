"""The state of a training run on disk: written whole, read without unpickling anything but plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from clearsight.core.output import write_whole
from clearsight.errors import Refused

STATE = "state.pt"


def learning_state(net: nn.Module, optimiser: Any, average: Any) -> dict[str, Any]:
    """What learning itself has changed: the network, its optimiser, and timm's average of the weights or None."""
    of_average = average.module.state_dict() if average is not None else None
    return {"net": net.state_dict(), "opt": optimiser.state_dict(), "average": of_average}


def restore_learning(state: Mapping[str, Any], net: nn.Module, optimiser: Any, average: Any) -> None:
    """Put back what `learning_state` gave."""
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["opt"])
    if average is not None:
        average.module.load_state_dict(state["average"])


def save_state(folder: Path, state: dict[str, Any]) -> Path:
    """Write the state of a run: tensors, numbers, words, and lists and dicts of them.  Refused where it cannot be."""

    def write(f: BinaryIO) -> None:
        try:
            torch.save(state, f)
        except RuntimeError as e:  # torch hides the operating system's error behind its own
            raise e.__context__ if isinstance(e.__context__, OSError) else e from None

    return write_whole(folder / STATE, write)


def has_state(folder: Path) -> bool:
    """Whether the folder holds the state of a run that was stopped."""
    return (folder / STATE).is_file()


def load_state(folder: Path) -> dict[str, Any]:
    """The state of a run that was stopped.  Refused: a file that cannot be read."""
    path = folder / STATE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise Refused(f"{path} cannot be read ({type(e).__name__}): start again in another folder") from e
    return state


def delete_state(folder: Path) -> None:
    """Delete the state of a run that is complete."""
    (folder / STATE).unlink(missing_ok=True)
