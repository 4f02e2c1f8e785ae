"""Ebrahimi, Rao, Lowd & Dou 2018, arXiv:1712.06751 (HotFlip), sections 3.1 and 3.2."""

import torch
from torch import Tensor

from clearsight.core.best_so_far import BestSoFar
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Goal
from clearsight.errors import Refused
from clearsight.internals.layers import gradients


@method(paper="arXiv:1712.06751", claims="characters texts-only")
def character_substitution(model: Model, x: Tensor, goal: Goal, *, eps: float, candidates: int = 8) -> Tensor:
    """HotFlip: replaces one character after another by another letter, each time the one that helps the goal most.

    x (B, letters, L), one-hot texts -> the same shape; eps is the number of characters that may be replaced.  None is
    put in, taken out, or replaced twice, and the padding behind the end stays.

    The gradient estimates what each replacement changes: the loss falls by its slope at the letter that goes less its
    slope at the letter that comes.  The best estimates, each at another place, are tried by the network, and the one
    with the lowest loss is kept if it is lower than before.  A text is left alone once it meets the goal, or where none
    of its candidates helps.  Beside greedy steps the paper has a beam search.

    Args:
        candidates: number of replacements that the network tries in each step, from 1.

    Refused: inputs that are no one-hot texts, and candidates below 1.

    Source: Ebrahimi et al. 2018, equation 1.

    A linear model of three letters at two places: the second place holds what speaks most for the class.

    >>> from clearsight.testing import linear_text
    >>> from clearsight.core.targets import Misclassify
    >>> model = linear_text([[[1.0, 9.0], [0.0, 1.0], [2.0, 0.0]], [[0.0, 0.0]] * 3])
    >>> x = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]])
    >>> character_substitution(model, x, Misclassify(torch.tensor([0])), eps=1).tolist()
    [[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]
    """
    _check(x, candidates)
    best, x_adv = BestSoFar(x), x.clone()
    rows = torch.arange(len(x), device=x.device)
    free = x.amax(1) > 0  # places that may still be replaced
    writable = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
    if model.preprocess.alphabet:
        writable[-1] = False  # "any other character" is none that could be written
    for step in range(int(min(eps, x.shape[2])) + 1):
        slope, loss, met = _slopes(model, x_adv[rows], goal[rows.cpu()])
        best.see(rows, x_adv[rows], loss, met)
        rows, slope, loss = rows[~met], slope[~met], loss.detach()[~met]
        if step >= eps or not len(rows):
            break
        estimates = _estimates(slope, x_adv[rows], free[rows], writable)
        flipped, place, less = _lowest(model, x_adv[rows], goal[rows.cpu()], estimates, candidates)
        helps = less < loss
        rows = rows[helps]
        x_adv[rows] = flipped[helps]
        free[rows, place[helps]] = False
    return best.x


def _check(x: Tensor, candidates: int) -> None:
    if candidates < 1:
        raise Refused(f"character-substitution(candidates={candidates}): at least 1")
    if x.dim() != 3 or not bool(((x == 0) | (x == 1)).all()) or bool((x.sum(1) > 1).any()):
        raise Refused(
            "character-substitution replaces characters, and these inputs are no texts",
            "give one-hot texts (B, letters, L) with at most one 1 at each place, such as one_hot(model, texts)",
        )


def _slopes(model: Model, x: Tensor, goal: Goal) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the loss at x, the loss, and whether the goal is met."""
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        out = model(z)
        loss = goal.loss(out)
    (g,) = gradients(loss, z)
    return g, loss, goal.met(out.detach()).to(x.device)


def _estimates(g: Tensor, x: Tensor, free: Tensor, writable: Tensor) -> Tensor:
    """How the loss is estimated to change, (n, letters, L), if a letter comes to a place; inf where it may not."""
    change = g - (g * x).sum(1, keepdim=True)
    return change.masked_fill((x > 0) | ~writable[None, :, None] | ~free[:, None], torch.inf)


def _lowest(model: Model, x: Tensor, goal: Goal, estimates: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The texts with the replacement that the network finds best, its place, and the loss; inf where none may come.

    Tried are the replacements with the lowest estimates, each at another place, at most so many.
    """
    at_place, letter = estimates.min(1)
    values, places = at_place.topk(min(most, x.shape[2]), largest=False)
    best, place = x.clone(), places[:, 0].clone()
    lowest = torch.full((len(x),), torch.inf, device=x.device)
    rows = torch.arange(len(x), device=x.device)
    for estimate, at in zip(values.T, places.T, strict=True):
        tried = x.clone()
        tried[rows, :, at] = 0
        tried[rows, letter[rows, at], at] = 1
        with torch.no_grad():
            loss = goal.loss(model(tried)).to(lowest)
        better = (loss < lowest) & estimate.isfinite()
        best[better], place[better], lowest[better] = tried[better], at[better], loss[better]
    return best, place, lowest
