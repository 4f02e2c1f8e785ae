"""After Zhang, Zhao & LeCun 2015, arXiv:1509.01626, table 1, with one number of each map in place of dense layers.

That number may be the maximum over all places, as Ito & Iyatomi 2018 pool web requests (IEEE CSPA 2018).
"""

from collections import OrderedDict
from typing import Literal

from torch import nn

from clearsight.core.catalogue import method
from clearsight.errors import Refused
from clearsight.networks.common.blocks import positive, share, takes

_POOLED = (1, 2, 6)  # the convolutions after which the paper pools


@method(paper="arXiv:1509.01626")
def character_cnn(
    classes: int = 2,
    shape: tuple[int, ...] = (95, 974),
    *,
    depth: Literal[2, 4, 8] = 2,
    width: int = 256,
    embedding: int = 0,
    pool: Literal["average", "max"] = "average",
    norm: Literal["none", "batch"] = "none",
    dropout: float = 0.0,
) -> nn.Module:
    """Convolutions along a text whose characters are one-hot vectors: CNN-2, CNN-4 and CNN-8.

    (B, letters of the alphabet, length) -> scores (B, classes).

    The first two convolutions have kernels of 7 places, the others of 3.  After the first, second and sixth
    convolution, if another one follows, the maximum of three places is kept.  The ends are padded, so that places stay
    where they are.  The scores read the average of each map, so that class-activation methods work, or its maximum,
    which a few characters decide wherever they stand in a long text.

    Args:
        depth: number of convolutions.
        width: number of maps of each convolution, at least 1.
        embedding: number of values that stand for each letter, alike at every place; 0 for the one-hot vectors
            themselves.  A few make a long text as cheap as a small alphabet would.
        pool: average or max, over the places of each map of the last convolution.
        norm: normalisation between convolution and ReLU: "batch" over the texts of a batch and all places, "none".
        dropout: share of what is pooled that is left out before the scores in training, at least 0 and below 1.

    Refused: texts of less than 3 (depth 2), 9 (4) or 27 (8) characters, fewer than one class, and options outside their
    ranges.

    Two convolutions of seven places, 95 × 7 × 256 + 256 and 256 × 7 × 256 + 256, and 257 for each of two scores:

    >>> from clearsight.networks.common.blocks import count
    >>> count(character_cnn())
    630018

    With eight values for each letter the first convolution is 96 × 8 and 8 × 7 × 256 + 256:

    >>> count(character_cnn(2, (96, 974), embedding=8))
    474882
    """
    pooled = [i for i in _POOLED if i < depth]
    takes("character-cnn", classes, shape, *[(3, 3, 0)] * len(pooled), axes=1)
    positive("character-cnn", width=width)
    share("character-cnn", dropout=dropout)
    if embedding < 0:
        raise Refused(f"character-cnn(embedding={embedding}): give a number of values for each letter, or 0 for none")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if embedding:
        layers["embedding"] = nn.Conv1d(shape[0], embedding, 1, bias=False)  # padding stays zero
    first = embedding or shape[0]
    for i in range(1, depth + 1):
        kernel = 7 if i <= 2 else 3
        layers[f"conv{i}"] = nn.Conv1d(first if i == 1 else width, width, kernel, padding=kernel // 2)
        if norm == "batch":
            layers[f"norm{i}"] = nn.BatchNorm1d(width)
        layers[f"relu{i}"] = nn.ReLU()
        if i in pooled:
            layers[f"pool{i}"] = nn.MaxPool1d(3)
    layers[pool] = nn.AdaptiveMaxPool1d(1) if pool == "max" else nn.AdaptiveAvgPool1d(1)
    layers["flatten"] = nn.Flatten()
    if dropout:
        layers["drop"] = nn.Dropout(dropout)
    layers["head"] = nn.Linear(width, classes)
    return nn.Sequential(layers)
