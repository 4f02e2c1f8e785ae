"""Where a training run stands: written whole, read without unpickling anything but numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import torch

from clearsight.core.output import write_whole
from clearsight.errors import Refused

STATE = "state.pt"


def keep(folder: Path, state: dict[str, Any]) -> Path:
    """Write the state of a run: tensors, numbers, words, and lists and dicts of them.  Refused where it cannot be."""

    def write(f: BinaryIO) -> None:
        try:
            torch.save(state, f)
        except RuntimeError as e:  # torch hides the system's word behind one of its own
            raise e.__context__ if isinstance(e.__context__, OSError) else e from None

    return write_whole(folder / STATE, write)


def stopped(folder: Path) -> bool:
    """Whether a run in this folder came far enough to leave a state."""
    return (folder / STATE).is_file()


def recall(folder: Path) -> dict[str, Any]:
    """The state of a run that was stopped; Refused where it is broken."""
    path = folder / STATE
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise Refused(f"{path} cannot be read ({type(e).__name__}): begin anew in another folder") from e
    return found


def forget(folder: Path) -> None:
    """A run that came to its end needs its state no more."""
    (folder / STATE).unlink(missing_ok=True)
