"""What an exported file says about itself: the labels, the preprocessing and the scores that lie inside its graph.

An exported file that Clearsight wrote takes decoded pictures and gives probabilities.  Inside, two tensors carry names,
so that the graph can be cut there: `pixels`, what the resize and the crop give, and `logits`, what a Classifier gives
for them.  The manifest is JSON: under the key `clearsight` in an ONNX file's metadata, in `clearsight.json` among the
extra files of a .pt2, and in `clearsight.json` beside the .xml of OpenVINO.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from clearsight._version import __version__
from clearsight.core.json_fields import check_fields, preprocess_fields, refuse_wrong
from clearsight.core.score_kinds import Scores
from clearsight.errors import Refused

KEY = "clearsight"  # of ONNX's metadata_props
FILE = "clearsight.json"  # among the extra files of a .pt2, and beside OpenVINO's .xml

PICTURE = "picture"  # input: decoded pictures of one size, uint8 (N, H, W, C), N, H and W dynamic
PIXELS = "pixels"  # inside: float32 (N, C, h, w) in [0, 1], after resize and crop, before normalisation
LOGITS = "logits"  # inside: float32 (N, K), what a Classifier gives for those pixels
PROBABILITIES = "probabilities"  # output: float32 (N, K)
VALUES = "values"  # output instead of probabilities where scores is "values"
MAP = "map"  # output where there is a heatmap: float32 (N, H', W')

Precision = Literal["fp32", "fp16", "int8"]

_LINES = {
    "clearsight": f'"clearsight": "{__version__}"',
    "labels": '"labels": ["cat", "dog"]',
    "preprocess": '"preprocess": {"size": [224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], '
    '"interpolation": "bilinear", "resize": 256}',
    "scores": '"scores": "logits"',
    "source": '"source": "timm:resnet18"',
    "fingerprint": '"fingerprint": "0123456789abcdef"',
    "heatmap": '"heatmap": {"method": "cam", "layer": "layer4"}, or null',
    "precision": '"precision": "fp32"',
}
_HEATMAP = {"method": '"method": "cam"', "layer": '"layer": "layer4"'}


@dataclass(frozen=True)
class Heatmap:
    """The heatmap that a graph gives.  method: its name in the catalogue; layer: the layer whose resolution it has."""

    method: str
    layer: str


@dataclass(frozen=True)
class Manifest:
    """What an exported file says about itself.

    Args:
        labels: names of the K classes, in the order of the scores.
        preprocess: Preprocess.as_dict() of the model; the graph does all of it, the normalisation too.
        scores: what the network that was exported returns, see Classifier; `logits` are the Classifier's in any case.
        source: words that load that network; "" if there are none.
        fingerprint: Classifier.fingerprint() of it, 16 hex digits.
        heatmap: the output `map`, or None where the graph has none.
        precision: what the file's numbers are stored and computed in.
        clearsight: the version that wrote the file.
    """

    labels: tuple[str, ...]
    preprocess: dict[str, Any]
    scores: Scores
    source: str
    fingerprint: str
    heatmap: Heatmap | None = None
    precision: Precision = "fp32"
    clearsight: str = __version__

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        heatmap = None if self.heatmap is None else {"method": self.heatmap.method, "layer": self.heatmap.layer}
        preprocess = {k: list(v) if isinstance(v, tuple) else v for k, v in self.preprocess.items()}
        return {
            "clearsight": self.clearsight,
            "labels": list(self.labels),
            "preprocess": preprocess,
            "scores": self.scores,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "heatmap": heatmap,
            "precision": self.precision,
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), ensure_ascii=False)


def from_json(text: str | bytes, where: object) -> Manifest:
    """The manifest in a text.  where: the file, for messages.

    Refused: text that is no JSON, a field that is wrong, lacks or is unknown, with its name and an example of the line.

    >>> manifest = Manifest(("cat", "dog"), {"size": (8, 8), "mean": (0.5,), "std": (0.5,), "interpolation": "bilinear",
    ...     "resize": None}, "logits", "timm:resnet18", "0123456789abcdef", Heatmap("cam", "layer4"))
    >>> from_json(manifest.to_json(), "model.onnx").heatmap
    Heatmap(method='cam', layer='layer4')
    >>> from_json("{}", "model.onnx")
    Traceback (most recent call last):
    clearsight.errors.Refused: model.onnx: its manifest does not say clearsight: add "clearsight": "0.1.0"
    """
    place = f"{where}: its manifest"
    try:
        record = json.loads(text)
        json.dumps(record, ensure_ascii=False).encode()  # half of a pair of surrogates cannot be written again
    except (ValueError, RecursionError) as e:  # a ValueError too where a number has thousands of digits
        raise Refused(f"{place} is not JSON: {e}") from e
    _check(record, place)
    heatmap = record["heatmap"]
    return Manifest(
        tuple(record["labels"]),
        {k: tuple(v) if isinstance(v, list) else v for k, v in record["preprocess"].items()},
        record["scores"],
        record["source"],
        record["fingerprint"],
        None if heatmap is None else Heatmap(heatmap["method"], heatmap["layer"]),
        record["precision"],
        record["clearsight"],
    )


def _check(record: Any, place: str) -> None:
    check_fields(record, _LINES, place)
    labels, heatmap, fingerprint = record["labels"], record["heatmap"], record["fingerprint"]
    if heatmap is not None:
        check_fields(heatmap, _HEATMAP, place, "heatmap.")
    right = {
        "clearsight": isinstance(record["clearsight"], str),
        "labels": isinstance(labels, list) and bool(labels) and all(isinstance(n, str) for n in labels),
        "scores": record["scores"] in get_args(Scores),
        "source": isinstance(record["source"], str),
        "fingerprint": isinstance(fingerprint, str) and len(fingerprint) == 16 and set(fingerprint) <= set(_HEX),
        "heatmap": heatmap is None or all(isinstance(name, str) for name in heatmap.values()),
        "precision": record["precision"] in get_args(Precision),
    }
    refuse_wrong(right | preprocess_fields(record["preprocess"], place), _LINES, place)


_HEX = "0123456789abcdef"
