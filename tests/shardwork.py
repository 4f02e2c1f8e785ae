"""Work for workers, and a network that takes its worker with it: what processes of their own can import."""

from __future__ import annotations

import os
import signal
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.errors import Notice
from clearsight.sharding import shards
from workshop import COLOURS, SIDE, ColourNet


def end(marker: Path) -> None:
    """The first who takes the marker away ends as a process does whose memory is taken: at once."""
    try:
        marker.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def shown(folder: Path, number: int) -> tuple[int, int]:
    """Write down that this shard was begun, and by whom; the last shards are done first."""
    with (folder / f"ran-{number}").open("a") as f:
        f.write(f"{os.getpid()}\n")
    if number == 5:
        end(folder / "marker")
    time.sleep(0.02 * (number == 0))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # for the next shard of this worker, which is to set it back
    return number, threads


def always_lost(folder: Path, number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def endless(folder: Path, number: int) -> None:
    """Begun, and not done within the time of any test."""
    (folder / f"began-{number}").write_text(str(os.getpid()))
    for _ in range(600):  # as passes, of which each is done before the process can be interrupted
        time.sleep(0.1)
    (folder / f"ended-{number}").touch()


def endless_but_one(folder: Path, number: int) -> int:
    if number:
        endless(folder, number)
    return number


def refused(limit: int, number: int) -> int:
    warnings.warn("all shards say this", Notice, stacklevel=1)
    if number >= limit:
        raise cs.Refused(f"shard {number}", "none")
    return number


class Mortal(ColourNet):
    """Ends its process once, if that is not the one that made it.

    pause: seconds that each pass over pictures takes beside.
    """

    pause = 0.0

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.owner, self.marker = os.getpid(), marker

    def forward(self, x: Tensor) -> Tensor:
        if os.getpid() != self.owner:
            end(self.marker)
        time.sleep(self.pause)
        return super().forward(x)


def mortal(marker: Path) -> cs.Classifier:
    return cs.wrap(Mortal(marker), cs.Preprocess(SIDE, (0.0,) * 3, (1.0,) * 3), labels=list(COLOURS))


class Drawing(nn.Module):
    """Scores that are never the same twice."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ColourNet()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(nn.functional.dropout(x, 0.2, training=True))
        return scores


def noted(log: Path, call: int, work: shards.Work, kept: Any, number: int, *shard: Any) -> Any:
    """This work, written down with who does it.

    The third shard of a call arms the marker `marker` of a network that is mortal; the second ends its process when it
    is done, while there is a marker `after`.
    """
    with (log / f"ran-{call}-{number}").open("a") as f:
        f.write(f"{os.getpid()}\n")
    if number == 2:
        with suppress(FileNotFoundError):
            (log / "armed").rename(log / "marker")
    result = work(kept, *shard)
    if number == 1:
        end(log / "after")
    return result
