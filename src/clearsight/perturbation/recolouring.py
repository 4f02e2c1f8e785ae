"""Recolouring a picture with the colours of another, to test whether an answer depends on colour."""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHTS = (0.2126, 0.7152, 0.0722)  # of linear light, Rec. ITU-R BT.709; here of stored values, as luma


def greyed(x: Tensor) -> Tensor:
    """Pictures x (B, 3, *S) in [0, 1] without their colours: the luma in every channel."""
    return luma(x)[:, None].expand_as(x).clone()


def luma(x: Tensor) -> Tensor:
    """(B, 3, *S) -> (B, *S)"""
    return torch.einsum("bc...,c->b...", x, x.new_tensor(WEIGHTS))


def recoloured(x: Tensor, donors: Tensor) -> Tensor:
    """Pictures x (B, 3, *S) in [0, 1] in the colours of donors (B, 3, *S): shapes of the one, colours of the other.

    What is light and dark stays, brought to the donor's mean and spread; each pixel gets the colour that the donor has
    at that brightness, by a straight line for each channel.

    A red bar becomes green:

    >>> red, green = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
    >>> red[0, 0, 0, 0] = green[0, 1, 0, 1] = 1.0
    >>> recoloured(red, green)[0, :, 0].round(decimals=3).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    """
    axes = tuple(range(1, x.dim() - 1))
    own_luma, donor_luma = luma(x), luma(donors)

    def centred(v: Tensor) -> tuple[Tensor, Tensor]:
        mean = v.mean(axes, keepdim=True)
        return mean, v - mean

    (_, own_light), (_, donor_light) = centred(own_luma), centred(donor_luma)
    spread = own_light.square().mean(axes, keepdim=True).sqrt().clamp_min(1e-6)
    shape = own_light / spread * donor_light.square().mean(axes, keepdim=True).sqrt()
    variance = donor_light.square().mean(axes, keepdim=True).clamp_min(1e-12)
    middle = donors.mean(tuple(a + 1 for a in axes), keepdim=True)
    slope = (donor_light[:, None] * (donors - middle)).mean(tuple(a + 1 for a in axes), keepdim=True) / variance[
        :, None
    ]
    return (middle + slope * shape[:, None]).clamp(0, 1)
