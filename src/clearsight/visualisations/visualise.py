"""Simonyan et al. 2014, arXiv:1312.6034, section 2; Olah et al. 2017, doi:10.23915/distill.00007."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.drawing.heatmaps import photo
from clearsight.errors import Refused
from clearsight.feature_report.report import FeatureContext
from clearsight.internals.capture import Captured, capture
from clearsight.internals.layers import gradients
from clearsight.reporting.figures import figure
from clearsight.reporting.findings import Cell
from clearsight.reporting.pages import INDEX, Block, Page, Shown, layer_page, unit_page
from clearsight.visualisations.common.counts import at_least

# Columns: what 200 ImageNet photos (every fifth class) vary in, and how far; lightness, blue to yellow, green to purple
COLOURS = ((0.562, 0.201, 0.055), (0.581, 0.002, -0.111), (0.589, -0.193, 0.056))
_NOISE = 8  # pictures of noise, for what a picture without any structure gives

# What one of the model's outputs is called, what is raised of it, and which ones are shown where none is named
_CLASS = ("class", "logit", "classes that the model says of most pictures")
_WORDS = {
    "multi-label": ("label", "logit", "labels that are the highest in most pictures"),
    "values": ("output", "value", "outputs that are the highest in most pictures"),
}


@method(paper="doi:10.23915/distill.00007", claims="stochastic", order=3)
def visualise(
    inside: FeatureContext,
    *,
    steps: int = 128,
    step: float = 0.04,
    decay: float = 1.25,
    jitter: float = 0.14,
    turn: float = 12.0,
    zoom: float = 0.25,
    of: Literal["both", "units", "classes"] = "both",
) -> Iterator[Page]:
    """Pictures made by gradient ascent that a unit, a class or another output responds to most.

    A picture is the sigmoid of a sum of waves, in colours that vary as those of photos do.  The ascent raises the mean
    of a unit's map before the squashing, the logit of a class, or an output that is a value.  At each step the picture
    is moved, rotated and zoomed at random, so that only robust structure pays.

    Args:
        steps: number of steps of Adam, at least 1.
        step: step size of Adam, above 0.
        decay: finer waves are fainter by 1 / frequency ** decay; at least 0.
        jitter: largest move at a step, as a share of the picture's side; at least 0.
        turn: largest rotation at a step in degrees, at least 0.
        zoom: largest zoom at a step, as a share of the picture's size; at least 0 and below 1.
        of: what pictures are made for: "units", "classes" or "both".

    Refused: options outside their ranges.
    """
    at_least(steps=steps)
    if step <= 0 or min(decay, jitter, turn, zoom) < 0 or zoom >= 1:
        raise Refused("step must be above 0, decay, jitter and turn at least 0, zoom at least 0 and below 1")
    ascent = _Ascent(inside, steps, step, decay, jitter, turn, zoom)
    if of != "classes" and (inside.layers or of == "units"):
        yield from _units(inside, ascent)
    if of != "units":
        yield from _classes(inside, ascent)


def _units(inside: FeatureContext, ascent: _Ascent) -> Iterator[Page]:
    for layer in inside.every_layer():
        tiles = []
        for unit in inside.units(layer):

            def response(x: Tensor, layer: str = layer, unit: int = unit) -> Tensor:
                return _unit(capture(inside.model, x, layer), unit)

            optimised = ascent.climb(response, f"{layer} {unit}")
            best = inside.best(layer)
            row = int(best.rows[unit, 0])
            with torch.no_grad():
                photo_value = float(response(inside.case.pixels([row]).to(inside.model.device)))
            facts: dict[str, Cell] = {
                "reached": optimised.value,
                "best photo": photo_value,
                f"{_NOISE} noise pictures, best": optimised.noise,
            }
            words = (
                f"The mean of the unit's map is {optimised.value:.3g} for this picture, {photo_value:.3g} for the "
                f"photo with its highest peak ({inside.name(row)}), and at most {optimised.noise:.3g} for {_NOISE} "
                f"pictures of noise. {ascent.words}"
            )
            drawn = figure(
                f"{layer}-{unit}-made", photo(optimised.x), f"A picture that unit {unit} of {layer} responds to"
            )
            shown = Shown(f"unit {unit}", drawn, facts, unit_page(layer, unit))
            block = Block("Made for this unit", words, (shown,), layer=layer, units=(unit,))
            yield Page(unit_page(layer, unit), f"{layer}, unit {unit}", (block,))
            tiles.append(shown)
        words = f"What raises the mean of each unit's map. {ascent.words}"
        yield Page(
            layer_page(layer),
            layer,
            (Block("Made for these units", words, tuple(tiles), layer=layer, units=inside.named_units),),
        )


def _classes(inside: FeatureContext, ascent: _Ascent) -> Iterator[Page]:
    classes = inside.shown_classes()
    thing, score, chosen = _WORDS.get(inside.model.scores, _CLASS)
    tiles = []
    for k in classes:

        def response(x: Tensor, k: int = k) -> Tensor:
            return inside.model(x)[:, k]

        optimised = ascent.climb(response, f"{thing} {k}")
        with torch.no_grad():
            p = inside.model.chances(inside.model(optimised.x[None].to(inside.model.device)).float())[0, k]
        label = inside.model.name(k)
        of = inside.case.logits[:, k]
        best = inside.name(int(of.argmax()))
        facts: dict[str, Cell] = {
            score: optimised.value,
            **({} if score == "value" else {"probability": float(p)}),
            f"best photo ({best})": float(of.max()),
            f"{_NOISE} noise pictures, best": optimised.noise,
        }
        drawn = figure(f"class-{k}-made", photo(optimised.x), f"A picture that raises the {score} of {label}")
        tiles.append(Shown(label, drawn, facts))
    named = inside.classes or len(inside.model.labels) == 1
    why = "" if named else f" These are the {chosen}; name others with target=CLASS (--target CLASS)."
    a = "an" if thing == "output" else "a"
    words = f"Pictures that raise the {score} of {a} {thing}. {ascent.words}{why}"
    yield Page(INDEX, "", (Block(f"Made for {a} {thing}", words, tuple(tiles), targets=inside.classes),))


class _Optimised:
    """An optimised picture (C, H, W), the response to it without jitter, and the highest response to noise pictures."""

    def __init__(self, x: Tensor, value: float, noise: float) -> None:
        self.x, self.value, self.noise = x, value, noise


class _Ascent:
    """Gradient ascent with its settings.  The same seed gives the same picture, whatever else is made."""

    def __init__(
        self, inside: FeatureContext, steps: int, step: float, decay: float, jitter: float, turn: float, zoom: float
    ) -> None:
        self.inside, self.steps, self.step = inside, steps, step
        self.jitter, self.turn, self.zoom = jitter, turn, zoom
        response, width = inside.model.preprocess.size
        fy, fx = torch.fft.fftfreq(response)[:, None], torch.fft.rfftfreq(width)[None]
        lowest = 1 / max(response, width)
        self.scale = 0.25 * (fx**2 + fy**2).sqrt().clamp_min(lowest) ** -decay
        self.words = f"{steps} steps of gradient ascent, seed {inside.case.seed}."

    def climb(self, response: Callable[[Tensor], Tensor], what: str) -> _Optimised:
        """Find a picture with a high response (B, C, H, W) -> (B,)."""
        model, case = self.inside.model, self.inside.case
        channels, size = model.preprocess.channels, model.preprocess.size
        with rng.seeded(case.seed, torch.zeros(1, 1), f"visualise {what}"):
            start = rng.normal(torch.zeros(1, channels, *self.scale.shape, 2)).to(model.device)
            waves = self._start_with_gradient(response, start)
            adam = torch.optim.Adam([waves], self.step)
            for i in range(self.steps):
                with torch.enable_grad():
                    (g,) = gradients(response(self._jittered(picture(waves, self.scale, size))), waves, "the picture")
                waves.grad = -g
                adam.step()
                if i % 8 == 0:
                    case.progress(f"visualise {what}", i, self.steps)
            noise = rng.uniform(torch.zeros(1, _NOISE, channels, *size))[0].to(model.device)
        case.progress(f"visualise {what}", self.steps, self.steps)
        with torch.no_grad():
            x = picture(waves, self.scale, size)
            return _Optimised(x[0].cpu(), float(response(x)), float(response(noise).max()))

    def _start_with_gradient(self, response: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        """The faintest start that has a gradient: on flat grey all units behind a ReLU may be silent."""
        for strength in (0.01, 0.1, 1.0, 10.0):
            waves = (strength * start).requires_grad_()
            with torch.enable_grad():
                (g,) = gradients(response(picture(waves, self.scale, self.inside.model.preprocess.size)), waves)
            if bool(g.any()):
                break
        return waves

    def _jittered(self, x: Tensor) -> Tensor:
        """Rotate, zoom and shift x (1, C, H, W) at random; beyond its edges it is mirrored."""
        angle, zoom, right, down = (2 * rng.uniform(torch.zeros(1, 4))[0] - 1).tolist()
        a, k = math.radians(self.turn * angle), 1 / (1 + self.zoom * zoom)
        ratio = x.shape[2] / x.shape[3]
        theta = [
            [k * math.cos(a), -k * math.sin(a) * ratio, 2 * self.jitter * right],
            [k * math.sin(a) / ratio, k * math.cos(a), 2 * self.jitter * down],
        ]
        grid = torch.nn.functional.affine_grid(torch.tensor([theta]).to(x), list(x.shape), align_corners=False)
        return torch.nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def picture(waves: Tensor, scale: Tensor, size: tuple[int, ...]) -> Tensor:
    """Waves (1, C, H, W // 2 + 1, 2), each times its scale -> a picture (1, C, H, W) in [0, 1]; no waves are mid-grey.

    >>> picture(torch.zeros(1, 1, 2, 2, 2), torch.ones(2, 2), (2, 2)).tolist()
    [[[[0.5, 0.5], [0.5, 0.5]]]]
    """
    x = torch.fft.irfft2(torch.view_as_complex(waves) * scale.to(waves), s=size, norm="ortho")
    if x.shape[1] == 3:
        x = torch.einsum("oc,bchw->bohw", torch.tensor(COLOURS).to(x), x)
    inside: Tensor = x.sigmoid()
    return inside


def _unit(caught: Captured, unit: int) -> Tensor:
    return caught.preactivation[:, unit].mean((1, 2))
