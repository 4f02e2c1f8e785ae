"""A box and the rectangle drawn in it stay together, as a picture becomes the model's input and comes back."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clearsight.core.preprocess import Preprocess
from clearsight.data.images import open_picture, picture_size, to_pixels
from clearsight.data.truth_records import NOT_JUDGED, BoxTruth
from clearsight.data.truth_to_input import (
    box_to_input,
    box_to_original,
    map_to_input,
    map_to_original,
    truth_to_input,
)
from clearsight.errors import Refused

HALF = ((0.5,) * 3, (0.5,) * 3)
SETTINGS = [
    Preprocess((128, 128), *HALF),
    Preprocess((90, 200), *HALF, "bicubic"),
    Preprocess((100, 100), *HALF, resize=110),
    Preprocess((96, 128), *HALF, "nearest", resize=150),
]
SIZES = [(160, 120), (97, 211), (128, 128)]


def truth_of(boxes: torch.Tensor, size: tuple[int, int]) -> BoxTruth:
    n = len(boxes)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    none = torch.zeros(n, dtype=torch.bool)
    return BoxTruth(boxes, torch.arange(n), none, areas, none, size, tuple(f"object {k}" for k in range(n)))


def edges(inside: torch.Tensor) -> list[float]:
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
@pytest.mark.parametrize("pre", SETTINGS, ids=str)
def test_a_drawn_rectangle_and_its_box_agree_within_a_pixel(pre: Preprocess, turn: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(turn)
    back = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[turn]
    for wide, high in SIZES:
        x0, y0 = int(rng.integers(0, wide // 2)), int(rng.integers(0, high // 2))
        box = (x0, y0, int(rng.integers(x0 + 20, wide + 1)), int(rng.integers(y0 + 20, high + 1)))
        upright = np.zeros((high, wide), np.uint8)
        upright[box[1] : box[3], box[0] : box[2]] = 255
        stored = Image.fromarray(upright).convert("RGB")
        exif = Image.Exif()
        exif[0x0112] = turn
        (stored if back is None else stored.transpose(back)).save(tmp_path / "x.png", exif=exif)
        size = picture_size(tmp_path / "x.png")
        assert size == (wide, high)
        drawn = to_pixels(open_picture(tmp_path / "x.png"), pre)[0] > 0.5
        truth = truth_to_input(truth_of(torch.tensor([box], dtype=torch.float32), size), pre)
        assert drawn.any() == bool(len(truth))
        if not len(truth):
            continue
        assert truth.size == pre.size[::-1]
        assert truth.boxes[0].tolist() == pytest.approx(edges(drawn), abs=1)
        mapped = map_to_input(torch.from_numpy(upright.astype(np.int64) // 255), pre)
        assert truth.boxes[0].tolist() == pytest.approx(edges(mapped == 1), abs=1)
        assert float(truth.area[0]) == pytest.approx(float((mapped == 1).sum()), abs=sum(pre.size))
        again = box_to_original(truth.boxes, size, pre)[0]
        shown = edges(map_to_original(mapped, size, pre) == 1)
        assert again.tolist() == pytest.approx(shown, abs=1 + max(size) / min(pre.size))


@pytest.mark.parametrize("pre", SETTINGS, ids=str)
def test_boxes_come_back_as_they_were(pre: Preprocess) -> None:
    torch.manual_seed(0)
    for size in SIZES:
        boxes = torch.rand(50, 4, dtype=torch.float64) * 100
        assert torch.allclose(box_to_original(box_to_input(boxes, size, pre), size, pre), boxes, atol=1e-9)
        assert box_to_input(boxes.float(), size, pre).dtype == torch.float32
        assert box_to_input(torch.zeros(0, 4), size, pre).shape == (0, 4)


def test_by_hand_a_squeeze_and_a_cut() -> None:
    squeeze = Preprocess((20, 30), *HALF)
    assert box_to_input(torch.tensor([[10.0, 20, 60, 40]]), (60, 80), squeeze).tolist() == [[5, 5, 30, 10]]
    cut = Preprocess((20, 20), *HALF, resize=40)  # 160 x 80 -> 80 x 40, of which 30..50 and 10..30 are cut out
    boxes = torch.tensor([[70.0, 30, 90, 50], [40, 0, 80, 80], [0, 0, 20, 20], [58, 0, 62, 80]])
    truth = truth_to_input(truth_of(boxes, (160, 80)), cut)
    assert truth.boxes.tolist() == [[5, 5, 15, 15], [0, 0, 10, 20], [0, 0, 1, 20]]
    assert truth.labels.tolist() == [0, 1, 3]
    assert truth.names == ("object 0", "object 1", "object 3")
    assert truth.area.tolist() == [100, 200, 20]
    assert truth_to_input(truth_of(boxes, (160, 80)), cut, least=0.25).labels.tolist() == [0, 1, 3]
    assert truth_to_input(truth_of(boxes, (160, 80)), cut, least=0.26).labels.tolist() == [0]
    with pytest.raises(Refused, match=r"least=2"):
        truth_to_input(truth, cut, least=2)


def test_areas_of_outlines_shrink_with_their_boxes() -> None:
    truth = truth_of(torch.tensor([[0.0, 0, 40, 40]]), (80, 40))
    truth.area[0] = 800  # an outline that fills half of its box
    assert truth_to_input(truth, Preprocess((20, 20), *HALF)).area.tolist() == [100]  # half of 10 x 20
    assert truth_to_input(truth, Preprocess((20, 20), *HALF, resize=20)).area.tolist() == [100]  # half cut off


def test_class_maps_are_never_mixed_and_say_what_was_cut_off() -> None:
    torch.manual_seed(0)
    classes = torch.randint(0, 5, (37, 53)) * 50
    for pre, size in itertools.product(SETTINGS, [(53, 37)]):
        mapped = map_to_input(classes, pre)
        assert mapped.shape == pre.size
        assert set(mapped.unique().tolist()) <= {0, 50, 100, 150, 200}
        back = map_to_original(mapped, size, pre)
        cut = pre.resize is not None
        assert bool((back == NOT_JUDGED).any()) == cut
        assert (back[back != NOT_JUDGED] == classes[back != NOT_JUDGED]).all()  # each input is larger than the picture
    same = Preprocess((37, 53), *HALF)
    assert torch.equal(map_to_input(classes, same), classes)
    assert torch.equal(map_to_original(classes, (53, 37), same), classes)
