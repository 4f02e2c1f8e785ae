"""Juuti, Szyller, Marchal & Asokan 2019, arXiv:1805.02628: PRADA."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.core.answering import Request, Withheld
from clearsight.core.catalogue import method
from clearsight.errors import Refused

FEWEST = 100  # distances: with no more of them nobody is suspected
_MOST = 5000  # distances that are kept and tested, the latest: beyond that W is not tabulated
_SIDE = 32  # pixels: larger pictures are compared at this size


def _validate(*, delta: float, every: int, remembered: int, **others: object) -> None:
    if not 0 < delta < 1:
        raise Refused(f"query-detection(delta={delta:g})", "give a W between 0 and 1, such as 0.9")
    if min(every, remembered) < 1:
        raise Refused(f"query-detection(every={every}, remembered={remembered})", "give at least 1 of each")


@method(paper="arXiv:1805.02628", claims="keeps-top sums-to-one remembers", validate=_validate)
def query_detection(
    request: Request,
    p: Tensor,
    *,
    delta: float = 0.9,
    every: int = 10,
    remembered: int = 2000,
    then: Literal["withhold", "note"] = "withhold",
) -> Tensor:
    """Notice queries whose distances from each other are not those of natural pictures, and answer no more (PRADA).

    p (B, K) -> (B, K) as it is.  For each picture the distance (L2) from the nearest of the account's pictures of the
    same top class is kept.  Of natural pictures these distances are nearly normal; of pictures that were made from each
    other they are not.  With more than 100 of them, those further than three standard deviations from their mean are
    left out, and the account is a thief's where the W of Shapiro and Wilk falls below delta.  Only pictures further
    from the others than the class's threshold join those that later ones are compared with.

    The memory holds "flagged", the number of the picture at which the account was noticed (0: never), and "w", the last
    W.  Pictures of more than 32 pixels a side are compared at 32.  Several accounts are tested by themselves, so a
    thief who divides the queries is noticed later or never.

    Args:
        delta: W below which an account is a thief's, between 0 and 1.  The paper takes 0.90 to 0.96: higher finds more,
            and suspects more honest users.
        every: number of distances from one test to the next, at least 1.
        remembered: maximum number of pictures of an account that later ones are compared with, at least 1.
        then: withhold all further answers of the account, or note it alone.

    Refused: options outside their ranges, and (Withheld) requests of an account that was noticed.

    Source: Juuti et al. 2019, the detection algorithm of PRADA; its code tests every 10 queries.

    >>> account = Request(torch.zeros(1, 1, 1, 1))
    >>> _ = query_detection(account, torch.ones(1, 1))
    >>> account.memory["flagged"], account.memory["asked"]
    (0, 1)
    """
    memory = request.memory
    if not memory:
        memory |= {"asked": 0, "flagged": 0, "w": 1.0, "measured": 0, "distances": [], "near": {}}
    pictures = _vectors(request.x)
    for picture, k in zip(pictures, p.argmax(1).tolist(), strict=True):
        if memory["flagged"] and then == "withhold":
            break
        memory["asked"] += 1
        if _observe(memory, k, picture, remembered) and memory["measured"] % every == 0:
            memory["w"] = normality(memory["distances"])
            if memory["w"] < delta and not memory["flagged"]:
                memory["flagged"] = memory["asked"]
    if memory["flagged"] and then == "withhold":
        raise Withheld(
            "query-detection",
            f"the pictures of this account are too regular (W {memory['w']:.2f}, below {delta:g}), as those of a thief "
            "who makes them",
            "ask whoever serves the model",
        )
    return p


def normality(distances: list[float]) -> float:
    """The W of Shapiro and Wilk of distances, without those further than 3 std from their mean.

    1 where there are too few to suspect anybody; 0 where all are equal, which no natural pictures are.
    """
    from scipy import stats  # half a second, which what tests nothing does not wait for

    d = np.asarray(distances)
    if len(d) <= FEWEST:
        return 1.0
    d = d[np.abs(d - d.mean()) <= 3 * d.std()]
    if len(d) < 3 or np.ptp(d) <= 1e-9 * max(float(d.max()), 1e-9):
        return 0.0
    return float(stats.shapiro(d).statistic)


def _vectors(x: Tensor) -> Tensor:
    """Pictures (B, C, *S) as rows (B, D), those of two sides at no more than 32 pixels each."""
    x = x.detach().float().cpu()
    if x.dim() == 4 and max(x.shape[2:]) > _SIDE:
        x = F.adaptive_avg_pool2d(x, (min(x.shape[2], _SIDE), min(x.shape[3], _SIDE)))
    return x.flatten(1)


def _observe(memory: dict[str, Any], k: int, picture: Tensor, remembered: int) -> bool:
    """Keep the distance of a picture (D,) from those of its class k; whether it has one, as all but the first have."""
    known = memory["near"].get(k)
    if known is None:
        memory["near"][k] = {"pictures": picture[None], "distances": [0.0], "threshold": 0.0}
        return False
    distance = float((known["pictures"] - picture).square().sum(1).min().sqrt())
    memory["measured"] += 1
    memory["distances"].append(distance)
    del memory["distances"][:-_MOST]
    if distance > known["threshold"] and sum(len(c["pictures"]) for c in memory["near"].values()) < remembered:
        known["pictures"] = torch.cat([known["pictures"], picture[None]])
        known["distances"].append(distance)
        of_class = np.asarray(known["distances"])
        known["threshold"] = max(known["threshold"], float(of_class.mean() - of_class.std()))
    return True
