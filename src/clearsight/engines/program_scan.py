"""What lies in a program of torch.export whose loading or running could run code of a stranger.

torch.export.load unpickles some parts without restriction, evaluates the text of sizes, and looks up operators by their
path inside torch.  A program is safe here where every pickle holds tensors only, every operator is one of torch's own
on tensors, and every size is arithmetic of symbols.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+(\.\w+)?|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pos|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|torch\._?sym_(int|float|not|max|min|ite|sum|sqrt)|math\.(floor|ceil|trunc|sqrt)"
)
_FUNCTIONS = frozenset({
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "PythonMod", "FloorDiv", "CleanDiv",
    "CeilDiv", "ModularIndexing", "Max", "Min", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "StrictLessThan", "LessThan",
    "StrictGreaterThan", "GreaterThan", "Equality", "Unequality", "And", "Or", "Not", "Where", "Identity",
    "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt",
    "ToFloat", "LShift", "RShift",
})  # fmt: skip
_ARITHMETIC = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.keyword, ast.Name, ast.Constant,
    ast.Load, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_PARTS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict"})
_OLD = ("version", "serialized_exported_program.json")  # what files of before torch 2.9 hold, which are unpickled


def unsafe(data: bytes) -> str:
    """Why loading a .pt2 could run code; "" where it cannot.  Raises whatever a damaged file makes it raise."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
    if any(name in _OLD for name in names):
        return "it is of the old format, whose parts are unpickled"
    reader = torch._C.PyTorchFileReader(io.BytesIO(data))  # which torch.export.load reads it by
    records = reader.get_all_records()
    if len({record.lower() for record in records}) < len(records):
        return "two parts of it have the same name"
    for record in records:
        why = _unsafe_record(record, reader)
        if why:
            return why
    return ""


def _unsafe_record(record: str, reader: Any) -> str:
    if record.startswith("data/aotinductor/"):
        return "it holds compiled code"
    if record.endswith(".pt"):
        return _unsafe_pickle(record, reader)
    if record.startswith(("data/weights/", "data/constants/")) and record.endswith(".json"):
        folder = record.rpartition("/")[0]
        for name, payload in json.loads(reader.get_record(record))["config"].items():
            path = payload["path_name"]
            if path.startswith(("custom_obj", "opaque_obj")) or "/" in path:
                return f"its constant {name} is an object, which is unpickled"
            why = _unsafe_pickle(f"{folder}/{path}", reader) if payload["use_pickle"] else ""
            if why:
                return why
    if record.startswith("models/"):
        return next(filter(None, _findings(json.loads(reader.get_record(record)))), "")
    return ""


def _unsafe_pickle(record: str, reader: Any) -> str:
    try:
        torch.load(io.BytesIO(reader.get_record(record)), weights_only=True)
    except Exception:  # whatever is in it that is no tensor
        return f"its part {record} is a pickle of more than tensors"
    return ""


def _findings(part: Any) -> Iterator[str]:
    """What is wrong in a program's JSON."""
    if isinstance(part, list):
        for inner in part:
            yield from _findings(inner)
    elif isinstance(part, dict):
        for key, value in part.items():
            yield _finding(key, value, part)
            yield from _findings(value)


def _finding(key: str, value: Any, part: dict[str, Any]) -> str:
    is_operator = (key == "target" and {"inputs", "outputs"} <= part.keys()) or key == "as_operator"
    if is_operator and not _OPERATORS.fullmatch(str(value)):
        return f"it calls {value}"
    if key == "expr_str" and not is_arithmetic(str(value)):
        return "one of its sizes is more than arithmetic"
    if key == "guards_code" and value:
        return "it holds conditions that are run as code"
    if key == "as_custom_obj" or "__enum__" in key:
        return "it holds an object of a class of its own"
    if key in ("in_spec", "out_spec") and isinstance(value, str) and not _is_plain(json.loads(value)):
        return "its inputs or outputs are of a class of its own"
    return ""


def is_arithmetic(text: str) -> bool:
    """Whether a size's text is arithmetic of symbols.

    >>> is_arithmetic("Symbol('s77', positive=True) + 2"), is_arithmetic("__import__('os')"), is_arithmetic("s0.x")
    (True, False, False)
    """
    try:
        nodes = [*ast.walk(ast.parse(text.strip(), mode="eval"))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    calls = {id(n.func) for n in nodes if isinstance(n, ast.Call)}
    names = [n for n in nodes if isinstance(n, ast.Name)]
    right = all(n.id in _FUNCTIONS if id(n) in calls else re.fullmatch(r"[a-z]+_?\d*|int_oo", n.id) for n in names)
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    plain = all(re.fullmatch(r"[a-z]+\d+", t) for t in texts)
    called = all(isinstance(n.func, ast.Name) for n in nodes if isinstance(n, ast.Call))
    return bool(right) and plain and called and all(isinstance(n, _ARITHMETIC) for n in nodes)


def _is_plain(spec: Any) -> bool:
    """Whether a tree of inputs or outputs is made of tuples, lists and dicts."""
    if isinstance(spec, list):
        return all(_is_plain(s) for s in spec if isinstance(s, dict | list))
    return spec.get("type") in _PARTS and all(map(_is_plain, spec.get("children_spec", [])))
