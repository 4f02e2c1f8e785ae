"""What the folder of a run holds from its beginning, recipe and split, and whether a run to resume is the same."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearsight.core.output import write_whole
from clearsight.data.records import Picture, Pictures
from clearsight.errors import Refused
from clearsight.models.model_folder import RECIPE
from clearsight.training.arithmetic import COMPUTED
from clearsight.training.recipe_fields import differs, flag, non_default

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_COLUMNS = ("file", "label", "split")


def write_recipe(
    folder: Path,
    settled: DataclassInstance,
    why: Sequence[str],
    asked: DataclassInstance,
    *,
    digest: str,
    command: str,
    arithmetic: Mapping[str, Any],
    kind: str = "",
) -> None:
    """Write the recipe of a run, without and with automatic values.

    arithmetic: device, threads and PyTorch version.  kind: of a model that is no classifier.
    """
    record = {"schema": 1, **({"kind": kind} if kind else {}), "recipe": asdict(settled), "why": list(why)}
    record |= {"asked": asdict(asked), "data": digest, "command": command, COMPUTED: [dict(arithmetic)]}
    write_whole(folder / RECIPE, json.dumps(record, indent=1) + "\n")


def split_table(folder: Path, rows: Iterable[tuple[Picture, Iterable[str], str]]) -> str:
    """The table, CSV, of which picture is in which part: (picture, classes, part) each."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for picture, classes, part in rows:
        table.writerow((Path(os.path.relpath(picture.path, folder)).as_posix(), "|".join(classes), part))
    return text.getvalue()


def refuse_other_settings(
    folder: Path, given: Mapping[str, Any], asked: DataclassInstance, settled: DataclassInstance
) -> None:
    """Refuse to resume with other settings than the run was started with."""
    if other := differs(given, asked, settled):
        names = ", ".join(map(flag, other))
        raise Refused(f"{folder} was started with other settings: leave {names} out, or start in a new folder")


def refuse_other_data(folder: Path, digest: str, what: str) -> None:
    """Refuse to resume with other data than the run was started with; what: they are, "pictures"."""
    if json.loads((folder / RECIPE).read_text(encoding="utf-8"))["data"] != digest:
        raise Refused(
            f"the {what} are not those that the run in {folder} was started with: give those, or name a new folder"
        )


def training_command(data: Pictures, recipe: DataclassInstance, folder: Path) -> str:
    """The command line that trains with this recipe."""
    words = ["clearsight", "train", str(data.root), *data.words]
    for name, value in non_default(recipe).items():
        words += [flag(name).replace("--", "--no-", 1) if value is False else flag(name)]
        words += [] if isinstance(value, bool) else [str(value)]
    return shlex.join([*words, "-o", str(folder)])
