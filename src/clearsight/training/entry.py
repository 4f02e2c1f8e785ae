"""`train`: what the data hold says whether a classifier, a detector or a segmenter is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from clearsight.core.progress import Progress
from clearsight.data.box_folders import open_boxes
from clearsight.data.duplicates import Likeness
from clearsight.data.mask_folders import open_masks
from clearsight.data.records import Pictures
from clearsight.data.split_words import ALL
from clearsight.data.truth_found import truth_found
from clearsight.errors import Refused
from clearsight.training.history import Epoch
from clearsight.training.loop import train as train_classifier
from clearsight.training.objects.history import ObjectEpoch
from clearsight.training.objects.loop import train_objects
from clearsight.training.objects.recipe import ObjectRecipe, of_options
from clearsight.training.recipe import Recipe
from clearsight.training.recipe_fields import non_default

ASK = "say what is to be trained: boxes=... for a detector (--boxes), masks=... for a segmenter (--masks)"


def train(
    data: str | Path | Pictures,
    recipe: Recipe | ObjectRecipe | None = None,
    out: str | Path | None = None,
    *,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    resume: bool = False,
    alike: Likeness | None = None,
    command_line: str = "",
    device: str = "auto",
    workers: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
    save_first: bool = True,
) -> Iterator[Epoch] | Iterator[ObjectEpoch]:
    """Train a classifier, a detector or a segmenter, written to a folder that `load` reads; yields each epoch.

    Pictures with boxes train a detector, pictures with masks a segmenter, all others a classifier.  The epoch that is
    best on val is kept, and judged at the end on test.

    Args:
        data: a folder of pictures, or a table of them, of which every split is used; or pictures that were opened.
        recipe: how it is trained: Recipe of a classifier, ObjectRecipe of the others; None for the usual one.
        out: folder of the run; None for the next clearsight-runs/train-N.
        boxes: file or folder with the boxes of the pictures: a detector is trained.
        masks: file or folder with the class of each pixel: a segmenter is trained.
        resume: go on with the run in out.  On a CPU it ends bit for bit as if it had never been stopped, given as many
            threads as before; a Notice says if the threads, the device or PyTorch are others.
        alike: of a classifier, the duplicates among data.pictures, if they are known; None finds them.
        command_line: command that the folder records, if it is not that of this call alone.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest that is available.
        workers: number of processes that read pictures, which does not change the result; 0 reads them in this process.
        progress: called with the name of the step, the number of pictures done and the total.
        say: called with each sentence on what was chosen, and why.
        save_first: of a classifier, write the first model as a whole folder as soon as there is one.

    Refused: data or a recipe that cannot be trained, a folder that holds both classes and boxes or masks, one that
    holds another run, duplicates that are stated for a detector or a segmenter, and a loss that is not finite.
    """
    opened = with_truth(data, boxes, masks, needed=isinstance(recipe, ObjectRecipe), guided=_is_guided(recipe))
    if opened is None:
        assert not isinstance(recipe, ObjectRecipe)
        return train_classifier(
            data, recipe, out, resume=resume, alike=alike, command_line=command_line, device=device, workers=workers,
            progress=progress, say=say, save_first=save_first,
        )  # fmt: skip
    if alike is not None:
        raise Refused(
            "alike is of classifiers", "leave it out: detectors and segmenters find the duplicates themselves"
        )
    chosen = of_options(non_default(recipe)) if isinstance(recipe, Recipe) else recipe
    return train_objects(
        opened, chosen, out, resume=resume, command_line=command_line, device=device, workers=workers,
        progress=progress, say=say,
    )  # fmt: skip


def with_truth(
    data: str | Path | Pictures,
    boxes: str | Path | None = None,
    masks: str | Path | None = None,
    *,
    voc_base: int | None = None,
    needed: bool = False,
    guided: bool = False,
) -> Pictures | None:
    """The pictures of every split with the truth for a detector or a segmenter; None where they train a classifier.

    Args:
        data: a folder, or pictures that were opened.
        boxes: where the boxes are, if it is stated.
        masks: where the masks are, if it is stated.
        voc_base: what Pascal VOC calls the first pixel; None decides it from its files.
        needed: a classifier is not what is asked for.
        guided: the recipe of a classifier takes the boxes or masks, so that they do not make it another kind.

    Refused: boxes together with masks, and a folder that holds several kinds of truth, of which none is stated.
    """
    if boxes is not None and masks is not None:
        raise Refused("boxes and masks are both given: give one of them")
    if isinstance(data, Pictures):
        if boxes is not None or masks is not None:
            raise Refused("boxes or masks for pictures that were opened: give their folder instead of the pictures")
        return data if data.objects or needed else None
    path = Path(data)
    if boxes is not None:
        base = () if voc_base is None else ("--voc-base", str(voc_base))
        return _named(open_boxes(path, boxes, split=ALL, voc_base=voc_base), "--boxes", str(boxes), *base)
    if masks is not None:
        return _named(open_masks(path, masks, split=ALL), "--masks", str(masks))
    found = () if guided else truth_found(path)
    if "boxes" not in found and "masks" not in found:
        if needed:
            raise Refused(f"no boxes or masks are found in {path}", ASK)
        return None
    if len(found) > 1:
        raise Refused(
            f"{path} holds {' and '.join(found)}",
            ASK + ("; for a classifier take the annotations out of the folder" if "classes" in found else ""),
        )
    if found[0] == "boxes":
        return open_boxes(path, split=ALL, voc_base=voc_base)
    return open_masks(path, split=ALL)


def _named(data: Pictures, *words: str) -> Pictures:
    """The pictures, with the options of the command line that say where their truth is."""
    return replace(data, words=words)


def _is_guided(recipe: Recipe | ObjectRecipe | None) -> bool:
    return isinstance(recipe, Recipe) and (recipe.guide is not None or recipe.avoid is not None)
