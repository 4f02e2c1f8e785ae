"""Kariyappa, Prakash & Qureshi 2021, openreview:LucJxySuJcE: an ensemble of diverse models (EDM)."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from clearsight.core.answering import Request
from clearsight.core.catalogue import method
from clearsight.errors import Refused


@method(paper="openreview:LucJxySuJcE", claims="sums-to-one needs-others")
def ensemble(request: Request, p: Tensor, *, key: str = "") -> Tensor:
    """Let one of several networks answer, chosen by the picture, so that the answers belong to no one network.

    p (B, K) -> (B, K), of each picture the whole answer of one network: the model's own, or that of one of the others
    (--member).  A hash of its 8-bit pixels chooses, so the same picture gets the same answer, however often it is
    asked.  A copy that differs in one pixel may get another network's, so a thief may average over such copies.

    Args:
        key: a secret that is hashed with the pixels, so that nobody outside can tell who answers.

    Refused: no other network.

    Source: Kariyappa et al. 2021: a hash of the input chooses the member.  Its members are trained to
    disagree on pictures unlike those of training; here they are the networks that are given.

    >>> request = Request(torch.zeros(1, 1, 1, 1), others=(torch.tensor([[0.5, 0.5]]),))
    >>> ensemble(request, torch.tensor([[0.25, 0.75]])).tolist() in ([[0.25, 0.75]], [[0.5, 0.5]])
    True
    """
    if not request.others:
        raise Refused("ensemble has one network alone", "name others of the same classes (--member MODEL)")
    answers = torch.stack([p, *(other.to(p) for other in request.others)])
    pixels = (request.x.detach().cpu() * 255).round().to(torch.uint8)
    who = torch.tensor([_chosen(picture, key, len(answers)) for picture in pixels], device=p.device)
    return answers[who, torch.arange(len(p), device=p.device)]


def _chosen(picture: Tensor, key: str, members: int) -> int:
    """Which member answers about a picture (C, *S) of 8 bits."""
    digest = hashlib.blake2b(picture.contiguous().numpy().tobytes(), digest_size=8, key=key.encode()[:64]).digest()
    return int.from_bytes(digest, "big") % members
