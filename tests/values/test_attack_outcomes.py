"""What became of each object, by hand."""

from __future__ import annotations

import pytest
import torch

import clearsight as cs
from clearsight.kinds.attack_outcomes import object_fates
from clearsight.kinds.box_goals import Objects, objects
from clearsight.kinds.detections import Detections
from clearsight.kinds.region_goals import misread_share
from clearsight.testing import tiny_detector, tiny_segmenter


def found(*boxes: tuple[float, float, float, float, int]) -> Detections:
    sides = torch.tensor([b[:4] for b in boxes]).float().view(-1, 4)
    n = len(boxes)
    return Detections(
        sides, torch.ones(n), torch.tensor([b[4] for b in boxes]).long(), torch.arange(n), torch.ones(n, 3)
    )


A, B, FAR = (0, 0, 10, 10), (40, 40, 50, 50), (80, 80, 90, 90)


def there(*boxes: tuple[float, float, float, float, int]) -> Objects:
    return objects([found(*boxes)])


@pytest.mark.parametrize(
    ("after", "fate", "fabricated"),
    [
        ([(*A, 0)], "kept", 0),
        ([(0, 0, 10, 5, 0)], "kept", 0),  # an IoU of 0.5
        ([(0, 0, 10, 5, 1)], "mislabelled", 0),
        ([(0, 0, 10, 4.9, 0)], "displaced", 0),
        ([(0, 0, 10, 4.9, 1)], "vanished", 0),  # another class beside it
        ([(0, 0, 10, 1, 0)], "displaced", 0),  # an IoU of 0.1
        ([(0, 0, 10, 0.9, 0)], "vanished", 1),
        ([(*A, 1), (*A, 0)], "kept", 0),
        ([(*A, 1), (0, 0, 10, 4, 0)], "mislabelled", 0),
        ([], "vanished", 0),
        ([(*FAR, 0), (*FAR, 1)], "vanished", 2),
    ],
)
def test_the_fate_of_one_object(after, fate, fabricated):
    fates = object_fates(there((*A, 0)), [found(*after)])
    assert fates.of_objects == ((fate,),)
    assert fates.fabricated.tolist() == [fabricated]


def test_what_is_right_for_a_neighbour_is_no_mistake_about_an_object():
    """Two objects of two classes with an IoU of 0.6; only the second is found."""
    pair = there((0, 0, 10, 10, 0), (0, 0, 10, 6, 1))
    assert object_fates(pair, [found((0, 0, 10, 6, 1))]).of_objects == (("vanished", "kept"),)
    same = there((0, 0, 10, 10, 0), (0, 6, 10, 16, 0))  # of one class, with an IoU of 0.25
    assert object_fates(same, [found((0, 6, 10, 16, 0))]).of_objects == (("vanished", "kept"),)


def test_fates_are_those_of_each_picture_and_agree_with_the_goal():
    x = torch.full((2, 3, 32, 32), 0.2)
    x[:, 0, 4:8, 8:12] = 0.95
    x[1, 2, 16:20, 20:24] = 0.95
    model = tiny_detector()
    clean = objects(model.detect(x))
    goal = cs.Vanish(clean.boxes, clean.classes)
    attacked = cs.attack(model, x, goal, "pgd", eps=0.05)
    after = tiny_detector().detections(model(attacked.x))
    above = [one[one.scores > 0.5] for one in after]
    fates = object_fates(clean, above)
    assert [len(one) for one in fates.of_objects] == [1, 2]
    assert fates.counts() == {"kept": 0, "mislabelled": 0, "displaced": 0, "vanished": 3}
    assert object_fates(clean, model.detect(x)).counts()["kept"] == 3


def test_the_shares_of_misread_pixels():
    model = tiny_segmenter()
    x = torch.full((2, 3, 32, 32), 0.2)
    x[:, 0] = 0.4
    y = torch.zeros(2, 32, 32, dtype=torch.long)
    y[1, :16] = 255
    y[1, 16:24] = 1
    attacked = x.clone()
    attacked[0, 2, :8] = 0.9
    attacked[1, 1, :24] = 0.9
    assert misread_share(model(x), y).tolist() == [0.0, 0.5]
    assert misread_share(model(attacked), y).tolist() == [0.25, 0.0]
