"""The manners of every corruption and of their runner.  A new file is tested by being there.

Whether the damage is what it is called is asked in tests/values/test_corruptions.py.
"""

import importlib
import inspect
import random
import re

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from argsblock import check_args_block
from clearsight.core.catalogue import catalogue, parse
from clearsight.data.datasets import open_data
from clearsight.data.images import open_picture
from clearsight.errors import Refused
from clearsight.reporting.method_pages import one
from clearsight.runner.corrupt import corrupt
from examples import check_examples

EVERY = list(catalogue("corruptions"))
COMMON = """brightness contrast defocus-blur elastic-transform fog frost gaussian-noise glass-blur impulse-noise
jpeg-compression motion-blur pixelate shot-noise snow zoom-blur"""
CLAIMS = {"common", "quick", "stochastic", "uneven", "even", "colour"}

every = pytest.mark.parametrize("name", EVERY)


@pytest.fixture(scope="module")
def photos() -> dict[int, Tensor]:
    """The same photographs at each size, (B, 3, side, side)."""
    images = [open_picture(p.path).convert("RGB") for p in open_data("demo").pictures[1:6]]
    out = {}
    for side, n in ((28, 5), (32, 5), (64, 5), (224, 2)):
        cut = [F.center_crop(F.resize(image, side, antialias=True), [side, side]) for image in images[:n]]
        out[side] = torch.stack([F.pil_to_tensor(image).float() / 255 for image in cut])
    return out


def far(a: Tensor, b: Tensor) -> float:
    """The mean L2 distance of pictures, in units of one pixel."""
    return float((a - b).flatten(1).square().mean(1).sqrt().mean())


@every
def test_worse_with_severity_at_every_size(name: str, photos: dict[int, Tensor]) -> None:
    """Shape, type, range, and the mean L2 distance; those that claim to be uneven or even must be so somewhere."""
    claims, in_order = catalogue("corruptions")[name].claims, []
    for side, colour in photos.items():
        for x in (colour, colour.mean(1, keepdim=True))[: 1 if side == 224 else 2]:
            distances = []
            for severity in (1, 3, 5):  # as the audit; some neighbours of the published sets are nearly the same
                z = corrupt(x, f"{name}(severity={severity})")
                assert z.shape == x.shape
                assert z.dtype == torch.float32
                assert z.isfinite().all()
                assert z.min() >= 0
                assert z.max() <= 1
                distances.append(far(z, x))
            assert distances[-1] > 0.01
            assert distances[0] > 0.004 or ("colour" in claims and x.shape[1] == 1)
            in_order.append(distances == sorted(distances) and distances[0] < distances[-1])
            if "even" in claims:
                assert len(set(distances)) == 1
    assert all(in_order) == (not claims & {"uneven", "even"})


@every
def test_a_batch_is_its_pictures(name: str, photos: dict[int, Tensor]) -> None:
    x = photos[32][:4]
    whole = corrupt(x, name)
    alone = torch.cat([corrupt(z[None], name) for z in x])
    order = torch.tensor([2, 0, 3, 1])
    permuted = torch.empty_like(whole)
    permuted[order] = corrupt(x[order], name)
    for other in alone, permuted, corrupt(x, name, batch=3):
        torch.testing.assert_close(other, whole, rtol=0, atol=1e-5)


@every
@pytest.mark.parametrize("size", [(20, 33), (40, 12), (3, 5), (1, 1)])
def test_pictures_of_any_size(name: str, size: tuple[int, int]) -> None:
    for channels in (1, 3):
        x = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0))
        for severity in (1, 5):
            assert corrupt(x, f"{name}(severity={severity})").shape == x.shape


def test_long_pictures_of_photographs() -> None:
    x = torch.rand(1, 3, 90, 120, generator=torch.Generator().manual_seed(0))
    for name in EVERY:
        assert corrupt(x, f"{name}(severity=5)").shape == x.shape


@every
def test_seed(name: str, photos: dict[int, Tensor]) -> None:
    x = photos[32]
    first = corrupt(x, name)
    torch.rand(3)  # what the caller draws in between cannot show
    assert torch.equal(corrupt(x, name), first)
    differs = any(not torch.equal(corrupt(x, name, seed=seed), first) for seed in (1, 2, 3))
    assert differs == ("stochastic" in catalogue("corruptions")[name].claims)


@every
def test_input_and_chance_are_left_alone(name: str, photos: dict[int, Tensor]) -> None:
    x = photos[28].clone().requires_grad_()
    was = x.detach().clone()
    chance = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    out = corrupt(x, name)
    assert not out.requires_grad
    assert torch.equal(x.detach(), was)
    assert torch.equal(torch.get_rng_state(), chance[0])
    assert random.getstate() == chance[1]
    assert (np.random.get_state()[1] == chance[2]).all()


@every
@pytest.mark.parametrize("severity", [0, 6, -1])
def test_severities_that_are_none_are_refused(name: str, severity: int) -> None:
    for side in (8, 90):
        with pytest.raises(
            Refused, match=rf"^{name}: severity must be a whole number from 1 \(mild\) to 5 \(severe\), not {severity}"
        ):
            corrupt(torch.zeros(1, 3, side, side), f"{name}(severity={severity})")


@every
def test_signature_and_documentation(name: str) -> None:
    m = catalogue("corruptions")[name]
    signature = inspect.signature(m.fn, eval_str=True)
    assert [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == ["x"]
    assert signature.return_annotation is Tensor
    assert not m.injected
    assert m.options["severity"].default == 3
    assert all(p.annotation in (int, float, bool, str) for p in m.options.values())
    assert re.fullmatch(r"[A-Z].*[.]", m.summary)
    assert len(m.summary) <= 112
    doc = inspect.getdoc(m.fn) or ""
    assert "x (B, C, H, W) in [0, 1]" in doc
    check_args_block(m)
    assert re.search(r"\b1 (to 5|Display)\b", m.option_help["severity"])
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|CIPA DC-\d+|IEC [\d-]+|TIFF \d\.\d", m.paper)
    assert m.paper in (importlib.import_module(m.fn.__module__).__doc__ or "")
    assert m.claims <= CLAIMS
    assert "one of the corruptions (what happens to pictures by themselves)" in one(name)


@every
def test_examples_are_true(name: str) -> None:
    check_examples(catalogue("corruptions")[name])


@every
def test_spelling(name: str) -> None:
    call = parse(f"{name}(severity=5)", "corruptions")
    assert call.options == {"severity": 5}
    assert str(call) == f"{name}(severity=5)"
    with pytest.raises(Refused, match=r"did you mean.*severity"):
        parse(f"{name}(severty=5)", "corruptions")


def test_the_papers_fifteen_and_those_looked_at_by_default() -> None:
    claims = {n: m.claims for n, m in catalogue("corruptions").items()}
    assert [n for n in EVERY if "common" in claims[n]] == COMMON.split()
    quick = [n for n in EVERY if "quick" in claims[n]]
    assert len(quick) == 10
    assert set(quick) <= set(COMMON.split())


# The runner does not trust --------------------------------------------------------------------------------------------

MINE = '''
"""A user's own damage, good and bad."""
import torch

def darker(x, *, severity: int = 3):
    return x / severity

def below(x):
    return x - 0.5

def writes(x):
    return x.zero_()

def misshapen(x):
    return x[:, :, 1:]

def endless(x):
    return x / 0

def words(x):
    return "fog"

def fails(x):
    raise KeyError("no such fog")
'''


def test_a_file_of_ones_own(tmp_path, monkeypatch, photos: dict[int, Tensor]) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    x = photos[32]
    torch.testing.assert_close(corrupt(x, "./mine.py:darker(severity=2)"), x / 2)
    torch.testing.assert_close(corrupt(x, "./mine.py:below"), (x - 0.5).clamp(min=0))
    was = x.clone()
    assert not corrupt(x, "./mine.py:writes").any()
    assert torch.equal(x, was)
    for name, told in (
        ("misshapen", r"gave \(5, 3, 31, 32\), not pictures"),
        ("endless", "not finite"),
        ("words", "gave str"),
        ("fails", "failed: KeyError"),
    ):
        with pytest.raises(Refused, match=rf"mine.py:{name}.*{told}"):
            corrupt(x, f"./mine.py:{name}")


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (torch.zeros(3, 8, 8), "B, C, H, W"),
        (torch.zeros(1, 2, 8, 8), "1 .grey. or 3 .RGB. channels"),
        (torch.zeros(0, 3, 8, 8), "B, C, H, W"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "255"),
        (torch.full((1, 3, 8, 8), 1.1), "divide by 255"),
        (torch.full((1, 3, 8, 8), -0.1), "not in"),
        (torch.full((1, 3, 8, 8), torch.nan), "not in"),
        (np.zeros((1, 3, 8, 8)), "ndarray"),
    ],
)
def test_what_is_no_picture_is_refused(bad, told: str) -> None:
    with pytest.raises(Refused, match=told):
        corrupt(bad, "contrast")
    with pytest.raises(Refused, match=r"did you mean.*contrast"):
        corrupt(torch.zeros(1, 3, 8, 8), "contrst")
