"""Papernot, McDaniel & Goodfellow 2016, arXiv:1605.07277; Liu, Chen, Liu & Song 2017, arXiv:1611.02770."""

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.batching import bounded
from clearsight.core.blackbox import BlackBox
from clearsight.core.catalogue import Call, method, parse
from clearsight.core.model import Model
from clearsight.core.norms import Norm, norm_of, project
from clearsight.errors import Refused


@method(paper="arXiv:1605.07277", claims="linf l2 black-box")
def transfer(
    box: BlackBox,
    x: Tensor,
    *,
    eps: float,
    other: Model,
    inner: str = "pgd(early_stop=false)",
    queries: int = 1,
    norm: Norm = "linf",
) -> Tensor:
    """Adversarial pictures made against another model, which is fully known, and then shown to this one.

    x (B, C, *S) in [0, 1] -> the same shape; eps in pixels.  other: the model that is attacked instead, with the same
    classes in the same order, which takes pictures of the same size.

    Args:
        inner: the attack on the other model; it sees the inside of a model and keeps a budget in pixels.  The default
            does not stop early, because what stops at that model's border seldom crosses this one's.
        queries: how often the model may be asked about each picture.  The second query and later ones ask about what
            inner makes with other random numbers, and are not used where it makes the same again.
        norm: norm of the budget, linf or l2; it is handed to inner where inner has such an option.

    Refused: an inner attack of the other norm, one without a budget, a black-box one, and one that states its own eps;
    and other where its classes differ or stand in another order, or where it does not take pictures of this size.

    Source: Papernot, McDaniel & Goodfellow 2016; Liu, Chen, Liu & Song 2017.

    Two models that weigh both pixels alike are fooled alike:

    >>> from clearsight.testing import linear
    >>> from clearsight.runner.run import attack
    >>> x, y = torch.tensor([[[[0.5, 0.5]]]]), torch.tensor([0])
    >>> one, two = linear([[3.0, -2.0], [0.0, 0.0]]), linear([[2.0, -1.0], [0.0, 0.0]])
    >>> attack(one, x, y, "transfer(inner=fgsm)", eps=0.25, other=two).x.tolist()
    [[[[0.25, 0.75]]]]
    """
    call = _inner(inner, norm)
    _alike(other, box, x)
    x_adv, rows, before = x.clone(), torch.arange(len(x), device=x.device), None
    for turn in range(queries):
        made = _made(call, other, box, x, rows, eps, norm, turn)
        fresh = torch.ones(len(rows), dtype=torch.bool, device=x.device)
        if before is not None:
            fresh = (made != before).flatten(1).any(1)
        rows, made = rows[fresh], made[fresh]
        if not len(rows):
            break
        met = box.met(made, rows)
        if not turn:
            x_adv = made.clone()
        x_adv[rows[met]] = made[met]
        rows, before = rows[~met], made[~met]
        if not len(rows):
            break
    return x_adv


def _alike(other: Model, box: BlackBox, x: Tensor) -> None:
    """Refuse a model whose classes differ or stand in another order, and one that does not take these pictures."""
    if len(other.labels) != len(box.labels):
        raise Refused(
            f"transfer: the model other has {len(other.labels)} classes, but the attacked model {len(box.labels)}: "
            "both must have the same classes"
        )
    for k, (theirs, ours) in enumerate(zip(other.labels, box.labels, strict=True)):
        if theirs != ours:
            raise Refused(
                f"transfer: class {k} of the model other is {theirs!r}, of the attacked model {ours!r}: both must "
                "have the same classes in the same order"
            )
    wanted = (other.preprocess.channels, *other.preprocess.size)
    if wanted != x.shape[1:]:  # many networks take other sizes too; resizing would break the budget
        try:
            with other.undisturbed(), torch.no_grad():
                other(x[:1].to(other.device))
        except Refused as e:
            raise Refused(
                f"transfer: the model other takes {wanted}, not pictures of {tuple(x.shape[1:])}: {e}"
            ) from None


def _inner(spelling: str, norm: Norm) -> Call:
    """Parse the inner attack and set its norm; refuse one that does not fit."""
    call = parse(spelling, "attacks")
    if "black-box" in call.method.claims or "unbounded" in call.method.claims or call.method.injected != {"eps"}:
        raise Refused(f"transfer(inner={call}): inner must be a white-box attack with a budget, such as pgd")
    if "eps" in call.options:
        raise Refused(f"transfer(inner={call}): inner takes its budget from transfer: give eps there")
    if "norm" in call.method.options and "norm" not in call.options:
        call = call.with_options(norm=norm)
    if norm_of(call) != norm:
        raise Refused(
            f"transfer(inner={call}) has a budget in {norm_of(call)}: give norm={norm_of(call)} to transfer too"
        )
    return call


def _made(
    call: Call, other: Model, box: BlackBox, x: Tensor, rows: Tensor, eps: float, norm: Norm, turn: int
) -> Tensor:
    """Run the inner attack on the pictures rows (n,) with the random numbers of this turn: (n, C, *S)."""
    out = []
    with other.undisturbed(), bounded(other, x[:1].to(other.device), len(rows)) as size:
        for some in torch.split(rows, size):
            with rng.for_versions(some.cpu(), torch.full((len(some),), turn)):
                raw = call.method(other, x[some].to(other.device), box.goal[some.cpu()], eps=eps, **call.options)
            out.append(project(raw.detach().to(x), x[some], eps, norm))
    return torch.cat(out)
