"""Calls with threads that spin while they wait, sleep, or spin briefly; idle, and with busy neighbours."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sections
from speed_rows import middle

SETTINGS = (  # what waiting threads do, and the words of the environment
    ("spin, as libgomp's default is", {}),
    ("sleep (`OMP_WAIT_POLICY=PASSIVE`)", {"OMP_WAIT_POLICY": "PASSIVE"}),
    ("spin 10,000 turns, then sleep (`GOMP_SPINCOUNT=10000`)", {"GOMP_SPINCOUNT": "10000"}),
)
CALLS = (("saliency", 8), ("lrp", 2))  # a method, pictures


def measured(turns: int | None) -> str:
    """The table: of each setting so many processes with each number of neighbours, by turns."""
    found: dict[tuple[str, int], list[list[float]]] = {}
    for _ in range(turns or 3):
        for neighbours in (0, 2):
            with busy(neighbours):
                for name, words in SETTINGS:
                    found.setdefault((name, neighbours), []).append(one(words))
    rows = []
    for name, _ in SETTINGS:
        columns = [column for n in (0, 2) for column in zip(*found[name, n], strict=True)]
        rows.append(f"| {name} | {' | '.join(middle(list(column)) for column in columns)} |")
        print(rows[-1], file=sys.stderr, flush=True)
    calls = [f"{method} of {count}" for method, count in CALLS]
    heads = [f"{call}, {where}:" for where in ("idle", "two busy neighbours") for call in calls]
    table = sections.table(f"| waiting threads | {' | '.join(heads)} |", rows)
    return f"{table}\n\nms of a call by a clock, medians of {turns or 3} processes (range), each the median of 9 calls."


@contextmanager
def busy(neighbours: int) -> Iterator[None]:
    """So many other processes that never wait, until the end."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def one(words: dict[str, str]) -> list[float]:
    """ms of each call, in a process with these words in its environment and as many threads as there are cores."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, __file__], check=True, env=kept | words, stdout=subprocess.PIPE, text=True)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """The process that calls: prints the median ms of each call."""
    import clearsight as cs

    cs.reuse_memory()
    model = cs.load("demo")
    x = cs.pixels(model, "demo:coffee,chelsea,grace_hopper,rocket").repeat(2, 1, 1, 1)
    found = []
    for method, count in CALLS:
        cs.explain(model, x[:count], method)
        times = []
        for _ in range(9):
            began = time.perf_counter()
            cs.explain(model, x[:count], method)
            times.append(1000 * (time.perf_counter() - began))
        found.append(statistics.median(times))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
