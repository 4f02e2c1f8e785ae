"""The folder of the training of a detector or a segmenter: recipe and split first, the model last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from clearsight.auditing.assemble import environment, model_facts
from clearsight.core.model import Model
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.models.loading import load, save
from clearsight.models.model_folder import RECIPE, SPLIT
from clearsight.reporting.facts import BrokenFile, DataFacts, RunFacts
from clearsight.reporting.report import Report
from clearsight.training.arithmetic import COMPUTED, card_sentences
from clearsight.training.batches import Store
from clearsight.training.history import best_of
from clearsight.training.objects.card import card
from clearsight.training.objects.prepared import ObjectData
from clearsight.training.objects.recipe import ObjectRecipe, read_object_recipe
from clearsight.training.objects.report import judge, training_finding
from clearsight.training.objects.run import ObjectRun
from clearsight.training.recipe_fields import non_default
from clearsight.training.run_folder import CARD, METRICS
from clearsight.training.run_record import (
    refuse_other_data,
    refuse_other_settings,
    split_table,
    training_command,
    write_recipe,
)


def begin_folder(
    folder: Path,
    run: ObjectRun,
    why: Sequence[str],
    requested: ObjectRecipe,
    command: str,
    arithmetic: Mapping[str, Any],
) -> None:
    """Write the recipe and the split of a run; arithmetic: device, threads and PyTorch version."""
    data = run.data
    classes = ((data.labels[k].replace("|", "/") for k in sorted(shown)) for shown in data.shown)
    write_whole(folder / SPLIT, split_table(folder, zip(data.pictures, classes, data.parts, strict=True)))
    command = command or training_command(data.data, requested, folder)
    write_recipe(
        folder, run.recipe, why, requested, digest=data.digest, command=command, arithmetic=arithmetic, kind=data.kind
    )


def same_recipe(folder: Path, requested: ObjectRecipe) -> None:
    """Refuse to resume with other settings than the run was started with."""
    settled, _, asked = read_object_recipe(folder / RECIPE)
    refuse_other_settings(folder, non_default(requested), asked, settled)


def same_data(folder: Path, data: ObjectData) -> None:
    """Refuse to resume with other pictures or annotations than the run was started with."""
    refuse_other_data(folder, data.digest, "pictures or their annotations")


def finish_folder(folder: Path, run: ObjectRun, store: Store, progress: Progress) -> Report:
    """Write the model of the best weights, its report on test (or val, where there is no test), metrics and card."""
    save(run.model(), folder, architecture=run.start.architecture)
    model = load(folder, device=str(run.device))
    record = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    judged = "test" if run.data.rows("test") else "val"
    done = judge(model, run, store, judged, progress)
    findings = [training_finding(run, record["why"], judged, record["command"]), done.finding]
    report = Report(_facts(folder, run, model, record["command"]), tuple(findings))
    report.save(folder)
    metrics = _metrics(run, judged, done.numbers)
    write_whole(folder / METRICS, json.dumps(metrics, indent=1) + "\n")
    why = [*record["why"], *card_sentences(record.get(COMPUTED) or [])]
    write_whole(folder / CARD, card(folder, model, run, why, metrics))
    return report


def _metrics(run: ObjectRun, judged: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a run, for programs."""
    best = best_of(run.history)
    return {
        "schema": 1,
        "kind": run.data.kind,
        "judged_on": judged,
        **numbers,
        "val": {best.measure: best.score, "n": best.val_n},
        "epoch": best.number,
        "seconds": round(sum(e.seconds for e in run.history), 1),
        "processor_seconds": round(sum(e.processor for e in run.history), 1),
        "pictures": {part: len(run.data.rows(part)) for part in ("train", "val", "test")},
        "epochs": [asdict(e) for e in run.history],
    }


def _facts(folder: Path, run: ObjectRun, model: Model, command: str) -> RunFacts:
    data = run.data
    broken = tuple(BrokenFile(name, reason) for name, reason in data.data.broken)
    total = len(data.pictures) + len(broken)
    return RunFacts(
        clearsight=metadata.version("clearsight"),
        command=command,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(sum(e.seconds for e in run.history), 2),
        seed=run.recipe.seed,
        method="",
        model=model_facts(model),
        data=DataFacts(
            source=str(data.data.root),
            digest=data.digest,
            pictures=total,
            tried=total,
            read=len(data.pictures),
            labelled=len(data.pictures),
            annotated=sum(bool(shown) for shown in data.shown),
            broken=broken,
            notes=data.notes,
        ),
        environment=environment(str(model.device)),
    )
