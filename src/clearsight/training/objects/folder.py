"""The folder of the training of a detector or a segmenter: recipe and split first, the model last."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from clearsight.auditing.assemble import environment
from clearsight.core.model import Model
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.errors import Refused
from clearsight.models.loading import load, save
from clearsight.models.model_folder import RECIPE, SPLIT
from clearsight.reporting.facts import BrokenFile, DataFacts, ModelFacts, RunFacts
from clearsight.reporting.report import Report
from clearsight.training.arithmetic import COMPUTED, card_sentences
from clearsight.training.batches import Store
from clearsight.training.objects.card import card
from clearsight.training.objects.history import best_of
from clearsight.training.objects.prepared import ObjectData
from clearsight.training.objects.recipe import ObjectRecipe, non_default, read_object_recipe
from clearsight.training.objects.report import judge, training_finding
from clearsight.training.objects.run import ObjectRun
from clearsight.training.recipe import flag
from clearsight.training.run_folder import CARD, METRICS

_COLUMNS = ("file", "label", "split")


def begin_folder(
    folder: Path,
    run: ObjectRun,
    why: Sequence[str],
    requested: ObjectRecipe,
    command: str,
    arithmetic: Mapping[str, Any],
) -> None:
    """Write the recipe and the split of a run; arithmetic: device, threads and PyTorch version."""
    write_whole(folder / SPLIT, _split(folder, run.data))
    record: dict[str, Any] = {"schema": 1, "kind": run.data.kind, "recipe": run.recipe.as_dict(), "why": list(why)}
    record |= {"asked": requested.as_dict(), "data": run.data.digest}
    record |= {"command": command or _command(run.data, requested, folder), COMPUTED: [dict(arithmetic)]}
    write_whole(folder / RECIPE, json.dumps(record, indent=1) + "\n")


def _split(folder: Path, data: ObjectData) -> str:
    """The table, CSV, of which picture is in which part, and the classes that it shows."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(_COLUMNS)
    for p, shown, part in zip(data.pictures, data.shown, data.parts, strict=True):
        classes = "|".join(data.labels[k].replace("|", "/") for k in sorted(shown))
        table.writerow((Path(os.path.relpath(p.path, folder)).as_posix(), classes, part))
    return rows.getvalue()


def _command(data: ObjectData, recipe: ObjectRecipe, folder: Path) -> str:
    """The command line that trains with this recipe."""
    words = ["clearsight", "train", str(data.data.root), *data.data.words]
    words += [word for name, value in non_default(recipe).items() for word in (flag(name), str(value))]
    return shlex.join([*words, "-o", str(folder)])


def same_recipe(folder: Path, requested: ObjectRecipe) -> None:
    """Refuse to resume with other settings than the run was started with."""
    settled, _, asked = read_object_recipe(folder / RECIPE)
    given = non_default(requested)
    other = [k for k, v in given.items() if v not in (getattr(asked, k), getattr(settled, k))]
    if other:
        names = ", ".join(map(flag, other))
        raise Refused(f"{folder} was started with other settings: leave {names} out, or start in a new folder")


def same_data(folder: Path, data: ObjectData) -> None:
    """Refuse to resume with other pictures or annotations than the run was started with."""
    if json.loads((folder / RECIPE).read_text(encoding="utf-8"))["data"] != data.digest:
        raise Refused(
            f"the pictures or their annotations are not those that the run in {folder} was started with: give those, "
            "or name a new folder"
        )


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
        model=ModelFacts(
            source=str(folder),
            fingerprint=model.fingerprint(),
            network=type(model.net).__name__,
            parameters=sum(w.numel() for w in model.net.parameters()),
            classes=len(model.labels),
            preprocess=model.preprocess,
            kind=model.kind,
        ),
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
