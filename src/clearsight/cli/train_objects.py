"""clearsight train, of detectors and segmenters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from clearsight.cli.options import RunOptions
from clearsight.cli.output import is_typed, sayer, show_sheet
from clearsight.errors import Refused
from clearsight.training.recipe import Recipe
from clearsight.training.recipe_fields import flag

_PLACES = ("boxes", "masks", "voc_base")


@dataclass(frozen=True)
class ObjectOptions:
    """What trains a detector or a segmenter, and what its recipe has beside that of a classifier."""

    boxes: Annotated[
        Path | None, typer.Option(help="Train a detector on these boxes: COCO JSON, Pascal VOC, YOLO, ...")
    ] = None
    voc_base: Annotated[
        int | None, typer.Option(min=0, max=1, help="First pixel of Pascal VOC; by default decided from all files.")
    ] = None
    masks: Annotated[
        Path | None, typer.Option(help="Train a segmenter on these masks: PNGs of class numbers, or outlines.")
    ] = None
    flips: Annotated[str, typer.Option(help="Boxes and masks: mirror pictures across, both ways, or none.")] = "across"
    scale: Annotated[float, typer.Option(help="Boxes and masks: enlarge or shrink by up to this share.")] = 0.25
    least: Annotated[float, typer.Option(help="Boxes: pixels of the input that an object needs to be learned.")] = 3.0
    floor: Annotated[float, typer.Option(help="Boxes: lowest score of a box that is reported.")] = 0.05
    overlap: Annotated[float, typer.Option(help="Boxes: largest IoU of two reported boxes of a class.")] = 0.5
    loss: Annotated[str, typer.Option(help="Masks: cross-entropy, dice, or both.")] = "cross-entropy"


def train_on_objects(
    context: typer.Context,
    data: str,
    out: Path | None,
    resume: bool,
    workers: int,
    run: RunOptions,
    recipe: Recipe,
    objects: ObjectOptions,
    others: Mapping[str, Any],
) -> bool:
    """Train a detector or a segmenter if the options or the folder say so; whether that is done.

    others: options of classifiers alone, by name, None where they are not given.  Refused: these with boxes or masks,
    and options of detectors and segmenters where a classifier is to be trained.
    """
    stated = objects.boxes is not None or objects.masks is not None
    if not stated and (data == "demo" or not Path(data).is_dir() or any(v is not None for v in others.values())):
        return _refuse_object_options(context)
    from clearsight.training.entry import with_truth

    guided = recipe.guide is not None or recipe.avoid is not None
    with_boxes = with_truth(data, objects.boxes, objects.masks, voc_base=objects.voc_base, guided=guided)
    if with_boxes is None:
        return _refuse_object_options(context)
    if given := [flag(name) for name, value in others.items() if value is not None]:
        raise Refused(f"{given[0]} is of the training of classifiers, not of detectors and segmenters: leave it out")
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import unless_empty
    from clearsight.training.objects.loop import train_objects
    from clearsight.training.objects.recipe import of_options
    from clearsight.training.run_folder import place

    typed = {k: v for k, v in {**asdict(recipe), **asdict(objects)}.items() if is_typed(context, k)}
    chosen = of_options({k: v for k, v in typed.items() if k not in _PLACES})
    folder = place(out, resume)
    say = sayer(run.silent)
    with unless_empty(folder), progress(run.silent) as tell:
        try:
            for epoch in train_objects(
                with_boxes, chosen, folder, resume=resume, device=run.device, workers=workers, progress=tell, say=say
            ):
                say(epoch.line())
        except KeyboardInterrupt:
            again = f"the same command with -o {folder} --resume"
            raise Refused(f"stopped; {again} continues the training") from None
    _show(folder, run)
    return True


def _refuse_object_options(context: typer.Context) -> bool:
    """Refuse options of detectors and segmenters where a classifier is trained; False where there are none."""
    if given := [f.name for f in fields(ObjectOptions) if is_typed(context, f.name)]:
        raise Refused(
            f"{flag(given[0])} is of the training of detectors and segmenters: say with --boxes or --masks where the "
            "boxes or masks are, or leave it out"
        )
    return False


def _show(folder: Path, run: RunOptions) -> None:
    from clearsight.reporting.report import Report
    from clearsight.training.run_folder import METRICS

    if run.json:
        print((folder / METRICS).read_text(encoding="utf-8"), end="")
    elif run.quiet:
        print(folder)
    else:
        show_sheet(Report.read(folder), folder)
