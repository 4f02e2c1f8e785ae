"""Tensors of the Open Inference Protocol, version 2, as JSON and in the binary extension.

Source: the protocol of KServe and Triton, "Predict Protocol - Version 2" and "Binary Tensor Data Extension".
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearsight.serving.bodies import json_of
from clearsight.serving.problems import Problem

TYPES: dict[str, str] = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BYTES": "O",
}  # fmt: skip
LENGTH = "inference-header-content-length"
Array = NDArray[Any]


@dataclass(frozen=True)
class Asked:
    """What a request holds: its tensors by name, the outputs that it wants and whether each in binary, and its id."""

    inputs: dict[str, Array]
    outputs: dict[str, bool] | None
    binary: bool = False
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


def read_request(body: bytes, header_length: str | None) -> Asked:
    """A request to infer, in JSON, or in JSON of the stated length and the bytes of its tensors behind it.

    Refused: JSON that is not a request, and tensors whose data does not fit their shape and type.
    """
    length = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > len(body):
            what = f"Inference-Header-Content-Length {header_length[:20]!r} of a body of {len(body):,} bytes"
            raise Problem(400, what, "state the length of the JSON that the body begins with")
        length = int(header_length)
    value = json_of(body[:length])
    if not isinstance(value, dict) or not isinstance(value.get("inputs"), list) or not value["inputs"]:
        raise Problem(400, "the request has no inputs", 'send {"inputs": [{"name", "datatype", "shape", "data"}]}')
    inputs: dict[str, Array] = {}
    start = length
    for entry in value["inputs"]:
        name, array, start = _read_tensor(entry, body, start)
        if name in inputs:
            raise Problem(400, f"two inputs are named {name!r}", "send each once")
        inputs[name] = array
    if start != len(body):
        raise Problem(400, f"{len(body) - start:,} bytes of the body belong to no input", "state each binary_data_size")
    parameters = _dict_of(value, "parameters")
    every = _flag(parameters, "binary_data_output")
    identity = value.get("id", "")
    if not isinstance(identity, str):
        raise Problem(400, "the request's id is no string", "leave it out, or send a string")
    return Asked(inputs, _read_outputs(value, every), every, identity, parameters)


def _read_outputs(value: dict[str, Any], every: bool) -> dict[str, bool] | None:
    """Which outputs are wanted, and whether each in binary; None where the request names none."""
    entries = value.get("outputs")
    if entries is None or entries == []:
        return None
    if not isinstance(entries, list):
        raise Problem(400, "the request's outputs are no list", 'send [{"name": "probabilities"}]')
    wanted: dict[str, bool] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise Problem(400, "an output has no name", 'send [{"name": "probabilities"}]')
        parameters = _dict_of(entry, "parameters")
        if "classification" in parameters:
            raise Problem(400, "the parameter classification", "ask for probabilities and labels instead")
        wanted[entry["name"]] = _flag(parameters, "binary_data", every)
    return wanted


def _dict_of(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Problem(400, f"{name} is no JSON object", "leave it out, or send {}")
    return found


def _flag(parameters: dict[str, Any], name: str, default: bool = False) -> bool:
    found = parameters.get(name, default)
    if not isinstance(found, bool):
        raise Problem(400, f"the parameter {name} is {str(found)[:20]!r}", "send true or false")
    return found


def _read_tensor(entry: Any, body: bytes, start: int) -> tuple[str, Array, int]:
    """(name, values, where the next binary tensor begins) of one input."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise Problem(400, "an input has no name", 'send {"name", "datatype", "shape", "data"}')
    name, kind, shape = entry["name"], entry.get("datatype"), entry.get("shape")
    shown = repr(name[:40])
    if not isinstance(kind, str) or kind not in TYPES:
        raise Problem(400, f"input {shown} has datatype {str(kind)[:20]!r}", f"send one of {', '.join(TYPES)}")
    whole = isinstance(shape, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    if not whole or not isinstance(shape, list) or not 0 < len(shape) <= 8:
        raise Problem(400, f"input {shown} has shape {str(shape)[:40]}", "send a list of 1 to 8 whole numbers")
    count = 1
    for n in shape:
        count *= n
    parameters = _dict_of(entry, "parameters")
    size = parameters.get("binary_data_size")
    if size is not None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0 or start + size > len(body):
            raise Problem(400, f"input {shown} has binary_data_size {str(size)[:20]}", "the body does not hold so much")
        flat = _of_binary(shown, kind, count, body[start : start + size])
        return name, flat.reshape(shape), start + size
    if "data" not in entry:
        raise Problem(400, f"input {shown} has no data", "send data, or binary_data_size and the bytes behind the JSON")
    return name, _of_json(shown, kind, count, entry["data"]).reshape(shape), start


def _of_binary(name: str, kind: str, count: int, data: bytes) -> Array:
    if kind == "BYTES":
        found: list[bytes] = []
        at = 0
        while at < len(data) and len(found) <= count:
            size = int.from_bytes(data[at : at + 4], "little")
            if at + 4 + size > len(data):
                raise Problem(400, f"input {name}: an element of its data is truncated", "each begins with its length")
            found.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        return _objects(name, count, found)
    width = np.dtype(TYPES[kind]).itemsize
    if len(data) != count * width:
        raise Problem(
            400, f"input {name} has {len(data):,} bytes of data", f"its shape and {kind} need {count * width:,}"
        )
    return np.frombuffer(data, TYPES[kind])


def _of_json(name: str, kind: str, count: int, data: Any) -> Array:
    if kind == "BYTES":
        texts = _flat_texts(data)
        if texts is None:
            raise Problem(400, f"input {name} is BYTES, and its data are no strings", "send base64 of each file")
        return _objects(name, count, [text.encode() for text in texts])
    fix = f"send {count:,} numbers of {kind}, flat or nested as the shape"
    try:
        values = np.asarray(data)
    except (ValueError, TypeError, OverflowError):
        values = np.empty(0, object)
    if values.dtype.kind not in "biuf" or (values.dtype.kind == "b") != (kind == "BOOL"):
        raise Problem(400, f"input {name}: its data are no even list of numbers", fix)
    exact = np.dtype(TYPES[kind])
    if exact.kind in "iu" and values.size:
        info = np.iinfo(exact)
        if values.min() < info.min or values.max() > info.max or (values % 1 != 0).any():
            raise Problem(400, f"input {name} holds numbers that {kind} cannot hold", fix)
    with np.errstate(over="ignore"):
        flat = values.astype(exact).reshape(-1)
    if flat.size != count:
        raise Problem(400, f"input {name} has {flat.size:,} numbers", fix)
    return flat


def _flat_texts(data: Any) -> list[str] | None:
    if isinstance(data, str):
        return [data]
    if not isinstance(data, list):
        return None
    texts: list[str] = []
    for part in data:
        inner = _flat_texts(part)
        if inner is None:
            return None
        texts += inner
    return texts


def _objects(name: str, count: int, found: list[bytes]) -> Array:
    if len(found) != count:
        raise Problem(400, f"input {name} has {len(found)} elements", f"its shape needs {count}")
    values = np.empty(count, object)
    values[:] = found
    return values


def write_response(
    head: dict[str, Any], outputs: dict[str, Array], binary: dict[str, bool]
) -> tuple[bytes, int | None]:
    """(body, length of its JSON, or None where all of it is JSON) of an answer with these tensors.

    head: the other fields.  binary: which tensors follow the JSON as bytes.
    """
    entries, tails = [], []
    for name, values in outputs.items():
        kind = "BYTES" if values.dtype == object else _NAMES[values.dtype.str.lstrip("<|")]
        entry: dict[str, Any] = {"name": name, "datatype": kind, "shape": list(values.shape)}
        if binary.get(name, False):
            tail = _bytes_of(values)
            entry["parameters"] = {"binary_data_size": len(tail)}
            tails.append(tail)
        else:
            flat = values.reshape(-1).tolist()
            entry["data"] = [v.decode() for v in flat] if kind == "BYTES" else flat
        entries.append(entry)
    text = json.dumps(head | {"outputs": entries}).encode()
    return b"".join([text, *tails]), len(text) if tails else None


_NAMES = {np.dtype(code).str.lstrip("<|"): name for name, code in TYPES.items() if code != "O"}


def _bytes_of(values: Array) -> bytes:
    if values.dtype == object:
        return b"".join(struct.pack("<I", len(v)) + v for v in values.reshape(-1).tolist())
    return values.tobytes()
