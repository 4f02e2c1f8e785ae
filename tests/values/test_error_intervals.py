"""The interval of what a type of error costs, beside error types of sets that were drawn and put together."""

import numpy as np
import pytest

from clearsight.core.statistics import tails
from clearsight.errors import Refused
from clearsight.evaluation.error_intervals import error_intervals
from clearsight.evaluation.error_types import error_types
from clearsight.evaluation.records import PictureBoxes, box_set, picture_boxes


def made_up(rng: np.random.Generator) -> PictureBoxes:
    """Four objects of two classes in a row, with boxes that are moved, of the other class, doubled, or away."""
    corners = np.stack([np.arange(4) * 20.0, np.zeros(4)], 1)
    truth = np.concatenate([corners, corners + 10], 1)
    labels = rng.integers(0, 2, 4)
    said = np.concatenate([truth + rng.choice([0.0, 4.0, 300.0], (4, 1)) * [1, 0, 1, 0], truth[:1], truth[1:2] + 500])
    classes = np.concatenate([np.where(rng.random(4) < 0.3, 1 - labels, labels), labels[:1], labels[1:2]])
    return picture_boxes(said, rng.random(6), classes, truth, labels)


def test_intervals_are_those_of_sets_that_were_drawn_and_put_together() -> None:
    rng = np.random.default_rng(0)
    pictures = [made_up(rng) for _ in range(9)]
    found = error_intervals(box_set(pictures, (0, 1)), seed=3, draws=100)
    figures = error_types(box_set(pictures, (0, 1))).costs
    drawn = np.random.default_rng(3).multinomial(9, np.full(9, 1 / 9), 100)
    sets = [[p for p, times in zip(pictures, row, strict=True) for _ in range(times)] for row in drawn]
    costs = [error_types(box_set(one, (0, 1))).costs for one in sets]
    assert figures["class"]
    assert figures["place"]
    assert figures["missed"]
    for name, figure in figures.items():
        values = np.array([one[name] for one in costs])
        low, high = np.percentile(values, tails(9)) + figure - values.mean()
        assert found[name] == pytest.approx((max(low, 0), min(high, 1)), abs=1e-9), name


def test_too_few_pictures_or_draws() -> None:
    pictures = [made_up(np.random.default_rng(0))] * 6
    assert set(error_intervals(box_set(pictures)).values()) == {None}
    with pytest.raises(Refused, match="give at least 100"):
        error_intervals(box_set(pictures), draws=99)
