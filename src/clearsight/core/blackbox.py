"""Black-box access to a model: the only way in which black-box attacks query it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.core import passes
from clearsight.core.access import classes_told, told
from clearsight.core.batching import at_once
from clearsight.core.classifier import Classifier
from clearsight.core.model import Model
from clearsight.core.norms import Measure, per_picture, perturbation_norm, project
from clearsight.core.quick_linear import quick_linear
from clearsight.core.targets import Goal, margin, surely_met
from clearsight.errors import Refused

SURE = 2e-6  # of a picture's largest output: twice as far as sums (of ResNets) come out apart in batches of other sizes


@dataclass(frozen=True, eq=False)
class _Versions:
    """Versions of pictures that are asked about, each (n,): of which picture each is, and its query from 1 on.

    nth: counted among the versions of its picture that are asked about together, from 1.  in_turn: whether they are
    asked about until one is better, and not all of them.
    """

    of: Tensor
    nth: Tensor
    query: Tensor
    in_turn: bool = False

    def some(self, which: Tensor) -> _Versions:
        of, nth, query = (t.index_select(0, which) for t in (self.of, self.nth, self.query))
        return _Versions(of, nth, query, self.in_turn)


class OutOfQueries(Exception):  # noqa: N818 (it is how every attack ends that goes on asking, not a mistake)
    """None of the pictures that were asked about has a query left."""


class BlackBox:
    """A model behind a service: it answers queries about pictures, and counts them.

    x (B, C, *S): the clean pictures; goal: what is attacked for; queries: how many answers each picture has, a hard
    stop.  access: what an answer holds: "logits"; "probs" after softmax; "top-5", or another number, of them, the rest
    unknown; or the "label" alone.  digits: decimals to which probabilities are rounded.  Only pixels in [0, 1] can be
    sent: others are cut to them.  eps, norm: the budget; a version counts as a success only within it, and what lies
    beyond it by rounding alone is cut to it before it is sent.  The goal is met where it is met by more than rounding
    (SURE), as far as its margin or its `surely` can tell, or an attack that closes in on the border ends where the next
    look, in another batch, says no.

    used (B,): queries paid so far; first (B,): the query that met the goal within the budget, 0 where none has;
    found (B, C, *S), meets (B,) bool: of all versions asked about that meet the goal the nearest to the picture, within
    the budget or not.  labels: the names of the classes.
    """

    def __init__(
        self,
        model: Model,
        x: Tensor,
        goal: Goal,
        *,
        eps: float,
        norm: Measure = "linf",
        queries: int = 1000,
        access: str = "logits",
        digits: int | None = None,
    ) -> None:
        if queries < 1:
            raise Refused(f"queries={queries}: give at least 1")
        self.top = classes_told(access, digits)
        if access not in ("logits", "label"):
            _check_probabilities(model, access)
        self.clean, self.goal, self.eps, self.norm = x, goal, eps, norm
        self.queries, self.access, self.digits = queries, access, digits
        self.labels = model.labels
        self._model = model
        self._limit = eps + 1e-6 * max(eps, 1) * (eps > 0)  # what is nearer than this is beyond eps by rounding alone
        self.used = torch.zeros(len(x), dtype=torch.long)
        self.first = torch.zeros(len(x), dtype=torch.long)
        self._largest = torch.zeros(len(x))  # output of any version: where two are equal they may be small themselves
        self.found, self.meets = x.clone(), torch.zeros(len(x), dtype=torch.bool)
        self._distance = torch.full((len(x),), torch.inf)
        self._lowest, self._loss = x.clone(), torch.full((len(x),), torch.inf)  # of those asked within the budget

    def left(self, rows: Tensor | None = None) -> Tensor:
        """How many queries the pictures have left: (n,), on the CPU."""
        remaining = self.queries - self.used
        return remaining if rows is None else remaining[rows.cpu()]

    def loss(self, z: Tensor, rows: Tensor) -> Tensor:
        """How far from the goal versions z (n, C, *S) of the pictures rows (n,) are, by what the scores say: (n,).

        It falls as the goal comes nearer; of Misclassify and Become it is below 0 where they are met, as far as the
        scores that the model returns show it.  Infinite for versions without a query left.  Refused
        where the model answers with labels alone.
        """
        return self._ask(z, rows)[0]

    def met(self, z: Tensor, rows: Tensor) -> Tensor:
        """Whether versions z (n, C, *S) of the pictures rows (n,) meet the goal, by the label alone: (n,) bool.

        A row may stand more than once; each is a query.  False for versions without a query left.
        """
        return self._ask(z, rows, label=True)[1]

    def ask(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and met of one and the same query."""
        return self._ask(z, rows)[:2]

    def ask_until_better(
        self, z: Tensor, rows: Tensor, nth: Tensor, low: Tensor, known: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ask about versions of the pictures rows (n,) in turn, of each picture until one is better.

        Better is a loss below low (n,), or the goal met.  The versions of a picture stand one after the other, and nth
        (n,) counts them from 1.  The network sees all of them at once; but an answer that comes after the better one is
        thrown away: it is not paid for, not counted and not told.

        known (n,) bool: versions that were asked about before, with the loss low and without meeting the goal: they are
        paid for and counted, and the network does not see them again.  z (m, C, *S): the others, in their order.
        Returns loss and met, (n,), as `ask` does, and which versions were asked about, (n,) bool; of those that were
        not the loss is infinite.
        """
        return self._ask(z, rows, nth=nth.cpu(), low=low.cpu(), known=None if known is None else known.cpu())

    def _ask(
        self,
        z: Tensor,
        rows: Tensor,
        *,
        label: bool = False,
        nth: Tensor | None = None,
        low: Tensor | None = None,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, met and asked, as in ask_until_better; where low is None all are asked."""
        if self.access == "label" and not label:
            raise Refused(
                "this attack needs scores, and the model answers with labels alone (access label): use boundary or "
                "hop-skip-jump"
            )
        n, device, rows = len(rows), z.device, rows.cpu()
        new = None if known is None or not bool(known.any()) else (~known).nonzero()[:, 0]
        if len(z) != (n if new is None else len(new)):
            raise ValueError(f"{len(z)} versions of {n} pictures: one row for each version")
        nth = _nth(rows) if nth is None else nth
        query = self.used.index_select(0, rows) + nth  # of the query about its picture, from 1 on
        paid = query <= self.queries
        if bool(paid.all()):
            versions = _Versions(rows, nth, query, low is not None)
            found = self._answers(z.detach(), versions, low, new, label) if n else (torch.zeros(0), paid, paid)
            return found[0].to(device), found[1].to(device), found[2].to(device)
        if not bool(paid.any()):
            raise OutOfQueries
        sent = paid if new is None else paid[new]
        new = None if known is None else (~known[paid]).nonzero()[:, 0]
        low = None if low is None else low[paid]
        versions = _Versions(rows[paid], nth[paid], query[paid], low is not None)
        some = self._answers(z.detach()[sent.to(device)], versions, low, new, label)
        loss = torch.full((n,), torch.inf).masked_scatter(paid, some[0])
        met, asked = (torch.zeros_like(paid).masked_scatter(paid, t) for t in some[1:])
        return loss.to(device), met.to(device), asked.to(device)

    def _answers(
        self, z: Tensor, v: _Versions, low: Tensor | None, new: Tensor | None, label: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, met and asked, as `_ask`, of versions that can all be paid for.

        z (m, C, *S): those of them that are not known, new (m,) says which; None for all.
        """
        fresh = v if new is None else v.some(new)
        sent, far = self._sendable(z, fresh.of)
        loss, met, height = self._judged(sent, fresh, label)
        if low is None:
            asked = torch.ones_like(met)
        else:
            if new is not None:
                loss = low.index_copy(0, new, loss)
                met = torch.zeros(len(v.of), dtype=torch.bool).index_copy_(0, new, met)
            asked = _until_first((loss < low) | met, v.nth)
            paid_for = int(asked.sum())
            passes.note(paid_for)
            if paid_for < len(asked):
                loss, met = loss.masked_fill(~asked, torch.inf), met & asked
                height = height.masked_fill(~(asked if new is None else asked.index_select(0, new)), 0)
        self._largest.scatter_reduce_(0, fresh.of, height, "amax")
        self.used.index_add_(0, v.of, asked.long())
        told = (loss, met) if new is None else (loss.index_select(0, new), met.index_select(0, new))
        self._note(sent, far, fresh.of, fresh.query, *told)
        return loss, met, asked

    def _judged(self, sent: Tensor, v: _Versions, label: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, met and the largest output of versions sent (n, C, *S)."""
        if not len(sent):
            return torch.zeros(0), torch.zeros(0, dtype=torch.bool), torch.zeros(0)
        goal = self.goal[v.of]
        out = self._outputs(sent, every=not v.in_turn)
        height = out.flatten(1).abs().amax(1)
        value = margin(goal, out) if hasattr(goal, "margin") else None
        if value is None:
            met = surely_met(goal, out, SURE)
        elif bool((value < 0).any()):  # it is met where it is met by more than rounding
            met = goal.met(out) & (value < -SURE * self._largest_until(v, height))
        else:
            met = torch.zeros_like(value, dtype=torch.bool)
        if label:
            return torch.full_like(height, torch.inf), met, height
        loss = value if self.access == "logits" and value is not None else margin(goal, self._answer(out))
        return loss, met, height

    def _largest_until(self, v: _Versions, height: Tensor) -> Tensor:
        """The largest output of each version's picture until then, its own, height (n,), included."""
        if not v.in_turn:
            return self._largest.scatter_reduce(0, v.of, height, "amax")[v.of]
        return torch.maximum(self._largest.index_select(0, v.of), _highest_so_far(height, v.of, v.nth))

    def _outputs(self, sent: Tensor, *, every: bool) -> Tensor:
        """Outputs (n, ...) of versions sent, as many at a time as suit the network; every: all of them are counted."""
        counted = nullcontext() if every else passes.uncounted()
        with torch.no_grad(), counted, quick_linear(self._model.net):
            size = at_once()
            if len(sent) <= size:
                return self._model(sent).float().cpu()
            parts = torch.chunk(sent, -(-len(sent) // size))
            return torch.cat([self._model(part).float().cpu() for part in parts])

    def _sendable(self, z: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
        """Versions z (n, C, *S) of the pictures of (n,) cut to [0, 1], and to a budget that only rounding exceeds.

        And how far from the pictures they were before, (n,), on the CPU.
        """
        z, of = z.clamp(0, 1), of.to(z.device)
        move = self.clean.index_select(0, of).sub_(z)
        far = move.abs_().flatten(1).amax(1) if self.norm == "linf" else perturbation_norm(move, self.norm)
        over = far > self.eps
        if bool(over.any()) and bool((over := over & (far <= self._limit)).any()):
            cut = project(z, self.clean.index_select(0, of), self.eps, self.norm)
            others = (~over).nonzero()[:, 0]
            z = cut.index_copy_(0, others, z.index_select(0, others))
        return z, far.cpu()

    def _answer(self, out: Tensor) -> Tensor:
        """The outputs (n, K) that the model returns, as logarithms where they are probabilities."""
        if self.access == "logits":
            return out
        p = told(out.double().softmax(1), out, self.top, self.digits)
        return p.clamp_min(1e-12).log().float()

    def _note(self, sent: Tensor, far: Tensor, of: Tensor, number: Tensor, loss: Tensor, met: Tensor) -> None:
        """Remember, of versions sent (n, C, *S) of the pictures of (n,), what is better than all before."""
        inside = far <= self._limit
        if bool(met.any()):
            k = _least(number, of, met & inside & (self.first[of] == 0))
            self.first[of[k]] = number[k]
            hits = met.nonzero()[:, 0]
            move = sent[hits.to(sent.device)] - self.clean[of[hits].to(sent.device)]
            far[hits] = perturbation_norm(move, self.norm).cpu()
            k = _least(far, of, met & (far < self._distance[of]))
            self.found[of[k]], self._distance[of[k]], self.meets[of[k]] = sent[k], far[k], True
        k = _least(loss, of, inside & (loss < self._loss.index_select(0, of)))
        if k.numel():
            improved = of.index_select(0, k)
            self._loss.index_copy_(0, improved, loss.index_select(0, k))
            self._lowest.index_copy_(0, improved.to(sent.device), sent.index_select(0, k.to(sent.device)))

    def best(self, raw: Tensor | None) -> Tensor:
        """What the attack comes to, within the budget: (B, C, *S).

        The nearest version that met the goal; where none did, that with the lowest loss of those asked about; where no
        scores were asked for, what the attack proposed (B, C, *S), cut to the budget.  An attack that was stopped
        (None) proposes what it found outside the budget.
        """
        proposed = project(self.found if raw is None else raw, self.clean, self.eps, self.norm)
        scored, within = self._loss < torch.inf, self.meets & (self._distance <= self._limit)
        best_scored = torch.where(per_picture(scored.to(proposed.device), proposed), self._lowest, proposed)
        return torch.where(per_picture(within.to(proposed.device), proposed), self.found, best_scored)


def _least(value: Tensor, of: Tensor, among: Tensor) -> Tensor:
    """Where the smallest of the values (n,) of each picture of (n,) stands, of those among (n,) bool; ties: the first.

    >>> _least(torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([0, 0, 1, 1]), torch.tensor([True, True, True, False]))
    tensor([1, 2])
    """
    where = among.nonzero()[:, 0]
    if bool((of.index_select(0, where).diff() > 0).all()):
        return where
    where = where[value[where].argsort(stable=True)]
    where = where[of[where].argsort(stable=True)]
    return where[torch.cat([torch.ones(1, dtype=torch.bool), of[where].diff() != 0])]


def _nth(rows: Tensor) -> Tensor:
    """How often each row has stood there, itself counted.

    >>> _nth(torch.tensor([0, 1, 0, 0])).tolist()
    [1, 1, 2, 3]
    """
    if bool((rows.diff() > 0).all()):
        return torch.ones_like(rows)
    order = rows.argsort(stable=True)
    place = torch.arange(len(rows))
    first = torch.ones(len(rows), dtype=torch.bool)
    first[1:] = rows[order].diff() != 0
    return torch.empty_like(rows).scatter(0, order, place - torch.where(first, place, 0).cummax(0).values + 1)


def _until_first(better: Tensor, nth: Tensor) -> Tensor:
    """Which versions (n,) bool come no later than the first better one of their picture; nth (n,) counts them from 1.

    >>> _until_first(torch.tensor([False, True, False, False, False]), torch.tensor([1, 2, 3, 1, 2])).tolist()
    [True, True, False, True, True]
    """
    if not bool(better.any()):
        return torch.ones_like(better)
    before = better.cumsum(0) - better.long()  # better ones of all versions before
    return before == before.index_select(0, torch.arange(1, len(nth) + 1) - nth)


def _highest_so_far(height: Tensor, of: Tensor, nth: Tensor) -> Tensor:
    """The largest of each picture's heights (n,) up to each of its versions.

    of (n,): whose versions they are, picture by picture; nth (n,) counts them from 1, and may leave some out.

    >>> of, nth = torch.tensor([4, 4, 4, 5]), torch.tensor([1, 2, 4, 1])
    >>> _highest_so_far(torch.tensor([2.0, 1.0, 3.0, 1.0]), of, nth).tolist()
    [2.0, 2.0, 3.0, 1.0]
    """
    which = torch.zeros_like(of)
    which[1:] = (of.diff() != 0).cumsum(0)
    table = torch.zeros(int(which[-1]) + 1, int(nth.max()))
    table[which, nth - 1] = height
    return table.cummax(1).values[which, nth - 1]


def _check_probabilities(model: Model, access: str) -> None:
    """Refuse an access by probabilities of classes to a model that has none."""
    if not isinstance(model, Classifier) or not model.one_of_many:
        outputs = model.scores if isinstance(model, Classifier) else f"those of a {model.kind}"
        raise Refused(
            f"access {access} needs probabilities, but the model's outputs are {outputs}: give logits or label"
        )
