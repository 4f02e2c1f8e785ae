"""The characters that a network of texts tells apart."""

from __future__ import annotations

from dataclasses import replace

from clearsight.data.text_encoding import PRINTABLE, text_preprocess, unknown_note
from clearsight.errors import Refused
from clearsight.training.recipe import Recipe
from clearsight.training.training_data import TrainingData

OF_TRAIN = "data"  # stands for all characters that occur in train


def check_alphabet(recipe: Recipe, texts: bool) -> None:
    """Refuse an alphabet for pictures, and one that names a character twice."""
    if recipe.alphabet and not texts:
        raise Refused("alphabet: the inputs are pictures, which have none: leave --alphabet out")
    if recipe.alphabet and recipe.alphabet != OF_TRAIN:
        text_preprocess(1, recipe.alphabet)


def with_alphabet(data: TrainingData, recipe: Recipe, known: str = "") -> tuple[TrainingData, Recipe, list[str]]:
    """The data with a note on unknown characters, and the recipe with the alphabet itself, and why where it is chosen.

    known: the alphabet of the run that is continued, "" where none is.
    """
    why = []
    if recipe.alphabet == OF_TRAIN:
        letters = sorted({c for i in data.rows("train") for c in data.pictures[i].text or ""})
        recipe = replace(recipe, alphabet="".join(letters))
        why.append(f"alphabet: the {len(letters)} characters of the training texts")
    alphabet = known or recipe.alphabet or PRINTABLE
    notes = unknown_note([p.text or "" for p in data.pictures], alphabet)
    return replace(data, notes=(*data.notes, *notes)), recipe, why
