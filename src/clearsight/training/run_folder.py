"""The folder of a training run: its recipe and split from the beginning, its model, report and card at the end."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearsight.auditing.assemble import make
from clearsight.auditing.audit import chosen, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.evidence import share, span
from clearsight.core.classifier import Classifier
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.core.run_names import new_folder
from clearsight.core.statistics import wilson
from clearsight.core.text import counted
from clearsight.data.datasets import Pictures
from clearsight.drawing import charts
from clearsight.drawing.charts import Line
from clearsight.errors import Refused
from clearsight.models.loading import load
from clearsight.models.model_folder import RECIPE, SPLIT, save
from clearsight.reporting.findings import Cell, Figure, Finding, Table
from clearsight.reporting.report import Report
from clearsight.training.arithmetic import COMPUTED, words
from clearsight.training.checkpoints import stopped
from clearsight.training.fine_tuning import TrainableNetwork
from clearsight.training.model_card import card
from clearsight.training.recipe import Recipe, differs, read_recipe, said
from clearsight.training.temperature_scaling import Scaled
from clearsight.training.training_data import TrainingData

if TYPE_CHECKING:
    from clearsight.training.history import Epoch

METRICS, CARD = "metrics.json", "card.md"
_COLUMNS = ("file", "label", "split")


def first() -> bool:
    """Whether this process is the only one, or the first of those that ``accelerate launch`` started: it writes."""
    return os.environ.get("RANK", "0") == "0"


def place(out: str | Path | None, resume: bool) -> Path:
    """The folder of a run: a new one, or that of the run to go on with.  Refused where that is not what it holds.

    Of several processes the first one makes it, and the others have to be told which.
    """
    folder = None if out is None else Path(out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and folder is None:
        raise Refused("several processes train into one folder: name it with -o DIR")
    if folder is not None and not first():
        return folder
    begun = folder is not None and (folder / RECIPE).is_file()
    if resume and folder is None:
        raise Refused("no training run is named to go on with: name its folder with -o DIR")
    if resume and not begun:
        raise Refused(f"there is no training run to go on with in {folder}: name its folder with -o DIR")
    if folder is not None and begun and (folder / METRICS).is_file() and not stopped(folder):
        raise Refused(f"{folder} holds a training run that is complete: for another one name a new folder with -o")
    if begun and not resume:
        raise Refused(f"{folder} holds a training run: --resume goes on with it; for another name a new folder with -o")
    return new_folder("train", folder, holds=RECIPE)


def begin_folder(
    folder: Path,
    data: TrainingData,
    recipe: Recipe,
    why: Sequence[str],
    asked: Recipe,
    command: str,
    now: Mapping[str, Any],
) -> None:
    """Write down what is going to be done, on which pictures; now: with what it is computed."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(_COLUMNS)
    for p, part in zip(data.pictures, data.parts, strict=True):
        table.writerow((Path(os.path.relpath(p.path, folder)).as_posix(), "|".join(p.labels), part))
    write_whole(folder / SPLIT, rows.getvalue())
    says = {"schema": 1, "recipe": recipe.as_dict(), "why": list(why), "asked": asked.as_dict()}
    says |= {"data": data.digest, "command": command, COMPUTED: [dict(now)]}
    write_whole(folder / RECIPE, json.dumps(says, indent=1) + "\n")


def same_recipe(folder: Path, given: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than the run was begun with."""
    settled, _, asked = read_recipe(folder / RECIPE)
    if other := differs(given, asked, settled):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in other)
        raise Refused(f"{folder} was begun with other settings: leave {names} out, or begin in a new folder")


def same_data(folder: Path, data: TrainingData) -> None:
    """Refuse to go on with other pictures than the run was begun with."""
    if json.loads((folder / RECIPE).read_text(encoding="utf-8"))["data"] != data.digest:
        raise Refused(
            f"the pictures are not those that the run in {folder} was begun with: begin anew in another folder"
        )


def command(data: Pictures, recipe: Recipe, folder: Path) -> str:
    """The command that trains like this."""
    words = ["clearsight", "train", str(data.root)]
    for name, value in said(recipe).items():
        name = name.replace("_", "-")
        words += [f"--no-{name}" if value is False else f"--{name}"]
        words += [] if isinstance(value, bool) else [str(value)]
    return shlex.join([*words, "-o", str(folder)])


def finish_folder(
    folder: Path,
    model: Classifier,
    start: TrainableNetwork,
    data: TrainingData,
    recipe: Recipe,
    history: Sequence[Epoch],
    scaled: Scaled,
    progress: Progress,
) -> Report:
    """Write the model, what it does on the pictures that were kept from it, and its card.

    The judges are the audit's own checks, accuracy and calibration, on test, or on val where there is no test.
    """
    save(model, folder, architecture=start.architecture, architecture_options=start.options)
    says = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    judged = "test" if data.rows("test") else "val"
    own = Pictures(folder / SPLIT, tuple(data.pictures[i] for i in data.rows(judged)), notes=())
    case = Case(load(folder), own, seed=recipe.seed, progress=progress, data_words=("--split", judged))
    best = max((e for e in history if e.best), key=lambda e: e.number)
    told = _training(history, best, data, recipe, says["why"], scaled, says["command"])
    findings = [told, *run_checks(case, chosen("accuracy, calibration"))]
    report = make(case, findings, seconds=sum(e.seconds for e in history), command=says["command"])
    report.save(folder)
    metrics = _metrics(report, history, best, data, judged, scaled)
    write_whole(folder / METRICS, json.dumps(metrics, indent=1) + "\n")
    why = [*says["why"], *words(says.get(COMPUTED) or [])]
    write_whole(folder / CARD, card(folder, case.model, start, data, recipe, why, metrics))
    return report


def _training(
    history: Sequence[Epoch],
    best: Epoch,
    data: TrainingData,
    recipe: Recipe,
    why: Sequence[str],
    scaled: Scaled,
    told: str,
) -> Finding:
    """The run itself as the first finding of its report: the curves, and what was chosen."""
    n, right = best.val_n, best.val_right
    kept = (
        "where the loss on val was least" if not recipe.random_labels else "the last, for val's labels are random too"
    )
    return Finding(
        "note",
        f"Of {counted(len(history), 'epoch')} number {best.number} is kept, {kept}: "
        f"{best.val_loss:.3f} nats, {share(right / n)} right ({span(wilson(right, n), n)}).",
        quantity="accuracy on val",
        value=right / n,
        interval=wilson(right, n),
        n=n,
        notes=(
            _judges(data, recipe),
            *(f"{word[0].upper()}{word[1:]}." for word in data.notes),
            *(f"{word}." for word in why),
            scaled.words(),
        ),
        tables=(Table("Epochs", tuple(_row(e) for e in history)),),
        figures=curves(history),
        check="training",
        summary="How it was trained, and which epoch is kept.",
        command=told,
        seconds=round(sum(e.seconds for e in history), 3),
    )


def _judges(data: TrainingData, recipe: Recipe) -> str:
    """What the pictures that judge the model have had to do with it."""
    if recipe.random_labels:
        judged = "test have their own" if data.rows("test") else "val, which the checks below are on, are random too"
        return f"The labels of train were drawn at random, among its pictures; those of {judged}."
    if data.rows("test"):
        return "Val chose the epoch, so its numbers flatter; the checks below are on pictures that chose nothing."
    return "Val chose the epoch, and the checks below are on val too: all of these numbers flatter the model."


def _row(e: Epoch) -> dict[str, Cell]:
    return {
        "epoch": e.number,
        "loss": e.loss,
        "val loss": e.val_loss,
        "val accuracy": e.val_right / e.val_n,
        "learning rate": e.rate,
        "parameters trained": e.trained,
        "seconds": round(e.seconds, 1),
        "best so far": "yes" if e.best else "",
    }


def curves(history: Sequence[Epoch]) -> tuple[Figure, ...]:
    """Loss and accuracy over the epochs; of a single epoch there is no curve."""
    if len(history) < 2:
        return ()
    x = [float(e.number) for e in history]
    ticks = [(v, f"{v:.0f}") for v in x[:: -(-len(x) // 10)]]
    bounds = [wilson(e.val_right, e.val_n) for e in history]
    losses = [Line("val", [e.val_loss for e in history]), Line("train", [e.loss for e in history], control=True)]
    rights = [
        Line(
            "val",
            [e.val_right / e.val_n for e in history],
            low=[low for low, _ in bounds],
            high=[high for _, high in bounds],
        )
    ]
    first, last = history[0], history[-1]
    return (
        Figure(
            "training-loss.svg",
            charts.curves(x, losses, xlabel="epoch", ylabel="loss, nats", xticks=ticks, shares=False),
            "Loss on train (as its pictures are varied, with dropout) and on val.",
            f"Loss over {len(x)} epochs: on val from {first.val_loss:.2f} to {last.val_loss:.2f}.",
        ),
        Figure(
            "training-accuracy.svg",
            charts.curves(x, rights, xlabel="epoch", ylabel="right on val", xticks=ticks),
            "Accuracy on val with its 95 % interval.",
            f"Accuracy on val over {len(x)} epochs: from {share(first.val_right / first.val_n)} to "
            f"{share(last.val_right / last.val_n)}.",
        ),
    )


def draw_rates(folder: Path, curve: Sequence[tuple[float, float]], rate: float) -> Path:
    """The chart of a learning-rate range test."""
    x = [float(i) for i in range(len(curve))]
    ticks = [(float(i), f"{curve[i][0]:.0e}") for i in range(0, len(curve), max(1, len(curve) // 6))]
    line = Line(f"loss; taken: {rate:.2g}", [v for _, v in curve])
    chart = charts.curves(x, [line], xlabel="learning rate", ylabel="loss, smoothed", xticks=ticks, shares=False)
    return write_whole(folder / "figures" / "rates.svg", chart)


def _metrics(
    report: Report, history: Sequence[Epoch], best: Epoch, data: TrainingData, judged: str, scaled: Scaled
) -> dict[str, Any]:
    """The numbers of a run, for programs."""
    found = {f.name: f for f in report.findings}

    def of(name: str) -> dict[str, Any]:
        f = found[name]
        return {"value": f.value, "interval": f.interval, "n": f.n}

    return {
        "schema": 1,
        "judged_on": judged,
        "accuracy": of("accuracy"),
        "calibration_error": of("calibration"),
        "val": {"accuracy": best.val_right / best.val_n, "loss": best.val_loss, "n": best.val_n},
        "temperature": asdict(scaled),
        "epoch": best.number,
        "seconds": round(sum(e.seconds for e in history), 1),
        "pictures": {part: len(data.rows(part)) for part in ("train", "val", "test")},
        "epochs": [asdict(e) for e in history],
    }
