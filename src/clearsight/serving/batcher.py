"""Pictures of several requests go through the network together: a queue, and the threads that run the model.

A picture beside which nothing is under way is in no need of them: the thread that has read it runs it, see `coming`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from clearsight.serving.backend import Answers, Bytes

Timed = tuple[Answers, float]  # and the seconds of the model's time that they took


@dataclass(eq=False)
class _Waiting:
    """Pixels (n, C, H, W) of one request, and where their answers are awaited."""

    pixels: Bytes
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Timed]


class Batcher:
    """Runs a model in threads of its own, on as many of the pictures that wait as one batch holds.

    A batch begins as soon as no picture is on its way: one alone never waits, and several that have arrived wait for
    each other at most `wait` seconds.

    Args:
        run: pixels (B, C, H, W) -> Answers.
        run_alone: the same, for a batch beside which nothing runs, waits or is on its way.
        most: maximum number of pictures of a batch.
        wait: maximum time in seconds that a picture waits for others that are on their way.
        report: called with the number of pictures and the seconds of each batch, in the thread that runs it.
        threads: batches that are run at a time, also by the threads that read.
    """

    def __init__(
        self,
        run: Callable[[Bytes], Answers],
        run_alone: Callable[[Bytes], Answers],
        most: int,
        wait: float,
        report: Callable[[int, float], None],
        threads: int = 1,
    ) -> None:
        self._run, self._run_alone, self._most, self._wait, self._report = run, run_alone, most, wait, report
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._coming = 0
        self._running = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"clearsight-batches-{k}", daemon=True) for k in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many pictures wait for a batch."""
        return sum(len(w.pixels) for w in list(self._queue))

    @contextmanager
    def coming(self) -> Iterator[Callable[[Bytes], Timed | None]]:
        """Inside, a picture is on its way: batches wait for it, until it is run by what is given.

        That takes pixels (n, C, H, W) and gives what `ask` would, at once and in the thread that calls it; None where
        something else runs, waits or is on its way: then ask.
        """
        on_its_way = True

        def run_at_once(pixels: Bytes) -> Timed | None:
            nonlocal on_its_way
            with self._changed:
                others = self._coming > 1 or self._queue or self._running
                if not on_its_way or others or len(pixels) > self._most:
                    return None
                on_its_way = False
                self._coming -= 1
                self._running += 1
            return self._timed(self._run_alone, pixels)

        with self._changed:
            self._coming += 1
        try:
            yield run_at_once
        finally:
            with self._changed:
                if on_its_way:
                    on_its_way = False
                    self._coming -= 1
                    self._wake()

    async def ask(self, pixels: Bytes) -> Timed:
        """The answers to pixels (n, C, H, W), and the seconds of the model's time that they took.

        Args:
            pixels: uint8, resized and cut, not normalised.
        """
        loop = asyncio.get_running_loop()
        parts = [pixels[i : i + self._most] for i in range(0, len(pixels), self._most)]
        waiting = [_Waiting(part, loop, loop.create_future()) for part in parts]
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._queue.extend(waiting)
            self._changed.notify()
        try:
            answered = [await one.future for one in waiting]
        finally:
            for one in waiting:
                one.future.cancel()  # of a client that went away: the thread leaves it out
        return joined([answers for answers, _ in answered]), sum(seconds for _, seconds in answered)

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if not batch:  # every client of this turn went away
                continue
            with self._changed:
                alone = not (self._running > 1 or self._queue or self._coming)
            pixels = np.concatenate([w.pixels for w in batch]) if len(batch) > 1 else batch[0].pixels
            try:
                answers, seconds = self._timed(self._run_alone if alone else self._run, pixels)
            except Exception as e:  # whatever it is, those who wait are told
                _hand_over(batch, e, 0.0)
                continue
            _hand_over(batch, answers, seconds / len(pixels))

    def _timed(self, run: Callable[[Bytes], Answers], pixels: Bytes) -> Timed:
        """The answers of a batch that is counted as running already, and the seconds that it took."""
        began = time.perf_counter()
        try:
            answers = run(pixels)
        finally:
            with self._changed:
                self._running -= 1
                self._wake()
        seconds = time.perf_counter() - began
        self._report(len(pixels), seconds)
        return answers, seconds

    def _full(self) -> bool:
        """Whether as many batches run as may."""
        return self._running >= len(self._threads)

    def _wake(self) -> None:
        """Let a thread look again, where there is something to be done."""
        if self._queue:
            self._changed.notify_all()

    def _next(self) -> list[_Waiting] | None:
        """The requests of the next batch, which is counted as running; None when the queue is closed and empty."""
        with self._changed:
            while not self._queue or self._full():
                if self._closed and not self._queue:
                    return None
                self._changed.wait()
            until = time.monotonic() + self._wait
            while self._coming and sum(len(w.pixels) for w in self._queue) < self._most and not self._closed:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            batch: list[_Waiting] = []
            room = 0 if self._full() else self._most  # another thread may have been sooner
            while self._queue and len(self._queue[0].pixels) <= room:
                one = self._queue.popleft()
                if not one.future.cancelled():
                    batch.append(one)
                    room -= len(one.pixels)
            self._running += bool(batch)
            return batch


def joined(parts: list[Answers]) -> Answers:
    """The answers of several batches as one."""
    if len(parts) == 1:
        return parts[0]
    maps = [p.maps for p in parts if p.maps is not None]
    features = [p.features for p in parts if p.features is not None]
    return Answers(
        np.concatenate([p.values for p in parts]),
        np.concatenate([p.logits for p in parts]),
        np.concatenate(maps) if maps else None,
        np.concatenate(features) if features else None,
    )


def _hand_over(batch: list[_Waiting], result: Answers | Exception, seconds: float) -> None:
    """Give each request its rows, or the error, in the loop where it waits.  seconds: of one picture."""

    def settle() -> None:
        start = 0
        for one in batch:
            stop = start + len(one.pixels)
            if one.future.done():  # its client went away
                pass
            elif isinstance(result, Exception):
                one.future.set_exception(result)
            else:
                one.future.set_result((result.rows(start, stop), seconds * len(one.pixels)))
            start = stop

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        batch[0].loop.call_soon_threadsafe(settle)
