"""The manners of every purifier and of their runner.  A new file is tested by being there.

Whether each does what it is called is asked in tests/values/test_purifiers.py.
"""

import importlib
import inspect
import re

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
from clearsight.runner.purify import purify
from examples import check_examples

every = pytest.mark.parametrize("name", catalogue("purifiers"))


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """(4, 3, 32, 32), photographs."""
    images = [open_picture(p.path).convert("RGB") for p in open_data("demo").pictures[1:5]]
    cut = [F.center_crop(F.resize(image, 32, antialias=True), [32, 32]) for image in images]
    return torch.stack([F.pil_to_tensor(image).float() / 255 for image in cut])


@every
def test_pictures_in_pictures_out(name: str, photos: Tensor) -> None:
    """The same shape and type, in [0, 1], nearly the picture, never the picture itself; the input is left alone."""
    for x in (photos, photos.mean(1, keepdim=True), photos.double()):
        given, was = x.clone().requires_grad_(), x.clone()
        z = purify(given, name)
        assert (z.shape, z.dtype, z.requires_grad) == (x.shape, x.dtype, False)
        assert 0 <= float(z.min()) <= float(z.max()) <= 1
        assert 1e-3 < float((z - x).square().mean().sqrt()) < 0.2
        assert torch.equal(given.detach(), was)


@every
def test_a_batch_is_its_pictures_and_nothing_is_random(name: str, photos: Tensor) -> None:
    whole = purify(photos, name)
    torch.manual_seed(1)
    assert torch.equal(purify(photos, name), whole)
    torch.testing.assert_close(torch.cat([purify(z[None], name) for z in photos]), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(purify(photos.flip(0), name).flip(0), whole, rtol=0, atol=1e-6)


@every
@pytest.mark.parametrize("size", [(20, 33), (3, 5), (1, 1)])
def test_pictures_of_any_size(name: str, size: tuple[int, int]) -> None:
    for channels in (1, 3):
        x = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0))
        assert purify(x, name).shape == x.shape


@every
def test_signature_and_documentation(name: str) -> None:
    m = catalogue("purifiers")[name]
    signature = inspect.signature(m.fn, eval_str=True)
    assert [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == ["x"]
    assert signature.return_annotation is Tensor
    assert not m.injected
    assert not m.claims
    assert m.options
    assert all(p.annotation in (int, float, bool, str) for p in m.options.values())
    assert re.fullmatch(r"[A-Z].*[.]", m.summary)
    assert len(m.summary) <= 112
    assert "x (B, C, H, W) in [0, 1] -> the same shape." in m.doc
    check_args_block(m)
    assert re.search(r"(?m)^Refused: \w", m.doc)
    assert re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\S+", m.paper)
    assert m.paper in (importlib.import_module(m.fn.__module__).__doc__ or "")
    assert "one of the purifiers (what cleans pictures before the model sees them)" in one(name)
    assert str(parse(name, "purifiers")) == name


@every
def test_examples_are_true(name: str) -> None:
    check_examples(catalogue("purifiers")[name])


@pytest.mark.parametrize(
    "call",
    ["jpeg(quality=0)", "jpeg(quality=101)", "bit-depth-reduction(bits=0)", "bit-depth-reduction(bits=9)",
     "median(size=1)", "total-variation(weight=0)", "total-variation(weight=-1)"],
)  # fmt: skip
def test_options_outside_their_ranges_are_refused_by_name(call: str) -> None:
    with pytest.raises(Refused, match=rf"^{call.partition('(')[0]}: .*give"):
        purify(torch.zeros(1, 3, 8, 8), call)


# The runner does not trust --------------------------------------------------------------------------------------------

MINE = '''
"""A user's own purifiers, good and bad."""

def darker(x, *, by: float = 0.5):
    return x * by

def below(x):
    return x - 0.5

def writes(x):
    return x.zero_()

def misshapen(x):
    return x[:, :, 1:]

def endless(x):
    return x / 0
'''


def test_a_purifier_of_ones_own(tmp_path, monkeypatch, photos: Tensor) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    torch.testing.assert_close(purify(photos, "./mine.py:darker(by=0.25)"), photos / 4)
    torch.testing.assert_close(purify(photos, "./mine.py:below"), (photos - 0.5).clamp(min=0))
    was = photos.clone()
    assert not purify(photos, "./mine.py:writes").any()
    assert torch.equal(photos, was)
    for name, told in (("misshapen", r"gave \(4, 3, 31, 32\), not pictures"), ("endless", "not finite")):
        with pytest.raises(Refused, match=rf"mine.py:{name}.*{told}"):
            purify(photos, f"./mine.py:{name}")


def test_what_is_no_picture_or_no_purifier_is_refused() -> None:
    for bad, told in ((torch.zeros(3, 8, 8), "B, C, H, W"), (torch.full((1, 3, 8, 8), 1.1), "divide by 255")):
        with pytest.raises(Refused, match=told):
            purify(bad, "jpeg")
    with pytest.raises(Refused, match=r"did you mean.*jpeg"):
        purify(torch.zeros(1, 3, 8, 8), "jpg")
    with pytest.raises(Refused, match=r"did you mean.*quality"):
        purify(torch.zeros(1, 3, 8, 8), "jpeg(qualty=3)")
