"""`clearsight demo shortcut`: two models trained alike, one right for the wrong reason, and what an audit says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearsight.auditing.audit import audit
from clearsight.auditing.evidence import share
from clearsight.core.progress import Progress
from clearsight.data.datasets import ALL, open_data
from clearsight.demos.decoy_digits import Mark, write_digits
from clearsight.models.loading import load
from clearsight.reporting.findings import Verdict
from clearsight.reporting.report import Report
from clearsight.reporting.wording import WORDS
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe

CHECKS = "accuracy, shortcuts"
_RECIPE = Recipe(arch="clearsight:mlp", size=32, augment="none", epochs=30, lr="0.003")


@dataclass(frozen=True)
class TrainedModel:
    """One of the two models, and what an audit finds.

    Args:
        name: "marked" or "plain", the digits that it was trained on.
        accuracy: share of right answers on test pictures of its own kind, in [0, 1].
        accuracy_with_random_marks: the same on test pictures whose mark is drawn at random.
        verdict: the verdict of the check shortcuts, such as "pass" or "fail".
        headline: its finding in one sentence.
        report: the page of the audit, report.html.
    """

    name: str
    accuracy: float
    accuracy_with_random_marks: float
    verdict: Verdict
    headline: str
    report: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return {
            "name": self.name,
            "accuracy": self.accuracy,
            "accuracy with random marks": self.accuracy_with_random_marks,
            "verdict": self.verdict,
            "headline": self.headline,
            "report": str(self.report),
        }

    def lines(self) -> list[str]:
        """The same for the terminal."""
        return [
            f"trained on {self.name} digits: right on {share(self.accuracy)} of such test digits, and on "
            f"{share(self.accuracy_with_random_marks)} of those whose mark says nothing",
            f"  {WORDS[self.verdict]}: {self.headline}",
            f"  {self.report}",
        ]


@dataclass(frozen=True)
class ShortcutDemo:
    """The two models of ``clearsight demo shortcut``.

    Args:
        folder: the folder with digits, models and audits.
        models: the model of the marked digits, then that of the plain ones.
    """

    folder: Path
    models: tuple[TrainedModel, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return {"folder": str(self.folder), "models": [model.as_dict() for model in self.models]}

    def lines(self) -> list[str]:
        """The same for the terminal: accuracy, verdict and report of each model."""
        return [line for model in self.models for line in model.lines()]


def shortcut(
    folder: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ShortcutDemo:
    """Train one recipe on digits with a mark that gives the class away and on the same digits without; audit both.

    Everything stays in the folder: digits/, model-marked/, model-plain/, audit-marked/, audit-plain/.

    Args:
        folder: the folder of the results.
        seed: start of all randomness.
        progress: called with what is done, the number done and the total.
        say: called with a sentence when a training begins.
    """
    models: list[TrainedModel] = []
    swapped = write_digits(folder / "digits" / "swapped", "random", seed=seed)
    marks: tuple[tuple[str, Mark], ...] = (("marked", "own"), ("plain", "none"))
    for name, mark in marks:
        data = write_digits(folder / "digits" / name, mark, seed=seed)
        say(f"training on {data}")
        for _ in train(open_data(data, split=ALL), _with(seed), folder / f"model-{name}", progress=progress):
            pass
        model = load(str(folder / f"model-{name}"))
        report = audit(model, open_data(data), only=CHECKS, seed=seed, progress=progress)
        page = folder / f"audit-{name}"
        report.save(page)
        fooled = audit(model, open_data(swapped), only="accuracy", seed=seed, progress=progress)
        finding = next(f for f in report.findings if f.name == "shortcuts")
        models.append(
            TrainedModel(
                name,
                _accuracy(report),
                _accuracy(fooled),
                finding.verdict,
                finding.headline,
                page / "report.html",
            )
        )
    return ShortcutDemo(folder, tuple(models))


def _with(seed: int) -> Recipe:
    return Recipe(**{**_RECIPE.as_dict(), "seed": seed})


def _accuracy(report: Report) -> float:
    value = next(f for f in report.findings if f.name == "accuracy").value
    return float(value if value is not None else "nan")
