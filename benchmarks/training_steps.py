"""What a training step against an attack costs, in plain steps: ``python benchmarks/training_steps.py [ROUNDS]``.

Each round takes two steps of every kind in turn, on one thread, and counts the seconds of the processor and the passes
through the network of the second, which follows one of its own kind as in training.  The cost of a kind is the median
over the rounds of its seconds divided by those of the plain step of the same round.  "by hand" are the shortest loops
that do the same with torch alone, as the papers' code writes them.
MAIR (Harry24k/MAIR, MIT) is a library of such training by the author of torchattacks; its steps are taken in turn with
the others where `import mair` finds it, say a copy of its repository that PYTHONPATH names.
Writes benchmarks/training_steps.md.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, one_hot, softmax

from clearsight.core import rng
from clearsight.core.catalogue import parse
from clearsight.core.memory import reuse_memory
from clearsight.core.preprocess import Preprocess
from clearsight.data.datasets import Pictures
from clearsight.training.fine_tuning import TrainableNetwork
from clearsight.training.objective import objective, step_loss
from clearsight.training.recipe import Recipe
from clearsight.training.run import Run
from clearsight.training.training_data import TrainingData

OUT = Path(__file__).with_suffix(".md")
NETWORK = "plain-cnn(widths='16,32', kernel=4, strides='2', padding='1', pools='1', dense='100')"
PGD, NEAR = "pgd(eps=0.3, steps=7, random_start=true)", "pgd(eps=0.3, steps=7)"  # TRADES begins near the picture itself
EPS, SIZE, STEPS = 0.3, 0.107, 7
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Step = Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor], None]


@dataclass
class Kind:
    """One kind of step, and what each round took."""

    name: str
    step: Step
    asked: str = ""
    seconds: list[float] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0


def down(loss: Loss) -> Step:
    """A step of the optimiser down a loss."""

    def step(net: nn.Module, opt: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        value = loss(net, x, y)
        opt.zero_grad()
        value.backward()
        opt.step()

    return step


def ours(perturb: str, defence: str) -> Step:
    """The step down the loss as `clearsight train` takes it, for these options."""
    recipe = Recipe(perturb=perturb, defence=defence)
    asked = objective(recipe)
    runs: dict[nn.Module, Run] = {}

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if net not in runs:
            start = TrainableNetwork(net, "", {}, Preprocess((28, 28), (0.1307,), (0.3081,)), frozenset(), "")
            data = TrainingData(Pictures("", ()), (), (), tuple("0123456789"), y, (), ())
            runs[net] = Run(recipe, data, start, None, net, None, None, net, None)  # type: ignore[arg-type]
        return step_loss(runs[net], asked, x, y, None, torch.ones(10), 0, 0)

    return down(loss)


def normal(x: Tensor) -> Tensor:
    return (x - 0.1307) / 0.3081


def pgd_by_hand(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Madry et al. 2018: seven steps from a random start, in evaluation mode."""
    net.eval()
    z = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        z.requires_grad_()
        (g,) = torch.autograd.grad(cross_entropy(net(normal(z)), y), z)
        z = (z.detach() + SIZE * g.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    net.train()
    return cross_entropy(net(normal(z)), y)


def trades_by_hand(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Zhang et al. 2019, whose loop asks for the clean answer in each step."""
    net.eval()
    z = x + 0.001 * torch.randn_like(x)
    for _ in range(STEPS):
        z.requires_grad_()
        clean = softmax(net(normal(x)), 1)
        (g,) = torch.autograd.grad(kl_div(log_softmax(net(normal(z)), 1), clean, reduction="sum"), z)
        z = (z.detach() + SIZE * g.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    net.train()
    clean = net(normal(x))
    apart = kl_div(log_softmax(net(normal(z)), 1), softmax(clean, 1), reduction="batchmean")
    return cross_entropy(clean, y) + 6 * apart


class Normal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return normal(x)


def mairs(trainer: str, *options: float, awp: float = 0.0, **more: bool) -> Step:
    """MAIR's own step: what its `fit` does with a batch between two records; awp: the length of its minimiser's."""
    import mair
    from mair.optim import AWP

    made: dict[nn.Module, tuple[Any, Tensor, Any]] = {}

    def step(net: nn.Module, opt: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
        if net not in made:
            robust = mair.RobModel(nn.Sequential(Normal(), net), n_classes=10, device="cpu")
            minimiser = AWP(robust, opt, rho=awp) if awp else None
            made[net] = getattr(mair, trainer)(robust, EPS, *options, **more), y.argmax(1), minimiser
        of, labels, minimiser = made[net]
        of.dict_record.clear()
        of.rmodel.train()
        if minimiser is None:
            down(lambda _net, x, _y: of.calculate_cost((x, labels)))(net, opt, x, y)
        else:
            minimiser.step(of.calculate_cost, (x, labels))

    return step


def mair_kinds() -> dict[str, Kind]:
    """MAIR's kinds, by the name of ours that each stands behind; none where it is not installed."""
    if importlib.util.find_spec("mair") is None:
        return {}
    return {
        "adversarial-training, fgsm": Kind("the same by MAIR", mairs("AT", EPS, 1, random_start=False)),
        "the same by hand": Kind("the same by MAIR", mairs("AT", SIZE, STEPS)),
        "trades by hand": Kind("trades by MAIR", mairs("TRADES", SIZE, STEPS, 6.0)),
        "mart, pgd of 7 steps": Kind("mart by MAIR", mairs("MART", SIZE, STEPS, 5.0)),
        "awp, pgd of 7 steps": Kind("awp by MAIR, which attacks twice", mairs("AT", SIZE, STEPS, awp=0.005)),
    }


def kinds() -> list[Kind]:
    """Ours and those by hand, each with MAIR's behind it where that is."""
    mair = mair_kinds()
    return [kind for own in own_kinds() for kind in (own, mair.get(own.name)) if kind is not None]


def own_kinds() -> list[Kind]:
    return [
        Kind("plain", ours("", "")),
        Kind("adversarial-training, fgsm", ours("fgsm(eps=0.3)", ""), "1 + 1.2"),
        Kind("adversarial-training, pgd of 7 steps", ours(PGD, ""), "7 + 1.2"),
        Kind("the same by hand", down(pgd_by_hand)),
        Kind("trades, pgd of 7 steps", ours(NEAR, "trades")),
        Kind("trades by hand", down(trades_by_hand)),
        Kind("mart, pgd of 7 steps", ours(PGD, "mart")),
        Kind("awp, pgd of 7 steps", ours(PGD, "awp")),
        Kind("awp(inner=trades), pgd of 7 steps", ours(NEAR, "awp(inner=trades)")),
        Kind("free, one replay", ours(PGD, "free")),
        Kind("gaussian-augmentation", ours("", "gaussian-augmentation")),
    ]


def take(kind: Kind, net: nn.Module, opt: torch.optim.Optimizer, x: Tensor, y: Tensor, keep: bool) -> None:
    """One step; what it took is kept, if asked for."""

    def count(_module: nn.Module, _inputs: object, out: Tensor) -> None:
        kind.forwards += 1
        if out.requires_grad:
            out.register_hook(back)

    def back(_gradient: Tensor) -> None:
        kind.backwards += 1

    kind.forwards = kind.backwards = 0
    handle = net.register_forward_hook(count)
    began = time.process_time()
    kind.step(net, opt, x, y)
    seconds = time.process_time() - began
    handle.remove()
    if keep:
        kind.seconds.append(seconds)


def measured(batch: int, rounds: int) -> list[Kind]:
    """Every kind, each with a network of its own, in so many rounds."""
    call = parse(NETWORK, "networks")
    x = torch.rand(batch, 1, 28, 28)
    y = one_hot(torch.arange(batch) % 10, 10).float()
    found, nets = kinds(), []
    for _ in found:
        torch.manual_seed(0)
        net = call.method(10, (1, 28, 28), **call.options).train()
        nets.append((net, torch.optim.Adam(net.parameters(), 1e-4)))
    with rng.held():  # as training does, once an epoch
        for r in range(rounds + 3):
            for kind, (net, opt) in zip(found, nets, strict=True):
                take(kind, net, opt, x, y, False)  # in training a step follows one of its own kind
                take(kind, net, opt, x, y, r >= 3)
    return found


def table(batch: int, found: list[Kind]) -> list[str]:
    plain = found[0].seconds
    lines = [
        f"## Batches of {batch}",
        "",
        f"The plain step takes {1000 * median(plain):.1f} ms.",
        "",
        "| step | plain steps | quarter to three quarters of the rounds | asked: at most | forwards | backwards |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind in found:
        ratios = sorted(a / b for a, b in zip(kind.seconds, plain, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        lines.append(
            f"| {kind.name} | {median(ratios):.2f} | {low:.2f} to {high:.2f} | {kind.asked} "
            f"| {kind.forwards} | {kind.backwards} |"
        )
    return [*lines, ""]


def about_mair() -> list[str]:
    if importlib.util.find_spec("mair") is None:
        return ["", "MAIR is not installed here, so its steps are left out."]
    import mair

    return ["", f"MAIR is version {mair.__version__}, of Harry24k/MAIR; its steps take the same network and optimiser."]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    lines = [
        "# What a training step costs",
        "",
        f"Made by `python benchmarks/training_steps.py {rounds}`. Each round takes two steps of every kind in turn and",
        "counts the processor's seconds of the second, which follows one of its own kind as in training. The cost is",
        "the median over the rounds of these, in plain steps of the round.",
        "By hand are the shortest loops that do the same with torch alone, as the papers' code writes them. All take",
        "the last picture of an attack, and begin at a random one, but for fgsm (the picture) and trades (near it).",
        *about_mair(),
        "",
        f"The network is {NETWORK}, of 28 x 28 grey",
        "pixels, with Adam, on one thread. Forwards and backwards are passes of the whole batch; a backward pass of an",
        "attack leaves out the gradients of the weights, and brings that of the pixels instead.",
        "",
    ]
    for batch in (128, 32):
        lines += table(batch, measured(batch, rounds))
        print("\n".join(lines), flush=True)
    OUT.write_text("\n".join(lines))


if __name__ == "__main__":
    torch.set_num_threads(1)
    reuse_memory()  # as the commands do
    main()
