"""What a second network of the same architecture pays: ``python benchmarks/second_network.py [--network NAME]``.

Each method explains pictures by one network, then by another one of other weights, and by that again, several times.
What the second one pays is the processor time of its first call beyond the median of its later ones, with one thread.
That it is a network like the first is not told to anybody.  Beside it stands the time of the SHA-256 of its weights,
which names them in every result, and which every network pays once.

--before: the folder src of another build, which is measured by the same script in turn.  --network: this one alone.
Of networks of torchvision, whose weights are random, and which take pictures of noise.  Three minutes for each build.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

METHODS = (
    "saliency", "grad-cam", "guided-grad-cam", "lrp", "contrastive-lrp", "rap", "relevance-cam", "deep-lift",
    "guided-backprop", "deconvnet",
)  # fmt: skip
SIZES = {"demo": 224, "resnet18": 224, "shufflenet_v2_x1_0": 224, "vit_b_16": 64}  # of pictures; torchvision's names
MODELS = (("demo", 4), ("demo", 1), ("resnet18", 1), ("shufflenet_v2_x1_0", 1), ("vit_b_16", 1))
SECONDS = 3  # networks after the first
LATER = 3  # calls of each after its first


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--network", choices=SIZES)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        print(json.dumps(measured(words.one[0], int(words.one[1]))))
        return
    lines: list[str] = []
    for model, pictures in MODELS:
        if words.network not in (None, model):
            continue
        builds = {"now": apart(model, pictures, None)}
        if words.before:
            builds["before"] = apart(model, pictures, words.before)
        lines += table(model, pictures, builds)
        text = "\n".join([*HEAD, *lines]).rstrip() + "\n"
        if words.out:
            words.out.write_text(text)
    print(text)


def apart(model: str, pictures: int, source: Path | None) -> dict[str, Any]:
    """What one build pays, measured in a process of its own."""
    path = {"PYTHONPATH": str(source.resolve())} if source else {}
    command = [sys.executable, __file__, "--one", model, str(pictures)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | path)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(words: str, pictures: int) -> dict[str, Any]:
    """Milliseconds of processor time: first call of the first network, of a second one, later ones, and its SHA-256."""
    import torch

    from clearsight.errors import Refused
    from clearsight.runner.run import explain

    torch.set_num_threads(1)
    first, x = network(words, pictures)

    def second(seed: int) -> Any:
        net, generator = copy.deepcopy(first.net), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(1 + 0.05 * torch.randn(p.shape, generator=generator))
        return replace(first, net=net)

    def spent(model: Any, method: str) -> float:
        began = time.process_time()
        explain(model, x, method)
        return 1000 * (time.process_time() - began)

    rows: dict[str, Any] = {}
    explain(first, x, "saliency")  # what the process pays once
    for method in METHODS:
        try:
            of_first = spent(first, method)
        except Refused:
            continue
        firsts, later = [], []
        for seed in range(SECONDS):
            other = second(seed)
            firsts.append(spent(other, method))
            later += [spent(other, method) for _ in range(LATER)]
        rows[method] = {
            "first": of_first, "second": statistics.median(firsts), "later": statistics.median(later),
            "noise": statistics.quantiles(later, n=4)[2] - statistics.quantiles(later, n=4)[0],
        }  # fmt: skip
    last = second(SECONDS)
    began = time.process_time()
    last.fingerprint()
    rows["sha256"] = 1000 * (time.process_time() - began)
    return rows


def network(name: str, pictures: int) -> Any:
    """A model and pictures for it (B, 3, H, W)."""
    import torch
    from torch import nn

    from clearsight import Classifier, Preprocess
    from clearsight.data.datasets import demo_pictures, pixels
    from clearsight.models.loading import load

    if name == "demo":
        model = load("demo")
        return model, pixels(model, demo_pictures())[:pictures]
    import torchvision

    torch.manual_seed(0)
    size = SIZES[name]
    net = torchvision.models.get_model(name, weights=None, **({"image_size": size} if name.startswith("vit") else {}))
    if name.startswith("vit"):
        nn.init.normal_(
            net.heads.head.weight, std=0.05
        )  # which are zeros at first, so that nothing depends on pictures
    labels = tuple(map(str, range(1000)))
    return Classifier(net.eval(), Preprocess((size, size), (0.5,) * 3, (0.5,) * 3), labels), torch.rand(
        pictures, 3, size, size
    )


HEAD = [
    "# What a second network of the same architecture pays",
    "",
    "Made by `python benchmarks/second_network.py --network NAME --before FOLDER --out FILE` for one network after",
    "the other, with one thread, on two cores on which up to four other programs ran at the same time: processor",
    "time, in milliseconds. Before: the build 5a177d0, which computed a picture for each network, with whose scores",
    "the recording was held, and again in each call of lrp, contrastive-lrp, rap and deep-lift.",
    "",
    "A second network has other weights and is otherwise like the first, which was explained before. It pays what its",
    "first call takes beyond its later ones (median of 3 networks). The SHA-256 of its weights, which names them in",
    "every result, is part of that, though another thread works it out meanwhile where there are two processors. So",
    "is a run of one picture, in which it is seen to run as the first one did: what depends on the picture is not",
    "computed in it. Noise: half of the later calls lie within so much. The networks of torchvision have random",
    "weights, and pictures of noise. Of a vision transformer `grad-cam` looks for its layer by four passes of two",
    "pictures: which of the branches of the last block matters depends on the weights.",
    "",
]


def table(model: str, pictures: int, builds: dict[str, dict[str, Any]]) -> list[str]:
    """The rows of one network, as Markdown."""
    now, before = builds["now"], builds.get("before")
    lines = [
        f"## {model}, {pictures} picture{'s' * (pictures > 1)} of {SIZES[model]} pixels",
        "",
        f"The SHA-256 of its weights takes {now['sha256']:.0f} ms.",
        "",
        "| method | a later call | noise | the second network pays | of a call | before: a later call | paid |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for method in METHODS:
        row = now.get(method)
        if row is None:
            lines.append(f"| {method} | refuses this network |" + " |" * 5)
            continue
        pays = row["second"] - row["later"]
        cells = [f"{row['later']:.0f}", f"{row['noise']:.0f}", f"**{pays:.0f}**", f"{100 * pays / row['later']:.0f} %"]
        was = before.get(method) if before else None
        cells += [f"{was['later']:.0f}", f"{was['second'] - was['later']:.0f}"] if was else ["", ""]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
