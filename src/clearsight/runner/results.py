"""The results of explaining and attacking, and their display in a notebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from clearsight.core.catalogue import write_value
from clearsight.core.norms import Measure
from clearsight.core.norms import perturbation_norm as distance
from clearsight.core.output import write_whole
from clearsight.core.targets import Target
from clearsight.core.text import counted
from clearsight.drawing.heatmaps import SCALE_WORDS, magnified_difference, overlay, photo
from clearsight.drawing.notebook import block, figure


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps as the method gave them, and everything needed to make them again.

    Args:
        maps: maps (B, *S) float32, signed and unscaled.
        x: the pictures (B, C, *S) in [0, 1].
        method: spelling of the method with the layer that was used.
        target: what was explained.
        forwards: forward passes per picture.
        backwards: backward passes per picture.
        seconds: time that it took.
        seed: seed of the randomness.
        model: words that load the model, "" if there are none.
        fingerprint: 16 hex digits of a hash over the model's weights.
        labels: names of the model's classes.
        signed: whether the method claims that its maps hold negative values, or one of these does.
        diagnostics: the method's own numbers about its maps, each (B,), such as the residual of a map that should sum
            to the target.
    """

    maps: Tensor
    x: Tensor
    method: str
    target: Target
    forwards: float
    backwards: float
    seconds: float
    seed: int
    model: str
    fingerprint: str
    labels: tuple[str, ...]
    signed: bool
    diagnostics: dict[str, Tensor] = field(default_factory=dict)

    def questions(self) -> list[str]:
        """The target of each picture, in words."""
        words = self.target.words(self.labels)
        return words * len(self.maps) if len(words) == 1 else words

    def __repr__(self) -> str:
        return f"<Explanation by {self.method} of {self.model or 'a model'}, {counted(len(self.x), 'picture')}>"

    def save(self, path: str | Path) -> Path:
        """Write the raw maps and where they come from as .npz (plain arrays, no pickle)."""
        words = {"method": self.method, "model": self.model, "fingerprint": self.fingerprint}
        arrays = {"maps": self.maps.numpy(), "target": np.array(self.questions()), "seed": np.array(self.seed)}
        arrays |= {k: np.array(v) for k, v in words.items()}
        arrays |= {k: v.numpy() for k, v in self.diagnostics.items()}
        return write_whole(Path(path).with_suffix(".npz"), lambda f: np.savez_compressed(f, **arrays))  # type: ignore[arg-type]

    def _repr_html_(self) -> str:
        from clearsight.runner.results import explanation_html

        return explanation_html(self)


@dataclass(frozen=True, eq=False)
class Attacked:
    """The result of an attack, recounted by the runner.

    Args:
        x: attacked pictures (B, C, *S) in [0, 1], inside the budget, whatever the method returned.
        fooled: bool (B,), whether the goal is met and was not met by the clean picture.
        already: bool (B,), whether the goal was met before any attack.
        overstep: how far the method left the budget before it was clipped, in the same units as eps.
        queries: forward passes per picture that was attacked.
        backwards: backward passes per picture that was attacked.
        seconds: time that it took.
        method: spelling of the attack.
        eps: the budget, in pixels in [0, 1] or in characters.
        seed: seed of the randomness.
        clean: the pictures (B, C, *S) before the attack.
        norm: norm in which eps is meant: "linf", "l2" or "characters".
        spent: of a black-box attack, (B,) queries paid for; None of others.
        first: of a black-box attack, (B,) the query that met the goal within the budget; 0 if the recount says that
            none did, and spent if the recount alone says that the goal is met; None of others.
    """

    x: Tensor
    fooled: Tensor
    already: Tensor
    overstep: float
    queries: float
    backwards: float
    seconds: float
    method: str
    eps: float
    seed: int
    clean: Tensor
    norm: Measure = "linf"
    spent: Tensor | None = None
    first: Tensor | None = None

    @property
    def distance(self) -> Tensor:
        """How far each picture was moved, (B,), in the norm of the budget."""
        return distance(self.x - self.clean, self.norm)

    def __repr__(self) -> str:
        eps = write_value(self.eps)
        tried = counted(len(self.x), "picture")
        return f"<Attacked by {self.method}, eps {eps}, {tried}, {int(self.fooled.sum())} fooled>"

    def _repr_html_(self) -> str:
        from clearsight.runner.results import attacked_html

        return attacked_html(self)


def caption(e: Explanation, i: int, probabilities: Sequence[float] | Tensor | None) -> str:
    chance = "" if probabilities is None else f" (p = {100 * float(probabilities[i]):.1f} %)"
    return f"{e.method}\n{e.questions()[i]}{chance}\nraw map {_span(e.maps[i], e.signed)}"


def _span(m: Tensor, signed: bool) -> str:
    if not bool(m.any()):
        return f"0 everywhere: nothing speaks for it{' or against it' if signed else ''}"
    return f"{float(m.min()):.3g} to {float(m.max()):.3g}".replace("-", "−")


def magnification(attacked: Attacked) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, ... by which the difference can be multiplied within half of the range."""
    most = 0.25 / max(float((attacked.x - attacked.clean).abs().max()), 1e-4)
    tens = 10.0 ** math.floor(math.log10(max(most, 1)))
    return max(k * tens for k in (1, 2, 5) if k * tens <= max(most, 1) * 1.001)


_MOST = 8


def explanation_html(e: Explanation) -> str:
    """An Explanation in a notebook: each picture beside its map, the first eight of them."""
    rows = []
    for i, x in enumerate(e.x[:_MOST]):
        rows.append(figure([photo(x), overlay(x, e.maps[i], signed=e.signed)], caption(e, i, None)))
    per_picture = f"{e.forwards:.4g} forward and {e.backwards:.4g} backward passes per picture, {e.seconds:.2f} s"
    inks = "orange speaks for it, purple against it" if e.signed else "orange speaks for it"
    note = f"{e.model}, {per_picture}, seed {e.seed}. The darker, the stronger: {inks}. {SCALE_WORDS}"
    return block(rows, len(e.x), note)


def attacked_html(a: Attacked) -> str:
    """An Attacked in a notebook: clean, attacked and the difference, the first eight of them."""
    times = magnification(a)
    rows = []
    for i, (clean, x) in enumerate(zip(a.clean[:_MOST], a.x[:_MOST], strict=True)):
        state = "met before any attack" if a.already[i] else "not fooled"
        if a.fooled[i]:
            state = "fooled"
        rows.append(
            figure([photo(clean), photo(x), magnified_difference(clean, x, times)], f"{state}\ndifference × {times:g}")
        )
    tried = int((~a.already).sum())
    note = (
        f"{a.method}, eps {write_value(a.eps)}: {int(a.fooled.sum())} of {tried} attacked pictures fooled, "
        f"{a.queries:.4g} queries per picture, {a.seconds:.2f} s, seed {a.seed}."
    )
    return block(rows, len(a.x), note)
