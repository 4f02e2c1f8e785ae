"""What a guided step costs in plain steps: ``python benchmarks/guided_step.py``, which writes guided_step.md.

A network takes steps of plain SGD on noise, plain ones and guided ones in turn, so that what else the machine does
meets them alike.  A step is the loss, its way back and the optimiser's step.  Counted is the time of the processor in
one thread; the table shows the median of guided over plain, and its quartiles.  A ResNet-18 is guided by every guide,
and by the losses of gradients once more with fixed statistics of BatchNorm.  So is an EfficientNet-Lite0, whose
pictures and weights are channels_last, as `train` has them.  A second table shows where the time of both steps goes.
A plain step is PyTorch's own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from clearsight.core.catalogue import catalogue, parse
from clearsight.core.classifier import Classifier
from clearsight.core.memory import ALL, reuse_memory
from clearsight.core.preprocess import Preprocess
from clearsight.core.running_statistics import statistics_held
from clearsight.testing import training_step
from clearsight.training.losses import guided_loss

HERE = Path(__file__).parent
MOST = {"right-reasons": 2.2, "energy": 2.2, "attention-prior": 2.2, "cam-loss": 1.3, "res": 1.3}
MORE = ("energy(explainer=grad-cam)", "energy(explainer=saliency)")
KINDS = {
    "convolutions": ("convolution", "convolution_backward", "bmm", "col2im"),
    "BatchNorm": ("native_batch_norm", "native_batch_norm_backward", "addcmul", "addcmul_"),
    "ReLUs": ("relu_", "threshold_backward", "hardtanh", "hardtanh_", "hardtanh_backward"),
    "padding": ("constant_pad_nd",),
    "sums": ("add", "add_"),
}
OTHER = "others"
OF_GRADIENTS = ("energy", "right-reasons", "attention-prior")
Quartiles = tuple[float, float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=112)
    words = parser.parse_args()
    torch.set_num_threads(1)
    every = [*catalogue("guides"), *MORE]
    lines = [
        f"{words.batch} pictures of {words.side} pixels, one thread, {words.rounds} rounds, torch {torch.__version__}: "
        f"`python benchmarks/guided_step.py --rounds {words.rounds}`. BatchNorm in training takes the batch's means "
        "and variances. A plain step is PyTorch's own: the gradients of filters of 5 by 5, of which EfficientNet-Lite0 "
        "has nine, take it longer than a guided step, which takes them in parts, and pads what they see.",
        "",
        "| network | BatchNorm | guide | plain steps, median | quartiles | at most |",
        "|---|---|---|---|---|---|",
    ]
    for network in ("ResNet-18", "EfficientNet-Lite0"):
        for trains in (True, False):
            model, x, y, inside = case(network, trains, words.batch, words.side)
            spelled = every if network == "ResNet-18" and trains else list(OF_GRADIENTS)
            with statistics_held(model.net):
                found = measured(model, x, y, inside, spelled, words.rounds)
            mode = "in training" if trains else "fixed"
            lines += [row(network, mode, name, values) for name, values in found.items()]
            print("\n".join(lines), flush=True)
    lines += ["", "Operations by `energy`, BatchNorm in training, in ms of a step (median of five):", ""]
    lines += ["| network | operations | plain | guided | times |", "|---|---|---|---|---|"]
    for network in ("ResNet-18", "EfficientNet-Lite0"):
        lines += operations(network, words.batch, words.side)
    text = "\n".join(lines) + "\n"
    (HERE / "guided_step.md").write_text(f"# What a guided step costs\n\n{text}")
    print(text)


def row(network: str, mode: str, name: str, values: Quartiles) -> str:
    low, middle, high = values
    bound = MOST.get(name, 1.3 if "grad-cam" in name else 2.2 if "(" in name else "")
    return f"| {network} | {mode} | `{name}` | {middle:.2f} | {low:.2f} to {high:.2f} | {bound} |"


def case(network: str, trains: bool, batch: int, side: int) -> tuple[Classifier, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    last = network != "ResNet-18"
    if last:
        net = timm.create_model("tf_efficientnet_lite0", num_classes=10).to(memory_format=torch.channels_last)
    else:
        net = torchvision.models.resnet18(weights=None, num_classes=10)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.train(trains)
    pre = Preprocess((side, side), (0.5,) * 3, (0.25,) * 3)
    model = Classifier(net, pre, tuple("abcdefghij"), channels_last=last)
    inside = torch.zeros(batch, 1, side, side)
    inside[..., : side // 2] = 1
    return model, torch.rand(batch, 3, side, side), torch.eye(10)[torch.arange(batch) % 10], inside


def measured(
    model: Classifier, x: Tensor, y: Tensor, inside: Tensor, spelled: list[str], rounds: int
) -> dict[str, Quartiles]:
    """The quartiles of the time of each guided step over that of the plain one of its round."""
    ratios: dict[str, list[float]] = {name: [] for name in spelled}
    seconds = steps(model, x, y, inside)
    for turn in range(rounds + 2):
        base = seconds("")
        for name in spelled:
            ratio = seconds(name) / base
            if turn >= 2:
                ratios[name].append(ratio)
    return {name: tuple(statistics.quantiles(r, n=4)) for name, r in ratios.items()}  # type: ignore[misc]


def steps(model: Classifier, x: Tensor, y: Tensor, inside: Tensor) -> Callable[[str], float]:
    """What takes one step by a guide, or a plain one by "", and gives its seconds."""
    optimiser = torch.optim.SGD(model.net.parameters(), lr=1e-4)

    def plain() -> Tensor:
        step = training_step(model)
        return step.cross_entropy(step.forward(x), y).mean()

    def guided(name: str) -> Tensor:
        step, call, at = training_step(model), parse(name, "guides"), x.detach().requires_grad_()
        penalty = guided_loss(call, step, at, y, inside)
        return step.cross_entropy(step.forward(at), y).mean() + penalty

    def seconds(name: str) -> float:
        began = time.process_time()
        optimiser.zero_grad()
        (guided(name) if name else plain()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return time.process_time() - began

    return seconds


class Timed(TorchDispatchMode):
    """Adds up the seconds of each kind of operation that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = dict.fromkeys([*KINDS, OTHER], 0.0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        began = time.thread_time()
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        kind = next((kind for kind, names in KINDS.items() if name in names), OTHER)
        self.seconds[kind] += time.thread_time() - began
        return result


def operations(network: str, batch: int, side: int) -> list[str]:
    """Rows of the time of each kind of operation in a plain and in a guided step."""
    seconds = steps(*case(network, True, batch, side))
    medians = []
    for name in ("", "energy"):
        taken = []
        for _ in range(6):
            with Timed() as timed:
                seconds(name)
            taken.append(timed.seconds)
        medians.append({kind: statistics.median(t[kind] for t in taken[1:]) for kind in taken[0]})
    plain, guided = medians
    return [
        f"| {network} | {kind} | {1000 * t:.1f} | {1000 * guided[kind]:.1f} | {guided[kind] / t:.2f} |"
        for kind, t in plain.items()
        if t > 0
    ]


if __name__ == "__main__":
    reuse_memory(ALL)  # as `train` does
    main()
