"""The pictures by which detectors and segmenters are compared, with their boxes or class maps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from clearsight.comparing.sources import RunToCompare, own_part
from clearsight.data.box_folders import open_boxes
from clearsight.data.mask_folders import open_masks
from clearsight.data.records import Pictures
from clearsight.data.split_words import ALL
from clearsight.errors import Refused

_TRUTH = {"detector": "boxes", "segmenter": "masks"}


def open_places(
    kind: str,
    runs: Sequence[RunToCompare],
    data: str | Path | None,
    options: Mapping[str, str | Path | int | None],
) -> Pictures:
    """The pictures with the truth that this kind of model is judged by.

    kind: "detector" or "segmenter".  runs: those that are models.  data: a folder of pictures; None for those that the
    runs' own split.csv kept from all of them.  options: boxes, masks, split, voc_base and others by name, None where
    they are not given.

    Refused: the demo, options of other kinds of model, and what `open_boxes` and `open_masks` refuse.
    """
    taken = ("boxes", "voc_base", "split") if kind == "detector" else ("masks", "split")
    strange = [name for name, value in options.items() if value is not None and name not in taken]
    if strange:
        option = f"--{strange[0].replace('_', '-')}"
        raise Refused(f"{option} says nothing of what a {kind} is to find: give --{_TRUTH[kind]}")
    if data is not None and str(data).partition(":")[0] == "demo":
        raise Refused(f"the demo has no truth for a {kind}: give a folder of pictures with annotations")
    if data is not None:
        return _open(kind, data, options, None if options["split"] is None else str(options["split"]))
    part = own_part(runs, None if options["split"] is None else str(options["split"]))
    folder = os.path.commonpath([os.path.dirname(file) for file in part.all_files])
    opened = _open(kind, folder, options, ALL)
    kept = tuple(p for p in opened.pictures if os.path.realpath(p.path) in part.files)
    if len(kept) < len(part.files):
        raise Refused(
            f"{len(part.files) - len(kept)} of the {len(part.files)} pictures that {part.table} has in {part.name} are "
            f"not among the annotated pictures of {folder}: say where they are with --data, and their truth with "
            f"--{_TRUTH[kind]}"
        )
    note = f"the {part.name} pictures of the runs' own split.csv"
    return replace(opened, pictures=kept, notes=(note, *part.notes, *opened.notes))


def _open(kind: str, folder: str | Path, options: Mapping[str, str | Path | int | None], split: str | None) -> Pictures:
    def place(name: str) -> str | Path | None:
        value = options[name]
        return None if value is None else Path(str(value))

    if kind == "segmenter":
        return open_masks(folder, place("masks"), split=split)
    base = options["voc_base"]
    return open_boxes(folder, place("boxes"), split=split, voc_base=None if base is None else int(str(base)))
