"""Score-CAM with few channels beside the whole map: ``python benchmarks/score_cam.py``, some minutes.

For four photographs, and for each number of channels: Spearman's rank correlation of the map with that of all channels,
the passes, and the processor's time in F, one forward of one picture in batches of 16 in the same process, timed before
and after.  Network: ``demo``; target: the top class.
"""

from __future__ import annotations

import statistics
import time

import torch

from clearsight.core.similarity import spearman
from clearsight.data.datasets import pixels
from clearsight.models.loading import load
from clearsight.runner.results import Explanation
from clearsight.runner.run import explain

NAMES = ("coffee", "chelsea", "grace_hopper", "rocket")
CALLS = {  # what is compared with what
    "score-cam": (25, 50, 100),
    "score-cam(mode=reference)": (25, 50, 100),
    "score-cam(layer=blocks.6)": (),
}


def main() -> None:
    """Measure, and print a table."""
    torch.set_num_threads(1)
    model = load("demo")
    x = pixels(model, *[f"demo:{n}" for n in NAMES])
    many = x.repeat(4, 1, 1, 1)

    def forward() -> float:
        with model.undisturbed(), torch.no_grad():
            began = time.process_time()
            model(many)
            return (time.process_time() - began) / len(many)

    def timed(call: str) -> tuple[Explanation, float]:
        before = forward()
        began = time.process_time()
        e = explain(model, x, call)
        took = time.process_time() - began
        return e, took / len(x) / statistics.mean([before, forward()])

    forward()
    timed("score-cam(channels=1)")
    print("## Score-CAM with few channels\n")
    print("Made by `python benchmarks/score_cam.py`: rank correlation with the map of all channels, for")
    print(f"{', '.join(NAMES)}; passes and processor time for one picture, in forwards of one picture (F).\n")
    print("| method | " + " | ".join(NAMES) + " | lowest | passes | time in F |")
    print("|---" + "|---:" * (len(NAMES) + 3) + "|")
    for call, numbers in CALLS.items():
        whole, f = timed(call)
        print(f"| {call} |" + " |" * (len(NAMES) + 1) + f" {whole.forwards:.0f} | {f:.0f} |", flush=True)
        for n in numbers:
            name = call.removesuffix(")") + (", " if "(" in call else "(") + f"channels={n})"
            few, f = timed(name)
            pairs = zip(whole.maps.double().numpy(), few.maps.double().numpy(), strict=True)
            alike = [spearman(a, b) for a, b in pairs]
            cells = " | ".join(f"{r:.3f}" for r in [*alike, min(alike)])
            print(f"| {name} | {cells} | {few.forwards:.0f} | {f:.0f} |", flush=True)


if __name__ == "__main__":
    main()
