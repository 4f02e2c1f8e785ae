"""Zhou, Khosla, Lapedriza, Oliva & Torralba 2016, arXiv:1512.04150, equation 2."""

import torch
from torch import Tensor

from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.internals.kept_graph import held
from clearsight.internals.layers import cut_at, enlarge, find_layer, gradients

_CLOSE = 1e-3  # two weights are the same up to this share of the largest


@method(
    paper="arXiv:1512.04150",
    claims="signed class-sensitive needs-convolutions needs-a-linear-head few-passes learnable",
)
def cam(model: Classifier, x: Tensor, target: Target, *, layer: str = "auto") -> Tensor:
    """The channels of the last layer before pooling, weighted by the dense layer's weights for the class, and summed.

    x (B, C, *S) in [0, 1] -> (B, *S), signed, in units of the target: before the map is enlarged, its mean is the
    target minus the dense layer's bias.

    Args:
        layer: name of the module whose feature maps are read; "auto" takes the last one before pooling.

    Refused: networks whose scores are not linear in the layer's channels, as they are behind average pooling and one
    dense layer (this is measured on the picture and on its negative); targets that are not linear in the scores, such
    as probabilities.

    Behind one averaged channel the map is that channel times its weight:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> cam(pooled([[-4.0], [0.0]]), torch.tensor([[[[0.0, 1.0]]]]), ClassScore(0)).tolist()
    [[[0.0, -4.0]]]
    """
    layer = find_layer(model, x, layer)
    with torch.no_grad():
        mix = _linear_in_scores(target, model(x))
    a, weight = _weights(model, x, mix, layer)
    _, again = _weights(model, 1 - x, mix, layer)
    apart, size = (w.abs().flatten(1).amax(1) for w in (again - weight, weight))
    if bool((apart > _CLOSE * size).any()):
        raise Refused(
            f"cam: the scores are not linear in what layer {layer} gives, as they are behind average pooling and one "
            "dense layer: name the layer right before the pooling with layer=, or use grad-cam or hires-cam"
        )
    return enlarge((weight * a).sum(1) * a[0, 0].numel(), x.shape[2:]).float()


def _linear_in_scores(target: Target, logits: Tensor) -> Tensor:
    """How much of each score the target is made of, (B, classes); refused where it is no such sum."""
    with torch.enable_grad():
        z = logits.detach().requires_grad_()
        score = target(z)
        (mix,) = gradients(score, z, "the scores")
    parts = mix * z.detach()
    if bool(((parts.sum(1) - score.detach()).abs() > _CLOSE * parts.abs().sum(1) + 1e-6).any()):
        raise Refused(
            "cam: the target is not a weighted sum of scores: explain a class score or a margin, or use grad-cam or "
            "hires-cam"
        )
    return mix


def _weights(model: Classifier, x: Tensor, mix: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """What the layer gives, and what each of its values is worth for the scores so mixed: both (B, K, *s)."""
    with cut_at(model, x, layer, grad=True) as caught, torch.enable_grad():
        score = (model(x) * mix).sum(1)
    (g,) = gradients(score, caught[0], f"layer {layer}")
    return held(caught[0]), g
