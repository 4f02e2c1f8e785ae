"""Write a model into a file that other programs run, and prove that it answers as the model does."""

from __future__ import annotations

import importlib
import json
import pkgutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import clearsight.exporting as package
from clearsight.core.classifier import Classifier
from clearsight.core.model import Model
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.data.datasets import open_data
from clearsight.data.records import Pictures
from clearsight.data.text_inputs import refuse_texts
from clearsight.engines.manifest import Precision
from clearsight.errors import Refused
from clearsight.exporting import proof
from clearsight.exporting.built import build
from clearsight.exporting.earlier import FILE, clear_away, earlier_files
from clearsight.exporting.exported import Exported as Exported
from clearsight.exporting.extras import need
from clearsight.exporting.half import halved
from clearsight.exporting.int8_search import Int8, int8_graph
from clearsight.exporting.latency import measure
from clearsight.exporting.layers_apart import layer_gaps
from clearsight.exporting.onnx_file import network_graph, whole_model
from clearsight.exporting.parity import decoded
from clearsight.exporting.request import Request
from clearsight.exporting.sheet_parts import Compared
from clearsight.exporting.whole_file import Bytes, onnx_pixels

_CALIBRATED = 256  # pictures, at most: more hardly move the smallest and largest values
_SEEN = 8  # pictures on which layers are compared


def formats() -> dict[str, ModuleType]:
    """The formats by name: each is a file to_NAME.py here."""
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith("to_")]
    return {
        name.removeprefix("to_").replace("_", "-"): importlib.import_module(f"{package.__name__}.{name}")
        for name in names
    }


def export(
    model: Model,
    folder: str | Path,
    to: str = "onnx",
    *,
    precision: str = "fp32",
    verify: Pictures | str | Path | None = None,
    calibrate: Pictures | str | Path | None = None,
    agree: float | None = None,
    seed: int = 0,
    command: str = "",
    progress: Progress | None = None,
) -> Exported:
    """Write a model for other programs to run -> what was written, with the report of how it compares.

    The file takes the bytes of decoded pictures and gives probabilities, and the heatmap of the top class where the
    network ends in averaged channels and one dense layer.  Of a detector it gives candidates, and in an ONNX file boxes
    too, in pixels of the picture; of a segmenter logits and the class of each pixel of the network's input.  Files are
    written whole or not at all; those of an earlier export in the same folder, and its report, go.

    Args:
        model: a classifier, a detector or a segmenter.
        folder: where the files go; made where it is missing.
        to: the format: "onnx", "torch-export", "openvino", "triton" or "tensorrt".
        precision: what the file's numbers are: "fp32", "fp16", or "int8" with the layers in float that `agree` needs.
        verify: pictures that go through the model and through the file; None compares nothing.
        calibrate: pictures that say how large activations are, for "int8" alone; None takes those of verify.
        agree: the share of pictures that must get the same answer; None for 0.999 in "fp32" and 0.99 else.  Of a
            detector the share of boxes that both report, of a segmenter that of pixels; None for 0.99 and 0.98.  Needs
            verify or calibrate.
        seed: start of all randomness.
        command: the command that makes this export, for the report to quote.
        progress: called with the name of the step, the number of pictures done and the total.

    Refused: models of texts, networks that torch.export cannot take, formats whose libraries are not installed, a
    precision that the format does not have, "int8" without pictures and of detectors and segmenters, a format that
    does not take the kind of model, calibrate and agree where they change nothing.
    """
    began = time.monotonic()
    to_format = _checked(model, to, precision, agree)
    data = None if verify is None else _opened(verify)
    _refuse_unused(precision, agree, data, calibrate)
    of_calibration = data if calibrate is None else _opened(calibrate)
    if precision == "int8" and of_calibration is None:
        raise Refused(
            "int8 needs pictures that say how large the activations are", "give --calibrate DATA, or --verify DATA"
        )
    tell: Progress = progress or (lambda what, done, total: None)
    bar = proof.usual_agreement(model, precision) if agree is None else agree
    built = build(model)
    case = None if data is None else proof.open_case(model, data, seed, tell)  # refuses before a file is written
    manifest = replace(built.manifest, precision=precision)  # type: ignore[arg-type]
    chosen: Int8 | None = None
    graph = program = None
    if "onnx" in to_format.NEEDS:
        graph, program = network_graph(built.model, built.head, built.program)
        if precision == "fp16":
            graph = halved(graph)
        elif precision == "int8":
            assert of_calibration is not None
            assert isinstance(built.model, Classifier)
            made = onnx_pixels(whole_model(graph, manifest, built.model))
            chosen = int8_graph(built.model, graph, _some(built.model, of_calibration, seed, made), bar, tell)
            graph = chosen.graph
    request = Request(built, manifest, Path(folder), graph)
    earlier = earlier_files(request.folder)
    files: tuple[str, ...] = to_format.write(request)
    exported = Exported(request.folder, files, manifest, built.why_no_map, tuple(to_format.notes(request)))
    clear_away(request.folder, earlier - {*files})
    if case is None:
        return _noted(replace(exported, notes=(*exported.notes, unproved(to, model))))
    _noted(exported)  # so that a comparison that fails leaves a folder of an export, without a sheet
    file = to_format.open_file(request.folder)
    parity = proof.parity(case, file, None if built.head is None else built.head.layer)
    compared = Compared(
        precision, file, parity, measure(case, file), chosen, None,
        chosen is not None and of_calibration is data, _weights(model),
    )  # fmt: skip
    missed = not all(b.held for b in proof.bars(case, compared, bar))
    if chosen is None and graph is not None and program is not None and missed:  # 8 bits cut before an activation does
        compared = replace(
            compared, layers=layer_gaps(graph, program, case.pixels(case.sample(range(parity.n), _SEEN)))
        )
    report = proof.report(case, compared, bar, time.monotonic() - began, command)
    report.save(request.folder)
    return _noted(replace(exported, report=report))


def _noted(exported: Exported) -> Exported:
    """Leave a note of the export in its folder: by it a later export knows that the folder may be written into."""
    fields = {k: v for k, v in exported.as_dict().items() if k != "report"} | {"status": exported.status}
    write_whole(exported.folder / FILE, json.dumps(fields, indent=1, ensure_ascii=False) + "\n")
    return exported


def _checked(model: Model, to: str, precision: str, agree: float | None) -> ModuleType:
    """The format; refused before anything is done."""
    known = formats()
    if to not in known:
        raise Refused(f"format {to!r}: give {', '.join(known)}")
    if precision not in get_args(Precision):
        raise Refused(f"precision {precision!r}: give {', '.join(get_args(Precision))}")
    found = known[to]
    if model.kind not in found.KINDS:
        takers = ", ".join(name for name, one in known.items() if model.kind in one.KINDS)
        raise Refused(
            f"--to {to} takes a {' or a '.join(found.KINDS)}, and the model is a {model.kind}", f"give {takers}"
        )
    if precision == "int8" and model.kind != "classifier":
        raise Refused(
            f"int8 leaves layers in float by the top class of pictures, and the model is a {model.kind}",
            "give precision fp16 (--precision fp16) or fp32",
        )
    if precision not in found.PRECISIONS:
        raise Refused(f"--to {to} has no {precision}", f"it has {' and '.join(found.PRECISIONS)}; --to onnx has all")
    if agree is not None and not 0 <= agree <= 1:
        raise Refused(f"--agree {agree}: give a share from 0 to 1, such as 0.99")
    need(f"export to {to}", *found.NEEDS)
    return found


def _refuse_unused(precision: str, agree: float | None, data: Pictures | None, calibrate: object) -> None:
    """Refuse what would change nothing, so that nobody believes that it did."""
    if calibrate is not None and precision != "int8":
        raise Refused(
            f"pictures to calibrate on are for int8, and this is {precision}",
            "leave calibrate out (--calibrate), or give precision int8; --verify DATA compares",
        )
    if agree is not None and data is None and calibrate is None:
        raise Refused(f"agree {agree:g} is held against pictures, and none are given", "add verify (--verify DATA)")


def _opened(data: Pictures | str | Path) -> Pictures:
    pictures = data if isinstance(data, Pictures) else open_data(data)
    refuse_texts(pictures, "export")
    return pictures


def _some(model: Model, data: Pictures, seed: int, made: Callable[[Bytes], npt.NDArray[np.float32]]) -> Tensor:
    """Pixels of some pictures, drawn by seed, as the file makes them; those that cannot be read are left out."""
    order = torch.randperm(len(data.pictures), generator=torch.Generator().manual_seed(seed)).tolist()
    found = []
    for i in order[:_CALIBRATED]:
        try:
            found.append(torch.from_numpy(made(decoded(data.pictures[i], model)[None])))
        except Refused:
            continue
    if not found:
        raise Refused(f"none of the pictures in {data.root} can be read: give others to calibrate on")
    return torch.cat(found)


def _weights(model: Model) -> int:
    return sum(t.numel() * t.element_size() for t in model.net.state_dict().values() if isinstance(t, Tensor))


def unproved(to: str, model: Model) -> str:
    """What is printed where nothing was compared."""
    words = f"clearsight export {model.source or 'MODEL'} --to {to} --verify DATA"
    return f"Nothing was compared: `{words}` proves on your pictures that the file answers as the model does."
