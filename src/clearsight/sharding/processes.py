"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path

from clearsight.core import deadline
from clearsight.errors import Refused
from clearsight.sharding.shards import AT_ONCE, KEPT, TRIES, Kept, Outcome, Shard, Work, lost, work_on

_PRELOADED = ["clearsight.auditing.audit", "clearsight.explaining.explain_pictures"]  # and torch with them
Numbered = tuple[int, Shard]


class _Process:
    """A process, which begins with its first shard."""

    def __init__(self, context: BaseContext) -> None:
        self.is_ended = False
        self._ends, self._end = context.Pipe(duplex=False)
        self.pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(self._ends,))

    def close(self) -> None:
        """End it, whatever it is doing.  Others who wait for its shards learn that it is lost: none is cancelled."""
        self.is_ended = True
        self.pool.shutdown(wait=False)
        self._end.close()
        self._ends.close()


_UnderWay = dict["Future[Outcome]", tuple[int, _Process, Numbered]]


class Processes:
    """So many processes, each by itself: one that is lost takes no other with it, and costs the shard that it had.

    Args:
        count: how many, at least 1.
    """

    def __init__(self, count: int) -> None:
        kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context = multiprocessing.get_context(kind)
        if kind == "forkserver":
            self._context.set_forkserver_preload(_PRELOADED)  # libraries are loaded once for all
        self._folder = Path(tempfile.mkdtemp(prefix="clearsight-"))
        self._processes = [_Process(self._context) for _ in range(count)]
        self._have_worked = False
        self._one_by_one = threading.RLock()  # several may spread shards at a time

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for process in self._processes:
            process.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _renew(self, place: int, process: _Process) -> None:
        """Another process in the place of this one, which ends, whatever it is doing."""
        with self._one_by_one:
            process.close()
            if self._processes[place] is process:
                self._processes[place] = _Process(self._context)

    def spread(self, work: Work, kept: Kept, shards: Iterable[Shard]) -> Generator[Outcome]:
        """What became of each shard, in their order.

        OutOfTime: it is too late.  Then, and where nobody asks for the others, the processes at work are ended.
        """
        under_way: _UnderWay = {}
        try:
            yield from self._outcomes(work, kept, shards, under_way)
        finally:
            for place, process, _ in under_way.values():
                self._renew(place, process)

    def _outcomes(self, work: Work, kept: Kept, shards: Iterable[Shard], under_way: _UnderWay) -> Generator[Outcome]:
        """The same.  under_way: of the shards that are worked on, by whom."""
        files, waiting = self._files(kept), enumerate(shards)
        again: deque[Numbered] = deque()
        tries: dict[int, int] = {}
        free = deque(range(len(self._processes)))
        outcomes: dict[int, Outcome] = {}
        given = 0
        while True:
            while free and len(under_way) + len(outcomes) < AT_ONCE * len(self._processes):
                todo = again.popleft() if again else next(waiting, None)
                if todo is None:
                    break
                place = free.popleft()
                future, process = self._submit(place, work, kept, files, todo[1])
                under_way[future] = place, process, todo
            if given in outcomes:
                yield outcomes.pop(given)
                given += 1
                continue
            if not under_way:
                return
            done = wait(under_way, deadline.left(), FIRST_COMPLETED).done
            deadline.look()
            for future in done:
                place, process, (number, shard) = under_way.pop(future)
                free.append(place)
                tries[number] = tries.get(number, 0) + (not process.is_ended)
                if isinstance(future.exception(), BrokenProcessPool) and tries[number] < TRIES:
                    again.append((number, shard))
                else:
                    outcomes[number] = self._outcome(future, number)

    def _submit(
        self, place: int, work: Work, kept: Kept, files: list[Path], shard: Shard
    ) -> tuple[Future[Outcome], _Process]:
        """Hand a shard to a process; to a new one where that is lost."""
        todo = partial(work_on, work, kept.keys, kept.tasks, partial(_read, files), shard)
        with self._one_by_one:
            try:
                return self._processes[place].pool.submit(todo), self._processes[place]
            except BrokenProcessPool:
                self._renew(place, self._processes[place])
                return self._processes[place].pool.submit(todo), self._processes[place]

    def _outcome(self, future: Future[Outcome], number: int) -> Outcome:
        """What became of a shard: also where it could not be sent, or nobody was left to work on it."""
        error = future.exception()
        if error is None:
            self._have_worked = True
            return future.result()
        if isinstance(error, BrokenProcessPool):
            return Outcome(error=lost(number) if self._have_worked else _do_not_begin())
        if isinstance(error, Exception):
            return Outcome(error=error)
        raise error

    def _files(self, kept: Kept) -> list[Path]:
        """The files from which a process reads what is kept; the last of them stay."""
        files = [self._folder / key for key in kept.keys]
        for file, part in zip(files, kept.parts, strict=True):
            if file.exists():
                file.touch()
            else:
                file.write_bytes(part.data)
        for old in sorted(self._folder.iterdir(), key=lambda f: f.stat().st_mtime_ns)[: -2 * KEPT]:
            old.unlink()
        return files


def _read(files: list[Path], number: int) -> bytes:
    return files[number].read_bytes()


def _do_not_begin() -> Refused:
    return Refused(
        "the processes that work on shards end before they begin",
        'a script that hires workers runs nothing when it is imported: if __name__ == "__main__": main()',
    )


def _begin(ends: Connection) -> None:
    """In a new process: it ends with the process that hired it, and leaves Ctrl+C to that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(ends,), daemon=True).start()


def _end_with(ends: Connection) -> None:
    try:
        ends.recv()
    except (EOFError, OSError):
        os._exit(0)
