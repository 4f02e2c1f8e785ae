"""Can I trust this image classifier, and why does it decide so?

Everything is loaded when it is first used, so that ``import clearsight`` costs nothing.  For that no module may have
the name of a function below: importing the module would put it in the function's place.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clearsight._version import __version__ as __version__

if TYPE_CHECKING:
    from clearsight.auditing.audit import audit
    from clearsight.auditing.case import Case
    from clearsight.auditing.map_tests import MapTest, examine
    from clearsight.core.catalogue import catalogue, method
    from clearsight.core.classifier import Classifier, Preprocess, wrap
    from clearsight.core.targets import Become, ClassScore, Margin, Misclassify
    from clearsight.data.datasets import folder, pixels
    from clearsight.errors import Refused
    from clearsight.feature_report.report import features
    from clearsight.models.loading import load, save
    from clearsight.reporting.findings import Finding
    from clearsight.reporting.report import Report
    from clearsight.runner.results import Attacked, Explanation
    from clearsight.runner.run import attack, explain, measure
    from clearsight.training.loop import train
    from clearsight.training.recipe import Recipe
    from clearsight.training.tune import tune

_HOME = {
    "auditing.audit": ("audit",),
    "auditing.case": ("Case",),
    "core.catalogue": ("catalogue", "method"),
    "core.classifier": ("Classifier", "Preprocess", "wrap"),
    "data.datasets": ("folder", "pixels"),
    "errors": ("Refused",),
    "reporting.findings": ("Finding",),
    "models.loading": ("load", "save"),
    "training.recipe": ("Recipe",),
    "reporting.report": ("Report",),
    "runner.run": ("Attacked", "Explanation", "attack", "explain", "measure"),
    "feature_report.report": ("features",),
    "core.targets": ("Become", "ClassScore", "Margin", "Misclassify"),
    "auditing.map_tests": ("MapTest", "examine"),
    "training.loop": ("train",),
    "training.tune": ("tune",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}
__all__ = [
    "Attacked",
    "Become",
    "Case",
    "ClassScore",
    "Classifier",
    "Explanation",
    "Finding",
    "MapTest",
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
