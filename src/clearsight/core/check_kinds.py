"""Which kinds of model a check of the audit can judge: its first parameter is annotated with the case it takes."""

from __future__ import annotations

import re

from clearsight.core.catalogue import catalogue
from clearsight.core.methods import Method

CASES = {"Case": "classifier", "DetectorCase": "detector", "SegmenterCase": "segmenter"}
ANSWERS = {  # what each kind answers with, as it ends a sentence
    "classifier": "one class for a whole picture",
    "detector": "boxes",
    "segmenter": "a class for each pixel",
}


def kinds_judged(check: Method) -> tuple[str, ...]:
    """The kinds of model that a check judges; of a check without an annotation a classifier.

    >>> kinds_judged(catalogue("checks")["accuracy"]), kinds_judged(catalogue("checks")["detection-accuracy"])
    (('classifier',), ('detector',))
    """
    cases = [word for word in re.findall(r"\w+", check.takes) if word in CASES]
    return tuple(CASES[word] for word in cases or ["Case"])


def checks_of(kind: str) -> dict[str, Method]:
    """The checks of the catalogue that judge a kind of model, in the catalogue's order."""
    return {name: check for name, check in catalogue("checks").items() if kind in kinds_judged(check)}


def why_not(check: Method, kind: str) -> str:
    """Why a check cannot judge a kind of model, as a sentence without its full stop; "" where it can.

    >>> why_not(catalogue("checks")["accuracy"], "detector")
    'it judges one class for a whole picture, and a detector gives boxes'
    """
    judged = kinds_judged(check)
    if kind in judged:
        return ""
    return f"it judges {' or '.join(ANSWERS[k] for k in judged)}, and a {kind} gives {ANSWERS[kind]}"
