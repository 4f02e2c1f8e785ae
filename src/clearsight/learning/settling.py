"""What a recipe leaves open is settled by the data, with a sentence for each choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from clearsight.checkup.likeness import Seen
from clearsight.learning.recipe import Recipe, Strategy

SMALL = 64  # pixels: pictures whose longer side is at most this are for a small network from random weights
FEW, SOME = 20, 1000  # training pictures of a class: with fewer the head alone is trained, or all but gradually
PLAIN = 'clearsight:plain-cnn(widths="32,64,128", padding=1, pools="2,2,1", norm=batch, head=average, dense="")'
LEAST = 12  # pixels, for its two poolings
STEPS = 400  # what training takes at least, where pictures are few
EPOCHS = (5, 30)


def settled(recipe: Recipe, seen: Sequence[Seen], classes: Mapping[str, int]) -> tuple[Recipe, list[str]]:
    """The recipe without anything automatic, and why.

    seen: the training pictures from outside; classes: how many training pictures each has.
    """
    why: list[str] = []
    n, side = sum(classes.values()), median(max(s.size) for s in seen)
    small = side <= SMALL
    if recipe.arch == "auto":
        recipe = replace(recipe, arch=PLAIN if small else "demo")
        why.append(
            f"arch {recipe.arch}: pictures have {side:g} pixels along their longer side, "
            + (f"{SMALL} or fewer, too small for networks trained on photographs" if small else "like photographs")
        )
        if small and recipe.size is None:
            recipe = replace(recipe, size=max(round(side), LEAST), grey=recipe.grey or all(s.mode == "L" for s in seen))
            why.append(f"size {recipe.size}: that of the pictures{', which are grey' if recipe.grey else ''}")
    random = recipe.weights == "none" or (recipe.arch.startswith("clearsight:") and recipe.weights is None)
    if recipe.strategy == "auto":
        each = n / len(classes)
        recipe = replace(recipe, strategy="full" if random else _strategy(each))
        why.append(
            f"strategy {recipe.strategy}: "
            + ("the weights are random" if random else f"{each:.0f} training pictures for each class on average")
        )
    if recipe.epochs is None:
        epochs = min(max(round(STEPS * recipe.batch / n), EPOCHS[0]), EPOCHS[1])
        recipe = replace(recipe, epochs=epochs)
        why.append(f"epochs {epochs}: about {STEPS} steps of {recipe.batch} pictures, from {EPOCHS[0]} to {EPOCHS[1]}")
    if recipe.augment == "auto":
        recipe = replace(recipe, augment="affine" if small else "crop, flip")
        why.append(f"augment {recipe.augment}: " + ("small pictures may be signs, which a mirror changes" if small else
                   "photographs are the same thing from nearer and in a mirror"))  # fmt: skip
    if recipe.lr == "auto":
        recipe = replace(recipe, lr=_rate(recipe.optimiser))
        why.append(f"lr {recipe.lr}: what {recipe.optimiser} is usually given")
    return recipe, why


def _strategy(each: float) -> Strategy:
    return "linear" if each < FEW else "gradual" if each < SOME else "full"


def _rate(optimiser: str) -> str:
    return {"sgd": "0.05", "momentum": "0.01", "nesterov": "0.01", "adagrad": "0.01"}.get(optimiser, "0.003")
