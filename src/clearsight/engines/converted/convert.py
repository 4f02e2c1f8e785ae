"""Convert an ONNX graph to a torch network, where every operator is known, and check it against the engine."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clearsight.engines.converted import layers, operations
from clearsight.engines.converted.graph import ConvertedGraph, Step, by_reference
from clearsight.engines.converted.names import layer_name
from clearsight.engines.converted.node import Array, Built, Node, Unknown, parameter
from clearsight.engines.normalisation import Normalisation
from clearsight.engines.onnx_file import ports

OPSETS = range(13, 25)  # whose operators are those of layers.py and operations.py; others are brought there first
_FEW = 16  # constants that may be reckoned with shapes
_WEIGHTS = 1  # axes from which on a constant that is no layer's is a weight, as a position embedding is


def convert(model: Any, undo: Normalisation | None = None) -> ConvertedGraph:
    """The graph of an onnx.ModelProto, one input of pictures, as a torch network in eval mode.

    Raises Unknown, with the reason, where an operator or a form of it is not known here.
    """
    model = _at_known_opset(model)
    refuse_unknown(model)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    (picture,), outputs = ports(model)
    known: dict[str, Array] = {i.name: _array(i) for i in model.graph.initializer}
    weights = {i.name for i in model.graph.initializer}
    axes = _axes(model)
    net_steps: list[Step] = []
    made: dict[str, nn.Module] = {}
    for node in model.graph.node:
        kind = node.op_type
        if kind == "CastLike" and node.input[0] in known:  # the type is that of the pictures: float32
            known[node.output[0]] = known[node.input[0]].astype(np.float32)
            continue
        if kind == "Constant" or all(n in known for n in node.input if n):
            known.update(zip(node.output, _folded(node, opset, known), strict=True))
            continue
        step, layer = _step(node, opset, known, axes, weights, made)
        if layer is not None:
            made[step.layer] = layer
        net_steps.append(step)
    return _assembled(net_steps, picture.name, [o.name for o in outputs], known, weights, made, undo)


def refuse_unknown(model: Any) -> None:
    """Raise Unknown where operators are not known here, with all their names."""
    kinds = {(n.domain, n.op_type) for n in model.graph.node}
    other = sorted(f"{d}.{k}".lstrip(".") for d, k in kinds if d not in ("", "ai.onnx") or not _is_known(k))
    if other:
        many = len(other) > 1
        raise Unknown(f"the operator{'s' if many else ''} {', '.join(other)} cannot be converted to torch")


def _is_known(kind: str) -> bool:
    return (
        kind == "Constant"
        or _found(layers, kind) is not None
        or _found(operations, kind) is not None
        or kind in _NUMBERS
    )


_NUMBERS = {"ConstantOfShape", "Range", "Equal", "Not", "And", "Or", "Mod", "Floor", "Ceil", "Size", "ReduceProd"}


def _found(place: Any, kind: str) -> Any:
    """The function of that operator in layers.py or operations.py; None where there is none."""
    function = vars(place).get(kind.lower())
    return function if inspect.isfunction(function) and function.__module__ == place.__name__ else None


def _at_known_opset(model: Any) -> Any:
    import onnx

    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version in OPSETS:
        return model
    try:
        return onnx.version_converter.convert_version(model, 20)
    except Exception as e:  # whatever the version converter makes of the graph
        raise Unknown(f"operators of opset {version} are not known here") from e


def _array(tensor: Any) -> Array:
    import onnx

    values: Array = onnx.numpy_helper.to_array(tensor)
    return values


def _folded(node: Any, opset: int, known: Mapping[str, Array]) -> list[Array]:
    """The results of an operation that does not depend on the pictures."""
    return by_reference(node.SerializeToString(), opset, [known[n] if n else None for n in node.input])


def _axes(model: Any) -> dict[str, int]:
    """How many axes each tensor has, as far as ONNX can infer it."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # what cannot be inferred is asked of the graph when it runs
        return {}
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}


def _step(
    node: Any,
    opset: int,
    known: Mapping[str, Array],
    axes: Mapping[str, int],
    weights: set[str],
    made: Mapping[str, nn.Module],
) -> tuple[Step, nn.Module | None]:
    """The step of one node, and its layer where it is one."""
    attributes = {a.name: _attribute(a) for a in node.attribute}
    inputs = tuple(node.input)
    facts = Node(node.op_type, attributes, inputs, tuple(known.get(n) for n in inputs), axes.get(inputs[0], 0))
    build = _found(layers, node.op_type)
    built: Built | None = None if build is None else build(facts)
    outputs = tuple(node.output)
    raw = node.SerializeToString()
    if built is not None:
        weight = next((n for n in inputs[1:] if n in weights), "")
        name = _free(layer_name(node, weight), made)
        return Step(inputs, outputs[:1], name, None, {}, built.before, raw, opset), built.layer
    operation = _found(operations, node.op_type)
    if operation is not None:
        unknown = attributes.keys() - inspect.signature(operation).parameters.keys()
        if unknown:
            raise Unknown(f"{node.op_type} with {', '.join(sorted(unknown))} cannot be converted to torch")
    return Step(inputs, outputs, "", operation, attributes, None, raw, opset), None


def _attribute(attribute: Any) -> Any:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _free(name: str, made: Mapping[str, nn.Module]) -> str:
    """The name, or one like it where it is taken, where a layer stands on its way, or where layers lie inside it."""
    if any(name.startswith(f"{m}.") for m in made):
        name = name.replace(".", "_")
    tried, k = name, 2
    while any(tried == m or m.startswith(f"{tried}.") for m in made):
        tried, k = f"{name}_{k}", k + 1
    return tried


def _assembled(
    steps: Sequence[Step],
    picture: str,
    outputs: Sequence[str],
    known: Mapping[str, Array],
    weights: set[str],
    made: Mapping[str, nn.Module],
    undo: Normalisation | None,
) -> ConvertedGraph:
    of_layers = {name for step in steps if step.layer for name in step.inputs}
    used = {name for step in steps if not step.layer for name in step.inputs} | {*outputs}
    may_be_numbers = {n: v for n, v in known.items() if n in used or (n in of_layers and v.size <= _FEW)}
    numbers = {n: v for n, v in may_be_numbers.items() if v.dtype.kind not in "fb" or v.size <= _FEW}
    tensors = {n: v for n, v in known.items() if n in used and v.dtype.kind in "fb"}
    names = {n: f"constant_{i}" for i, n in enumerate(tensors)}
    net = ConvertedGraph(_with_last_uses(steps, {*known, *outputs}), picture, tuple(outputs), numbers, names, undo)
    for path, layer in made.items():
        _put(net, path, layer)
    for name, values in tensors.items():
        if name in weights and values.ndim >= _WEIGHTS and values.dtype.kind == "f":
            net.register_parameter(names[name], parameter(values))
        else:
            net.register_buffer(names[name], torch.from_numpy(np.array(values)))
    return net.eval()


def _with_last_uses(steps: Sequence[Step], kept: set[str]) -> tuple[Step, ...]:
    """The steps, each with what nothing needs after it."""
    seen = set(kept) | {""}
    ended: list[Step] = []
    for step in reversed(steps):
        last = tuple(dict.fromkeys(n for n in (*step.inputs, *step.outputs) if n not in seen))
        seen.update(last)
        fields = {k: getattr(step, k) for k in step.__dataclass_fields__}
        ended.append(Step(**{**fields, "last": last}))
    return tuple(reversed(ended))


def _put(net: nn.Module, path: str, layer: nn.Module) -> None:
    *parents, own = path.split(".")
    for part in parents:
        if part not in net._modules:
            net.add_module(part, nn.Module())
        net = net.get_submodule(part)
    net.add_module(own, layer)


def probe_pictures(size: Sequence[int]) -> Tensor:
    """Two seeded pictures (2, C, *S) in [0, 1], on which two networks are compared: noise, and soft colours.

    size: (C, *S).
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((1, *size), generator=generator)
    soft = torch.rand((1, size[0], *[3] * len(size[1:])), generator=generator)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size) - 1]
    return torch.cat([noise, nn.functional.interpolate(soft, tuple(size[1:]), mode=mode)])
