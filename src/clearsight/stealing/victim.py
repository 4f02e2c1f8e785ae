"""The model that is to be stolen, as whoever serves it runs it: pictures in, probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core.catalogue import Call
from clearsight.core.classifier import Classifier, classifier_of
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.internals.scores import scores_of
from clearsight.runner.run import explain


@dataclass(frozen=True, eq=False)
class Victim:
    """The model that is to be stolen.

    labels: the names of its K classes.
    preprocess: the size and the channels in which pictures are sent to it.
    probabilities: pictures (B, C, *S) in [0, 1] -> probabilities (B, K), on the CPU.
    source: the words that name it.
    model: the Classifier; None for a served address, of which nothing else is known.
    others: probabilities of other networks of the same classes, for the defence ensemble.
    keys: of a served address, the API keys with which it is asked; each is an account.
    """

    labels: tuple[str, ...]
    preprocess: Preprocess
    probabilities: Callable[[Tensor, int], Tensor]
    source: str
    model: Classifier | None = None
    others: tuple[Callable[[Tensor, int], Tensor], ...] = ()
    keys: int = 1

    def maps(self, call: Call, x: Tensor, seed: int) -> Tensor:
        """Maps (B, *S) of the top class by an explainer, as a service that explains would tell them."""
        if self.model is None:
            raise Refused("maps of a served address cannot be asked for here", "give the model itself")
        top = scores_of(self.model, x).argmax(1)
        return explain(self.model, x, call, ClassScore(top), seed=seed).maps


def of_classifier(model: Classifier, members: Sequence[Classifier] = ()) -> Victim:
    """A Classifier as a victim.  members: other networks of the same classes.

    Refused: models whose outputs are not the probabilities of classes, models of texts, and members of other classes.
    """
    model = classifier_of(model, "steal")
    if not model.one_of_many:
        raise Refused(
            f"the model's outputs are {model.scores}", "give one whose answer is one of several classes: it is cloned"
        )
    if model.preprocess.alphabet:
        raise Refused("the model reads texts", "give a model of pictures: thieves ask about pictures")
    for member in members:
        if member.labels != model.labels or member.preprocess.size != model.preprocess.size:
            raise Refused(f"{member.source or 'a member'} has other classes or another size than the model")
    return Victim(
        model.labels,
        model.preprocess,
        _answers(model),
        model.source,
        model,
        tuple(_answers(member) for member in members),
    )


def _answers(model: Classifier) -> Callable[[Tensor, int], Tensor]:
    def probabilities(x: Tensor, account: int = 0) -> Tensor:
        return model.chances(scores_of(model, x)) if len(x) else torch.empty(0, len(model.labels))

    return probabilities
