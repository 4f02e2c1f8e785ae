"""A table of pictures in the place of their folder: what it lists, in its splits, with the truth of the folder."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from clearsight.data.box_folders import open_boxes
from clearsight.data.mask_folders import open_masks
from clearsight.data.records import Pictures
from clearsight.errors import Refused
from drawnobjects import drawn

PARTS = ("train", "train", "val", "test", "test", "train")


def opened(path: Path, masks: bool, split: str | None = None) -> Pictures:
    return open_masks(path, split=split) if masks else open_boxes(path, split=split)


def table(file: Path, pictures: Path, parts: tuple[str, ...] = PARTS) -> Path:
    """A table far from the pictures that it lists."""
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("file", "label", "split"))
        rows.writerows((f"../{pictures.name}/images/{i}.png", "blue|red", part) for i, part in enumerate(parts))
    return file


@pytest.mark.parametrize("masks", [False, True])
def test_a_table_takes_its_pictures_and_their_splits(masks: bool, tmp_path: Path) -> None:
    folder = drawn(tmp_path / "cells", 8, masks=masks)
    split = table(tmp_path / "run" / "split.csv", folder)
    by_folder = {p.path: p for p in opened(folder, masks, "all").pictures}
    for words, numbers in (("test", {3, 4}), (None, {3, 4}), ("validation", {2}), ("all", {0, 1, 2, 3, 4, 5})):
        data = opened(split, masks, words)
        assert {int(p.path.stem) for p in data.pictures} == numbers
        for p in data.pictures:
            truth, same = (p.pixels, by_folder[p.path].pixels) if masks else (p.boxes, by_folder[p.path].boxes)
            a, b = (truth(), same()) if masks else (truth.boxes, same.boxes)
            assert torch.equal(a, b)
            assert p.split == PARTS[int(p.path.stem)]
        assert data.root == split  # so that a report quotes the command that it comes from
        assert data.objects == opened(folder, masks).objects
        assert "6 of them are in split.csv" in data.notes


def test_pictures_without_a_map_and_missing_files_are_named(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "cells", 8, masks=True)
    split = table(tmp_path / "run" / "split.csv", folder)
    (folder / "masks" / "4.png").unlink()
    (folder / "images" / "5.png").unlink()
    (folder / "images" / "7.png").write_bytes(b"")  # broken, but not listed
    data = opened(split, True, "all")
    assert {p.path.stem for p in data.pictures} == {*"0123"}
    assert "not among them are, of split.csv, 1 picture: 4.png" in data.notes
    assert [name for name, _ in data.broken] == ["../cells/images/5.png"]


def test_a_table_of_nothing_is_refused(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "cells", 3)
    with pytest.raises(Refused, match="no pictures in"):
        opened(table(tmp_path / "run" / "split.csv", folder, ()), False)
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\nhallo,a\nwelt,b\n")
    with pytest.raises(Refused, match="holds texts, and a detector or a segmenter takes pictures"):
        opened(texts, False)
