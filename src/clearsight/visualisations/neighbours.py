"""Krizhevsky et al. 2012, doi:10.1145/3065386, figure 4: pictures that are near in the network's last features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.label_names import plain
from clearsight.core.statistics import wilson
from clearsight.core.text import counted
from clearsight.drawing.heatmaps import photo, strip
from clearsight.errors import Refused
from clearsight.feature_report.report import FeatureContext
from clearsight.reporting.figures import figure
from clearsight.reporting.findings import Cell
from clearsight.reporting.pages import INDEX, Block, Page, Shown
from clearsight.visualisations.common.counts import at_least
from clearsight.visualisations.common.thumbnails import small


@method(paper="doi:10.1145/3065386", order=4)
def neighbours(inside: FeatureContext, *, pictures: int = 6, nearest: int = 4) -> Iterator[Page]:
    """For some pictures, those that the model finds most like them.

    Likeness is the cosine between embeddings, -1 to 1; the embedding is the input of the last linear layer.  If labels
    are known, the page says how often the nearest other picture has the same label.

    Args:
        pictures: number of pictures, drawn by seed; at least 1.
        nearest: number of neighbours of each picture, at least 1.

    Refused: fewer than two pictures, and options below 1.
    """
    at_least(pictures=pictures, nearest=nearest)
    rows, e = inside.embedding
    n = len(rows)
    if n < 2:
        raise Refused(f"neighbours need at least 2 pictures, and there is {n}")
    at = {row: i for i, row in enumerate(rows)}
    chosen = [at[r] for r in inside.case.sample(rows, pictures)]
    near = min(nearest, n - 1)
    shown = []
    for i in chosen:
        others, likeness = closest(e, i, near)
        x = inside.case.pixels([rows[j] for j in (i, *others)])
        image = strip([small(photo(p)) for p in x])
        name = inside.name(rows[i])
        facts: dict[str, Cell] = {
            f"{nth + 1}. {inside.name(rows[j])} ({inside.describe(rows[j])})": c
            for nth, (j, c) in enumerate(zip(others, likeness, strict=True))
        }
        drawn = figure(f"near-{name}", image, f"{name} and the pictures nearest to it", f"{inside.describe(rows[i])}")
        shown.append(Shown(name, drawn, facts))
    words = (
        f"On the left {counted(len(chosen), 'picture')} of {n}, then the nearest, with the cosine of their embeddings."
    )
    yield Page(INDEX, "", (Block("Nearest neighbours", words, tuple(shown), notes=(_agreement(inside, rows, e),)),))


def closest(e: Tensor, i: int, k: int) -> tuple[list[int], list[float]]:
    """The k others with the highest cosine to row i of unit vectors (n, D), and these cosines; the first of equals.

    >>> closest(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]), 0, 2)[0]
    [2, 1]
    """
    likeness = e @ e[i]  # what differs by less than 1e-5 is equal, whatever it was computed with
    likeness[i] = -torch.inf
    order = likeness.round(decimals=5).argsort(descending=True, stable=True)[:k]
    return order.tolist(), likeness[order].clamp(-1, 1).tolist()


def _agreement(inside: FeatureContext, rows: list[int], e: Tensor) -> str:
    labelled = [i for i, r in enumerate(rows) if inside.label(r)]
    if len(labelled) < 2:
        return f"The embedding is the input of {inside.linear}, {e.shape[1]} numbers for each picture."
    part = e[labelled]
    label = [plain(inside.label(rows[i])) for i in labelled]
    same = sum(label[closest(part, i, 1)[0][0]] == label[i] for i in range(len(labelled)))
    low, high = wilson(same, len(labelled))
    return (
        f"The embedding is the input of {inside.linear}, {e.shape[1]} numbers for each picture. Of {len(labelled)} "
        f"labelled pictures {same} have the label of their nearest labelled neighbour, "
        f"{100 * same / len(labelled):.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)."
    )
