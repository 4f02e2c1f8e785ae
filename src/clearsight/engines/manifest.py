"""What an exported file says about itself: the labels, the preprocessing and the scores that lie inside its graph.

An exported file that Clearsight wrote takes decoded pictures and gives probabilities; of a detector boxes, of a
segmenter classes of pixels.  Inside, two tensors carry names, so that the graph can be cut there: `pixels`, what the
resize and the crop give, and what the model gives for them: `logits`, or a detector's `candidates`.  The manifest is
JSON: under the key `clearsight` in an ONNX file's metadata, in `clearsight.json` among the extra files of a .pt2, and
in `clearsight.json` beside the .xml of OpenVINO.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from clearsight._version import __version__
from clearsight.core.json_fields import check_fields, numbers, preprocess_fields, refuse_wrong, whole
from clearsight.core.score_kinds import Scores
from clearsight.errors import Refused

KEY = "clearsight"  # of ONNX's metadata_props
FILE = "clearsight.json"  # among the extra files of a .pt2, and beside OpenVINO's .xml

PICTURE = "picture"  # input: decoded pictures of one size, uint8 (N, H, W, C), N, H and W dynamic
PIXELS = "pixels"  # inside: float32 (N, C, h, w) in [0, 1], after resize and crop, before normalisation
LOGITS = "logits"  # inside: float32 (N, K), what a Classifier gives for those pixels; of a segmenter (N, K, h, w)
CANDIDATES = "candidates"  # of a detector instead of logits: float32 (N, M, 5 + K), what a Detector gives
PROBABILITIES = "probabilities"  # output: float32 (N, K)
VALUES = "values"  # output instead of probabilities where scores is "values"
MAP = "map"  # output where there is a heatmap: float32 (N, H', W')
CLASSES = "classes"  # output of a segmenter: int64 (N, h, w), the class of each pixel of the network's input
BOXES, SCORES, LABELS = "boxes", "scores", "labels"  # outputs of a detector, where suppression is in the file

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
    "kind": '"kind": "detector"',
    "form": '"form": "logits (N, K, h, w)"',
    "suppression": '"suppression": {"floor": 0.05, "overlap": 0.5, "most": 100}',
}
_OF_PLACES = {"kind", "form", "suppression"}  # a classifier's manifest has none of them
_FORMS = {
    "detector": "candidates (N, M, 5 + K): x1, y1, x2, y2 in pixels of the network's input, a logit of there being an "
    "object, a logit of each class; a score is sigmoid(object) * sigmoid(class)",
    "segmenter": "logits (N, K, h, w) of each pixel of the network's input",
}
_SUPPRESSION = {"floor": '"floor": 0.05', "overlap": '"overlap": 0.5', "most": '"most": 100'}
_HEATMAP = {"method": '"method": "cam"', "layer": '"layer": "layer4"'}


@dataclass(frozen=True)
class Heatmap:
    """The heatmap that a graph gives.  method: its name in the catalogue; layer: the layer whose resolution it has."""

    method: str
    layer: str


@dataclass(frozen=True)
class Suppression:
    """Which boxes a detector reports: see `Detector`."""

    floor: float
    overlap: float
    most: int


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
        kind: of model: "classifier", "detector" or "segmenter".
        suppression: of a detector, how few boxes become of its candidates; None of others.
    """

    labels: tuple[str, ...]
    preprocess: dict[str, Any]
    scores: Scores
    source: str
    fingerprint: str
    heatmap: Heatmap | None = None
    precision: Precision = "fp32"
    clearsight: str = __version__
    kind: str = "classifier"
    suppression: Suppression | None = None

    @property
    def inner(self) -> str:
        """The tensor that holds what the model gives for the pixels."""
        return CANDIDATES if self.kind == "detector" else LOGITS

    @property
    def inner_shape(self) -> tuple[int | None, ...]:
        """The shape of that tensor; None for sides that are not stated."""
        classes = len(self.labels)
        shapes: dict[str, tuple[int | None, ...]] = {
            "detector": (None, None, 5 + classes), "segmenter": (None, classes, None, None),
        }  # fmt: skip
        return shapes.get(self.kind, (None, classes))

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
        } | self._of_places()

    def _of_places(self) -> dict[str, Any]:
        if self.kind == "classifier":
            return {}
        suppression = None if self.suppression is None else asdict(self.suppression)
        return {"kind": self.kind, "form": _FORMS[self.kind], "suppression": suppression}

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
        record.get("kind", "classifier"),
        None if record.get("suppression") is None else Suppression(**record["suppression"]),
    )


def _check(record: Any, place: str) -> None:
    check_fields(record, _LINES, place, optional=_OF_PLACES)
    labels, heatmap, fingerprint = record["labels"], record["heatmap"], record["fingerprint"]
    if heatmap is not None:
        check_fields(heatmap, _HEATMAP, place, "heatmap.")
    kind, suppression = record.get("kind", "classifier"), record.get("suppression")
    if suppression is not None:
        check_fields(suppression, _SUPPRESSION, place, "suppression.")
    right = {
        "clearsight": isinstance(record["clearsight"], str),
        "labels": isinstance(labels, list) and bool(labels) and all(isinstance(n, str) for n in labels),
        "scores": record["scores"] in get_args(Scores),
        "source": isinstance(record["source"], str),
        "fingerprint": isinstance(fingerprint, str) and len(fingerprint) == 16 and set(fingerprint) <= set(_HEX),
        "heatmap": heatmap is None or all(isinstance(name, str) for name in heatmap.values()),
        "precision": record["precision"] in get_args(Precision),
        "kind": kind in ("classifier", *_FORMS),
        "form": isinstance(record.get("form", ""), str),
        "suppression": _right_suppression(suppression) if kind == "detector" else suppression is None,
    }
    refuse_wrong(right | preprocess_fields(record["preprocess"], place), _LINES, place)


_HEX = "0123456789abcdef"


def _right_suppression(given: Any) -> bool:
    if not isinstance(given, dict):
        return False
    shares = numbers([given["floor"], given["overlap"]]) and all(0 <= given[n] <= 1 for n in ("floor", "overlap"))
    return shares and whole(given["most"]) and given["most"] >= 1
