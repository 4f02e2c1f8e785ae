"""Liu, Haghgoo, Chen, Raghunathan, Koh, Sagawa, Liang & Finn 2021, arXiv:2107.09044, section 4."""

from __future__ import annotations

from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.errors import Refused


def _validate(*, times: int) -> None:
    if times < 2:
        raise Refused(f"just-train-twice(times={times}): a whole number from 2")


@method(paper="arXiv:2107.09044", validate=_validate)
def just_train_twice(wrong: Tensor, *, times: int = 20) -> Tensor:
    """Just train twice: pictures that a first network gets wrong are seen more often by a second one.

    wrong (N,) bool, whether the run that training comes from is wrong on each training picture -> (N,), how often each
    is seen in an epoch.  The second network begins anew, from the weights that the first one began from.  No groups of
    training pictures are needed; those of val, where --groups names them, choose the epoch.

    Args:
        times: how often a picture is seen that the first network gets wrong, from 2; the others are seen once.  The
            paper takes 100 for waterbirds and 50 for CelebA, chosen on val.

    Refused: fewer than twice.

    Source: Liu et al. 2021, algorithm 1.

    >>> import torch
    >>> just_train_twice(torch.tensor([False, True, False]), times=5).tolist()
    [1, 5, 1]
    """
    return 1 + (times - 1) * wrong.long()
