"""`clearsight demo shortcut`: a model that is right for the wrong reason, what its audit says, and its repair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearsight.auditing.audit import audit
from clearsight.auditing.evidence import share
from clearsight.comparing.compare import compare
from clearsight.core.progress import Progress
from clearsight.data.datasets import ALL, open_data
from clearsight.demos.decoy_digits import write_digits, write_marks
from clearsight.models.loading import load_classifier
from clearsight.reporting.findings import Verdict
from clearsight.reporting.report import Report
from clearsight.reporting.wording import WORDS
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe

CHECKS = "accuracy, shortcuts"
REPAIR = 15  # epochs
_RECIPE = Recipe(arch="clearsight:mlp", size=32, augment="none", epochs=30, lr="0.003")


@dataclass(frozen=True)
class TrainedModel:
    """One of the models, and what an audit finds.

    Args:
        name: "marked" or "plain", the digits that it was trained on; "mended" for the first one after its repair.
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
        what = "mended" if self.name == "mended" else f"trained on {self.name} digits"
        return [
            f"{what}: right on {share(self.accuracy)} of such test digits, and on "
            f"{share(self.accuracy_with_random_marks)} of those whose mark says nothing",
            f"  {WORDS[self.verdict]}: {self.headline}",
            f"  {self.report}",
        ]


@dataclass(frozen=True)
class ShortcutDemo:
    """The models of ``clearsight demo shortcut``.

    Args:
        folder: the folder with digits, models and audits.
        models: the model of the marked digits, that of the plain ones, and the first one mended.
        repair: what the repair changed on test digits whose mark is drawn at random, in one sentence.
        comparison: its page, report.html.
    """

    folder: Path
    models: tuple[TrainedModel, ...]
    repair: str
    comparison: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return {
            "folder": str(self.folder),
            "models": [model.as_dict() for model in self.models],
            "repair": self.repair,
            "comparison": str(self.comparison),
        }

    def lines(self) -> list[str]:
        """The same for the terminal: accuracy, verdict and report of each model, and what the repair changed."""
        each = [line for model in self.models for line in model.lines()]
        return [*each, f"before and after: {self.repair}", f"  {self.comparison}"]


def shortcut(
    folder: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ShortcutDemo:
    """Train on digits with a mark that gives the class away and on the same digits without; audit both, mend the first.

    The repair continues the training of the first model with a box around the marks (``--avoid``), and is audited and
    compared with it.  Everything stays in the folder: digits/, marks.csv, model-marked/, model-plain/, model-mended/,
    audit-marked/, audit-plain/, audit-mended/, comparison/.

    Args:
        folder: the folder of the results.
        seed: start of all randomness.
        progress: called with what is done, the number done and the total.
        say: called with a sentence when a training begins.
    """
    digits = folder / "digits"
    swapped = write_digits(digits / "swapped", "random", seed=seed)
    marked = write_digits(digits / "marked", "own", seed=seed)
    plain = write_digits(digits / "plain", "none", seed=seed)
    before = folder / "model-marked"
    recipe = Recipe(**{**_RECIPE.as_dict(), "seed": seed})
    marks = write_marks(marked, folder / "marks.csv")
    repair = Recipe(from_run=str(before), avoid=str(marks), epochs=REPAIR, lr=recipe.lr, seed=seed)
    models = []
    for name, data, job in (("marked", marked, recipe), ("plain", plain, recipe), ("mended", marked, repair)):
        how = "mending" if job is repair else "training on"
        say(f"{how} {before if job is repair else data}")
        for _ in train(open_data(data, split=ALL), job, folder / f"model-{name}", progress=progress):
            pass
        models.append(_judged(name, data, swapped, folder, seed, progress))
    report = compare([before, folder / "model-mended"], swapped, only="accuracy", seed=seed, progress=progress)
    report.save(folder / "comparison")
    return ShortcutDemo(folder, tuple(models), report.verdict, folder / "comparison" / "report.html")


def _judged(name: str, data: Path, swapped: Path, folder: Path, seed: int, progress: Progress | None) -> TrainedModel:
    """The audit of a model on test digits of its own kind, and its accuracy where marks are drawn at random."""
    model = load_classifier(str(folder / f"model-{name}"), "demo")
    report = audit(model, open_data(data), only=CHECKS, seed=seed, progress=progress)
    page = folder / f"audit-{name}"
    report.save(page)
    fooled = audit(model, open_data(swapped), only="accuracy", seed=seed, progress=progress)
    finding = next(f for f in report.findings if f.name == "shortcuts")
    return TrainedModel(
        name, _accuracy(report), _accuracy(fooled), finding.verdict, finding.headline, page / "report.html"
    )


def _accuracy(report: Report) -> float:
    value = next(f for f in report.findings if f.name == "accuracy").value
    return float(value if value is not None else "nan")
