"""What every format of an export begins with: the program, its head and its manifest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from clearsight.core.classifier import Classifier
from clearsight.core.model import Model
from clearsight.engines.manifest import Heatmap, Manifest, Suppression
from clearsight.errors import Refused
from clearsight.exporting.exported_network import export_program, for_export
from clearsight.exporting.heatmap_head import Head, find_head
from clearsight.kinds.detector import Detector


@dataclass(frozen=True, eq=False)
class Built:
    """A model on its way into a file.

    Args:
        model: a copy on the CPU, in float32 and evaluation mode.
        head: what its map is made of; None where its scores are no sum of channels.
        why_no_map: the reason then; "" where there is a head, and of detectors and segmenters.
        program: what `torch.export` made of it, from pixels.
        manifest: what the file will say about itself.
    """

    model: Model
    head: Head | None
    why_no_map: str
    program: torch.export.ExportedProgram
    manifest: Manifest


def build(model: Model) -> Built:
    """Take a model for any format.

    Refused: models of texts and of other channels than grey or RGB, and networks that torch.export cannot take.
    """
    preprocess = model.preprocess
    if preprocess.alphabet or len(preprocess.size) != 2:
        raise Refused(
            f"{model.source or 'the model'} takes inputs of size {preprocess.size}, and export writes models of "
            "pictures alone",
            "keep this one in its folder, which `clearsight train` made",
        )
    if preprocess.channels not in (1, 3):
        raise Refused(f"the model takes {preprocess.channels} channels, but pictures have 1 (grey) or 3 (RGB)")
    copy = for_export(model)
    found = find_head(copy) if isinstance(copy, Classifier) else ""
    head = found if isinstance(found, Head) else None
    manifest = Manifest(
        model.labels,
        preprocess.as_dict(),
        model.scores if isinstance(model, Classifier) else "logits",
        model.source,
        model.fingerprint(),
        None if head is None else Heatmap("cam", head.layer),
        kind=model.kind,
        suppression=Suppression(model.floor, model.overlap, model.most) if isinstance(model, Detector) else None,
    )
    why = "" if isinstance(found, Head) else found
    return Built(copy, head, why, export_program(copy, head), manifest)


def in_precision(built: Built, precision: str) -> Manifest:
    """The manifest of a file in another precision."""
    return replace(built.manifest, precision=precision)  # type: ignore[arg-type]
