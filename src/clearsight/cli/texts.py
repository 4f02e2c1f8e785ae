"""What commands do with a model of texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from clearsight.cli.inputs import hired, load_classifier, seconds, typed
from clearsight.cli.options import DataOptions, ModelOptions, RunOptions, WorkerOptions
from clearsight.cli.output import end, sayer, typed_command
from clearsight.core.tables import names_table, one_row
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
    sharing: WorkerOptions,
    run: RunOptions,
    *,
    tests: bool,
) -> None:
    """Explain texts: each in colours, or as JSON; with --quiet only the folder is printed."""
    from rich.console import Console

    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_folder
    from clearsight.explaining.explain_texts import explain_texts

    model = load_classifier(name, about_model, run, "explain")
    data = given_texts(places, about_data)
    with progress(run.silent, data.thing) as tell, hired(sharing):
        explained = explain_texts(
            model, data, methods, target, lambda: new_folder("explain", out), seed=run.seed, tests=tests, progress=tell
        )
    say = sayer(run.silent)
    for note in explained.notes:
        say(f"note: {note}")
    for entry, reason in explained.broken:
        say(f"left out {entry}: {reason}")
    if run.json:
        print(json.dumps(explained.as_dict(), indent=1, ensure_ascii=False))
    elif run.quiet:
        print(explained.folder)
    else:
        console = Console()
        for e in explained.texts:
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
    sharing: WorkerOptions,
    run: RunOptions,
) -> NoReturn:
    """Attack texts, and end with the status of the report."""
    from clearsight.attacking.text_report import attack_text_report
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run

    model = load_classifier(name, about_model, run, "attack")
    data = given_texts(places, about_data)
    with (
        new_run("attack", out, holds="report.json") as folder,
        progress(run.silent, data.thing) as report_progress,
        hired(sharing),
    ):
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
    """Texts that were typed, and those of files, tables and folders that exist.

    Refused: options of pictures, pictures of the demos, and tables that do not exist.
    """
    from clearsight.data.datasets import joined
    from clearsight.data.text_inputs import as_inputs
    from clearsight.data.text_records import Text, Texts
    from clearsight.data.text_sources import texts

    if of_pictures := [
        f"--{n.replace('_', '-')}" for n in ("boxes", "voc_base", "masks") if getattr(about, n) is not None
    ]:
        raise Refused(
            f"{', '.join(of_pictures)}: the model takes texts, which have no boxes or masks",
            "mark their characters in a column of the table (--marks-column)",
        )
    sources = []
    for number, place in enumerate(places, 1):
        if _exists(place):
            columns = {n: getattr(about, n) for n in ("text_column", "label_column", "marks_column")}
            sources.append(as_inputs(texts(place, split=about.split, classes=about.classes, **columns)))
        elif place.startswith("demo:"):
            raise Refused(f"{place} holds pictures, and the model takes texts")
        elif names_table(place):
            raise Refused(f"{place}: there is no such table", "words that are a text themselves go into a .txt file")
        elif place.strip():
            sources.append(as_inputs(Texts("", (Text(f"text {number}", place),))))
        else:
            raise Refused("an empty text is given: type one in quotes, or name a file")
    return joined(sources)


def _exists(place: str) -> bool:
    try:
        return Path(place).exists() or one_row(place) is not None
    except (OSError, ValueError):  # too long for a name, or with a zero byte: a text
        return False
