"""Losses of detectors, as torchvision computes them: Lin et al. 2017, arXiv:1708.02002, and Rezatofighi et al. 2019."""

import torch
from torch import Tensor

from clearsight.core.light_imports import without_compiler


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """The focal loss of logits against truth, both (...) with truth 0 or 1: their sum, in nats.

    -a (1 - p)^2 log p, where p is the probability given to the truth and a = 0.25 where that is 1, 0.75 where it is 0.
    Source: arXiv:1708.02002, equation 5, with its alpha of 0.25 and gamma of 2.

    >>> focal(torch.tensor([0.0]), torch.tensor([1.0])), 0.25 * 0.25 * 0.6931
    (tensor(0.0433), 0.04331875)
    """
    with without_compiler():
        from torchvision.ops import sigmoid_focal_loss

    loss: Tensor = sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2, reduction="sum")
    return loss


def giou(boxes: Tensor, truth: Tensor) -> Tensor:
    """1 - GIoU of each pair of boxes (N, 4) in corners -> (N,), from 0 where they are equal to 2.

    Source: arXiv:1902.09630, algorithm 1.  GIoU is IoU minus the share of the smallest box around both that neither
    covers.

    >>> giou(torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[20.0, 0.0, 30.0, 10.0]]))  # IoU 0, a third empty
    tensor([1.3333])
    """
    with without_compiler():
        from torchvision.ops import generalized_box_iou_loss

    loss: Tensor = generalized_box_iou_loss(boxes, truth, reduction="none")
    return loss


def centerness(distances: Tensor) -> Tensor:
    """How near places lie to the centre of their boxes: distances (N, 4) left, top, right, bottom -> (N,) in [0, 1].

    The root of the shorter over the longer distance in each direction.  Source: arXiv:1904.01355, equation 3.

    >>> centerness(torch.tensor([[2.0, 3.0, 8.0, 3.0], [1.0, 1.0, 1.0, 4.0]]))
    tensor([0.5000, 0.5000])
    """
    left, top, right, bottom = distances.unbind(1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * down).sqrt()
