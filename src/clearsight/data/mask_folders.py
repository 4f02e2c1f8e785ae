"""Open pictures with the class of each of their pixels: the truth for a segmenter.

Nothing is moved or written.  The notes say what was chosen, `problems` what is wrong with the annotations.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clearsight.data.annotation_formats.sheets import files_below
from clearsight.data.images import SUFFIXES
from clearsight.data.mask_sets import read_class_files, read_outlines
from clearsight.data.object_pictures import beside, finish, list_pictures, split_of_file, summed_up
from clearsight.data.records import Pictures
from clearsight.data.truth_classes import NAME_FILES, Labels, labels_of
from clearsight.data.truth_tables import open_listed
from clearsight.data.walk import named
from clearsight.errors import Refused

_PLACES = ("masks", "mask", "segmentationclass", "semantic", "segmentation", "annotations", "labels")
_FORMS = (".json", ".xml", ".txt", ".yaml", ".yml")


def open_masks(
    path: str | Path,
    masks: str | Path | None = None,
    labels: Labels | None = None,
    *,
    split: str | None = None,
) -> Pictures:
    """Open the pictures of a folder with the class of each pixel: each `picture.pixels()`, the classes in `.objects`.

    The maps are read when they are called.  A picture without a map is left out, and counted in a note.

    Args:
        path: folder of the pictures, which lie in images/ where there is such a folder; or a table of pictures with
            their splits, such as the split.csv of a trained segmenter.
        masks: a folder of PNGs whose grey or palette is the number of the class, 255 for pixels that are not judged;
            or outlines in any format that `read_boxes` knows: COCO polygons and run lengths, COCO panoptic, YOLO
            polygons, LabelMe, ...  None for masks/, SegmentationClass/, annotations/ ... beside the pictures.
            Of outlines, pixels in no object are of the class background, which comes first; of panoptic maps they are
            not judged.
        labels: the classes in their order, or a name for each number in the PNGs; or a YAML or text of them.  None for
            those beside the masks, else the numbers that occur.
        split: as in `open_boxes`.

    Refused: a folder without pictures or masks, PNGs of colours, masks of 0 and 255 alone without labels, and masks
    that fit no picture.
    """
    known = None if masks is None else Path(masks)
    return finish(open_listed(Path(path), lambda folder: _open(folder, known, labels)), split)


def _open(path: Path, masks: Path | None, labels: Labels | None) -> Pictures:
    """The pictures of every split with their class maps."""
    found = masks or _find(path)
    if not found.exists():
        raise Refused(f"no masks at {found}: there is no such file or folder")
    listed = list_pictures(path, found)
    names = {picture.name: picture.path for picture in listed.pictures}
    read = read_outlines if _is_written(found) else read_class_files
    maps = read(found, names, labels_of(labels))
    good, without = [], []
    for picture in listed.pictures:
        pixels = maps.truth.get(picture.name)
        if pixels is None:
            without.append(picture.name)
            continue
        split_name = split_of_file(maps.origin.get(picture.name), found) or picture.split
        good.append(replace(picture, split=split_name, pixels=pixels))
    left = [f"{len(without)} pictures without a map are left out: {named(sorted(without))}"] if without else []
    head = f"{maps.form}: pixels of {len(maps.classes)} classes in {len(good)} of {len(names)} pictures"
    return Pictures(
        listed.root,
        tuple(good),
        tuple(sorted({*listed.broken, *maps.broken})),
        (head, *left, *maps.notes, *summed_up(maps.problems)),
        objects=maps.classes,
        problems=maps.problems,
    )


def _is_written(masks: Path) -> bool:
    """Whether masks are outlines in text or JSON, and not PNGs of class numbers."""
    files = files_below(masks) if masks.is_dir() else [masks]
    return any(file.suffix.lower() in _FORMS and file.name.lower() not in NAME_FILES for file in files)


def _find(root: Path) -> Path:
    """The only folder beside the pictures that is called as folders of masks are, and holds anything."""
    places = [
        place
        for folder in beside(root)
        if folder.is_dir()
        for place in sorted(folder.iterdir())
        if place.is_dir() and place.name.lower() in _PLACES and _holds_masks(place)
    ]
    if len(places) != 1:
        several = f"{named([str(p) for p in places])} may all be" if places else f"{root} holds none of"
        raise Refused(f"{several} masks{'' if places else f': {named(_PLACES)}'}", "say where they are: masks=...")
    return places[0]


def _holds_masks(place: Path) -> bool:
    return any(file.suffix.lower() in (*SUFFIXES, *_FORMS) for file in files_below(place))
