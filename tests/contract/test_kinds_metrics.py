"""Every metric of maps on a detector and a segmenter: a number for each picture, whatever its neighbours."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

import clearsight as cs
from clearsight.core.catalogue import catalogue
from clearsight.core.taking import takes_kind
from clearsight.testing import tiny_detector, tiny_segmenter
from kindnets import small_pyramid, small_skips

MODELS = {"windows": tiny_detector(), "pyramid": small_pyramid(), "pixels": tiny_segmenter(), "skips": small_skips()}
X = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
PAIRS = [(n, w) for n, m in catalogue("metrics").items() for w in MODELS if takes_kind(m, MODELS[w].kind)]
every = pytest.mark.parametrize(("name", "model"), PAIRS, ids=[f"{n}-{m}" for n, m in PAIRS])


@functools.cache
def run(name: str, model: str, rows: tuple[int, ...] = (0, 1, 2)) -> Tensor:
    noise = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(2))
    regions = torch.zeros(3, 32, 32, dtype=torch.bool)
    regions[:, 4:20, 8:16] = True
    at, given = list(rows), MODELS[model]
    return cs.measure(given, X[at], noise[at], name, regions=regions[at], method="saliency", other=given)


@every
def test_a_number_for_each_picture_whatever_its_neighbours(name, model):
    values = run(name, model)
    assert values.shape == (3,)
    assert values.isfinite().all()
    for rows in ((1,), (2, 0)):
        torch.testing.assert_close(run(name, model, rows), values[list(rows)], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_left_of_a_score_is_between_nothing_and_one(model):
    """Where no target is given, metrics compare scores and probabilities, not logits."""
    for name in ("deletion", "insertion", "average-probability-drop"):
        assert 0 <= float(run(name, model).min()) <= float(run(name, model).max()) <= 1
