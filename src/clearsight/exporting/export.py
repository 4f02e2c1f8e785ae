"""Write a model into a file that other programs run, with its preprocessing, its labels and its heatmap inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from clearsight.core.classifier import Classifier
from clearsight.core.output import write_whole
from clearsight.engines.manifest import Manifest
from clearsight.errors import Refused, nearest
from clearsight.exporting.built import Built, build
from clearsight.exporting.extras import need
from clearsight.exporting.onnx_file import network_graph, whole_model

Format = Literal["onnx"]


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Args:
        folder: where the files lie.
        files: their names, the one to load first.
        manifest: what the file says about itself.
        why_no_map: why it gives no heatmap; "" where it gives one.
    """

    folder: Path
    files: tuple[str, ...]
    manifest: Manifest
    why_no_map: str = ""

    @property
    def path(self) -> Path:
        """The file to load."""
        return self.folder / self.files[0]

    def as_dict(self) -> dict[str, Any]:
        return {
            "files": [str(self.folder / name) for name in self.files],
            "manifest": self.manifest.as_dict(),
            "why_no_map": self.why_no_map,
        }

    def lines(self) -> list[str]:
        """What the command prints; the last line is the file."""
        size = sum((self.folder / name).stat().st_size for name in self.files)
        given = "probabilities" if self.manifest.scores != "values" else "values"
        heatmap = self.manifest.heatmap
        also = f" and the heatmap of the top class ({heatmap.method} at {heatmap.layer})" if heatmap else ""
        lines = [f"Takes decoded pictures (8 bits) and gives {given}{also}; {size / 1e6:.1f} MB."]
        if self.why_no_map:
            lines.append(f"No heatmap is inside: {self.why_no_map}.")
        return [*lines, str(self.path)]


def export(model: Classifier, folder: str | Path, to: Format = "onnx") -> Exported:
    """Write a model for other programs to run -> what was written.

    Args:
        model: the classifier.
        folder: where the files go; made where it is missing.
        to: the format, "onnx".

    Refused: models of texts, networks that torch.export cannot take, formats whose libraries are not installed.
    """
    if to not in get_args(Format):
        raise Refused(f"format {to!r}: {nearest(to, get_args(Format))}")
    need(f"export to {to}", "onnx", "onnxruntime", "onnxscript")
    built = build(model)
    folder = Path(folder)
    return _onnx(built, folder)


def _onnx(built: Built, folder: Path) -> Exported:
    network = network_graph(built.model, built.head, built.program)
    whole = whole_model(network, built.manifest, built.model)
    write_whole(folder / "model.onnx", whole.SerializeToString())
    return Exported(folder, ("model.onnx",), built.manifest, built.why_no_map)
