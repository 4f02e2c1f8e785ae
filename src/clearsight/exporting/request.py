"""What a format is asked to write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clearsight.engines.manifest import Manifest
from clearsight.exporting.built import Built

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, eq=False)
class Request:
    """A model that was taken, and where it goes.

    Args:
        built: the program and what the map is made of.
        manifest: what the file is to say about itself, with its precision.
        folder: where the files go.
        graph: the network as an ONNX graph from `pixels`, in that precision; None for formats that need none.
    """

    built: Built
    manifest: Manifest
    folder: Path
    graph: onnx.ModelProto | None = None


def left_to_caller(manifest: Manifest) -> list[str]:
    """A sentence on what the file of a detector does not do; nothing of others."""
    limits = manifest.suppression
    if limits is None:
        return []
    return [
        "The file gives all candidates, in pixels of the network's input. The caller keeps scores above "
        f"{limits.floor:g}, suppresses at IoU {limits.overlap:g}, takes the best {limits.most} and goes back to the "
        "picture's pixels (docs/export.md has the lines); --to onnx does all of it inside."
    ]
