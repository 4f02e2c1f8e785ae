"""Training that continues from a run: its network with all its weights, its input, its classes and its split."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from clearsight.core.tables import read_table
from clearsight.core.text import counted
from clearsight.data.datasets import Picture, Pictures
from clearsight.data.text_rows import read_text_rows
from clearsight.errors import Refused
from clearsight.models.loading import load
from clearsight.models.model_folder import RECIPE, SPLIT, Config, read_config
from clearsight.models.model_words import is_run
from clearsight.training.fine_tuning import TrainableNetwork, head_of
from clearsight.training.recipe import Recipe, read_recipe
from clearsight.training.recipe_fields import flag, non_default
from clearsight.training.training_data import TrainingData

_ITS_OWN = ("arch", "weights", "size", "alphabet", "grey", "dropout")  # what the run decides


@dataclass(frozen=True)
class Origin:
    """The run that training continues from.

    recipe: how it was trained itself, None where it was not trained by clearsight.
    """

    folder: Path
    config: Config
    recipe: Recipe | None

    @property
    def pretrained(self) -> bool:
        """Whether its layers come from weights of photographs, so that they go on learning slowly."""
        r = self.recipe
        return r is None or not (r.weights == "none" or (r.arch.startswith("clearsight:") and r.weights is None))


def refuse_its_own(recipe: Recipe) -> None:
    """Refuse options that the run decides which a recipe continues from."""
    if given := [name for name in _ITS_OWN if name in non_default(recipe)]:
        raise Refused(f"{flag(given[0])} with --from: the run decides it, so leave it out")


def refuse_other_split(recipe: Recipe) -> None:
    """Refuse options that say how pictures are divided, where the run that a recipe continues from has divided them."""
    asked = [name for name in ("shares", "split_seed") if name in non_default(recipe)]
    if recipe.random_labels:
        asked = [name for name in asked if name != "split_seed"]  # which draws the labels too
    if asked:
        raise Refused(
            f"{flag(asked[0])} with --from: pictures that {recipe.from_run} knows stay in the part that its {SPLIT} "
            "says, so it has no effect",
            "leave it out",
        )


def origin(words: str) -> Origin:
    """The run that a recipe continues from.

    Refused: a folder that is no run, and a network whose outputs are not the logits of classes.
    """
    folder = Path(words)
    if not is_run(folder):
        raise Refused(f"--from {folder} is no folder of a model", "name the folder of a run of clearsight train")
    config = read_config(folder)
    if config.output is not None or config.scores != "logits":
        raise Refused(
            f"the model in {folder} gives {config.scores}{'' if config.output is None else ' in a part of its output'}",
            "training continues from networks whose output is the logits of the classes",
        )
    trained_here = (folder / RECIPE).is_file()
    return Origin(folder, config, read_recipe(folder / RECIPE)[2] if trained_here else None)


def inherited(recipe: Recipe, source: Origin) -> Recipe:
    """The recipe with what the run decides, and without a first head, which would replace the one that is there.

    How pictures are varied is taken from the run too, unless the recipe says it.
    """
    config = source.config
    augment = recipe.augment
    if augment == "auto" and source.recipe is not None:
        augment = read_recipe(source.folder / RECIPE)[0].augment
    return replace(
        recipe,
        arch=config.architecture,
        size=config.preprocess.size[0],
        alphabet=config.preprocess.alphabet,
        grey=config.preprocess.channels == 1,
        augment=augment,
        strategy="full" if recipe.strategy == "auto" else recipe.strategy,
        first_head=False,
    )


def continued_network(source: Origin) -> TrainableNetwork:
    """The network of the run, with all its weights."""
    model, config = load(str(source.folder)), source.config
    head = head_of(config.architecture, len(config.labels), config.preprocess, config.options, model.net)
    return TrainableNetwork(
        model.net,
        config.architecture,
        config.options,
        config.preprocess,
        head,
        str(source.folder) if source.pretrained else "",
        config.channels_last,
    )


def divided_as_before(pictures: Pictures, source: Origin) -> Pictures:
    """The pictures, those that the run knows in the part that its split.csv says, all others in train.

    Pictures of which the run knows none are divided as always.
    """
    table = source.folder / SPLIT
    if not table.is_file():
        return pictures
    parts = _parts(table, pictures)
    known = [parts.get(_identity(p), "") for p in pictures.pictures]
    if not any(known):
        note = (
            f"{source.folder} knows none of these pictures where they lie, so they are divided anew; if they were only "
            "moved, some of test may have trained it"
        )
        return replace(pictures, notes=(*pictures.notes, note))
    new = known.count("")
    divided = tuple(replace(p, split=part or "train") for p, part in zip(pictures.pictures, known, strict=True))
    notes = [f"divided as {source.folder} was"]
    if new:
        notes.append(f"{counted(new, 'picture')} that it does not know {'is' if new == 1 else 'are'} in train")
    return replace(pictures, pictures=divided, notes=(*pictures.notes, *notes))


def _parts(table: Path, pictures: Pictures) -> dict[str, str]:
    """The part of each picture that a split.csv names, by the file; of each text by its characters."""
    if pictures.are_texts:
        return {row["text"]: row["split"] for _, row in read_text_rows(table)[1]}
    columns, rows = read_table(table)
    if lost := [name for name in ("file", "split") if name not in columns]:
        raise Refused(f"{table} has no column {lost[0]}, so it does not say how its pictures were divided")
    return {os.path.realpath(table.parent / row["file"]): row["split"] for row in rows}


def _identity(picture: Picture) -> str:
    return os.path.realpath(picture.path) if picture.text is None else picture.text


def with_classes(data: TrainingData, source: Origin) -> TrainingData:
    """The data with the classes of the run in their order.  Refused: pictures of a class that the run does not have."""
    labels = source.config.labels
    if unknown := [label for label in data.labels if label not in labels]:
        raise Refused(
            f"the pictures have the class {unknown[0]!r}, which {source.folder} does not know",
            f"its classes are {', '.join(labels[:5])}{', ...' if len(labels) > 5 else ''}",
        )
    y = torch.zeros(len(data.y), len(labels))
    for k, label in enumerate(data.labels):
        y[:, labels.index(label)] = data.y[:, k]
    return replace(data, labels=labels, y=y)
