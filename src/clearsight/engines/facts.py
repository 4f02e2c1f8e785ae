"""What is known of an exported file and of the engine that runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.errors import Refused


@dataclass(frozen=True)
class EngineFacts:
    """What an exported file is, and who runs it.

    file: its name; engine: "ONNX Runtime 1.32.0"; inputs, outputs: name, type and shape of each; precision: the type
    that the engine says it computes in; nodes: operations in the file; opset: of ONNX, 0 elsewhere; size: bytes of the
    file and those beside it; converted: whether a torch graph converted from the file answers, with gradients; about:
    why not, or how far its scores were from the engine's.
    """

    file: str
    engine: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    precision: str
    nodes: int
    opset: int
    size: int
    converted: bool
    about: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sentence(self) -> str:
        """Who answers, in a sentence."""
        if self.converted:
            return f"{self.file} is run by a torch graph converted from it, which has exact gradients: {self.about}"
        return f"{self.file} is run by {self.engine}, in {self.precision}: {self.about}"


def facts_of(net: nn.Module) -> EngineFacts | None:
    """The facts of a network that runs an exported file; None for any other."""
    found = getattr(net, "engine_facts", None)
    return found if isinstance(found, EngineFacts) else None


def gives_scores_alone(net: nn.Module) -> bool:
    """Whether a network runs an exported file by an engine that has no gradients, and no weights that can be read."""
    return facts_of(net) is not None and next(net.parameters(), None) is None


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that must be there.  Refused: no such file, an empty one, and one that cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise Refused(f"{path} cannot be read: {e.strerror}") from None
    if not data:
        raise Refused(f"{path} is empty", "export it again, or copy it whole")
    return data


def digest(files: Sequence[bytes]) -> Tensor:
    """(32,) uint8: the SHA-256 of these bytes, as a buffer of a network without weights of its own."""
    h = hashlib.sha256()
    for data in files:
        h.update(hashlib.sha256(data).digest())
    return torch.frombuffer(bytearray(h.digest()), dtype=torch.uint8)
