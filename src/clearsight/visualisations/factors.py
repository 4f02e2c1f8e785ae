"""Collins et al. 2018, arXiv:1806.10206: deep feature factorisation, a layer's activations as few concepts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.text import counted
from clearsight.drawing.heatmaps import full_ink, photo, strip
from clearsight.errors import Refused
from clearsight.feature_report.report import FeatureContext
from clearsight.internals.capture import answers
from clearsight.internals.target_layer import everything_passes
from clearsight.reporting.figures import figure
from clearsight.reporting.findings import Cell, Table
from clearsight.reporting.pages import Block, Page, Shown, layer_page
from clearsight.visualisations.common.counts import at_least
from clearsight.visualisations.common.thumbnails import ROW_SCALE, over, small

_FINEST = 28  # places along a side; larger maps are averaged down to this


@dataclass(frozen=True)
class Factors:
    """weights (n places, F), how much of each concept is where; concepts (F, K), each as it stands in the units.

    shares (F,): of all that the factors give; explained: 1 - |A - weights @ concepts|² / |A|².
    """

    weights: Tensor
    concepts: Tensor
    shares: Tensor
    explained: float


@method(paper="arXiv:1806.10206", order=6)
def factors(inside: FeatureContext, *, factors: int = 5, pictures: int = 8) -> Iterator[Page]:
    """A layer's activations in some pictures as a sum of a few concepts: where each is, and what it speaks for.

    Non-negative matrix factorisation of what the layer gives, at all places of all pictures together.  It starts from a
    singular value decomposition, so the result is the same every time.  Negative activations count as zero, and the
    page says how much they are.  A concept's share is its part of the sum.  Its classes are the model's answers if the
    concept alone stands everywhere in the layer, as strongly as at its strongest places.

    Args:
        factors: number of concepts, at least 1.
        pictures: number of pictures, drawn by seed; at least 1.

    Refused: layers without places, and options below 1.
    """
    at_least(factors=factors, pictures=pictures)
    rows = inside.case.sample(range(len(inside.pictures)), pictures)
    for layer in inside.every_layer():
        yield _page(inside, layer, rows, factors)


def _page(inside: FeatureContext, layer: str, rows: list[int], count: int) -> Page:
    parts, pixels, rows_read = [], [], []
    places: tuple[int, ...] = ()
    for part, x, caught in inside.passes(layer, rows):
        if not caught.maps:
            raise Refused(f"layer {layer} has no places: factors are drawn for feature maps")
        places = tuple(caught.out.shape[2:])
        parts.append(coarse(caught.out.float()).cpu())
        pixels.append(x.cpu())
        rows_read += part
    a = torch.cat(parts)
    below = float(a.clamp_max(0).abs().sum() / a.abs().sum().clamp_min(1e-12))
    n, k, h, w = a.shape
    factorisation = factorise(a.clamp_min(0).permute(0, 2, 3, 1).reshape(-1, k), count)
    count = len(factorisation.concepts)
    maps = factorisation.weights.T.reshape(count, n, h, w)
    notes = [ROW_SCALE]
    if below > 0:
        notes.append(f"{100 * below:.1f} % of the activations, by size, are negative and count as zero.")
    if (h, w) != places:
        notes.append(f"The maps of {places[0]} × {places[1]} places were averaged to {h} × {w}.")
    words, refusal = _answers_to_concepts(inside, layer, pixels[0][:1], factorisation, places)
    notes += [refusal] if refusal else []
    x = torch.cat(pixels)
    shown = []
    table: list[dict[str, Cell]] = []
    for f in range(count):
        full = full_ink(maps[f, :6])
        image = strip([over(p, m, full) for p, m in zip(x[:6], maps[f, :6], strict=True)])
        share = float(factorisation.shares[f])
        top = factorisation.concepts[f].argsort(descending=True, stable=True)[:3].tolist()
        units = ", ".join(str(u) for u in top)
        line: dict[str, Cell] = {"concept": f"{f + 1}", "share": share, "strongest units": units}
        column = "gives" if inside.model.scores == "values" else "speaks for"
        line |= {column: words[f]} if words else {}
        table.append(line)
        drawn = figure(f"{layer}-factor-{f + 1}", image, f"Where concept {f + 1} is in the pictures")
        shown.append(Shown(f"concept {f + 1}", drawn, {k: v for k, v in line.items() if k != "concept"}))
    photos = strip([small(photo(p)) for p in x[:6]])
    names = ", ".join(inside.name(r) for r in rows_read[:6])
    sentence = (
        f"{counted(count, 'concept')} give {100 * factorisation.explained:.1f} % of the squared activations of "
        f"{counted(k, 'unit')} at {counted(n * h * w, 'place')} of {counted(n, 'picture')}. Shown: {names}."
    )
    block = Block(
        "Concepts",
        sentence,
        (Shown("the pictures", figure(f"{layer}-pictures", photos, "The pictures")), *shown),
        tables=(Table("Concepts, the largest share first", tuple(table)),),
        notes=tuple(notes),
        layer=layer,
    )
    return Page(layer_page(layer), layer, (block,))


def coarse(a: Tensor) -> Tensor:
    """Maps (B, K, h, w), averaged down where they are finer than 28 places along a side."""
    size = (min(a.shape[2], _FINEST), min(a.shape[3], _FINEST))
    return a if a.shape[2:] == size else torch.nn.functional.adaptive_avg_pool2d(a, size)


def factorise(a: Tensor, count: int) -> Factors:
    """a (n, K) >= 0 -> at most so many factors, the largest share first."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.extmath import randomized_svd

    if not bool((a > 0).any()):
        raise Refused("the layer has no activation above zero for these pictures: there is nothing to factorise")
    data: NDArray[np.float64] = a.double().numpy()
    _, sizes, _ = randomized_svd(data, min(count, *a.shape), random_state=0)
    count = int((sizes > 1e-6 * sizes[0]).sum())  # more than the rank would be made of nothing
    nmf = NMF(count, init="nndsvda", random_state=0, max_iter=400, tol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # how good it is stands beside it
        w = nmf.fit_transform(data)
    h = nmf.components_
    mass = w.sum(0) * h.sum(1)
    order = np.argsort(-mass, kind="stable")
    order = order[mass[order] > 0]
    unexplained = float(((data - w @ h) ** 2).sum() / (data**2).sum())
    return Factors(
        torch.from_numpy(w[:, order]).float(),
        torch.from_numpy(h[order]).float(),
        torch.from_numpy(mass[order] / mass.sum()).float(),
        1 - unexplained,
    )


def _answers_to_concepts(
    inside: FeatureContext, layer: str, x: Tensor, factorisation: Factors, places: tuple[int, ...]
) -> tuple[list[str], str]:
    """What the model answers to each concept alone, in words; or why that cannot be asked."""
    model = inside.model
    x = x.to(model.device)
    if not everything_passes(model, x, layer):
        return [], f"The classes of a concept are unknown, because the answer also depends on what goes past {layer}."
    strong = torch.quantile(factorisation.weights, 0.99, dim=0)
    values = (strong[:, None] * factorisation.concepts)[:, :, None, None].expand(-1, -1, *places)
    words = []
    logits = answers(model, x, layer, values.to(model.device).contiguous())
    for p in model.chances(logits).cpu():
        best = p.topk(min(3, len(p)))
        words.append(
            ", ".join(
                f"{model.name(int(k))} "
                + (f"{float(v):.3g}" if model.scores == "values" else f"{100 * float(v):.0f} %")
                for v, k in zip(best.values, best.indices, strict=True)
            )
        )
    return words, ""
