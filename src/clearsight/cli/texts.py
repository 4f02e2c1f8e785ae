"""What commands do with a model of texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from clearsight.cli.inputs import load_model, seconds, typed
from clearsight.cli.options import DataOptions, ModelOptions, RunOptions
from clearsight.cli.output import end, sayer, typed_command
from clearsight.errors import Refused

if TYPE_CHECKING:
    from clearsight.data.records import Pictures


def explain_texts_of(
    name: str,
    places: Sequence[str],
    methods: Sequence[str],
    target: str,
    out: Path | None,
    about_data: DataOptions,
    about_model: ModelOptions,
    run: RunOptions,
) -> None:
    """Explain texts: each in colours, or as JSON; with --quiet only the folder is printed."""
    from rich.console import Console

    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_folder
    from clearsight.explaining.explain_texts import explain_texts

    model = load_model(name, about_model, run)
    data = given_texts(places, about_data)
    with progress(run.silent) as tell:
        done, broken = explain_texts(
            model, data, methods, target, lambda: new_folder("explain", out), seed=run.seed, progress=tell
        )
    for entry, reason in broken:
        sayer(run.silent)(f"left out {entry}: {reason}")
    if run.json:
        left_out = [{"text": entry, "reason": reason} for entry, reason in broken]
        result = {"texts": [e.as_dict() for e in done], "broken": left_out}
        print(json.dumps(result, indent=1, ensure_ascii=False))
    elif run.quiet:
        print(done[0].page.parent)
    else:
        console = Console()
        for e in done:
            e.show(console)


def attack_texts_of(
    name: str,
    places: Sequence[str],
    attack: str,
    eps: float | None,
    floor: float,
    pictures: int,
    budget: str | None,
    out: Path | None,
    about_data: DataOptions,
    about_model: ModelOptions,
    run: RunOptions,
) -> NoReturn:
    """Attack texts, and end with the status of the report."""
    from clearsight.attacking.text_report import attack_text_report
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run

    model = load_model(name, about_model, run)
    data = given_texts(places, about_data)
    with new_run("attack", out, holds="report.json") as folder, progress(run.silent) as report_progress:
        report = attack_text_report(
            model,
            data,
            attack,
            eps,
            folder,
            floor=floor,
            pictures=pictures,
            seed=run.seed,
            budget=seconds(budget),
            command=typed_command(),
            model_words=typed(about_model),
            data_words=typed(about_data),
            progress=report_progress,
        )
        report.save(folder)
    end(report, folder, run)


def given_texts(places: Sequence[str], about: DataOptions) -> Pictures:
    """Texts that were typed, and those of files, tables and folders that exist."""
    from clearsight.data.datasets import joined
    from clearsight.data.text_inputs import as_inputs
    from clearsight.data.text_records import Text, Texts
    from clearsight.data.text_sources import texts

    sources = []
    for number, place in enumerate(places, 1):
        if _exists(place):
            columns = {n: getattr(about, n) for n in ("text_column", "label_column", "marks_column")}
            sources.append(as_inputs(texts(place, split=about.split, classes=about.classes, **columns)))
        elif place.strip():
            sources.append(as_inputs(Texts("", (Text(f"text {number}", place),))))
        else:
            raise Refused("an empty text is given: type one in quotes, or name a file")
    return joined(sources)


def _exists(place: str) -> bool:
    try:
        return Path(place).exists()
    except (OSError, ValueError):  # too long for a name, or with a zero byte: a text
        return False
