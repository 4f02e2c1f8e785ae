"""What runs a served model: pixels in, answers out, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearsight.core.classifier import Classifier
from clearsight.core.label_names import first_name
from clearsight.core.preprocess import Preprocess

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """What a model says of pictures, one row for each.

    values (B, K): probabilities, or what the model gives where it gives values.  logits (B, K).  maps (B, h, w): the
    class activation map of each top class, raw and as small as its layer; features (B, D): what enters the last linear
    layer.  Both None where the network has none.
    """

    values: Floats
    logits: Floats
    maps: Floats | None = None
    features: Floats | None = None

    def rows(self, start: int, stop: int) -> Answers:
        """The answers to some of the pictures."""
        maps = None if self.maps is None else self.maps[start:stop]
        features = None if self.features is None else self.features[start:stop]
        return Answers(self.values[start:stop], self.logits[start:stop], maps, features)


@dataclass(frozen=True)
class Backend:
    """A model that is ready to answer.

    Args:
        engine: what computes: "torch" or "onnxruntime".
        labels: names of the K classes.
        preprocess: how a picture becomes pixels.
        scores: what the outputs are, see `Classifier`.
        source: the words that load the model.
        fingerprint: of its weights.
        run: pixels (B, C, H, W) uint8, resized and cut, not normalised -> Answers.
        run_alone: the same where nothing else is to be done at the moment: all cores work for it.  None for `run`.
        map_shape: (h, w) of the maps; None where the same pass gives none.
        features: D of the features; 0 where there are none.
        layers: the layers that maps and features are read from, as far as known.
        threads: how many batches may be run at a time.
        classifier: the model as explainers take it; None where it cannot be explained by them.
    """

    engine: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    scores: str
    source: str
    fingerprint: str
    run: Callable[[Bytes], Answers]
    run_alone: Callable[[Bytes], Answers] | None = field(default=None, kw_only=True)
    map_shape: tuple[int, int] | None = None
    features: int = 0
    layers: dict[str, str] | None = None
    threads: int = 1
    classifier: Classifier | None = None

    @property
    def one_of_many(self) -> bool:
        """Whether a picture shows one of the classes, as in `Classifier.one_of_many`."""
        return self.scores not in ("multi-label", "values")

    @property
    def output(self) -> str:
        """What the numbers of an answer are called."""
        return "values" if self.scores == "values" else "probabilities"

    def name(self, k: int) -> str:
        """What class k is called in a sentence: the first of its label's comma-separated names."""
        return first_name(self.labels[k])

    def about(self) -> dict[str, Any]:
        """The model in a few facts, as JSON."""
        return {
            "source": self.source,
            "fingerprint": self.fingerprint,
            "engine": self.engine,
            "classes": len(self.labels),
            "preprocess": self.preprocess.as_dict(),
            "scores": self.scores,
            "map": list(self.map_shape) if self.map_shape else None,
            "features": self.features or None,
        }
