"""What the first call in a fresh process takes: ``python benchmarks/first_call.py --before FOLDER [--network NAME]``.

Each call is made in a process of its own, in which the library is imported and the model and one picture are loaded:
what is imported in the call, what is measured of the network and what is recorded of it is part of it.  Builds take
turns, and each number is the median of several processes.  --before: the folder src of another build.

--network: this one alone.  --threads: as many, of torch.  Those of torchvision have random weights and a picture of
noise.  Five minutes for the demo network and two builds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

METHODS = (
    "lrp", "contrastive-lrp", "rap", "relevance-cam", "deep-lift", "guided-backprop", "deconvnet", "guided-grad-cam",
)  # fmt: skip
NETWORKS = {"demo": METHODS, "resnet18": ("lrp", "guided-backprop"), "resnet50": ("lrp", "guided-backprop")}
TURNS = 5  # processes of each build for each method
SIZE = 224

Times = dict[str, float]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        print(json.dumps(measured(*words.one)))
        return
    lines = [*HEAD]
    for name, methods in NETWORKS.items():
        if words.network in (None, name):
            for threads in words.threads:
                rows = {method: in_turns(name, method, threads, words.before, words.turns) for method in methods}
                lines += table(name, threads, words.turns, rows)
                if words.out:
                    words.out.write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(lines))


def in_turns(network: str, method: str, threads: int, before: Path | None, turns: int) -> dict[str, list[Times]]:
    """What each build takes, in processes that take turns."""
    found: dict[str, list[Times]] = {"now": [], "before": []}
    for _ in range(turns):
        for build, source in (("before", before), ("now", None)):
            if build == "now" or source is not None:
                found[build].append(apart(network, method, threads, source))
    return found


def apart(network: str, method: str, threads: int, source: Path | None) -> Times:
    """What a call takes in a process of its own."""
    path = {"PYTHONPATH": str(source.resolve())} if source else {}
    command = [sys.executable, __file__, "--one", network, method]
    env = os.environ | path | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found: Times = json.loads(done.stdout)
    return found


def measured(network: str, method: str) -> Times:
    """Milliseconds of the first call: of the processor, of the clock; and of the third call, of the processor."""
    import torch

    import clearsight as cs

    model, x = loaded(network)
    times = []
    for _ in range(3):
        began = time.process_time(), time.perf_counter()
        cs.explain(model, x, method)
        times.append((time.process_time() - began[0], time.perf_counter() - began[1]))
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])
    return {"processor": 1000 * times[0][0], "clock": 1000 * times[0][1], "later": 1000 * times[2][0]}


def loaded(network: str) -> Any:
    """A model and a picture for it (1, 3, H, W)."""
    import torch

    import clearsight as cs
    from clearsight.data.datasets import demo_pictures, pixels

    if network == "demo":
        model = cs.load("demo")
        return model, pixels(model, demo_pictures())[:1]
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.get_model(network, weights=None).eval()
    labels = tuple(map(str, range(1000)))
    return cs.Classifier(net, cs.Preprocess((SIZE, SIZE), (0.5,) * 3, (0.5,) * 3), labels), torch.rand(1, 3, SIZE, SIZE)


HEAD = [
    "# What the first call in a fresh process takes",
    "",
    "Made by `python benchmarks/first_call.py --before FOLDER --out FILE`: milliseconds of the call itself, one",
    "picture, after `import clearsight` and loading of model and picture. Processor: time of all threads; clock: as",
    "it passes, on two cores on which other work ran at the same time. Median of processes by turns with the build",
    "before, and the fastest of them. Later: the processor time of the third call. The hash that names the weights is",
    "made by another thread meanwhile, and is part of the processor time.",
    "",
]


def table(network: str, threads: int, turns: int, rows: dict[str, dict[str, list[Times]]]) -> list[str]:
    """The rows of one network, as Markdown."""
    many = f"{threads} thread{'s' * (threads > 1)}, {turns} processes each"
    lines = [
        f"## {network}, {many}",
        "",
        "| method | processor | fastest | clock | fastest | later | before: processor | fastest | clock | fastest |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for method, builds in rows.items():
        cells = [*pair(builds["now"], "processor"), *pair(builds["now"], "clock")]
        cells.append(f"{statistics.median(t['later'] for t in builds['now']):.0f}")
        cells += [*pair(builds["before"], "processor"), *pair(builds["before"], "clock")]
        lines.append(f"| {method} | **{cells[0]}** | " + " | ".join(cells[1:]) + " |")
    return [*lines, ""]


def pair(times: list[Times], what: str) -> list[str]:
    """The median and the least."""
    values = [t[what] for t in times]
    return [f"{statistics.median(values):.0f}", f"{min(values):.0f}"] if values else ["", ""]


if __name__ == "__main__":
    main()
