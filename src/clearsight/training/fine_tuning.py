"""A network to be trained: built, given pretrained weights except in its head, and unfrozen from the head downward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clearsight.core.preprocess import Preprocess
from clearsight.data.text_encoding import PRINTABLE, text_preprocess
from clearsight.errors import Refused
from clearsight.models import architectures
from clearsight.models.loading import load
from clearsight.models.model_words import LIBRARIES
from clearsight.models.weights import read_weights

DEMO = "timm:tf_efficientnet_lite0"
HEAD_STD = 0.01  # standard deviation of a new head's weights
LAST = 3  # "last-blocks" trains one in so many of them


@dataclass(frozen=True, eq=False)
class TrainableNetwork:
    """A network before training.

    architecture, options: how it is built again.  head: its parameters whose shape follows from the classes.
    pretrained: where the others come from, "" where they are random.  channels_last: whether pictures are passed in
    that memory order, in which its convolutions are faster.
    """

    net: nn.Module
    architecture: str
    options: Mapping[str, Any]
    preprocess: Preprocess
    head: frozenset[str]
    pretrained: str
    channels_last: bool = False


def build_for_training(
    arch: str,
    weights: str | None,
    outputs: int,
    *,
    size: int | None = None,
    alphabet: str = "",
    grey: bool = False,
    dropout: float | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> TrainableNetwork:
    """The network of that name for so many outputs, with pretrained weights everywhere but in its head.

    arch: demo, timm:NAME, torchvision:NAME or clearsight:NAME.  weights: a file, "none" for random ones, or None for
    the library's own, which are then downloaded; demo brings its own, clearsight's networks have none.  Random weights
    follow from the seed.  alphabet: of texts, "" for the printable characters of ASCII.

    Refused: an unknown name, and weights that do not fit.
    """
    check_name(arch, weights)
    spelling = DEMO if arch == "demo" else arch
    default = load("demo").preprocess if arch == "demo" else architectures.default_preprocess(arch)
    if len(default.size) == 1:
        pre = text_preprocess(size or default.size[0], alphabet or PRINTABLE)
    else:
        pre = preprocessed(default, size, grey, whole=arch.startswith("clearsight:"))
    option = "drop_rate" if spelling.startswith("timm:") else "dropout"
    options = {} if dropout is None else {option: dropout}
    net = architectures.build(spelling, outputs, pre, options, seed=seed)
    head = head_of(spelling, outputs, pre, options, net)
    if weights == "none" or (weights is None and arch.startswith("clearsight:")):
        return TrainableNetwork(net, spelling, options, pre, head, "")
    if arch == "demo":
        adopt(net, load("demo").net.state_dict(), head, "demo")
    elif weights is not None:
        adopt(net, read_weights(Path(weights)), head, weights)
    else:
        whole = architectures.build(arch, len(architectures.default_labels(arch)), default, options, fetch=say)
        adopt(net, whole.state_dict(), head, arch)
    _shrink_head(net, head, seed)
    return TrainableNetwork(net, spelling, options, pre, head, weights or arch, channels_last=arch == "demo")


def check_name(arch: str, weights: str | None) -> None:
    """Refuse an arch that names no network, or no classifier, and weights for demo, which has its own."""
    if arch == "demo" and weights is not None:
        raise Refused(f"demo brings its own weights: to start from others, give --arch {DEMO} --weights {weights}")
    if arch != "demo" and not arch.startswith(LIBRARIES):
        choices = ["demo", *(f"{name}NAME" for name in LIBRARIES)]
        raise Refused(f"arch {arch!r}: a network is named {', '.join(choices[:-1])} or {choices[-1]}, such as {DEMO}")
    if arch.startswith(LIBRARIES) and (kind := architectures.kind_of(arch)) != "classifier":
        raise Refused(f"train and tune take networks that classify, and {arch} is a {kind}", f"such as {DEMO}")


def preprocessed(default: Preprocess, size: int | None, grey: bool, *, whole: bool) -> Preprocess:
    """The same for a square input of another side, with as much cut off around it, and for grey pictures.

    whole: the network is not trained yet, so its channels follow from the pictures alone, and nothing is known of what
    to cut off: a square input is the middle of the picture, in its own proportions.
    """
    if size is not None:
        resize = None if default.resize is None else round(default.resize * size / min(default.size))
        default = replace(default, size=(size, size), resize=resize)
    if whole and len(set(default.size)) == 1 and len(default.size) == 2:
        default = replace(default, resize=default.size[0])
    if whole:
        default = replace(default, mean=default.mean[:1] * 3, std=default.std[:1] * 3)
    if grey:
        default = replace(default, mean=default.mean[:1], std=default.std[:1])
    return default


def head_of(
    arch: str, outputs: int, preprocess: Preprocess, options: Mapping[str, Any], net: nn.Module
) -> frozenset[str]:
    """The parameters of a network whose shape follows from the number of outputs: found by building it for one more."""
    other = architectures.build(arch, outputs + 1, preprocess, options).state_dict()
    return frozenset(k for k, v in net.state_dict().items() if v.shape != other[k].shape)


def adopt(net: nn.Module, state: Mapping[str, Tensor], head: frozenset[str], source: str) -> None:
    """Copy all weights but the head's into the network; Refused where others are missing or have another shape."""
    wanted = {k: v for k, v in net.state_dict().items() if k not in head}
    lacking = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    other = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    if lacking or other:
        what = f"lack {lacking[0]}" if lacking else f"have {other[0]} in another shape, {tuple(state[other[0]].shape)}"
        raise Refused(
            f"the weights of {source} do not fit the network: they {what}; give those of the same architecture and size"
        )
    net.load_state_dict({k: state[k] for k in wanted if k in state}, strict=False)


def _shrink_head(net: nn.Module, head: frozenset[str], seed: int) -> None:
    """Give a new head weights near 0, so that every class is about equally likely for each picture."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name in head:
                p.copy_(torch.randn(p.shape, generator=generator) * HEAD_STD if p.dim() > 1 else torch.zeros_like(p))


def blocks(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a network that have parameters, from its input to its output, as the network lists them.

    Sequences and lists of modules are opened, other modules are not, so that a residual block is one part.
    """
    parts: list[tuple[str, nn.Module]] = []
    _collect_blocks("", net, parts)
    while len(parts) == 1 and list(parts[0][1].children()):
        name, only = parts.pop()
        _collect_blocks(name, only, parts)
    return parts


def _collect_blocks(name: str, module: nn.Module, parts: list[tuple[str, nn.Module]]) -> None:
    for part, child in module.named_children():
        full = f"{name}.{part}".lstrip(".")
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            _collect_blocks(full, child, parts)
        elif any(True for _ in child.parameters()):
            parts.append((full, child))


def trained(net: nn.Module, head: frozenset[str], strategy: str, progress: float) -> frozenset[str]:
    """The parameters that a strategy trains when a share ``progress`` of the epochs is over.

    linear: the head.  last-blocks: also the last third of the blocks.  full: all of them.  gradual: the head in the
    first third of the epochs, then the last third of the blocks, in the last third of the epochs all (Howard & Ruder
    2018, arXiv:1801.06146).
    """
    all_names = frozenset(n for n, _ in net.named_parameters())
    if strategy == "gradual":
        strategy = ("linear", "last-blocks", "full")[min(int(progress * 3 + 1e-9), 2)]
    if strategy == "full":
        return all_names
    if strategy == "linear":
        return head & all_names
    parts = blocks(net)
    unfrozen = parts[-max(1, -(-len(parts) // LAST)) :]
    return (head & all_names) | frozenset(f"{name}.{n}" for name, m in unfrozen for n, _ in m.named_parameters())


def unfreeze(net: nn.Module, names: frozenset[str], *, pretrained: bool) -> None:
    """Train mode and gradients for these parameters; modules none of whose parameters is trained are in eval mode.

    So a frozen block has no dropout.  pretrained: BatchNorm keeps the statistics that it came with everywhere, even
    where its weights are trained: small batches of few pictures would replace them by worse ones.
    """
    for n, p in net.named_parameters():
        p.requires_grad_(n in names)
    net.train()
    for name, module in net.named_modules():
        inside = [f"{name}.{n}".lstrip(".") for n, _ in module.named_parameters()]
        if (inside and names.isdisjoint(inside)) or (pretrained and isinstance(module, _BatchNorm)):
            module.eval()


def groups(
    net: nn.Module, head: frozenset[str], *, lr: float, body: float, decay: float, pretrained: bool
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: pretrained layers learn at body times lr; biases and norms do not decay."""
    by_setting: dict[tuple[float, float], list[Tensor]] = {}
    for name, p in net.named_parameters():
        rate = lr * body if pretrained and name not in head else lr
        by_setting.setdefault((rate, decay if p.dim() > 1 else 0.0), []).append(p)
    return [{"params": ps, "lr": rate, "weight_decay": d} for (rate, d), ps in by_setting.items() if rate > 0]


def count_parameters(net: nn.Module, names: Sequence[str] | frozenset[str]) -> int:
    """How many numbers the named parameters hold together."""
    parameters = dict(net.named_parameters())
    return sum(parameters[n].numel() for n in names)
