"""`--to torch-export`: model.pt2 from pictures, and model.pixels.pt2 from pixels to logits or candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from clearsight.core.output import write_whole
from clearsight.engines.exported_program import manifest_of
from clearsight.engines.manifest import CANDIDATES, CLASSES, LOGITS, MAP, PROBABILITIES
from clearsight.engines.manifest import FILE as MANIFEST
from clearsight.exporting.built import Built
from clearsight.exporting.exported_network import network_of, not_exportable, silent
from clearsight.exporting.request import Request, left_to_caller
from clearsight.exporting.torch_pixels import Pixels
from clearsight.exporting.whole_file import Bytes, Outputs, WholeFile

NEEDS = ()
PRECISIONS = ("fp32",)
KINDS = ("classifier", "detector", "segmenter")
FILE, INNER = "model.pt2", "model.pixels.pt2"
_NAMES = {"classifier": (PROBABILITIES, MAP), "detector": (CANDIDATES,), "segmenter": (LOGITS, CLASSES)}
_SIDES = (37, 53)  # of the example: numbers that nothing else in a network has


class _Whole(nn.Module):
    """From pictures to probabilities and the map, or to what another kind of model gives."""

    def __init__(self, built: Built) -> None:
        super().__init__()
        self.pixels, self.network = Pixels(built.model.preprocess), network_of(built.model, built.head)
        self.first = int(built.manifest.kind == "classifier")  # whose logits stay inside

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.network(self.pixels(picture))[self.first :]
        return outputs


class _Logits(nn.Module):
    """From pixels to logits or candidates."""

    def __init__(self, built: Built) -> None:
        super().__init__()
        self.network = network_of(built.model, None)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels)[0]
        return logits


def write(request: Request) -> tuple[str, ...]:
    """Write both programs, with the manifest inside -> their names."""
    built = request.built
    preprocess = built.model.preprocess
    n, height, width = (torch.export.Dim(name, min=1) for name in ("n", "height", "width"))
    picture = torch.zeros(2, *_SIDES, preprocess.channels, dtype=torch.uint8)
    whole = _Whole(built)
    with torch.no_grad(), whole.network.watched(), silent():
        program = _taken(whole, picture, {0: n, 1: height, 2: width})
    with torch.no_grad(), silent():
        inner = _taken(_Logits(built), torch.rand(2, preprocess.channels, *preprocess.size), {0: n})
    for name, one in ((FILE, program), (INNER, inner)):
        _forget_sources(one)
        with silent():
            write_whole(
                request.folder / name,
                lambda f, one=one: torch.export.save(one, f, extra_files={MANIFEST: request.manifest.to_json()}),  # type: ignore[misc]
            )
    return (FILE, INNER)


def _taken(module: nn.Module, example: Tensor, sizes: dict[int, Any]) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(module.eval(), (example,), dynamic_shapes=(sizes,), strict=False)
    except Exception as e:
        raise not_exportable(e) from e


def _forget_sources(program: torch.export.ExportedProgram) -> None:
    """Leave out where in the source code each operation stands, with its path."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)


def notes(request: Request) -> list[str]:
    """How it is opened, and what it leaves to its caller."""
    manifest = request.manifest
    how = f"torch.export.load('{FILE}').module()(picture) gives a tuple; {INNER} is the same from pixels"
    return [f"{how} to {manifest.inner}.", *left_to_caller(manifest)]


def open_file(folder: Path) -> WholeFile:
    """The program in PyTorch."""
    with silent():
        program = torch.export.load(folder / FILE)
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    manifest = manifest_of(folder / FILE)
    assert manifest is not None
    names = _NAMES[manifest.kind]

    def run(pictures: Bytes) -> Outputs:
        with torch.inference_mode():
            found = module(torch.from_numpy(np.array(pictures)))
        return {name: value.numpy() for name, value in zip(names, found, strict=False)}

    def pixels(pictures: Bytes) -> npt.NDArray[np.float32]:
        recording = _UpToPixels(module)
        with torch.no_grad():
            recording.run(torch.from_numpy(np.array(pictures)))
        assert recording.found is not None
        values: npt.NDArray[np.float32] = recording.found.numpy()
        return values

    size = (folder / FILE).stat().st_size
    return WholeFile(f"PyTorch {torch.__version__.partition('+')[0]}", run, pixels, size, _computes_in(program))


class _UpToPixels(fx.Interpreter):
    """Runs a program and keeps the pixels: what the first division gives, by 255."""

    found: Tensor | None = None

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if self.found is None and n.target is torch.ops.aten.div.Tensor:
            self.found = value
        return value


def _computes_in(program: torch.export.ExportedProgram) -> dict[str, int]:
    words = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    counts: dict[str, int] = {}
    for name, weight in program.named_parameters():
        if weight.dim() > 1 and name:
            word = words.get(weight.dtype, str(weight.dtype))
            counts[word] = counts.get(word, 0) + 1
    return counts
