"""What an export wrote, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearsight.engines.manifest import Manifest
from clearsight.exporting.sheet_parts import ExportReport

_GIVEN = {"classifier": "probabilities", "detector": "boxes", "segmenter": "the class of each pixel"}


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Args:
        folder: where the files lie.
        files: their names, the one to load first.
        manifest: what the file says about itself.
        why_no_map: why it gives no heatmap; "" where it gives one.
        notes: sentences on what was not done, such as a comparison.
        report: how far the file answers as the model does; None where nothing was compared.
    """

    folder: Path
    files: tuple[str, ...]
    manifest: Manifest
    why_no_map: str = ""
    notes: tuple[str, ...] = ()
    report: ExportReport | None = None

    @property
    def path(self) -> Path:
        """The file to load."""
        return self.folder / self.files[0]

    @property
    def status(self) -> int:
        """The exit status: 1 where a bar was missed."""
        return 0 if self.report is None else self.report.status

    def as_dict(self) -> dict[str, Any]:
        return {
            "files": [str(self.folder / name) for name in self.files],
            "manifest": self.manifest.as_dict(),
            "why_no_map": self.why_no_map,
            "notes": list(self.notes),
            "report": None if self.report is None else self.report.as_dict(),
        }

    def lines(self) -> list[str]:
        """What the command prints; the last line is the file."""
        size = sum((self.folder / name).stat().st_size for name in self.files)
        given = _GIVEN[self.manifest.kind]
        if self.manifest.scores == "values":
            given = "values"
        heatmap = self.manifest.heatmap
        also = f" and the heatmap of the top class ({heatmap.method} at {heatmap.layer})" if heatmap else ""
        lines = [f"Takes decoded pictures (8 bits) and gives {given}{also}; {size / 1e6:.1f} MB."]
        if self.why_no_map:
            lines.append(f"No heatmap is inside: {self.why_no_map}.")
        return [*lines, *self.notes, str(self.path)]
