"""`clearsight demo shortcut`: two models trained alike, one right for the wrong reason, and what an audit says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearsight.auditing.audit import audit
from clearsight.auditing.evidence import share
from clearsight.core.progress import Progress
from clearsight.data.datasets import ALL, open_data
from clearsight.demos.decoy_digits import write_digits
from clearsight.models.loading import load
from clearsight.reporting.report import Report
from clearsight.reporting.wording import WORDS
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe

CHECKS = "accuracy, shortcuts"
_RECIPE = Recipe(arch="clearsight:mlp", size=32, augment="none", epochs=30, lr="0.003")


def shortcut(
    folder: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train one recipe on digits with a mark that gives the class away and on the same digits without; audit both.

    Everything stays in the folder: digits/, model-marked/, model-plain/, audit-marked/, audit-plain/.
    """
    told: dict[str, Any] = {"folder": str(folder), "models": []}
    lines = []
    swapped = write_digits(folder / "digits" / "swapped", "random", seed=seed)
    for name, mark in (("marked", "own"), ("plain", "none")):
        data = write_digits(folder / "digits" / name, mark, seed=seed)  # type: ignore[arg-type]
        say(f"training on {data}")
        for _ in train(open_data(data, split=ALL), _with(seed), folder / f"model-{name}", progress=progress):
            pass
        model = load(str(folder / f"model-{name}"))
        report = audit(model, open_data(data), only=CHECKS, seed=seed, progress=progress)
        page = folder / f"audit-{name}"
        report.save(page)
        fooled = audit(model, open_data(swapped), only="accuracy", seed=seed, progress=progress)
        own, other = _accuracy(report), _accuracy(fooled)
        found = next(f for f in report.findings if f.name == "shortcuts")
        told["models"].append(
            {"name": name, "accuracy": own, "accuracy with random marks": other, "verdict": found.verdict}
            | {"headline": found.headline, "report": str(page / "report.html")}
        )
        lines += [
            f"trained on {name} digits: right on {share(own)} of such test digits, and on {share(other)} of those "
            "whose mark says nothing",
            f"  {WORDS[found.verdict]}: {found.headline}",
            f"  {page / 'report.html'}",
        ]
    return {**told, "lines": lines}


def _with(seed: int) -> Recipe:
    return Recipe(**{**_RECIPE.as_dict(), "seed": seed})


def _accuracy(report: Report) -> float:
    value = next(f for f in report.findings if f.name == "accuracy").value
    return float(value if value is not None else "nan")
