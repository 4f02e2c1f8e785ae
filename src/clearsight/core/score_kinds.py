"""What a network's numbers may be; a file of its own, so that the names cost no torch."""

from __future__ import annotations

from typing import Literal

Scores = Literal["logits", "probabilities", "one-logit", "multi-label", "values"]
