"""The folder of a training run: its recipe and split from the beginning, its model, report and card at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearsight.auditing.assemble import make
from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.evidence import share, span
from clearsight.core.classifier import Classifier
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.core.run_names import new_folder
from clearsight.core.statistics import wilson
from clearsight.core.text import counted
from clearsight.data.datasets import Pictures
from clearsight.data.text_inputs import split_of_texts
from clearsight.drawing import charts
from clearsight.drawing.charts import Line
from clearsight.errors import Refused
from clearsight.models.loading import load_classifier
from clearsight.models.model_folder import RECIPE, SPLIT, save
from clearsight.reporting.findings import Cell, Figure, Finding, Table
from clearsight.reporting.report import Report
from clearsight.training.arithmetic import COMPUTED, card_sentences
from clearsight.training.checkpoints import has_state
from clearsight.training.fine_tuning import TrainableNetwork
from clearsight.training.group_accuracy import judged_groups, with_groups
from clearsight.training.history import best_of
from clearsight.training.model_card import card
from clearsight.training.rebalance import stage
from clearsight.training.recipe import Recipe, keeps_last, marks_file, read_recipe
from clearsight.training.run_record import refuse_other_data, refuse_other_settings, split_table, write_recipe
from clearsight.training.temperature_scaling import Scaled
from clearsight.training.training_data import TrainingData

if TYPE_CHECKING:
    from clearsight.training.history import Epoch

METRICS, CARD = "metrics.json", "card.md"


def first() -> bool:
    """Whether this process is the only one, or the first of those that ``accelerate launch`` started: it writes."""
    return os.environ.get("RANK", "0") == "0"


def place(out: str | Path | None, resume: bool) -> Path:
    """The folder of a run: a new one, or that of the run to resume.

    With several processes the first one makes it, and all must be given its name.

    Refused: a folder that holds another run, or none where one is to be resumed.
    """
    folder = None if out is None else Path(out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and folder is None:
        raise Refused("several processes train into the same folder: name it with -o DIR")
    if folder is not None and not first():
        return folder
    begun = folder is not None and (folder / RECIPE).is_file()
    if resume and folder is None:
        raise Refused("--resume needs the folder of a training run: name it with -o DIR")
    if resume and not begun:
        raise Refused(f"{folder} holds no training run to resume: name the folder of one with -o DIR")
    if folder is not None and begun and (folder / METRICS).is_file() and not has_state(folder):
        raise Refused(f"{folder} holds a training run that is complete: name a new folder with -o for another one")
    if begun and not resume:
        raise Refused(
            f"{folder} holds a training run: --resume goes on with it; name a new folder with -o for another one"
        )
    return new_folder("train", folder, holds=RECIPE)


def begin_folder(
    folder: Path,
    data: TrainingData,
    recipe: Recipe,
    why: Sequence[str],
    requested: Recipe,
    command: str,
    arithmetic: Mapping[str, Any],
) -> None:
    """Write the recipe and the split of a run; arithmetic: device, threads and PyTorch version."""
    rows = zip(data.pictures, (p.labels for p in data.pictures), data.parts, strict=True)
    texts = data.data.are_texts
    write_whole(folder / SPLIT, split_of_texts(data.pictures, data.parts) if texts else split_table(folder, rows))
    write_recipe(folder, recipe, why, requested, digest=data.digest, command=command, arithmetic=arithmetic)


def same_recipe(folder: Path, given: Mapping[str, Any]) -> None:
    """Refuse to resume with other settings than the run was started with."""
    settled, _, asked = read_recipe(folder / RECIPE)
    refuse_other_settings(folder, given, asked, settled)


def same_data(folder: Path, data: TrainingData) -> None:
    """Refuse to resume with other pictures than the run was started with."""
    refuse_other_data(folder, data.digest, "pictures")


def finish_folder(
    folder: Path,
    model: Classifier,
    start: TrainableNetwork,
    data: TrainingData,
    recipe: Recipe,
    history: Sequence[Epoch],
    scaled: Scaled,
    finished: bool,
    progress: Progress,
) -> Report:
    """Write the model, its report on the pictures that it was not trained on, its metrics and its card.

    finished: whether training has ended; else this is the first model, which a later call writes over.
    It is evaluated by two checks of the audit, accuracy and calibration, on test, or on val where there is no test.
    """
    save(model, folder, architecture=start.architecture, architecture_options=start.options)
    record = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    judged = "test" if data.rows("test") else "val"
    judged_pictures = Pictures(folder / SPLIT, tuple(data.pictures[i] for i in data.rows(judged)), notes=())
    model = load_classifier(folder, "train")
    case = Case(model, judged_pictures, seed=recipe.seed, progress=progress, data_words=("--split", judged))
    best = best_of(history)
    headline = _headline(history, best, recipe, finished)
    groups = judged_groups(case, data)
    how_trained = _training(headline, history, best, data, recipe, record["why"], scaled, record["command"])
    how_trained = with_groups(how_trained, groups, judged)
    findings = [how_trained, *run_checks(case, parse_checks("accuracy, calibration"))]
    report = make(case, findings, seconds=sum(e.seconds for e in history), command=record["command"])
    _save_report(report, folder)
    metrics = _metrics(report, history, best, data, judged, scaled) | {"finished": finished}
    if groups:
        metrics["groups"] = {g.group: g.as_dict() for g in groups}
    write_whole(folder / METRICS, json.dumps(metrics, indent=1) + "\n")
    why = [*record["why"], *card_sentences(record.get(COMPUTED) or [])]
    write_whole(folder / CARD, card(folder, case.model, start, data, recipe, why, metrics))
    return report


def _save_report(report: Report, folder: Path) -> None:
    """Write the report, and remove the figures of the one that it takes the place of: that of the first model."""
    before = Report.read(folder).figures() if (folder / "report.json").is_file() else ()
    old = {figure.name for figure in before} - {figure.name for figure in report.figures()}
    report.save(folder)
    for name in old:
        (folder / "figures" / name).unlink(missing_ok=True)


def _headline(history: Sequence[Epoch], best: Epoch, recipe: Recipe, finished: bool) -> str:
    """Which weights are in the folder, and why."""
    trained = history[-1].number
    if not finished:
        return "This is the first model, the head alone, and training is not finished"
    if stage(recipe) == "features":
        return f"The last layer of {recipe.from_run} is fitted anew by {recipe.rebalance}, the others are as they were"
    if best.number == 0:
        better = "a lower loss on val" if best.worst_right is None else "a better worst group on val"
        return f"The first model, the head alone, is kept: none of {counted(trained, 'epoch')} has {better}"
    return f"Epoch {best.number} of {trained} is kept, {_why_kept(best, recipe)}"


def _why_kept(best: Epoch, recipe: Recipe) -> str:
    if recipe.random_labels:
        return "the last one, because val's labels are random too"
    if marks_file(recipe) is not None:
        return "the last one, because val may hold what the annotations guide away from"
    if keeps_last(recipe):
        return "the last one, because nothing guards against overfitting to the attack"
    if best.robust_right is not None:
        return "the one that is right most often under attack on val"
    if best.worst_right is not None:
        return "the one that is right most often in the worst group of val"
    return "the one with the lowest loss on val"


def _robust_notes(history: Sequence[Epoch], best: Epoch, recipe: Recipe, inputs: Pictures) -> tuple[str, ...]:
    """What training against an attack did on val, in sentences."""
    if best.robust_right is None:
        return ()
    judge = "character-substitution" if inputs.are_texts else "pgd(steps=10)"
    notes = [
        f"Under {judge} within the budget of {recipe.perturb} the epoch that is kept is right on "
        f"{best.robust_right} of {counted(best.robust_n, inputs.thing)} of val.  Val chose the epoch; clearsight audit "
        "--only robustness judges it by other attacks."
    ]
    fallen = next((e for e in history if e.collapsed), None)
    if fallen is not None:
        notes.append(
            f"Epoch {fallen.number} was right on {fallen.robust_right} alone: catastrophic overfitting.  The network "
            "learnt to resist the attack of training and no other."
            + (" Training went back and ended." if recipe.overfitting_guard else " Nothing guarded against it.")
        )
    return tuple(notes)


def _training(
    headline: str,
    history: Sequence[Epoch],
    best: Epoch,
    data: TrainingData,
    recipe: Recipe,
    why: Sequence[str],
    scaled: Scaled,
    command: str,
) -> Finding:
    """The first finding of the report, on the run itself: the curves, and what was chosen."""
    n, right = best.val_n, best.val_right
    return Finding(
        "note",
        f"{headline}: {best.val_loss:.3f} nats, {share(right / n)} right ({span(wilson(right, n), n)}).",
        quantity="accuracy on val",
        value=right / n,
        interval=wilson(right, n),
        n=n,
        notes=(
            _part_of_judges(data, recipe),
            *_robust_notes(history, best, recipe, data.data),
            *(f"{word[0].upper()}{word[1:]}." for word in data.notes),
            *(f"{word}." for word in why),
            scaled.words(data.data.thing),
        ),
        tables=(Table("Epochs", tuple(_row(e) for e in history)),),
        figures=curves(history),
        check="training",
        summary="How it was trained, and which epoch is kept.",
        command=command,
        seconds=round(sum(e.seconds for e in history), 3),
    )


def _part_of_judges(data: TrainingData, recipe: Recipe) -> str:
    """What the pictures that evaluate the model were used for before."""
    if recipe.random_labels:
        judged = "test are its own" if data.rows("test") else "val, which the checks below use, are random too"
        return f"The labels of train were drawn at random among its {data.data.thing}s; those of {judged}."
    if stage(recipe) == "features":
        judged = "test, which it has not seen" if data.rows("test") else "val too, so all of these are"
        return f"Numbers of the part that the last layer was fitted to are optimistic; the checks below use {judged}."
    if data.rows("test"):
        return "Val chose the epoch, so its numbers are optimistic; the checks below use test, which chose nothing."
    return "Val chose the epoch, and the checks below use val too, so all of these numbers are optimistic."


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
        **({} if e.worst_right is None else {"val, worst group": e.worst_right / e.worst_n, "group": e.worst_group}),
        **({} if e.robust_right is None else {"val under attack": e.robust_right / e.robust_n}),
    }


def curves(history: Sequence[Epoch]) -> tuple[Figure, ...]:
    """The curves of loss and accuracy over the epochs; none for a single epoch."""
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
    over = counted(last.number, "epoch")
    how = "with augmentation and dropout" + ("" if first.number else ", but for epoch 0, the first model")
    return (
        Figure(
            "training-loss.svg",
            charts.curves(x, losses, xlabel="epoch", ylabel="loss, nats", xticks=ticks, shares=False),
            f"Loss on train ({how}) and on val.",
            f"Loss over {over}: on val from {first.val_loss:.2f} to {last.val_loss:.2f}.",
        ),
        Figure(
            "training-accuracy.svg",
            charts.curves(x, rights, xlabel="epoch", ylabel="accuracy on val", xticks=ticks),
            "Accuracy on val with its 95 % interval.",
            f"Accuracy on val over {over}: from {share(first.val_right / first.val_n)} to "
            f"{share(last.val_right / last.val_n)}.",
        ),
    )


def draw_rates(folder: Path, curve: Sequence[tuple[float, float]], rate: float) -> Path:
    """The chart of a learning-rate range test."""
    x = [float(i) for i in range(len(curve))]
    ticks = [(float(i), f"{curve[i][0]:.0e}") for i in range(0, len(curve), max(1, len(curve) // 6))]
    line = Line(f"loss; rate taken: {rate:.2g}", [v for _, v in curve])
    chart = charts.curves(x, [line], xlabel="learning rate", ylabel="loss, smoothed", xticks=ticks, shares=False)
    return write_whole(folder / "figures" / "rates.svg", chart)


def _metrics(
    report: Report, history: Sequence[Epoch], best: Epoch, data: TrainingData, judged: str, scaled: Scaled
) -> dict[str, Any]:
    """The numbers of a run, for programs."""
    by_name = {f.name: f for f in report.findings}

    def of(name: str) -> dict[str, Any]:
        f = by_name[name]
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
