"""van der Maaten & Hinton 2008, "Visualizing data using t-SNE" (JMLR 9); k-means after Lloyd 1982,
doi:10.1109/TIT.1982.1056489; both as scikit-learn has them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.text import counted
from clearsight.drawing.charts import KINDS, Group, scatter
from clearsight.drawing.heatmaps import photo
from clearsight.errors import Refused
from clearsight.feature_report.report import FeatureContext
from clearsight.reporting.figures import figure
from clearsight.reporting.findings import Cell, Figure, Table
from clearsight.reporting.pages import INDEX, Block, Page
from clearsight.visualisations.common.counts import at_least
from clearsight.visualisations.common.thumbnails import small

THUMBS = 40  # more pictures than this are points
_SIDE, _BOARD = 72, 900  # of a thumbnail, of the plane, in pixels


@method(paper="doi:10.1109/TIT.1982.1056489", claims="stochastic", order=5)
def embedding(
    inside: FeatureContext, *, clusters: int | None = None, perplexity: float | None = None, pictures: int = 2000
) -> Iterator[Page]:
    """All pictures in a plane, where those that are alike to the model lie near each other, and in clusters.

    t-SNE lays out the embedding and k-means clusters it.  The embedding is the input of the last linear layer, each
    vector scaled to length 1.  t-SNE starts from the principal components, so the result is the same every time.
    Distances between far groups, and the axes, mean nothing.

    Args:
        clusters: number of clusters, at least 1; none for as many as there are labels, at most 12 and a third of the
            pictures.
        perplexity: about how many neighbours count, above 0 and below the number of pictures; none for 30, or a third
            of the pictures if that is less.
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: fewer than four pictures, pictures whose embeddings are all the same, and options outside their ranges.
    """
    at_least(pictures=pictures)
    rows, e = inside.embedding
    at = {row: i for i, row in enumerate(rows)}
    rows = inside.case.sample(rows, pictures)
    e = e[[at[r] for r in rows]]
    n = len(rows)
    if n < 4:
        raise Refused(f"an embedding needs at least 4 pictures, and there {'is' if n == 1 else 'are'} {n}")
    if perplexity is not None and not 0 < perplexity < n:
        raise Refused(f"perplexity must be above 0 and below {n}, the number of pictures, not {perplexity:g}")
    labels = [inside.label(r) for r in rows]
    if clusters is not None:
        at_least(clusters=clusters)
    k = min(clusters or min(max(len(set(filter(None, labels))), 2), 12, max(n // 3, 2)), n)
    plane = tsne(e, perplexity or max(1.0, min(30.0, (n - 1) / 3)), inside.case.seed)
    group = kmeans(e, k, inside.case.seed)
    table, purity = _describe_clusters(inside, rows, labels, group)
    drawn = _draw_thumbnails(inside, rows, plane, group) if n <= THUMBS else _draw_points(labels, plane, group)
    how = f"{counted(n, 'picture')} by t-SNE, and {counted(len(table.rows), 'cluster')} by k-means"
    words = f"{how}, of {e.shape[1]} numbers each.{purity}"
    note = (
        "Pictures that are near each other are similar; distances between far groups, the sizes of groups and the axes "
        "mean nothing."
    )
    yield Page(INDEX, "", (Block("The pictures as the model groups them", words, (), (drawn,), (table,), (note,)),))


def tsne(e: Tensor, perplexity: float, seed: int) -> NDArray[np.float64]:
    """Points (n, 2) in [0, 1] for vectors (n, D)."""
    from sklearn.manifold import TSNE

    if float((e - e[0]).abs().max()) < 1e-6:
        raise Refused("all pictures have the same embedding: there is nothing to lay out")
    wide = e if e.shape[1] > 1 else torch.cat([e, torch.zeros_like(e)], 1)
    layout = TSNE(init="pca", perplexity=perplexity, random_state=seed % 2**32, n_jobs=1).fit_transform(wide.numpy())
    low, high = layout.min(0), layout.max(0)
    points: NDArray[np.float64] = (layout - low) / np.maximum(high - low, 1e-12)
    return points


def kmeans(e: Tensor, k: int, seed: int) -> list[int]:
    """The cluster of each vector (n, D); the largest cluster is 0."""
    from sklearn.cluster import KMeans

    k = min(k, len(torch.unique(e, dim=0)))
    labels = KMeans(k, n_init=10, random_state=seed % 2**32).fit_predict(e.double().numpy()).tolist()
    rank = {
        c: i
        for i, (c, _) in enumerate(sorted(Counter(labels).items(), key=lambda item: (-item[1], labels.index(item[0]))))
    }
    return [rank[c] for c in labels]


def _describe_clusters(
    inside: FeatureContext, rows: list[int], labels: list[str], group: list[int]
) -> tuple[Table, str]:
    """What each cluster holds, and the purity over all labelled pictures in words."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, c in enumerate(group):
        members[c].append(i)
    out: list[dict[str, Cell]] = []
    agreeing = labelled = 0
    for c, of_cluster in sorted(members.items()):
        answer, times = Counter(inside.case.label(rows[i]) for i in of_cluster).most_common(1)[0]
        line: dict[str, Cell] = {
            "cluster": f"{c + 1}",
            "pictures": len(of_cluster),
            "said most often": answer,
            "so often": times,
        }
        label_counts = Counter(labels[i] for i in of_cluster if labels[i])
        if any(labels):
            word, count = label_counts.most_common(1)[0] if label_counts else ("", 0)
            line |= {"label": word, "purity": count / sum(label_counts.values()) if label_counts else None}
            agreeing, labelled = agreeing + count, labelled + sum(label_counts.values())
        line["for instance"] = ", ".join(inside.name(rows[i]) for i in of_cluster[:3])
        out.append(line)
    purity = f" Purity {100 * agreeing / labelled:.1f} % of {labelled} labelled pictures." if labelled else ""
    few = (
        " With so many clusters for so few pictures, a high purity is expected."
        if labelled and labelled < 3 * len(out)
        else ""
    )
    return Table("Clusters, the largest first", tuple(out)), purity + few


def _draw_points(labels: list[str], plane: NDArray[np.float64], group: list[int]) -> Figure:
    """Points in the colours of the labels, or of the clusters where there are none."""
    words = labels if any(labels) else [f"cluster {c + 1}" for c in group]
    common = [w for w, _ in Counter(filter(None, words)).most_common(KINDS)]
    if len(set(words)) > KINDS:
        common = common[:-1]

    def of(wanted: set[str]) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for w, (x, y) in zip(words, plane, strict=True) if w in wanted]

    groups = [Group(w, of({w})) for w in common]
    rest = set(words) - set(common)
    other = Group(f"{len(rest)} others" if len(rest) > 1 else next(iter(rest), "") or "unlabelled", of(rest))
    what = "labels" if any(labels) else "clusters"
    return Figure(
        "embedding.svg",
        scatter(groups, rest=other),
        f"Colours and shapes are {what}.",
        f"Pictures in a plane, by {what}",
    )


def _draw_thumbnails(inside: FeatureContext, rows: list[int], plane: NDArray[np.float64], group: list[int]) -> Figure:
    """The pictures in the plane with their cluster's number, pushed apart where they would lie on each other."""
    places = apart(plane * (_BOARD - _SIDE) * np.array([1, 0.6]), _SIDE + 6)
    places -= places.min(0)
    board = Image.new("RGBA", tuple((np.ceil(places.max(0)).astype(int) + _SIDE + 18).tolist()))
    pen = ImageDraw.Draw(board)
    x = inside.case.pixels(rows)
    for p, (left, top), c in zip(x, places.round().astype(int).tolist(), group, strict=True):
        thumb = small(photo(p), _SIDE)
        cut = [(s - _SIDE) // 2 for s in thumb.size]
        board.paste(thumb.crop((cut[0], cut[1], cut[0] + _SIDE, cut[1] + _SIDE)), (left, top))
        pen.rectangle((left, top, left + 18, top + 16), fill="#15181b")
        pen.text((left + 9, top + 8), f"{c + 1}", fill="#ffffff", anchor="mm")
    return figure("embedding", board, "The pictures in a plane", "The number on each picture is its cluster.")


def apart(points: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """Points (n, 2) pushed apart until squares of that side around them no longer overlap, or 200 times."""
    points = points + 1e-3 * np.arange(len(points))[:, None] * np.array([1, -0.7])  # no two in one place
    for _ in range(200):
        moved = False
        for i in range(len(points)):
            for j in range(i):
                gap = points[i] - points[j]
                over = side - np.abs(gap)
                if over.min() > 1e-6:
                    axis = int(over.argmin())
                    push = over[axis] / 2 * (1 if gap[axis] >= 0 else -1)
                    points[i, axis] += push
                    points[j, axis] -= push
                    moved = True
        if not moved:
            break
    return points
