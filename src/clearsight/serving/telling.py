"""Answers and explanations as JSON and as pictures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from clearsight.data.images import of_bytes
from clearsight.drawing.heatmaps import overlay
from clearsight.runner.results import Explanation
from clearsight.serving.backend import Answers, Backend, Bytes
from clearsight.serving.outliers import Reference, outlier_scores, shares_below
from clearsight.serving.pictures import Sent


def answer_facts(backend: Backend, answers: Answers, row: int, top: int) -> list[dict[str, Any]]:
    """The top answers to one picture, the most probable first; values stand in the order of the model."""
    values = answers.values[row]
    word = "value" if backend.scores == "values" else "probability"
    order = range(len(values)) if backend.scores == "values" else np.argsort(-values, kind="stable")[:top].tolist()
    return [{"class": k, "label": backend.labels[k], word: float(values[k])} for k in order]


def map_facts(backend: Backend, answers: Answers, row: int) -> dict[str, Any]:
    """The class activation map of the top class, at its layer's own resolution."""
    assert answers.maps is not None
    values = answers.maps[row]
    return {
        "method": "cam",
        "layer": (backend.layers or {}).get("map", ""),
        "class": int(answers.logits[row].argmax()),
        "shape": list(values.shape),
        "values": rounded(values),
    }


def outlier_facts(answers: Answers, row: int, reference: Reference | None) -> dict[str, Any]:
    """How unusual one picture is: the score, what it is, and the share of reference pictures that are less so."""
    scores = outlier_scores(answers.rows(row, row + 1), reference)
    share = None if reference is None else shares_below(scores, reference)[0]
    return {"method": "max-logit" if reference is None else reference.method, "score": float(scores[0]), "share": share}


def picture_facts(sent: Sent) -> dict[str, Any]:
    """The picture as it was read."""
    return {"width": sent.size[0], "height": sent.size[1], "notes": list(sent.notes)}


def explanation_facts(backend: Backend, explanation: Explanation) -> dict[str, Any]:
    """One explanation with the raw values of its map, which is as large as the model's input."""
    k = class_explained(explanation)
    return {
        "method": explanation.method,
        "class": k,
        "label": backend.labels[k],
        "signed": explanation.signed,
        "shape": list(explanation.maps.shape[1:]),
        "map": rounded(explanation.maps[0].numpy()),
        "seconds": explanation.seconds,
        "forwards": explanation.forwards,
        "backwards": explanation.backwards,
    }


def class_explained(explanation: Explanation) -> int:
    """The class that an explanation of one picture is about."""
    return int(torch.as_tensor(getattr(explanation.target, "index", 0)).reshape(-1)[0])


def overlay_png(pixels: Bytes, heat: Any, *, signed: bool) -> bytes:
    """A map (H, W) over what the model sees of its picture, pixels (C, H, W) uint8, as a PNG file.

    signed: whether what speaks against the class is drawn too.
    """
    image = overlay(of_bytes(torch.from_numpy(pixels.copy())), torch.as_tensor(heat), signed=signed)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def rounded(values: Any) -> list[Any]:
    """Numbers with the seven digits that float32 has, nested as their axes are."""
    flat = [float(f"{v:.7g}") for v in np.asarray(values, np.float64).reshape(-1).tolist()]
    nested = np.array(flat).reshape(np.shape(values)).tolist()
    return list(nested)
