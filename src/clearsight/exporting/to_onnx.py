"""`--to onnx`: one file, model.onnx, for ONNX Runtime and all that reads ONNX."""

from __future__ import annotations

from pathlib import Path

from clearsight.core.output import write_whole
from clearsight.exporting.onnx_file import whole_model
from clearsight.exporting.request import Request
from clearsight.exporting.whole_file import WholeFile, open_onnx

NEEDS = ("onnx", "onnxruntime", "onnxscript")
PRECISIONS = ("fp32", "fp16", "int8")
KINDS = ("classifier", "detector", "segmenter")
FILE = "model.onnx"


def write(request: Request) -> tuple[str, ...]:
    """Write model.onnx -> the files' names."""
    assert request.graph is not None
    whole = whole_model(request.graph, request.manifest, request.built.model)
    write_whole(request.folder / FILE, whole.SerializeToString())
    return (FILE,)


def open_file(folder: Path) -> WholeFile:
    """The file in ONNX Runtime."""
    return open_onnx(folder / FILE)


def notes(_request: Request) -> list[str]:
    """Nothing more is to be said."""
    return []
