"""The products that a method's own formula needs, and those that a call runs; used by passes.py.

A product is a convolution or a product of matrices.  Its size is its multiply-adds, here as a share of those of the
network's forward pass (F); the way back to the input has as many (B).  A method whose rules run a layer several times
is measured by them: what its formula needs is counted from the network's layers and the rules that the method's paper
gives them, without looking at how this package does it.  What a call runs is counted while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from clearsight.core.model import Model
from clearsight.internals.graph import Graph, Values, word
from clearsight.internals.layers import find_layer
from clearsight.internals.recording import graph_of
from clearsight.runner.run import explain


@dataclass(frozen=True)
class Products:
    """For one picture, in multiply-adds of the network's forward pass: those forwards, and those of the way back."""

    forwards: float
    backwards: float

    def __add__(self, other: Products) -> Products:
        return Products(self.forwards + other.forwards, self.backwards + other.backwards)

    def times(self, share: float) -> Products:
        return Products(share * self.forwards, share * self.backwards)


PASS = Products(1, 0)  # what the layer gives: every rule starts from it

# Products of one layer beside those of the pass that gives its values, by the rule's formula: one forward for each sum
# in a denominator that the pass has not given, one back for each numerator that has a denominator of its own.  A sum
# over the parts of one sign, x w > 0, is one product where no input is negative, of inputs and weights of that sign;
# else two, one for the inputs of each sign.
RULES: dict[str, Callable[[bool, int], Products]] = {
    # Bach et al. 2015, eq. 58: x w / (z + epsilon), where z is what the layer gave
    "epsilon": lambda signed, n: Products(0, 1),
    # Bach et al. 2015, eq. 60 with alpha 1; Montavon et al. 2017, eq. 17: (x w)+ over their sum
    "z+": lambda signed, n: Products(2, 2) if signed else Products(1, 1),
    # Montavon et al. 2017, eq. 16: x w - low w+ - high w- over its sum; low and high are the same for all pictures
    "zB": lambda signed, n: Products(2 / n, 2),
    # Lapuschkin et al. 2019 (flat): 1 over the number of inputs; nothing is multiplied
    "flat": lambda signed, n: Products(0, 0),
    # Nam et al. 2020, eq. 3: |x w| over its sum
    "absolute": lambda signed, n: Products(1, 1),
    # Nam et al. 2020, eq. 6 to 8: (x w)+ over their sum P, and (x w)- over their sum N, of r and of r N / (P + N)
    "relative": lambda signed, n: Products(4, 4) if signed else Products(2, 2),
}

# for the first layer, convolutions, dense layers, and the last layer; as the method's page says
COMPOSITES = {
    "lrp": ("flat", "z+", "epsilon", "epsilon"),
    "contrastive-lrp": ("zB", "z+", "z+", "z+"),
    "rap": ("zB", "relative", "relative", "absolute"),
    "relevance-cam": ("z+", "z+", "z+", "z+"),
}


def needed(model: Model, x: Tensor, call: str) -> Products | None:
    """What the formula of a method needs for pictures x (B, C, *S) at its defaults; None where passes say it all."""
    if call == "deep-lift":  # the pictures, their one baseline, and one way back (Shrikumar et al. 2017, eq. 3)
        return Products(1 + 1 / len(x), 1)
    if call == "ablation-cam":
        return _ablated(model, x)
    if call not in COMPOSITES:
        return None
    first, conv, dense, last = COMPOSITES[call]
    with model.undisturbed(), torch.no_grad():
        layer = find_layer(model, x[:1], "auto") if call == "relevance-cam" else ""
        graph = graph_of(model, x[:1], layer)
        values = graph.values(model.normalised(x))
    layers = [node for node in graph.nodes if word(node) in ("convolution", "addmm")]
    sizes = {node: _multiply_adds(graph, values, node) for node in layers}
    after = graph.nodes.index(graph.marked) if graph.marked else -1
    total = PASS
    for node in layers:
        rule = last if node is layers[-1] else first if node is layers[0] else conv
        rule = dense if rule is conv and word(node) == "addmm" else rule
        if graph.nodes.index(node) > after:
            at = node.args[1 if word(node) == "addmm" else 0]
            signed = bool((values[at] < 0).any())
            total += RULES[rule](signed, len(x)).times(sizes[node] / sum(sizes.values()))
    return total


def _ablated(model: Model, x: Tensor) -> Products:
    """A pass, and of what follows the layer no more than each channel changes (Desai 2020, eq. 3).

    Up to the first product behind the layer, channels do not meet here.  That product is a sum over channels: without
    each of them in turn it needs as many multiply-adds as once with all.  What follows it is needed once for each
    channel that is not 0 anyway.
    """
    with model.undisturbed(), torch.no_grad():
        graph = graph_of(model, x[:1], find_layer(model, x[:1], "auto"))
        values = graph.values(model.normalised(x))
    assert graph.marked is not None
    layers = [node for node in graph.nodes if word(node) in ("convolution", "addmm")]
    sizes = {node: _multiply_adds(graph, values, node) for node in layers}
    after = graph.nodes[graph.nodes.index(graph.marked) + 1 :]
    first, *others = (node for node in after if node in sizes)
    between = {word(node) for node in after[: after.index(first)]}
    assert between <= {"mean", "reshape"}, between  # else each channel needs a product of its own
    alive = (values[graph.marked] != 0).flatten(2).any(2).sum().item() / len(x)
    return PASS + PASS.times((sizes[first] + alive * sum(sizes[node] for node in others)) / sum(sizes.values()))


def _multiply_adds(graph: Graph, values: Values, node: fx.Node) -> int:
    args, _ = graph.arguments(node, values, 1)
    return values[node].numel() * (args[1].shape[1:].numel() if word(node) == "convolution" else args[2].shape[0])


def run(model: Model, x: Tensor, call: str) -> Products:
    """What a later call of a method runs for pictures x (B, C, *S); products of matrices count as forward."""
    explain(model, x[:1], call)
    with model.undisturbed(), torch.no_grad():
        whole = sum(_counted(lambda: model(x)).values())
    spent = _counted(lambda: explain(model, x, call))
    back = spent.pop("convolution_backward", 0)
    return Products(sum(spent.values()) / whole, back / whole)


def _counted(what: Callable[[], Any]) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter:
        what()
    return {packet.__name__: n for packet, n in counter.get_flop_counts()["Global"].items()}
