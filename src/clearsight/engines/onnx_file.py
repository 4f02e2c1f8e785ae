"""Read an ONNX file: whole, with nothing from outside its folder, and cut where Clearsight's own names lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clearsight.engines.facts import digest, read_bytes
from clearsight.engines.manifest import KEY, PIXELS, Manifest, from_json
from clearsight.errors import Refused

DAMAGED = "it is no ONNX file, or is damaged: export it again, or copy it whole"
_FIXED = "export it with one input of float pictures (N, C, H, W)"


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """An ONNX file, read.

    model: onnx.ModelProto from pictures to scores, with all its numbers; cut at `pixels` and `logits` or `candidates`
    where Clearsight wrote it.  digest: (32,) uint8 over all its bytes; size: how many they are.
    """

    path: Path
    model: Any
    manifest: Manifest | None
    digest: Tensor
    size: int


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: its name, type ("float32") and shape; None for an axis of any size."""

    name: str
    kind: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.kind} ({', '.join('any' if n is None else str(n) for n in self.shape)})"


def read_onnx(path: Path) -> OnnxFile:
    """Read an ONNX file.  Refused: a missing, truncated or other file, and weights outside of its folder."""
    onnx = _onnx(path)
    data = read_bytes(path)
    try:
        model = onnx.load_from_string(data)
    except Exception as e:  # what protobuf raises has many types
        raise Refused(f"{path} cannot be read", DAMAGED) from e
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise Refused(f"{path} holds no graph", DAMAGED)
    outside = _external(model, path)
    for tensor, raw in outside:
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
        tensor.raw_data = raw
    text = next((p.value for p in model.metadata_props if p.key == KEY), None)
    manifest = None if text is None else from_json(text, path)
    parts = [data, *(raw for _, raw in outside)]
    if manifest is not None:
        model = cut(model, path, manifest)
    return OnnxFile(path, model, manifest, digest(parts), sum(map(len, parts)))


def _onnx(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise Refused(f"{path} needs onnx, which is not installed: pip install 'clearsight[export]'") from None
    return onnx


def tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that a graph or function holds, in its subgraphs too."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from tensors(inner)


def _external(model: Any, path: Path) -> list[tuple[Any, bytes]]:
    """Tensors whose numbers lie in other files of the same folder, and these numbers' bytes."""
    found = []
    files: dict[Path, bytes] = {}
    folder = path.resolve().parent
    for graph in (model.graph, *model.functions):
        for tensor in tensors(graph):
            if tensor.data_location != 1:  # EXTERNAL
                continue
            where = {entry.key: entry.value for entry in tensor.external_data}
            place = where.get("location", "")
            file = (folder / place).resolve()
            if not place or Path(place).is_absolute() or folder not in file.parents:
                raise Refused(
                    f"{path} wants weights from outside its folder ({place or 'nowhere'})",
                    "export it again with its weights inside (external_data=False), or beside it",
                )
            if file not in files:
                if not file.is_file():
                    raise Refused(f"{path} has its weights in {place}, which is not beside it: copy that file too")
                files[file] = read_bytes(file)
            found.append((tensor, _slice(path, files[file], where)))
    return found


def _slice(path: Path, data: bytes, where: dict[str, str]) -> bytes:
    try:
        start = int(where.get("offset", 0))
        length = int(where.get("length", len(data) - start))
    except ValueError:
        raise Refused(f"{path} says no numbers for where its weights lie", DAMAGED) from None
    if start < 0 or length < 0 or start + length > len(data):
        raise Refused(f"{path}: {where['location']} is shorter than it says", "it is truncated: copy it whole")
    return data[start : start + length]


def cut(model: Any, path: Path, manifest: Manifest) -> Any:
    """The part of a graph of ours from `pixels` to what the model gives for them, as a model of its own."""
    import onnx

    last = manifest.inner
    made_by = {name: node for node in model.graph.node for name in node.output}
    if PIXELS not in made_by or last not in made_by:
        lacking = PIXELS if PIXELS not in made_by else last
        raise Refused(f"{path} has a manifest of Clearsight, but no tensor {lacking!r} inside", "export it again")
    needed, waiting, names = set(), [last], set()
    while waiting:
        name = waiting.pop()
        if name in names or name == PIXELS:
            continue
        names.add(name)
        node = made_by.get(name)
        if node is not None:
            needed.add(id(node))
            waiting += used_by(node)
    nodes = [node for node in model.graph.node if id(node) in needed]
    inputs = {i.name for i in model.graph.input}
    if names & inputs:
        raise Refused(f"{path}: its {last} do not come from its pixels alone", "export it again")
    kind = onnx.TensorProto.FLOAT
    part = onnx.helper.make_graph(
        nodes,
        f"pixels_to_{last}",
        [onnx.helper.make_tensor_value_info(PIXELS, kind, ["n", "c", "h", "w"])],
        [onnx.helper.make_tensor_value_info(last, kind, manifest.inner_shape)],
        [i for i in model.graph.initializer if i.name in names],
        sparse_initializer=[s for s in model.graph.sparse_initializer if s.values.name in names],
    )
    return onnx.helper.make_model(
        part, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )


def used_by(node: Any) -> list[str]:
    """The tensors that a node uses, and those that its subgraphs take from outside of them."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            own = {i.name for i in (*inner.initializer, *inner.input)} | {n for k in inner.node for n in k.output}
            taken = [name for k in inner.node for name in used_by(k)] + [o.name for o in inner.output]
            names += [name for name in taken if name not in own]
    return names


def ports(model: Any) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """The inputs and outputs of a model, without inputs that have a default."""
    defaults = {i.name for i in model.graph.initializer}
    inputs = tuple(_port(i) for i in model.graph.input if i.name not in defaults)
    return inputs, tuple(_port(o) for o in model.graph.output)


def _port(value: Any) -> Port:
    import onnx

    tensor = value.type.tensor_type
    kind = "no tensor" if not tensor.elem_type else onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return Port(value.name, {"float": "float32", "double": "float64"}.get(kind, kind), shape)


def picture_input(inputs: tuple[Port, ...], size: tuple[int, ...], place: object) -> Port:
    """The one input of pictures.  size: (C, *S) of what it is given.  place: the file, for messages.

    Refused: no or several inputs, one of another type, and one of another shape.
    """
    if len(inputs) != 1:
        raise Refused(f"{place} takes {len(inputs)} inputs ({'; '.join(map(str, inputs))})", _FIXED)
    (port,) = inputs
    if not port.kind.startswith(("float", "bfloat")):
        raise Refused(f"{place} takes {port}, and no manifest says what that is", _FIXED)
    if port.shape and len(port.shape) != 1 + len(size):
        raise Refused(f"{place} takes {port}, not pictures (N, {', '.join(map(str, size))})", _FIXED)
    for given, wanted in zip(size, port.shape[1:], strict=False):
        if wanted is not None and wanted != given:
            other = "; its channels seem to come last" if port.shape[-1] == size[0] and len(size) == 3 else ""
            raise Refused(
                f"{place} takes {port}, but the preprocessing states pictures (N, {', '.join(map(str, size))}){other}",
                "state the size and channels that it was trained with (--preprocess FILE)",
            )
    return port
