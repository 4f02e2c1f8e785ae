"""The automatic values of a recipe, chosen from the data, with a sentence for each choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from clearsight.data.duplicates import Seen
from clearsight.errors import Refused
from clearsight.training.recipe import Recipe

SMALL = 64  # pixels: pictures whose longer side is at most this are for a small network from random weights
FEW = 10  # training pictures of a class: with fewer the head alone is trained
PLAIN = 'clearsight:plain-cnn(widths="32,64,128", padding=1, pools="2,2,1", norm=batch, head=average, dense="")'
LEAST = 12  # pixels, for its two poolings
STEPS = 400  # what training should come to
EPOCHS = (5, 20)
CHARACTERS = "clearsight:character-cnn(embedding=16, width=64, pool=max)"
LEAST_CHARACTERS = 27  # which its deepest form needs
TEXT_STEPS = 4000  # what training on texts should come to, from random weights


def resolve_auto(recipe: Recipe, pictures: Sequence[Seen], classes: Mapping[str, int]) -> tuple[Recipe, list[str]]:
    """The recipe without anything automatic, and a sentence on each value that was chosen.

    pictures: size and colour of each training picture; classes: how many training pictures each class has.
    """
    if pictures[0].mode == "text":
        return resolve_auto_texts(recipe, max(s.size[0] for s in pictures), sum(classes.values()))
    why: list[str] = []
    n, side = sum(classes.values()), median(max(s.size) for s in pictures)
    small = side <= SMALL
    if recipe.arch == "auto":
        recipe = replace(recipe, arch=PLAIN if small else "demo")
        why.append(
            f"arch {recipe.arch}: pictures have {side:g} pixels along their longer side, "
            + (f"{SMALL} or fewer, too small for networks trained on photographs" if small else "like photographs")
        )
        if small and recipe.size is None:
            recipe = replace(recipe, size=max(round(side), LEAST))
            why.append(f"size {recipe.size}: the size of the pictures")
    random_weights = recipe.weights == "none" or (recipe.arch.startswith("clearsight:") and recipe.weights is None)
    if recipe.grey is None:
        recipe = replace(recipe, grey=random_weights and all(s.grey for s in pictures))
        if random_weights:
            why.append("grey: no picture has a colour" if recipe.grey else "no grey: there are pictures with colours")
    if recipe.strategy == "auto":
        per_class = n / len(classes)
        recipe = replace(recipe, strategy="full" if random_weights or per_class >= FEW else "linear")
        why.append(
            f"strategy {recipe.strategy}: "
            + (
                "the weights are random"
                if random_weights
                else f"{per_class:.0f} training pictures for each class on average"
            )
        )
    if recipe.epochs is None:
        epochs = min(max(round(STEPS * recipe.batch / n), EPOCHS[0]), EPOCHS[1])
        recipe = replace(recipe, epochs=epochs)
        why.append(f"epochs {epochs}: about {STEPS} steps of {recipe.batch} pictures, from {EPOCHS[0]} to {EPOCHS[1]}")
    if recipe.augment == "auto":
        recipe = replace(recipe, augment="affine" if small else "crop, flip")
        why.append(f"augment {recipe.augment}: " + ("small pictures may be signs, which mirroring changes" if small else
                   "a photograph shows the same thing when it is cropped or mirrored"))  # fmt: skip
    if recipe.lr == "auto":
        fine_tuning = recipe.from_run is not None or (not random_weights and recipe.strategy != "linear")
        recipe = replace(recipe, lr=_rate(recipe.optimiser, fine_tuning))
        where = " on layers that have learnt" if fine_tuning else ""
        why.append(f"lr {recipe.lr}: the usual rate for {recipe.optimiser}{where}")
    return recipe, why


def resolve_auto_texts(recipe: Recipe, longest: int, n: int) -> tuple[Recipe, list[str]]:
    """The same for n training texts, of which the longest has so many characters.

    Refused: a network that reads no texts, and augmentations, which are of pictures.
    """
    why: list[str] = []
    if recipe.arch == "auto":
        recipe = replace(recipe, arch=CHARACTERS)
        why.append(f"arch {recipe.arch}: the inputs are texts")
    if not recipe.arch.startswith("clearsight:character-cnn"):
        raise Refused(f"arch {recipe.arch} takes pictures, and the inputs are texts: give --arch {CHARACTERS!r}")
    if recipe.augment not in ("auto", "none", ""):
        raise Refused(f"augment {recipe.augment!r} changes pictures, and the inputs are texts: leave it out")
    if recipe.size is None:
        recipe = replace(recipe, size=max(longest, LEAST_CHARACTERS))
        why.append(f"size {recipe.size}: the characters of the longest text")
    if recipe.epochs is None:
        epochs = min(max(round(TEXT_STEPS * recipe.batch / n), EPOCHS[0]), EPOCHS[1])
        recipe = replace(recipe, epochs=epochs)
        why.append(
            f"epochs {epochs}: about {TEXT_STEPS} steps of {recipe.batch} texts, from {EPOCHS[0]} to {EPOCHS[1]}"
        )
    if recipe.lr == "auto":
        recipe = replace(recipe, lr=_rate(recipe.optimiser, False))
        why.append(f"lr {recipe.lr}: the usual rate for {recipe.optimiser}")
    return replace(recipe, augment="none", grey=False, strategy="full"), why


def _rate(optimiser: str, fine_tuning: bool) -> str:
    """A usual learning rate of the head; fine_tuning: pretrained layers learn too, at a share of it."""
    plain = {"sgd": "0.05", "momentum": "0.01", "nesterov": "0.01", "adagrad": "0.01"}
    return plain.get(optimiser, "0.001" if fine_tuning else "0.003")
