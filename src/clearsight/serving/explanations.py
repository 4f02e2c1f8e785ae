"""Explanations of one picture at a time, beside the answers, within a time limit."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from clearsight.core.catalogue import Call, catalogue, parse
from clearsight.core.classifier import Classifier
from clearsight.core.targets import ClassScore
from clearsight.data.images import of_bytes
from clearsight.errors import Refused
from clearsight.runner.results import Explanation
from clearsight.runner.run import explain
from clearsight.serving.backend import Backend, Bytes
from clearsight.serving.problems import Problem, try_again

_WAITING = 8  # requests that may wait for the one that is explained


class _TooSlow(Refused):
    """The time of an explanation is over."""


@dataclass(frozen=True, eq=False)
class _Timed(Classifier):
    """A classifier that runs no more pictures once its time is over."""

    until: float = float("inf")

    def __call__(self, x: Tensor) -> Tensor:
        if time.monotonic() > self.until:
            raise _TooSlow("the explanation's time is over")
        return super().__call__(x)


def explainer_call(spelling: str) -> Call:
    """The explainer that a client asks for, of those that need few passes.

    Refused: names that the catalogue does not hold, files, explainers of many passes, and unknown options.
    """
    if ".py:" in spelling:
        raise Problem(400, f"{spelling[:80]!r} names a file", f"name one of {', '.join(quick_explainers())}")
    try:
        call = parse(spelling, "explainers")
    except Refused as e:
        raise Problem(400, e.what, e.fix) from e
    if "few-passes" not in call.method.claims:
        what = f"{call.method.name} needs many passes of the network"
        raise Problem(400, what, f"ask for one of {', '.join(quick_explainers())}")
    return call


def quick_explainers() -> list[str]:
    """The names of the explainers of few passes."""
    return [name for name, method in catalogue("explainers").items() if "few-passes" in method.claims]


class Explaining:
    """Runs explainers on the model in one thread of its own, so that answers do not wait for them.

    Args:
        backend: the model.
        seconds: time that an explanation may take, the waiting included.
    """

    def __init__(self, backend: Backend, seconds: float) -> None:
        self._backend, self.seconds = backend, seconds
        self._thread = ThreadPoolExecutor(1, "clearsight-explain")
        self._waiting = 0

    async def explain(self, pixels: Bytes, call: Call, target: int | None) -> Explanation:
        """The map of one picture, pixels (C, H, W) uint8, for a class, or None for the top one.

        Refused: a model that explainers cannot be run on, more requests than may wait, what the explainer refuses, and
        an explanation that is not done in time.
        """
        if self._backend.classifier is None:
            what = f"a model run by {self._backend.engine} is explained by the map of its own answer alone"
            raise Problem(400, what, "leave out method=, or serve the network itself")
        if self._waiting >= _WAITING:
            raise try_again(503, f"{self._waiting} explanations wait already", "come again later", 1.0)
        self._waiting += 1
        until = time.monotonic() + self.seconds
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._thread, self._run, pixels, call, target, until)
        work.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(work), self.seconds)
        except (TimeoutError, _TooSlow):
            what = f"{call} took longer than {self.seconds:g} seconds"
            raise try_again(
                503, what, "ask for a quicker explainer, or serve with a longer --explain-seconds", 1.0
            ) from None
        except Problem:
            raise
        except Refused as e:
            raise Problem(400, e.what, e.fix) from e

    def close(self) -> None:
        """End the thread once it is done."""
        self._thread.shutdown()

    def _done(self, work: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        work.exception() if not work.cancelled() else None

    def _run(self, pixels: Bytes, call: Call, target: int | None, until: float) -> Explanation:
        if time.monotonic() > until:
            raise _TooSlow("the explanation's time is over")
        model = self._backend.classifier
        assert model is not None
        timed = _Timed(**{f.name: getattr(model, f.name) for f in fields(Classifier)}, until=until)
        x = of_bytes(torch.from_numpy(pixels.copy()))[None].to(model.device)
        return explain(timed, x, call, None if target is None else ClassScore(target))
