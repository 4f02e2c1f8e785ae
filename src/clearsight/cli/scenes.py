"""What `attack` and `explain` do with a detector or a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from clearsight.cli.inputs import hired, numbers, seconds
from clearsight.cli.options import DataOptions, RunOptions, WorkerOptions
from clearsight.cli.output import end, sayer, typed_command
from clearsight.errors import Refused

if TYPE_CHECKING:
    from clearsight.core.model import Model
    from clearsight.kinds.detector import Detector
    from clearsight.kinds.segmenter import Segmenter


@dataclass(frozen=True)
class SceneOptions:
    """What an attack on a detector or a segmenter is for."""

    goal: Annotated[
        str | None,
        typer.Option(help="Of a detector: vanish, appear, become, anything; of a segmenter: misread, become."),
    ] = None
    score_floor: Annotated[
        float | None,
        typer.Option(help="Of a detector: score above which a box counts as found; by default 0.5."),
    ] = None


def refuse_options(given: dict[str, Any], why: str, fix: str = "leave it out") -> None:
    """Refuse the options that have a value, by name."""
    if named := [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]:
        raise Refused(f"{', '.join(named)} {why}", fix)


def unless(value: str, usual: str) -> str | None:
    """The value of an option, None where it is the usual one."""
    return None if value == usual else value


def given_of(about: DataOptions, *names: str) -> dict[str, Any]:
    """Some of the options of data, by name."""
    return {name: getattr(about, name) for name in names}


def refuse_outlines(model: Model, about: DataOptions) -> None:
    """Refuse what `explain` outlines for a classifier alone."""
    if model.kind != "classifier":
        given = given_of(about, "boxes", "voc_base", "masks", "label_column", "classes")
        refuse_options(given, f"is for a classifier, and the model is a {model.kind}, whose own answer is outlined")


def attack_scenes_of(
    model: Model,
    places: Sequence[str],
    method: str | None,
    target: str | None,
    eps: str | None,
    curve: str | None,
    access: str,
    floor: float,
    pictures: int,
    budget: str | None,
    out: Path | None,
    about_data: DataOptions,
    about_scenes: SceneOptions,
    sharing: WorkerOptions,
    run: RunOptions,
) -> NoReturn:
    """Attack the pictures of a detector or a segmenter, and end with the status of the report."""
    from clearsight.attacking.report import USUAL
    from clearsight.attacking.scene_pictures import open_scenes
    from clearsight.attacking.scene_report import attack_scenes
    from clearsight.core.run_names import new_run

    chosen, time_limit = cast("Detector | Segmenter", model), seconds(budget)
    score_floor = about_scenes.score_floor
    if model.kind == "segmenter":
        refuse_options({"score_floor": score_floor}, "is for a detector, and the model is a segmenter")
    say = sayer(run.silent)
    about = given_of(about_data, "boxes", "voc_base", "masks", "split")
    scenes, notes = open_scenes(chosen, places, pictures=pictures, seed=run.seed, **about)
    for note in notes:
        say(f"note: {note}")
    if scenes.truth is None:
        option = "--boxes" if model.kind == "detector" else "--masks"
        say(f"no annotations ({option}): what the model finds in the clean pictures counts as right")
    with new_run("attack", out, holds="report.json") as folder, hired(sharing):
        report = attack_scenes(
            chosen,
            scenes,
            method or USUAL,
            aim=cast(Any, about_scenes.goal),
            target=target,
            eps=None if eps is None else numbers(eps, "--eps")[0],
            curve=None if curve is None else numbers(curve, "--curve"),
            access=access,
            score_floor=0.5 if score_floor is None else score_floor,
            floor=floor,
            seed=run.seed,
            budget=time_limit,
            command=typed_command(),
        )
        report.save(folder)
    end(report, folder, run)
