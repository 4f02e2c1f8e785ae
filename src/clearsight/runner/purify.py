"""Run purifiers, and put one before a classifier so that it can be attacked through.

Athalye, Carlini & Wagner 2018, arXiv:1802.00420, section 4.1 (BPDA): what a purifier does forward is kept, and its way
back is that of a function like it.  A purifier gives back nearly the picture that it gets, so that function is the
identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.forwards import COARSE, coarse_type
from clearsight.core.preprocess import Preprocess
from clearsight.errors import Refused
from clearsight.runner.pictures import check_pictures, run_on_pictures
from clearsight.runner.sharded import spelled


def purify(x: Tensor, method: str | Call) -> Tensor:
    """Run one purifier, spelled like ``jpeg(quality=75)``, on pictures x (B, C, H, W) in [0, 1], C 1 or 3.

    -> the same shape and type on the same device, in [0, 1], without a gradient.

    Refused: unknown names and options, options outside their ranges, tensors that are not pictures, and results that
    are not finite or of another shape; values beyond [0, 1] are clipped.

    >>> purify(torch.tensor([[[[0.1, 0.9]]]]), "bit-depth-reduction(bits=1)").tolist()
    [[[[0.0, 1.0]]]]
    """
    call = parse(method, "purifiers")
    with torch.no_grad():
        return run_on_pictures(call, check_pictures(x)).to(x)


def purified(model: Classifier, method: str | Call) -> Classifier:
    """A classifier that cleans every picture by a purifier before the model sees it, with gradients passed through.

    Its logits are the model's for the purified pixels.  Its gradient at the pixels is the model's at the purified ones,
    as if the purifier had changed nothing (BPDA with the identity).  So it is not the gradient of its own scores:
    explainers that need that one are refused, and attacks that use it give a Notice.  The network is the model's own,
    not a copy.

    Args:
        model: the classifier, of pictures with 1 or 3 channels.
        method: name of the purifier, with options as in "jpeg(quality=75)".

    Refused: unknown purifiers and options, models of anything but pictures, and networks in float16 or bfloat16, in
    which pixels are too coarse to be purified.

    >>> from clearsight.testing import linear
    >>> both = purified(linear([[3.0, -2.0], [0.0, 0.0]]), "bit-depth-reduction(bits=1)")
    >>> x = torch.tensor([[[[0.4, 0.9]]]], requires_grad=True)
    >>> both(x)[0, 0].item(), torch.autograd.grad(both(x)[0, 0], x)[0].tolist()
    (-2.0, [[[[3.0, -2.0]]]])
    """
    call = parse(method, "purifiers")
    given = model.preprocess
    if len(given.size) != 2 or given.channels not in (1, 3):
        raise Refused(f"{call.method.name} cleans pictures with 1 or 3 channels, and the model takes something else")
    coarse = coarse_type(model.net)
    if coarse in COARSE:
        raise Refused(f"the network computes in {coarse}, in which pixels are too coarse to purify: wrap net.float()")
    as_it_is = Preprocess(
        given.size, (0.0,) * given.channels, (1.0,) * given.channels, given.interpolation, given.resize
    )
    # its own module has turned them into logits, where it is one of many
    scores = "logits" if model.one_of_many else model.scores
    return Classifier(_Purified(model, spelled(call, "purifiers")), as_it_is, model.labels, scores=scores)


class _Purified(nn.Module):
    """Pixels (B, C, H, W) in [0, 1] -> the model's outputs for the purified ones; gradients go back as they are."""

    def __init__(self, model: Classifier, purifier: str | Call) -> None:
        super().__init__()
        self.net = model.net  # so that it is found among the modules; the model holds the same one
        self.model, self.purifier = model, purifier

    def forward(self, x: Tensor) -> Tensor:
        clean = purify(x.detach().clamp(0, 1), self.purifier)
        through = clean + (x - x.detach())  # nothing is added, and the gradient of x is one
        return self.model.from_normalised(self.model.normalised(through))
