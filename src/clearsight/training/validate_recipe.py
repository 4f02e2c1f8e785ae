"""Checks of a recipe that need no pictures, made before any picture is read."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from clearsight.errors import Refused
from clearsight.models import architectures
from clearsight.models.loading import device_of
from clearsight.models.model_words import LIBRARIES
from clearsight.models.weights import read_weights
from clearsight.runner.augment import augment, fits_regions, read
from clearsight.training.continued import origin, refuse_its_own
from clearsight.training.fine_tuning import check_name
from clearsight.training.guidance import MARKS
from clearsight.training.objective import objective
from clearsight.training.optimisers import optimiser
from clearsight.training.rebalance import check_rebalancing
from clearsight.training.recipe import Recipe, marks_file
from clearsight.training.trial_step import try_defence

SIDE = 16  # pixels of the noise on which augmentations are tried


def validate(recipe: Recipe, device: str = "auto") -> None:
    """Refuse networks, optimisers, augmentations, devices or options that do not exist."""
    device_of(device)
    try_defence(objective(recipe))
    check_rebalancing(recipe)
    if recipe.from_run is not None:
        refuse_its_own(recipe)
        origin(recipe.from_run)
    _check_annotations(marks_file(recipe))
    if marks_file(recipe) is not None and recipe.augment != "auto":
        fits_regions(read(recipe.augment))
    if recipe.arch != "auto":
        check_name(recipe.arch, recipe.weights)
    if recipe.arch.startswith(LIBRARIES):
        architectures.default_preprocess(recipe.arch)
    if recipe.weights not in (None, "none") and not Path(str(recipe.weights)).is_file():
        read_weights(Path(str(recipe.weights)))  # which says what is wrong
    nothing = torch.zeros(1, requires_grad=True)
    group = {"params": [nothing], "lr": 0.001, "weight_decay": recipe.decay}
    optimiser(recipe.optimiser, [group], lr=0.001, momentum=recipe.momentum)
    if recipe.augment != "auto":
        noise = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        augment(list(noise), torch.eye(4), read(recipe.augment), (SIDE, SIDE), seed=0)


def _check_annotations(words: str | None) -> None:
    """Refuse a file or folder of annotations that is not there, before all pictures are read for nothing."""
    if words is not None and words != MARKS and not os.path.exists(words):
        raise Refused(
            f"no annotations at {words}: there is no such file or folder", f"name one, or of texts give {MARKS}"
        )
