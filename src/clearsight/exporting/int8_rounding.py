"""8-bit weights whose rounding errors cancel over what the layer is given, and biases that take up what is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.engines.manifest import PIXELS
from clearsight.exporting.whole_file import onnx_session

if TYPE_CHECKING:
    import onnx

LARGEST = 127  # weights are whole numbers from -127 to 127
_DAMPED = 0.01  # of the mean variance, added to each
_PLACES = 128  # of a picture's tensor, at most
_WIDEST = 4096  # inputs of one output, at most: above that weights are rounded to the nearest
_LOT = 4


@dataclass(frozen=True)
class Rounded:
    """A layer's weights as whole numbers, in their own shape, and what its bias gains; None where it has none."""

    weights: Tensor
    shift: Tensor | None


@dataclass(frozen=True)
class Seen:
    """What a layer is given, summed over places: its inputs' mean and how they vary together.

    Args:
        total: (groups, F).
        squares: (groups, F, F).
        n: how many places were seen.
    """

    total: Tensor
    squares: Tensor
    n: int

    def mean(self) -> Tensor:
        """(groups, F)."""
        return self.total / self.n

    def covariance(self) -> Tensor:
        """(groups, F, F)."""
        mean = self.mean()
        return self.squares / self.n - mean[:, :, None] * mean[:, None, :]


def rounded(weights: Tensor, scales: Tensor, covariance: Tensor) -> Tensor:
    """Whole numbers (groups, O, F) that stand for weights: each rounding error is made up by the weights to come.

    To the nearest, errors add up where inputs vary together, as neighbouring pixels do: the sum over a filter of nine
    weights may be off by four steps.  Here the expected squared error of the output is kept small instead, up to a
    constant: the bias takes that up (`bias_shift`).

    Args:
        weights: (groups, O, F), float.
        scales: (groups, O): what one step is worth.
        covariance: (groups, F, F) of the inputs.

    Source: Frantar et al. 2023, GPTQ (arXiv:2210.17323), equations 2 and 3, in the Cholesky form, with the covariance
    in place of the second moment.

    >>> w, both_alike = torch.full((1, 1, 2), 0.4), torch.ones(1, 2, 2)
    >>> rounded(w, torch.ones(1, 1), both_alike).tolist()  # 0.4 + 0.4 is nearer to 0 + 1 than to 0 + 0
    [[[0.0, 1.0]]]
    """
    left, scales = weights.double().clone(), scales.double()
    hessian, size = covariance.double().clone(), weights.shape[-1]
    spread = hessian.diagonal(dim1=1, dim2=2)
    spread += _DAMPED * spread.mean(1, keepdim=True) + 1e-12
    upper = torch.linalg.cholesky(torch.linalg.inv(hessian)).mT
    found = torch.zeros_like(left)
    for j in range(size):
        found[..., j] = (left[..., j] / scales).round().clamp(-LARGEST, LARGEST)
        error = (left[..., j] - found[..., j] * scales) / upper[:, None, j, j]
        left[..., j + 1 :] -= error[..., None] * upper[:, None, j, j + 1 :]
    return found


def bias_shift(weights: Tensor, as_rounded: Tensor, mean: Tensor) -> Tensor:
    """What a bias (groups, O) must gain so that the layer's mean output stays: the mean input times what weights lost.

    Args:
        weights: (groups, O, F).
        as_rounded: (groups, O, F), in the same units.
        mean: (groups, F): the mean input.

    Source: Nagel et al. 2019, Data-Free Quantization (arXiv:1906.04721), bias correction, with the mean measured.

    >>> bias_shift(torch.tensor([[[0.25, 0.5]]]), torch.tensor([[[0.5, 0.5]]]), torch.tensor([[2.0, 1.0]])).tolist()
    [[-0.5]]
    """
    return ((weights - as_rounded) * mean[:, None, :].to(weights)).sum(-1)


def rounded_layers(graph: onnx.ModelProto, names: list[str], pixels: Tensor) -> dict[str, Rounded]:
    """By layer, its rounded weights; those left out whose inputs are not known here (padded by rule, very wide).

    A bias that others use too is not shifted, and neither is one that is not there: errors are then kept small around
    zero, not around the mean.

    Args:
        graph: the network, from `pixels`.
        names: of its operations with weights.
        pixels: calibration pictures (N, C, h, w) in [0, 1].
    """
    from onnx import numpy_helper

    constants = {t.name: t for t in graph.graph.initializer}
    uses = [i for node in graph.graph.node for i in node.input]
    found = {}
    for node, seen in _seen(graph, names, constants, pixels):
        weight = torch.from_numpy(numpy_helper.to_array(constants[node.input[1]]).copy())
        rows = _rows(node, weight, seen.total.shape[0])
        scales = rows.abs().amax(-1) / LARGEST
        steps = torch.where(scales > 0, scales, torch.ones_like(scales))
        shifted = len(node.input) > 2 and node.input[2] in constants and uses.count(node.input[2]) == 1
        whole = rounded(rows, steps, seen.covariance() if shifted else seen.squares / seen.n).float()
        shift = bias_shift(rows, whole * steps[..., None], seen.mean()).reshape(-1) if shifted else None
        found[node.name] = Rounded(_as_weight(node, whole, weight), shift)
    return found


def _seen(
    graph: onnx.ModelProto, names: list[str], constants: dict[str, Any], pixels: Tensor
) -> Iterator[tuple[onnx.NodeProto, Seen]]:
    """Each layer with what it is given; those left out that are too wide or padded by rule."""
    import onnx

    nodes = [node for node in graph.graph.node if node.name in set(names) and _known(node, constants)]
    exposed = onnx.ModelProto()
    exposed.CopyFrom(graph)
    inputs = list(dict.fromkeys(node.input[0] for node in nodes))
    have = {o.name for o in graph.graph.output} | {PIXELS}
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inputs if name not in have)
    session, found = onnx_session(exposed), dict[str, Seen]()
    asked = [name for name in inputs if name != PIXELS]
    for i in range(0, len(pixels), _LOT):
        lot = pixels[i : i + _LOT]
        given = dict(zip(asked, map(torch.from_numpy, session.run(asked, {PIXELS: lot.numpy()})), strict=True))
        for node in nodes:
            patches = _patches(node, constants[node.input[1]].dims, (given | {PIXELS: lot})[node.input[0]])
            new = Seen(patches.sum(1), patches.mT @ patches, patches.shape[1])
            old = found.get(node.name)
            found[node.name] = (
                new if old is None else Seen(old.total + new.total, old.squares + new.squares, old.n + new.n)
            )
    for node in nodes:
        yield node, found[node.name]


def _known(node: onnx.NodeProto, constants: dict[str, Any]) -> bool:
    """Whether this file knows what goes into each output."""
    if node.input[1] not in constants or (node.op_type == "Conv" and len(constants[node.input[1]].dims) != 4):
        return False
    words = {a.name: a for a in node.attribute}
    if node.op_type == "Conv":
        wide = int(torch.tensor(list(constants[node.input[1]].dims[1:])).prod())
        return wide <= _WIDEST and ("auto_pad" not in words or words["auto_pad"].s in (b"NOTSET", b""))
    plain = not ("transA" in words and words["transA"].i) and all(words[k].f == 1 for k in ("alpha",) if k in words)
    return plain and len(constants[node.input[1]].dims) == 2 and max(constants[node.input[1]].dims) <= _WIDEST


def _attribute(node: onnx.NodeProto, name: str, usual: list[int]) -> list[int]:
    return next((list(a.ints) or [a.i] for a in node.attribute if a.name == name), usual)


def _patches(node: onnx.NodeProto, dims: Any, given: Tensor) -> Tensor:
    """What goes into outputs (groups, places, F): the same places, evenly apart, of each picture."""
    if node.op_type != "Conv":
        flat = given.reshape(-1, given.shape[-1]).double()
        return flat[None]
    groups = _attribute(node, "group", [1])[0]
    top, left, bottom, right = _attribute(node, "pads", [0, 0, 0, 0])
    cols = F.unfold(
        F.pad(given, (left, right, top, bottom)),
        tuple(dims[2:]),
        dilation=tuple(_attribute(node, "dilations", [1, 1])),
        stride=tuple(_attribute(node, "strides", [1, 1])),
    )
    step = max(1, cols.shape[-1] // _PLACES) | 1  # odd, so that places do not stand in columns
    cols = cols[..., ::step].double()
    return cols.reshape(len(cols), groups, -1, cols.shape[-1]).permute(1, 0, 3, 2).flatten(1, 2)


def _turned(node: onnx.NodeProto) -> bool:
    """Whether a weight has its outputs last."""
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not _attribute(node, "transB", [0])[0])


def _rows(node: onnx.NodeProto, weight: Tensor, groups: int) -> Tensor:
    """A weight as (groups, O, F)."""
    turned = weight.T if _turned(node) else weight
    return turned.reshape(groups, turned.shape[0] // groups, -1)


def _as_weight(node: onnx.NodeProto, rows: Tensor, weight: Tensor) -> Tensor:
    """Back from (groups, O, F) to the weight's own shape."""
    return rows.reshape(weight.T.shape).T if _turned(node) else rows.reshape(weight.shape)
