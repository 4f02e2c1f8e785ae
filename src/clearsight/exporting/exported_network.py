"""What is exported of a Classifier: from pixels to logits, probabilities and the map of the top class."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.copying import plain
from clearsight.core.model import Model
from clearsight.engines.manifest import LOGITS, MAP, PROBABILITIES, VALUES
from clearsight.errors import Refused
from clearsight.exporting.heatmap_head import Head, rows, summed
from clearsight.exporting.pixel_network import PixelNetwork
from clearsight.exporting.place_networks import DetectorNetwork, SegmenterNetwork
from clearsight.exporting.pooling import without_divisors
from clearsight.internals.places import as_maps

AnyModel = TypeVar("AnyModel", bound=Model)

_EXAMPLES = 2  # pictures in the example: a program made from one takes no other number


class ExportedNetwork(PixelNetwork):
    """Pixels (N, C, h, w) in [0, 1] -> logits, probabilities or values, each (N, K), and the map (N, h', w') if any."""

    def __init__(self, model: Classifier, head: Head | None) -> None:
        super().__init__(model)
        self.head, self.scores = head, model.scores
        chances = VALUES if model.scores == "values" else PROBABILITIES
        self.outputs = (LOGITS, chances) if head is None else (LOGITS, chances, MAP)
        self.channels: list[Tensor] = []
        self.weight = "" if head is None else self._place_of(head.weight)

    def _place_of(self, weight: Tensor) -> str:
        """The name of the network's own parameter with the head's weights, so that no file holds them twice."""
        names = [f"net.{name}" for name, parameter in self.net.named_parameters() if parameter is weight]
        if not names:
            self.register_buffer("map_weight", weight)
        return names[0] if names else "map_weight"

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        self.channels.clear()
        logits = self._logits(self.raw(pixels))
        if self.head is None:
            return logits, self._chances(logits)
        weight = self.get_buffer(self.weight) if self.weight == "map_weight" else self.get_parameter(self.weight)
        weights = rows(self.head, weight, logits.argmax(1))
        return logits, self._chances(logits), summed(weights, self.channels.pop()).float()

    def _logits(self, out: Tensor) -> Tensor:
        """As `Classifier.logits` has them."""
        if out.dim() == 1 and self.scores in ("one-logit", "values"):
            out = out[:, None]
        if self.scores == "one-logit":
            return torch.cat([out * -0.5, out * 0.5], 1)
        return out.clamp_min(torch.finfo(torch.float32).tiny).log() if self.scores == "probabilities" else out

    def _chances(self, logits: Tensor) -> Tensor:
        """As `Classifier.chances` has them."""
        if self.scores == "values":
            return logits.clone()
        return logits.sigmoid() if self.scores == "multi-label" else logits.softmax(1)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, the channels that the map is made of are noted as the network runs."""
        if self.head is None:
            yield
            return
        layout = self.head.layout

        def note(_module: nn.Module, _inputs: object, out: Tensor) -> None:
            self.channels.append(as_maps(out.clone(), layout)[0])  # a ReLU behind it may work in place

        handle = self.net.get_submodule(self.head.layer).register_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()


def network_of(model: Model, head: Head | None) -> PixelNetwork:
    """What is exported of a model of any kind; the head is a classifier's."""
    if isinstance(model, Classifier):
        return ExportedNetwork(model, head)
    return DetectorNetwork(model) if model.kind == "detector" else SegmenterNetwork(model)


def for_export(model: AnyModel) -> AnyModel:
    """A copy of the model on the CPU in float32, evaluation mode and frozen, each of its weights a plain parameter.

    Refused: networks of TorchScript, which torch.export does not take, and what cannot be copied.
    """
    if isinstance(model.net, torch.jit.ScriptModule):
        raise Refused("torch.export takes no TorchScript: give the network from which it was recorded")
    net = plain(model.net).cpu().float().eval().requires_grad_(False)
    return replace(model, net=net, channels_last=False)


def export_program(model: Model, head: Head | None) -> torch.export.ExportedProgram:
    """The network of a model from `for_export`, as `torch.export` takes it, for any number of pictures.

    Refused: a network that cannot be taken, with the reason that torch gives.
    """
    network = network_of(model, head).eval()
    x = torch.rand(_EXAMPLES, model.preprocess.channels, *model.preprocess.size, device=model.device)
    with torch.no_grad(), network.watched(), silent():
        try:
            program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=False)
        except Exception as e:
            raise not_exportable(e) from e
    return without_divisors(program)


def not_exportable(error: Exception) -> Refused:
    """The refusal of a network, with the first lines of what torch says of it."""
    if "Size-like symbols: u" in str(error):  # a size that no picture has before it is seen
        return Refused(
            "torch.export cannot take this network: how much it computes depends on what the picture shows, as the "
            "regions that Faster R-CNN proposes do",
            "export a network of one stage, such as fcos or ssdlite; audit, explain and attack take this one",
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines)[:300] or "no reason is given"
    return Refused(
        f"torch.export cannot take this network ({type(error).__name__}: {said})",
        "let forward use tensor operations alone, without ifs on values and without a fixed number of pictures: "
        "x.shape[0] is any number, len(x) that of the example",
    )


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Inside, libraries neither warn nor log nor print: what matters of an export is measured afterwards.

    Of a network that it cannot take torch prints the whole graph, thousands of lines.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
