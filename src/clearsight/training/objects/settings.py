"""The automatic values of the recipe of a detector or a segmenter, with a sentence for each choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from clearsight.core.catalogue import catalogue
from clearsight.core.preprocess import Preprocess
from clearsight.data.truth_to_input import box_to_input
from clearsight.errors import Refused, nearest
from clearsight.models import architectures
from clearsight.training.objects.prepared import ObjectData
from clearsight.training.objects.recipe import ObjectRecipe

SIDE = 320  # pixels of the longer side
GRID = 16  # the sides are a multiple of it
STEPS = 480  # what training should come to
EPOCHS = (10, 60)
USUAL = {"detector": "clearsight:fcos", "segmenter": "clearsight:fcn"}
FOLDERS = {"detector": "detectors", "segmenter": "segmenters"}
TINY = 8.0  # pixels: places of the finest maps are as far apart


def spelled(arch: str, kind: str) -> str:
    """The library's spelling of a network of this kind: "fcos" is clearsight:fcos.

    Refused: what is no network of this kind.
    """
    if arch == "auto":
        return USUAL[kind]
    words = arch if arch.startswith(("clearsight:", "torchvision:", "timm:")) else f"clearsight:{arch}"
    name = words.partition("(")[0].partition(":")[2]
    known = list(catalogue(FOLDERS[kind]))
    if words.startswith("clearsight:") and name not in known:
        raise Refused(f"arch {arch!r}: {nearest(name, known)}, for a {kind}")
    if name == "heatmaps":
        raise Refused("heatmaps finds landmarks, and here are masks of classes: give fcn or unet")
    if (real := architectures.kind_of(words)) != kind:
        raise Refused(f"arch {arch} is a {real}, and these pictures train a {kind}: {nearest(name, known)}")
    return words


def resolve(recipe: ObjectRecipe, data: ObjectData) -> tuple[ObjectRecipe, list[str]]:
    """The recipe without anything automatic, and a sentence on each value that was chosen."""
    why: list[str] = []
    kind = data.kind
    arch = spelled(recipe.arch, kind)
    if recipe.arch == "auto":
        why.append(f"arch {arch}: the pictures have {'boxes' if kind == 'detector' else 'masks'}")
    recipe = replace(recipe, arch=arch)
    sizes = [data.seen[i].size for i in data.rows("train")]
    if recipe.size is None:
        longest = round(median(max(size) for size in sizes))
        recipe = replace(recipe, size=min(SIDE, max(2 * GRID, -(-longest // GRID) * GRID)))
        reason = "that of the pictures" if longest <= SIDE else f"pictures of {SIDE} pixels are learned in minutes"
        why.append(f"size {recipe.size}, the longer side: {reason}")
    if recipe.epochs is None:
        n = len(sizes)
        epochs = min(max(round(STEPS * recipe.batch / n), EPOCHS[0]), EPOCHS[1])
        recipe = replace(recipe, epochs=epochs)
        why.append(f"epochs {epochs}: about {STEPS} steps of {recipe.batch} pictures, from {EPOCHS[0]} to {EPOCHS[1]}")
    if recipe.augment == "auto":
        recipe = replace(recipe, augment="colour-jitter(hue=0)")
        why.append(f"augment {recipe.augment}: it moves no pixel; flips {recipe.flips} and scale move the truth too")
    if recipe.lr == "auto":
        recipe = replace(recipe, lr="0.05" if recipe.optimiser == "sgd" else "0.001")
        why.append(f"lr {recipe.lr}: the usual rate for {recipe.optimiser}")
    return recipe, why


def input_size(recipe: ObjectRecipe, data: ObjectData) -> tuple[int, int]:
    """(height, width) of the network's input: the longer side is that of the recipe, the proportions those of train."""
    assert recipe.size is not None
    sizes: Sequence[tuple[int, int]] = [data.seen[i].size for i in data.rows("train")]
    proportion = median(width / height for width, height in sizes)
    shorter = max(2 * GRID, round(recipe.size * min(proportion, 1 / proportion) / GRID) * GRID)
    return (shorter, recipe.size) if proportion >= 1 else (recipe.size, shorter)


def about_size(data: ObjectData, preprocess: Preprocess) -> list[str]:
    """Sentences on the input: its size, and how small the objects of train are in it."""
    height, width = preprocess.size
    notes = [f"the input is {height} x {width} pixels (height x width), in the proportions of most pictures"]
    sides = []
    for i in data.rows("train"):
        boxes = data.pictures[i].boxes
        if boxes is not None:
            there = box_to_input(boxes.boxes, boxes.size, preprocess)
            sides += (there[:, 2:] - there[:, :2]).amin(1).tolist()
    if sides and (small := sum(s < TINY for s in sides)):
        share = 100 * small / len(sides)
        notes.append(
            f"{small} of {len(sides)} objects of train ({share:.0f} %) are narrower than {TINY:g} pixels there: a "
            "larger --size finds more of them and takes longer"
        )
    return notes
