"""A segmenter: a class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from clearsight.core.model import Model
from clearsight.core.model_parts import class_names, network_given
from clearsight.errors import Refused
from clearsight.kinds.forms import segmenter_form


@dataclass(frozen=True, eq=False)
class Segmenter(Model):
    """A network that names the class of every pixel, its preprocessing and its labels.

    Called with pixels (B, C, H, W) in [0, 1] it returns logits (B, K, H, W), differentiable.  Those of the network may
    be coarser: they are enlarged bilinearly, between the centres of pixels (align_corners=False), before anything is
    compared or chosen.

    Args:
        net: the network, from normalised pictures (B, C, H, W) to logits (B, K, h, w), such as one of the catalogue's
            `segmenters`.
        preprocess: how a picture file becomes what the network takes.
        labels: names of the K classes, in the order of the logits, background among them where there is one.
        source: words that load it again.
        output: which part of a tuple or dict that the network returns holds the logits, such as "out".
        channels_last: always pass pictures in that memory order, in which convolutions are faster; not for networks
            that call .view() on feature maps.  Explainers and attacks do so where a network gives the same.

    Refused: what is no network, networks frozen by torch.jit.freeze or recorded in training mode, what is no
    Preprocess, and labels that are a string or none.

    >>> from clearsight.testing import tiny_segmenter
    >>> tuple(tiny_segmenter()(torch.zeros(2, 3, 32, 32)).shape)
    (2, 3, 32, 32)
    """

    kind: ClassVar[str] = "segmenter"

    def __post_init__(self) -> None:
        object.__setattr__(self, "net", network_given(self.net, self.preprocess, "Segmenter"))
        object.__setattr__(self, "labels", class_names(self.labels, "logits, background among them"))

    def read(self, z: Tensor, out: Tensor) -> Tensor:
        """Logits (B, K, H, W) of what the network returned, as large as z (B, C, H, W).  Refused: another shape."""
        wrong = segmenter_form(out, len(z), len(self.labels))
        if wrong is not None:
            raise Refused(wrong.what, wrong.mend)
        if out.shape[2:] == z.shape[2:]:
            return out
        return nn.functional.interpolate(out, z.shape[2:], mode="bilinear", align_corners=False)

    def segment(self, x: Tensor) -> Tensor:
        """The class of every pixel, int64 (B, H, W), of pictures x (B, C, H, W) in [0, 1]."""
        with self.undisturbed(), torch.no_grad():
            return self(x.to(self.device)).argmax(1)
