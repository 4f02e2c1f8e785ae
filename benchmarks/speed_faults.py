"""Page faults and processor time of calls on a small network, beside the build that did not keep a block of memory."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sections
from speed_rows import checked_out, middle

BEFORE = "f792c08"  # the last build whose calls on small networks left it to glibc what it keeps
CALLS = (  # a call, pictures
    ("square(queries=500)", 200),
    ("pgd(steps=40, step=0.01)", 200),
    ("apgd-ce(steps=40)", 200),
    ("rise(masks=500)", 8),
    ("occlusion(window=4, stride=2)", 40),
)
Found = dict[str, float]  # seconds, faults of a call, and the process's peak in MB


def measured(mnist: Path, only: str, turns: int | None) -> str:
    """The table: of each call so many processes of each build, by turns."""
    from speed_digits import taught

    rows = []
    with tempfile.TemporaryDirectory() as place, checked_out(BEFORE, Path(place) / "before") as old:
        file = Path(place) / "digits.pt"
        taught(mnist, 200, file)
        for call, count in CALLS:
            if only in call:
                pairs = [[one(tree, file, call, count) for tree in (old, sections.ROOT)] for _ in range(turns or 3)]
                rows.append(line(f"{call}, {count} pictures", pairs))
                print(rows[-1], file=sys.stderr, flush=True)
    sides = [f"{build}, s: | faults a call: | MB:" for build in (BEFORE, "this build")]
    table = sections.table(f"| call | {' | '.join(sides)} | ratio of seconds (range): |", rows)
    what = f"Medians of {turns or 3} processes (range), each the median of 7 calls after a first one with 8 pictures."
    return f"{table}\n\n{what}"


def line(name: str, pairs: list[list[Found]]) -> str:
    cells = []
    for side in (0, 1):
        cells += [middle([p[side][what] for p in pairs]) for what in ("seconds", "faults")]
        cells.append(f"{max(p[side]['mb'] for p in pairs):.0f}")
    ratio = middle([after["seconds"] / before["seconds"] for before, after in pairs])
    return f"| {name} | {' | '.join(cells)} | {ratio} |"


def one(tree: Path, file: Path, call: str, count: int) -> Found:
    """One process with the package of a tree."""
    places = [str(tree / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    command = [sys.executable, __file__, str(file), call, str(count)]
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """The process that calls, and keeps no result."""
    import torch
    from speed_digits import kept, wrapped
    from speed_rows import peak

    import clearsight as cs

    torch.set_num_threads(1)
    file, call, count = sys.argv[1:]
    net, x, y = kept(Path(file))
    model = wrapped(net)
    x, y = x[: int(count)], y[: int(count)]
    explains = call.partition("(")[0] in cs.catalogue("explainers")

    def made(n: int) -> Any:
        return cs.explain(model, x[:n], call) if explains else cs.attack(model, x[:n], y[:n], call, eps=0.1)

    made(8)
    turns = [spent(lambda: made(len(x))) for _ in range(7)]
    seconds, faults = (statistics.median(t[k] for t in turns) for k in (0, 1))
    print(json.dumps({"seconds": seconds, "faults": faults, "mb": peak()}))


def spent(call: Callable[[], Any]) -> tuple[float, int]:
    """Seconds of the processor, and page faults."""
    began, faults = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults


if __name__ == "__main__":
    main()
