"""Every explainer on a detector and a segmenter: it works there, with good manners, or it is refused by name.

Two of the four models are linear in the pixels, two are convolutional networks with a pyramid and with skips.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

import clearsight as cs
from clearsight.core.catalogue import catalogue
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.testing import tiny_detector, tiny_segmenter
from kindnets import small_pyramid, small_skips

MODELS = {
    "windows": tiny_detector(),
    "pyramid": small_pyramid(),
    "pixels": tiny_segmenter(),
    "skips": small_skips(),
}
OPTIONS = {"window": 6, "stride": 4, "steps": 6, "samples": 12, "masks": 12, "iterations": 6, "cells": 3}
X = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
PAIRS = [(name, model) for name in catalogue("explainers") for model in MODELS]
pytestmark = pytest.mark.filterwarnings("ignore:the layer that is read")  # where branches end in several layers
every = pytest.mark.parametrize(("name", "model"), PAIRS, ids=[f"{n}-{m}" for n, m in PAIRS])


def question(model: Model, k: int) -> Target:
    """A box, or a region, of class k in each picture."""
    classes = torch.full((3,), k)
    if model.kind == "detector":
        outputs, raw = outputs_of(model), torch.tensor([9, 27, 54]) + k
        return cs.BoxScore(outputs[torch.arange(3), raw, :4], classes, raw, match="raw")
    regions = torch.zeros(3, 32, 32, dtype=torch.bool)
    regions[:, 4 + 12 * k : 12 + 12 * k, 8:20] = True
    return cs.RegionScore(classes, regions)


@functools.cache
def outputs_of(model: Model) -> Tensor:
    with torch.no_grad():
        return model(X)


@functools.cache
def run(name: str, model: str, rows: tuple[int, ...] = (0, 1, 2), k: int = 1, seed: int = 0) -> Tensor:
    given = MODELS[model]
    words = ", ".join(f"{o}={v}" for o, v in OPTIONS.items() if o in catalogue("explainers")[name].options)
    at = list(rows)
    return cs.explain(given, X[at], f"{name}({words})", question(given, k)[torch.tensor(at)], seed=seed).maps


def refusal(name: str, model: str) -> str:
    """What the method says that does not take this model; "" where it takes it."""
    method, kind = catalogue("explainers")[name], MODELS[model].kind
    if method.takes.lower() not in ("model", kind):
        return f"{name} takes a {method.takes.lower()}, and the model is a {kind}"
    relus = {"windows": "none", "pyramid": "softplus", "pixels": "none"}
    return f"is defined for ReLU, and this network has {relus[model]}" if _needs(method.claims, model, relus) else ""


def _needs(claims: frozenset[str], model: str, without: dict[str, str]) -> bool:
    return "needs-relu" in claims and model in without


@every
def test_a_map_of_each_picture_or_a_refusal_by_name(name, model):
    if says := refusal(name, model):
        with pytest.raises(cs.Refused, match=says):
            run(name, model)
        return
    maps = run(name, model)
    assert maps.shape == (3, 32, 32)
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()


@every
def test_a_batch_is_its_pictures(name, model):
    if refusal(name, model):
        pytest.skip("refused")
    whole = run(name, model)
    for rows in ((1,), (2, 0)):
        torch.testing.assert_close(run(name, model, rows), whole[list(rows)], rtol=1e-4, atol=1e-5)


@every
def test_chance_is_the_seeds_alone(name, model):
    if refusal(name, model):
        pytest.skip("refused")
    first = run(name, model, (0, 1))
    run.cache_clear()
    assert torch.equal(run(name, model, (0, 1)), first)
    if "stochastic" not in catalogue("explainers")[name].claims:
        assert torch.equal(run(name, model, (0, 1), seed=1), first)


@pytest.mark.parametrize("model", ["pyramid", "skips"])
@pytest.mark.parametrize("name", [n for n, m in catalogue("explainers").items() if "class-sensitive" in m.claims])
def test_another_box_or_region_has_another_map(name, model):
    if refusal(name, model):
        pytest.skip("refused")
    assert not torch.allclose(run(name, model), run(name, model, k=0), rtol=1e-3)
