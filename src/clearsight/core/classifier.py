"""A classifier: one row of scores per picture."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from clearsight.core.model import Model
from clearsight.core.model_parts import network_given
from clearsight.core.preprocess import Preprocess
from clearsight.core.score_kinds import Scores
from clearsight.errors import Refused, nearest


def outputs_for(labels: Sequence[str], scores: Scores) -> int:
    """How many numbers the network itself gives for each picture."""
    return 1 if scores == "one-logit" else len(labels)


@dataclass(frozen=True, eq=False)
class Classifier(Model):
    """A network, its preprocessing and its labels.  Everything outside sees pixels in [0, 1] and logits.

    Called with pixels (B, C, *S) in [0, 1] it returns logits (B, K).  `wrap` makes one of a network of yours, `load` of
    words.

    Args:
        net: the network, from normalised pictures (B, C, *S) to scores.
        preprocess: how a picture file becomes what the network takes.
        labels: names of the K classes, in the order of the scores.
        source: words that load it again ("demo", "timm:resnet18", a folder).
        output: which part of a tuple or dict that the network returns holds the scores: its number or name, or a path
            of them, "out.logits" (see outputs.py).
        scores: what the network returns.  "logits" are taken as they are.  "probabilities" are turned into logits by
            their logarithm.  "one-logit" is one number z per picture, for the second of two labels against the first,
            which become the logits -z/2 and z/2.  "multi-label" is a logit for each label by itself.  "values" are
            numbers as they are (regression).
        channels_last: always pass pictures in that memory order, in which convolutions are faster; not for networks
            that call .view() on feature maps.  Explainers and attacks do so where a network gives the same.
    """

    scores: Scores = "logits"

    kind: ClassVar[str] = "classifier"

    def read(self, z: Tensor, out: Tensor) -> Tensor:
        """Logits (B, K) of what the network returned for z (B, C, *S).  Refused: what is not one row per picture."""
        if out.dim() == 1 and self.scores in ("one-logit", "values"):
            out = out[:, None]
        if self.scores == "one-logit":
            if out.dim() != 2 or out.shape[1] != 1:
                raise Refused(f"the network's output has shape {tuple(out.shape)}, not one logit per picture")
            out = torch.cat([out * -0.5, out * 0.5], 1)
        if out.dim() != 2 or out.shape[0] != z.shape[0]:
            raise Refused(
                f"the network's output has shape {tuple(out.shape)}, not ({z.shape[0]}, {len(self.labels)})",
                "a classifier gives one row of scores per picture",
            )
        if out.shape[1] != len(self.labels):
            raise Refused(
                f"the network gives {out.shape[1]} scores per picture but {len(self.labels)} labels are known",
                f"give labels=[...] with {out.shape[1]} names, in the order of the scores",
            )
        return out.clamp_min(torch.finfo(out.dtype).tiny).log() if self.scores == "probabilities" else out

    @property
    def reading(self) -> Hashable:
        """All that decides, besides the network and its preprocessing, what the outputs are."""
        return self.kind, self.output, self.scores

    @property
    def one_of_many(self) -> bool:
        """Whether a picture shows one of the classes: not where labels stand by themselves, or outputs are values."""
        return self.scores not in ("multi-label", "values")

    def chances(self, logits: Tensor) -> Tensor:
        """What the scores say of each class or label, from logits (..., K): its probability, or the value as it is."""
        if self.scores == "values":
            return logits
        return logits.softmax(-1) if self.one_of_many else logits.sigmoid()


def wrap(
    net: nn.Module,
    preprocess: Preprocess,
    labels: list[str] | tuple[str, ...],
    *,
    output: str | int | None = None,
    scores: Scores = "logits",
    source: str = "",
) -> Classifier:
    """Make a Classifier of a network of yours.

    A detector is made by `Detector(net, preprocess, labels)`, a segmenter by `Segmenter(net, preprocess, labels)`.

    Nothing is guessed: preprocessing and labels must be given.  A network that torch.compile, nn.DataParallel or
    DistributedDataParallel has wrapped is taken as it was before: compiled code ignores hooks, and copies on other
    devices do not give theirs back.  TorchScript (torch.jit), what torch.export gives (.module()) and torch.fx graphs
    are taken; of TorchScript no layer can be read.

    Args:
        net: the network, from normalised pictures (B, C, *S) to scores (B, K).
        preprocess: how a picture file becomes what the network takes.
        labels: names of the K classes, in the order of the scores; at least two, or one for labels by themselves and
            values.
        output: which part of what the network returns holds the scores, such as 1, "logits" or "out.logits"; None if it
            returns nothing else.
        scores: what the network returns: "logits", "probabilities", "one-logit", "multi-label" or "values", see
            Classifier.
        source: words that load the model again, such as "timm:resnet18"; "" if there are none.

    Refused: what is no network, networks frozen by torch.jit.freeze or recorded in training mode, what is no
    Preprocess, other scores, and too few labels.
    """
    net = network_given(net, preprocess, "wrap")
    if scores not in get_args(Scores):
        raise Refused(f"scores {scores!r}: {nearest(str(scores), get_args(Scores))}")
    several = scores not in ("multi-label", "values")
    if isinstance(labels, str) or len(labels) < 1 + several:
        least = "at least two classes" if several else "the labels or values"
        raise Refused(f"labels=[...] takes the names of {least}, in the order of the network's scores")
    return Classifier(net, preprocess, tuple(map(str, labels)), source, output, scores)


def classifier_of(model: Model, taker: str) -> Classifier:
    """The model, where it is a classifier.

    taker: what takes no other kind, for the message.  Refused: detectors and segmenters.
    """
    if isinstance(model, Classifier):
        return model
    raise Refused(
        f"{taker} takes a classifier, and {model.source or 'the model'} is a {model.kind}",
        "clearsight inspect, explain, attack, audit and compare take every kind of model",
    )
