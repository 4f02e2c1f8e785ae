"""Lee, Kim, Park & Eo 2021, doi:10.1109/CVPR46437.2021.01470."""

from torch import Tensor
from torch.nn.functional import one_hot

from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.lrp_rules import Rules, positive
from clearsight.explainers.common.lrp_walk import raised_class, relevance
from clearsight.internals.kept_graph import single
from clearsight.internals.layers import enlarge, find_layer


@method(
    paper="doi:10.1109/CVPR46437.2021.01470",
    claims="class-sensitive signed needs-convolutions few-passes learnable",
)
def relevance_cam(model: Classifier, x: Tensor, target: Target, *, layer: str = "auto") -> Tensor:
    """The channels of one layer, weighted by their mean relevance for the class against all others, enlarged.

    x (B, C, *S) in [0, 1] -> (B, *S), signed (negative: for other classes), in units of the layer's values.

    Relevance starts with 1 at the class and -1 / K at each of the other K - 1; the class is the one whose logit raises
    the target most.  Every linear layer passes it on by z+ (alpha 1, beta 0), sums of branches and averages in
    proportion to their terms.

    Args:
        layer: name of the module whose feature maps are read, also in the middle of the network, where gradients are
            too noisy for such maps; "auto" takes the last one before pooling.

    Refused: the networks that lrp refuses.

    The relevance 1 of class 0 is all the first channel's, 1 / 2 a place; -1 / 2 of class 1 is the second's:

    >>> import torch
    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import ClassScore
    >>> x = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.5]]]])
    >>> m = relevance_cam(pooled([[4.0, 0.0], [0.0, 2.0]]), x, ClassScore(0))
    >>> [round(v, 3) for v in m.flatten().tolist()]
    [-0.25, 0.375]
    """
    layer = find_layer(model, x, layer)

    def start(target: Target, logits: Tensor) -> Tensor:
        classes = logits.shape[1]
        chosen = one_hot(raised_class(target, logits), classes)
        return chosen - (1 - chosen) / classes

    r, a = relevance(model, x, target, Rules(positive, positive, positive, by_sign=False), layer=layer, start=start)
    if a.dim() != x.dim():
        raise Refused(
            f"layer {layer} gives {tuple(a.shape)}, which are not feature maps: name another layer with layer="
        )
    cam = (a * r.mean(tuple(range(2, r.dim())), keepdim=True)).sum(1)
    return single(enlarge(cam, x.shape[2:]))
