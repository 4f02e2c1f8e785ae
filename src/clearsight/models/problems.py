"""A problem that explanations or attacks would have with a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Code = Literal[
    "backward-fails",
    "boxes-not-corners",
    "boxes-not-pixels",
    "disturbs-itself",
    "does-not-run",
    "fails-again",
    "gradient-not-finite",
    "gradient-of-other-scores",
    "gradient-zero",
    "label-of-background",
    "labels-miscounted",
    "labels-twice",
    "logits-as-probabilities",
    "needs-neighbours",
    "no-gradient",
    "no-target-layer",
    "one-picture-alone",
    "output-axes",
    "output-chosen",
    "output-of-one-logit",
    "output-shape",
    "probabilities-as-logits",
    "same-scores",
    "scores-change",
    "scores-not-finite",
    "scores-not-found",
    "scores-not-rows",
    "target-layer-unreadable",
    "unknown-classes",
    "weights-not-finite",
    "weights-on-several-devices",
    "weights-without-shape",
]


@dataclass(frozen=True)
class Problem:
    """A problem and what to do about it.  code: the kind of problem, for programs."""

    what: str
    mend: str
    code: Code
