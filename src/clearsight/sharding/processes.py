"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from clearsight.errors import Refused
from clearsight.sharding.shards import AT_ONCE, KEPT, TRIES, Kept, Outcome, Shard, Work, lost, work_on

_PRELOADED = ["clearsight.auditing.audit", "clearsight.explaining.explain_pictures"]  # and torch with them
Numbered = tuple[int, Shard]


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
        self._ends, self._end = self._context.Pipe(duplex=False)
        self._pools = [self._pool() for _ in range(count)]
        self._have_worked = False

    def _pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=self._context, initializer=_begin, initargs=(self._ends,))

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        self._end.close()
        self._ends.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def spread(self, work: Work, kept: Kept, shards: Iterable[Shard]) -> Iterator[Outcome]:
        """What became of each shard, in their order."""
        files, waiting = self._files(kept), enumerate(shards)
        again: deque[Numbered] = deque()
        tries: dict[int, int] = {}
        free = deque(range(len(self._pools)))
        under_way: dict[Future[Outcome], tuple[int, Numbered]] = {}
        outcomes: dict[int, Outcome] = {}
        given = 0
        while True:
            while free and len(under_way) + len(outcomes) < AT_ONCE * len(self._pools):
                todo = again.popleft() if again else next(waiting, None)
                if todo is None:
                    break
                pool = free.popleft()
                under_way[self._submit(pool, work, kept, files, todo[1])] = (pool, todo)
            if given in outcomes:
                yield outcomes.pop(given)
                given += 1
                continue
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                pool, (number, shard) = under_way.pop(future)
                free.append(pool)
                tries[number] = tries.get(number, 0) + 1
                if isinstance(future.exception(), BrokenProcessPool) and tries[number] < TRIES:
                    again.append((number, shard))
                else:
                    outcomes[number] = self._outcome(future, number)

    def _submit(self, pool: int, work: Work, kept: Kept, files: list[Path], shard: Shard) -> Future[Outcome]:
        """Hand a shard to a process; to a new one where that is lost."""
        todo = partial(work_on, work, kept.keys, kept.tasks, partial(_read, files), shard)
        try:
            return self._pools[pool].submit(todo)
        except BrokenProcessPool:
            self._pools[pool] = self._pool()
            return self._pools[pool].submit(todo)

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
