"""The network of a detector or a segmenter before training: built, with pretrained weights where there are some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clearsight.core.model import Model
from clearsight.core.preprocess import Preprocess
from clearsight.detectors.common.frozen_norm import freeze_norm
from clearsight.errors import Refused
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter
from clearsight.models import architectures
from clearsight.models.loading import load
from clearsight.models.weights import read_weights
from clearsight.training.objects.recipe import ObjectRecipe

_STEM = "conv_stem.weight"  # the first weight of EfficientNet-Lite0


@dataclass(frozen=True, eq=False)
class ObjectNetwork:
    """A network before training.

    net: the network.  architecture: how it is built again.  body: its pretrained part, "" where all of it is.
    pretrained: where the weights of that part come from, "" where all are random.
    """

    net: nn.Module
    architecture: str
    preprocess: Preprocess
    body: str
    pretrained: str

    def model(self, net: nn.Module, labels: tuple[str, ...], recipe: ObjectRecipe) -> Model:
        """The model of these weights, of the kind that the network is."""
        if architectures.kind_of(self.architecture) == "segmenter":
            return Segmenter(net, self.preprocess, labels)
        return Detector(net, self.preprocess, labels, floor=recipe.floor, overlap=recipe.overlap)

    def train(self) -> None:
        """Train mode; BatchNorm of pretrained layers keeps its statistics, as batches of few pictures ask for."""
        self.net.train()
        if self.pretrained:
            freeze_norm(self.net.get_submodule(self.body))

    def groups(self, recipe: ObjectRecipe) -> list[dict[str, Any]]:
        """Parameter groups: pretrained layers learn at `body` times the rate; biases and norms do not decay."""
        rate = float(recipe.lr)
        by_setting: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, p in self.net.named_parameters():
            learnt = bool(self.pretrained) and name.startswith(f"{self.body}." if self.body else "")
            own, decay = rate * recipe.body if learnt else rate, recipe.decay if p.dim() > 1 else 0.0
            by_setting.setdefault((own, decay), []).append(p)
        return [{"params": ps, "lr": lr, "weight_decay": d} for (lr, d), ps in by_setting.items() if lr > 0]


def build_network(
    recipe: ObjectRecipe, classes: int, size: tuple[int, int], say: Callable[[str], None]
) -> ObjectNetwork:
    """The recipe's network for so many classes and an input of (height, width).

    Refused: a size that the network does not take, and weights that do not fit it.
    """
    default = architectures.default_preprocess(recipe.arch)
    pre = Preprocess(size, default.mean, default.std, default.interpolation)
    net = architectures.build(recipe.arch, classes, pre, seed=recipe.seed)
    if recipe.weights is not None and recipe.weights != "none":
        _adopt_file(net, recipe.weights)
        return ObjectNetwork(net, recipe.arch, pre, "", recipe.weights)
    body = _lite0(net)
    if recipe.weights == "none" or body is None:
        if recipe.weights is None:
            say(f"{recipe.arch} begins with random weights, as none are embedded for it: --weights FILE gives others")
        return ObjectNetwork(net, recipe.arch, pre, "", "")
    state = load("demo").net.state_dict()
    missing = net.get_submodule(body).load_state_dict(state, strict=False).missing_keys
    assert not missing
    return ObjectNetwork(net, recipe.arch, pre, body, "demo")


def _lite0(net: nn.Module) -> str | None:
    """Where in the network EfficientNet-Lite0 is, of three colours; None where it is not."""
    for name, weight in net.state_dict().items():
        if name.endswith(_STEM) and tuple(weight.shape) == (32, 3, 3, 3):
            return name.removesuffix(_STEM).rstrip(".")
    return None


def _adopt_file(net: nn.Module, file: str) -> None:
    """Copy weights of a file into the network, but those whose shape follows from the classes."""
    state, wanted = read_weights(Path(file)), net.state_dict()
    lacking = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    if lacking:
        raise Refused(f"{file} has no weights called {lacking[0]}: give those of the same network")
    fitting: dict[str, Tensor] = {k: state[k] for k in wanted if k in state and state[k].shape == wanted[k].shape}
    if 2 * len(fitting) < len(wanted):
        raise Refused(
            f"{file} has {len(fitting)} of the network's {len(wanted)} weights in their shape: give those of the same "
            "network"
        )
    net.load_state_dict(fitting, strict=False)
