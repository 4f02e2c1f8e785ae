"""What training begins from: the divided pictures, the recipe without automatic values, and the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clearsight.data.datasets import Pictures
from clearsight.data.duplicates import Likeness, likenesses
from clearsight.data.text_inputs import refuse_other_kind, without_too_long
from clearsight.models.model_folder import RECIPE
from clearsight.training.alphabet import check_alphabet, with_alphabet
from clearsight.training.auto_settings import resolve_auto
from clearsight.training.continued import continued_network, divided_as_before, origin, refuse_other_split, with_classes
from clearsight.training.fine_tuning import TrainableNetwork, build_for_training
from clearsight.training.grouping import group_pictures
from clearsight.training.guidance import annotated
from clearsight.training.perturb import refuse_other_inputs
from clearsight.training.rebalance import check_groups, inherited_by, stage
from clearsight.training.recipe import Recipe, marks_file, read_recipe
from clearsight.training.recipe_fields import non_default
from clearsight.training.run_folder import same_data, same_recipe
from clearsight.training.training_data import TrainingData, at_random, portions


def prepare_data(
    folder: Path, pictures: Pictures, recipe: Recipe, alike: Likeness, resume: bool
) -> tuple[TrainingData, Recipe, list[str]]:
    """The divided pictures, and the recipe without automatic values: that of the run in the folder if it resumes."""
    run_recipe, why = recipe, list[str]()
    if resume:
        same_recipe(folder, non_default(recipe))
        run_recipe, why, _ = read_recipe(folder / RECIPE)
    refuse_other_inputs(run_recipe, pictures.are_texts)
    check_alphabet(run_recipe, pictures.are_texts)
    if pictures.are_texts:
        before = None if run_recipe.from_run is None else origin(run_recipe.from_run).config.preprocess
        length = before.size[0] if before and before.alphabet else None
        pictures = without_too_long(pictures, run_recipe.size or length)
        alike = likenesses(pictures.pictures)
    data, chosen = _divide(pictures, alike, run_recipe), list[str]()
    if pictures.are_texts:
        data, recipe, chosen = with_alphabet(data, run_recipe, before.alphabet if before else "")
    if resume:
        same_data(folder, data)
        return data, run_recipe, why
    taken = "its errors; the network begins anew" if stage(recipe) == "wrong" else "its network, with all its weights"
    notes = [f"from {run_recipe.from_run}: {taken}"] if run_recipe.from_run else []
    started = inherited_by(recipe, origin(recipe.from_run)) if recipe.from_run is not None else recipe
    seen = data.seen if pictures.are_texts else [data.seen[i] for i in data.rows("train")]  # all texts must fit
    settled, why = resolve_auto(started, seen, data.counts("train"))
    return data, settled, [*notes, *chosen, *why]


def check_division(pictures: Pictures, alike: Likeness, recipe: Recipe) -> None:
    """Refuse pictures so divided that no annotation is of train, or that a group that is needed has no member."""
    check_groups(_divide(pictures, alike, recipe), recipe)


def _divide(pictures: Pictures, alike: Likeness, recipe: Recipe) -> TrainingData:
    """The pictures in train, val and test, with the classes and the annotations that the recipe asks for."""
    source = None if recipe.from_run is None else origin(recipe.from_run)
    if source is not None:
        refuse_other_kind(pictures, source.config.preprocess)
        unchanged, pictures = pictures.pictures, divided_as_before(pictures, source)
        if pictures.pictures is not unchanged and any(p.split == "val" for p in pictures.pictures):
            refuse_other_split(recipe)
    data = portions(pictures, alike, recipe.parts(), recipe.divides())
    if source is not None:
        data = with_classes(data, source)
    if (marks := marks_file(recipe)) is not None:
        data = annotated(data, marks)
    if recipe.groups:
        data = replace(data, grouping=group_pictures(data.pictures, recipe.groups))
    return at_random(data, recipe.divides()) if recipe.random_labels else data


def build_start(data: TrainingData, recipe: Recipe, say: Callable[[str], None]) -> TrainableNetwork:
    """The network of a recipe, before training."""
    r = recipe
    if r.from_run is not None and stage(r) != "wrong":
        return continued_network(origin(r.from_run))
    return build_for_training(
        r.arch,
        r.weights,
        len(data.labels),
        size=r.size,
        alphabet=r.alphabet,
        grey=bool(r.grey),
        dropout=r.dropout,
        seed=r.seed,
        say=say,
    )
