"""What the layers of a converted graph are called: as in the network that the file was exported from, where it says."""

from __future__ import annotations

import ast
import re
from typing import Any


def layer_name(node: Any, weight: str) -> str:
    """A name for the layer of a node: from its weight, its exporter's notes, or its own name.

    node: onnx.NodeProto; weight: the name of its first constant tensor, "" if there is none.

    >>> from types import SimpleNamespace as Node
    >>> layer_name(Node(name="node_Conv_3", op_type="Conv", metadata_props=[]), "blocks.0.conv_dw.weight")
    'blocks.0.conv_dw'
    >>> layer_name(Node(name="/layer1/layer1.0/relu/Relu", op_type="Relu", metadata_props=[]), "")
    'layer1.0.relu'
    """
    found = re.fullmatch(r"([A-Za-z_]\w*(?:\.\w+)*)\.weight", weight)
    if found:
        return found[1]
    for note in node.metadata_props:
        if note.key == "pkg.torch.onnx.name_scopes":
            scopes = _scopes(note.value)
            if scopes:
                return scopes
    if node.name.startswith("/"):
        parts = [part for part in node.name.split("/")[1:-1] if part]
        kept = [p for i, p in enumerate(parts) if i + 1 == len(parts) or not parts[i + 1].startswith(f"{p}.")]
        return _plain(".".join(kept)) or node.op_type.lower()
    return _plain(node.name.replace(".", "_")) or node.op_type.lower()


def _scopes(text: str) -> str:
    """The innermost module in torch.onnx's note of scopes: "['', 'bn1', 'bn1.act', 'hardtanh']" -> "bn1.act"."""
    try:
        scopes = ast.literal_eval(text)
        return _plain(scopes[-2]) if len(scopes) > 1 else ""
    except (ValueError, SyntaxError, TypeError, IndexError, AttributeError, RecursionError, MemoryError):
        return ""


def _plain(name: str) -> str:
    return ".".join(part for part in re.sub(r"[^\w.]", "_", name).split(".") if part)
