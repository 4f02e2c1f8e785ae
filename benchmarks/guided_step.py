"""What a guided step costs in plain steps: ``python benchmarks/guided_step.py``, which writes guided_step.md.

A ResNet-18 takes steps of plain SGD on noise, plain ones and guided ones in turn, so that what else the machine does
meets them alike.  A step is the loss, its way back and the optimiser's step.  Counted is the time of the processor in
one thread; the table shows the median of guided over plain, and its quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from clearsight.core.catalogue import catalogue, parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.running_statistics import statistics_held
from clearsight.testing import training_step
from clearsight.training.losses import guided_loss

HERE = Path(__file__).parent
MOST = {"right-reasons": 2.2, "energy": 2.2, "attention-prior": 2.2, "cam-loss": 1.3, "res": 1.3}
MORE = ("energy(explainer=grad-cam)", "energy(explainer=saliency)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=112)
    words = parser.parse_args()
    torch.set_num_threads(1)
    spelled = [*catalogue("guides"), *MORE]
    model, x, y, inside = case(words.batch, words.side)
    with statistics_held(model.net):
        found = measured(model, x, y, inside, spelled, words.rounds)
    lines = [
        f"A ResNet-18 on {words.batch} pictures of {words.side} pixels, one thread, {words.rounds} rounds, torch "
        f"{torch.__version__}: `python benchmarks/guided_step.py`.",
        "",
        "| guide | plain steps, median | quartiles | at most |",
        "|---|---|---|---|",
    ]
    for name, (low, middle, high) in found.items():
        bound = MOST.get(name, 1.3 if "grad-cam" in name else 2.2 if "(" in name else "")
        lines.append(f"| `{name}` | {middle:.2f} | {low:.2f} to {high:.2f} | {bound} |")
    text = "\n".join(lines) + "\n"
    (HERE / "guided_step.md").write_text(f"# What a guided step costs\n\n{text}")
    print(text)


def case(batch: int, side: int) -> tuple[Classifier, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None, num_classes=10)
    model = Classifier(net, Preprocess((side, side), (0.5,) * 3, (0.25,) * 3), tuple("abcdefghij"))
    inside = torch.zeros(batch, 1, side, side)
    inside[..., : side // 2] = 1
    return model, torch.rand(batch, 3, side, side), torch.eye(10)[torch.arange(batch) % 10], inside


def measured(
    model: Classifier, x: Tensor, y: Tensor, inside: Tensor, spelled: list[str], rounds: int
) -> dict[str, tuple[float, float, float]]:
    """The quartiles of the time of each guided step over that of the plain one of its round."""
    optimiser = torch.optim.SGD(model.net.parameters(), lr=1e-4)

    def plain() -> Tensor:
        step = training_step(model)
        return step.cross_entropy(step.forward(x), y).mean()

    def guided(name: str) -> Tensor:
        step, call, at = training_step(model), parse(name, "guides"), x.detach().requires_grad_()
        penalty = guided_loss(call, step, at, y, inside)
        return step.cross_entropy(step.forward(at), y).mean() + penalty

    def seconds(loss: Callable[[], Tensor]) -> float:
        began = time.process_time()
        optimiser.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return time.process_time() - began

    ratios: dict[str, list[float]] = {name: [] for name in spelled}
    for turn in range(rounds + 2):
        base = seconds(plain)
        for name in spelled:
            ratio = seconds(lambda name=name: guided(name)) / base  # type: ignore[misc]
            if turn >= 2:
                ratios[name].append(ratio)
    return {name: tuple(statistics.quantiles(r, n=4)) for name, r in ratios.items()}  # type: ignore[misc]


if __name__ == "__main__":
    main()
