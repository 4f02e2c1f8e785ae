"""The options that several verbs share: what each is, and how a group of them becomes options of a command."""

from __future__ import annotations

import functools
import inspect as inspection
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from clearsight.training import recipe

MODEL = "demo, timm:NAME, torchvision:NAME, clearsight:NAME, a run folder, an export, or package.module:factory"
DATA = "demo, a folder of pictures (class/x.jpg or split/class/x.jpg), a CSV, or a picture"

Model = Annotated[str, typer.Argument(metavar="[MODEL]", help=MODEL, show_default=True)]
Data = Annotated[str, typer.Argument(metavar="[DATA]", help=DATA, show_default=True)]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the results.", show_default=False)]
Only = Annotated[
    list[str] | None, typer.Option(help='Checks to run: "accuracy, robustness(steps=40)"; may be repeated.')
]
Method = Annotated[str, typer.Option("-m", "--method", help="The explainer that the checks use.")]
LabelColumn = Annotated[str | None, typer.Option(help="The column of the table that holds the class.")]
TextColumn = Annotated[str | None, typer.Option(help="The column of the table that holds texts: NAME, or NAME,NAME.")]
MarksColumn = Annotated[str | None, typer.Option(help="The column of the table that marks characters of its texts.")]
Trust = Annotated[bool, typer.Option("--trust", help="Let a run folder name code that is run, and a .pt2 hold it.")]
Labels = Annotated[Path | None, typer.Option(help="Class names of the model: one per line, or a JSON list.")]
PreprocessWords = Annotated[str | None, typer.Option(help="Its preprocessing: a JSON file, or timm:NAME.")]
ScoresWord = Annotated[str | None, typer.Option(help="Outputs: logits, probabilities, one-logit, multi-label, values.")]
Workers = Annotated[int, typer.Option(min=0, help="Number of processes that read pictures; 0 reads in this one.")]


@dataclass(frozen=True)
class ModelOptions:
    """How the words for a model are read."""

    weights: Annotated[
        str | None, typer.Option(help="FILE with weights for timm:, torchvision: and clearsight:, or none.")
    ] = None
    labels: Labels = None
    preprocess: PreprocessWords = None
    output: Annotated[str | None, typer.Option(help="The part of a tuple or dict output that holds the scores.")] = None
    scores: ScoresWord = None
    trust: Trust = False


@dataclass(frozen=True)
class DataOptions:
    """What is known of pictures beside their files."""

    boxes: Annotated[
        Path | None, typer.Option(help="Boxes or outlines: COCO, Label Studio, LabelMe, Pascal VOC, YOLO, CSV.")
    ] = None
    voc_base: Annotated[
        int | None, typer.Option(min=0, max=1, help="First pixel of Pascal VOC; by default decided from all files.")
    ] = None
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks: a PNG for each picture, not 0 on the object.")
    ] = None
    split: Annotated[str | None, typer.Option(help="Split of the data: train, val, test.")] = None
    label_column: LabelColumn = None
    text_column: TextColumn = None
    marks_column: MarksColumn = None
    classes: Annotated[
        Path | None, typer.Option(help='JSON: the data\'s class words -> the model\'s, {"cat": ["tabby"]}.')
    ] = None


@dataclass(frozen=True)
class RunOptions:
    """How the work is done, and what is said of it."""

    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of all randomness.")] = 0
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto"
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only where the result is, and no progress.")] = False

    @property
    def silent(self) -> bool:
        """Whether nothing is said while the work goes on."""
        return self.quiet or self.json


@dataclass(frozen=True)
class WorkerOptions:
    """Who shares the work on the pictures."""

    workers: Annotated[int, typer.Option(min=0, help="Processes that share the pictures; 0 works in this one.")] = 0
    ray: Annotated[str | None, typer.Option(help="Ray cluster that shares the pictures: its address, or local.")] = None


class Take:
    """In an annotation of a group: the options of it that a verb has.  The others keep their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


OfPictures = Annotated[DataOptions, Take("boxes", "voc_base", "masks", "split", "label_column", "classes")]
NamedData = Annotated[DataOptions, Take("split", "label_column", "text_column", "marks_column", "classes")]
Seeded = Annotated[RunOptions, Take("seed", "json", "quiet")]
Placed = Annotated[RunOptions, Take("device", "json", "quiet")]
Told = Annotated[RunOptions, Take("json", "quiet")]


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with the options of each group in the place of the parameter that takes the group.

    A group is a parameter whose type is a dataclass: its fields are the options.
    """
    flat: list[inspection.Parameter] = []
    groups: dict[str, tuple[Any, list[str]]] = {}
    for p in inspection.signature(verb, eval_str=True).parameters.values():
        group, *takes = get_args(p.annotation) or (p.annotation,)
        if not (isinstance(group, type) and is_dataclass(group)):
            flat.append(p.replace(kind=p.KEYWORD_ONLY))
            continue
        parameters = _options(group)
        names = [name for take in takes for name in take.names] or list(parameters)
        groups[p.name] = (group, names)
        flat += [parameters[name] for name in names]

    @functools.wraps(verb)
    def command(**words: Any) -> None:
        groups_given = {name: group(**{n: words.pop(n) for n in names}) for name, (group, names) in groups.items()}
        verb(**words, **groups_given)

    command.__signature__ = inspection.Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in flat}
    return command


def _options(group: Any) -> dict[str, inspection.Parameter]:
    """The fields of a group as parameters of a command."""
    if group is recipe.Recipe:  # it is of Python as much as of the command line: its help stands beside it
        described = {
            name: (Annotated[kind, typer.Option(*flags, help=about, show_default=shown)], default)
            for name, (kind, default, about, flags, shown) in recipe.options().items()
        }
    else:
        hints = get_type_hints(group, include_extras=True)
        described = {f.name: (hints[f.name], f.default) for f in fields(group)}
    return {
        name: inspection.Parameter(name, inspection.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in described.items()
    }
