"""What normalisation does to training: ``python benchmarks/norms.py DATA``, some minutes on two cores.

The same small network, split and batches, without normalisation, with BatchNorm and with LayerNorm, at a usual learning
rate and at 25 times as much.  Writes benchmarks/norms.md and the one figure benchmarks/norms.svg.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

from digits import digits

from clearsight.drawing import charts
from clearsight.drawing.charts import Line
from clearsight.errors import Refused
from clearsight.training.history import Epoch
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe

HERE = Path(__file__).parent
NET = 'clearsight:plain-cnn(widths="32,64,128", padding=1, pools="2,2,1", norm={}, head=average, dense="")'
NAMES = {"batch": "BatchNorm", "layer": "LayerNorm", "none": "neither"}
RATES = ("0.002", "0.05")
Runs = dict[tuple[str, str], list[Epoch] | str]  # (rate, norm): the epochs, or why there are none


def main() -> None:
    """Train six times, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with MNIST's idx files")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--each", type=int, default=300, help="digits of each class")
    words = parser.parse_args()
    found: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        data = digits(words.data, Path(folder) / "digits", words.each)
        for rate in RATES:
            for norm in NAMES:
                recipe = Recipe(
                    arch=NET.format(norm), size=28, grey=True, epochs=words.epochs, lr=rate, augment="none",
                    schedule="constant", warmup=0.0, clip=0.0,
                )  # fmt: skip
                try:
                    found[rate, norm] = list(train(data, recipe, Path(folder) / f"{norm}-{rate}"))
                except Refused as e:
                    found[rate, norm] = str(e).partition(":")[0]
                print(rate, norm, found[rate, norm], flush=True)
    (HERE / "norms.md").write_text(table(found, words.epochs, words.each))
    (HERE / "norms.svg").write_bytes(figure(found, words.epochs))


def figure(found: Runs, epochs: int) -> bytes:
    """Accuracy on val over the epochs, at each learning rate; of a run that diverged nothing is drawn."""
    parts = []
    for rate in RATES:
        lines = []
        for norm, name in NAMES.items():
            history = found[rate, norm]
            shares = [] if isinstance(history, str) else [e.val_right / e.val_n for e in history]
            lines.append(Line(name, shares + [math.nan] * (epochs - len(shares))))
        parts.append((f"learning rate {rate}", lines))
    return charts.panels([float(i + 1) for i in range(epochs)], parts, xlabel="epoch", ylabel="right on val")


def table(found: Runs, epochs: int, each: int) -> str:
    """What each came to, as Markdown."""
    lines = [
        "# BatchNorm, LayerNorm, neither",
        "",
        f"Made by `python benchmarks/norms.py DATA` with {each} of MNIST's digits of each class: the same network,",
        f"split and batches, {epochs} epochs at a constant rate, gradients not clipped. LayerNorm is over a picture's",
        "whole layer (GroupNorm with one group).",
        "",
        "| normalisation | learning rate | right on val after 1 epoch | after all | least val loss | n |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for (rate, norm), history in found.items():
        if isinstance(history, str):
            lines.append(f"| {NAMES[norm]} | {rate} | {history} | | | |")
            continue
        first, last = history[0], history[-1]
        least = min(e.val_loss for e in history)
        lines.append(
            f"| {NAMES[norm]} | {rate} | {100 * first.val_right / first.val_n:.1f} % "
            f"| {100 * last.val_right / last.val_n:.1f} % | {least:.3f} | {last.val_n} |"
        )
    return "\n".join([*lines, "", "![Accuracy on val over the epochs](norms.svg)"]) + "\n"


if __name__ == "__main__":
    main()
