"""Divisors in which parts of both signs may cancel, so that rounding decides what comes of a division."""

import torch
from torch import Tensor

from clearsight.core.model import Model
from clearsight.errors import Refused

LEAST = 16  # times the precision of the type, of what the parts add up to without their signs


def must_not_cancel(model: Model, divisor: Tensor, size: Tensor, what: str) -> None:
    """Refuse divisors so near to 0 that the network's type cannot tell them from it.

    divisor, size: of the same shape; size is what the same parts add up to without their signs, and where that is 0
    there is nothing to divide.  what: the method and what it divides by, in words.
    """
    least = LEAST * max(torch.finfo(model.dtype).eps, torch.finfo(divisor.dtype).eps)
    if bool(((divisor.abs() <= least * size) & (size > 0)).any()):
        raise Refused(
            f"{what}. Here positive and negative parts cancel, and rounding in {model.dtype} decides what is left: "
            "name a layer behind a ReLU with layer=, wrap net.float() if the network is in half precision, or use "
            "hires-cam"
        )
