"""Can I trust this image classifier, and why does it decide so?

Everything is loaded when it is first used, so that ``import clearsight`` costs nothing.  For that no module may have
the name of a function below: importing the module would put it in the function's place.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from clearsight.auditing import audit
    from clearsight.case import Case
    from clearsight.classifier import Classifier, Preprocess, wrap
    from clearsight.data import folder, pixels
    from clearsight.errors import Refused
    from clearsight.findings import Finding
    from clearsight.learning.recipe import Recipe
    from clearsight.learning.training import train
    from clearsight.learning.tuning import tune
    from clearsight.loading import load, save
    from clearsight.methods import catalogue, method
    from clearsight.report import Report
    from clearsight.runner import Attacked, Explanation, attack, explain, measure
    from clearsight.seeing import features
    from clearsight.targets import Become, ClassScore, Margin, Misclassify
    from clearsight.testimony import Examined, examine

_HOME = {
    "auditing": ("audit",),
    "case": ("Case",),
    "methods": ("catalogue", "method"),
    "classifier": ("Classifier", "Preprocess", "wrap"),
    "data": ("folder", "pixels"),
    "errors": ("Refused",),
    "findings": ("Finding",),
    "loading": ("load", "save"),
    "learning.recipe": ("Recipe",),
    "report": ("Report",),
    "runner": ("Attacked", "Explanation", "attack", "explain", "measure"),
    "seeing": ("features",),
    "targets": ("Become", "ClassScore", "Margin", "Misclassify"),
    "testimony": ("Examined", "examine"),
    "learning.training": ("train",),
    "learning.tuning": ("tune",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}
__all__ = [
    "Attacked",
    "Become",
    "Case",
    "ClassScore",
    "Classifier",
    "Examined",
    "Explanation",
    "Finding",
    "Margin",
    "Misclassify",
    "Preprocess",
    "Recipe",
    "Refused",
    "Report",
    "attack",
    "audit",
    "catalogue",
    "examine",
    "explain",
    "features",
    "folder",
    "load",
    "measure",
    "method",
    "pixels",
    "save",
    "train",
    "tune",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'clearsight' has no attribute {name!r}")
    return getattr(importlib.import_module(f"clearsight.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
