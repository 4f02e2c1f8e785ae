"""`--to triton`: a model repository for NVIDIA's Triton Inference Server, whose ONNX Runtime backend serves it."""

from __future__ import annotations

import re
from pathlib import Path

from clearsight.core.output import write_whole
from clearsight.engines.manifest import (
    BOXES,
    CANDIDATES,
    CLASSES,
    LABELS,
    LOGITS,
    MAP,
    PICTURE,
    PROBABILITIES,
    SCORES,
    VALUES,
)
from clearsight.exporting import to_onnx
from clearsight.exporting.onnx_file import whole_model
from clearsight.exporting.request import Request
from clearsight.exporting.whole_file import WholeFile, open_onnx

NEEDS = to_onnx.NEEDS
PRECISIONS = to_onnx.PRECISIONS
KINDS = to_onnx.KINDS
_BATCH = 32  # pictures of one size that the server may join
_WAIT = 500  # microseconds that it waits for more of them
_LABELS = "labels.txt"


def write(request: Request) -> tuple[str, ...]:
    """Write repository/NAME/{config.pbtxt, labels.txt, 1/model.onnx} -> the files' names, the model first."""
    assert request.graph is not None
    whole = whole_model(request.graph, request.manifest, request.built.model)
    name = model_name(request.manifest.source)
    home = Path("repository") / name
    files = {
        home / "1" / "model.onnx": whole.SerializeToString(),
        home / _LABELS: "".join(f"{' '.join(label.split())}\n" for label in request.manifest.labels),
        home / "config.pbtxt": config(request, name),
    }
    for place, content in files.items():
        write_whole(request.folder / place, content)
    return tuple(map(str, files))


def model_name(source: str) -> str:
    """What the server calls the model: the words that load it, in letters that an address may hold.

    >>> model_name("timm:resnet18.a1_in1k"), model_name("")
    ('timm-resnet18.a1_in1k', 'model')
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", source).strip("-.") or "model"


def config(request: Request, name: str) -> str:
    """config.pbtxt: inputs and outputs with their shapes, joined requests, and a first picture before the others."""
    preprocess = request.built.model.preprocess
    outputs = _outputs(request)
    channels = preprocess.channels
    return f"""\
name: "{name}"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: {_BATCH}
input [
  {{
    name: "{PICTURE}"
    data_type: TYPE_UINT8
    dims: [ -1, -1, {channels} ]
  }}
]
output [
{",".join(outputs).strip()}
]
# pictures of one size that come within half a millisecond are answered together
dynamic_batching {{
  max_queue_delay_microseconds: {_WAIT}
}}
model_warmup [
  {{
    name: "one picture"
    batch_size: 1
    inputs {{
      key: "{PICTURE}"
      value {{
        data_type: TYPE_UINT8
        dims: [ {preprocess.size[0]}, {preprocess.size[1]}, {channels} ]
        random_data: true
      }}
    }}
  }}
]
instance_group [
  {{
    kind: KIND_AUTO
  }}
]
version_policy: {{ latest: {{ num_versions: 1 }} }}
"""


def _outputs(request: Request) -> list[str]:
    """The outputs of the model, each as the configuration says it."""
    manifest, head, size = request.manifest, request.built.head, list(request.built.model.preprocess.size)
    count = len(manifest.labels)
    if manifest.suppression is not None:
        assert request.graph is not None
        candidates = request.graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        most = min(manifest.suppression.most, candidates * count)
        return [
            _output(CANDIDATES, "TYPE_FP32", [candidates, 5 + count], ""),
            _output(BOXES, "TYPE_FP32", [most, 4], ""),
            _output(SCORES, "TYPE_FP32", [most], ""),
            _output(LABELS, "TYPE_INT64", [most], ""),
        ]
    if manifest.kind == "segmenter":
        return [_output(LOGITS, "TYPE_FP32", [count, *size], ""), _output(CLASSES, "TYPE_INT64", size, "")]
    chances = VALUES if manifest.scores == "values" else PROBABILITIES
    found = [_output(chances, "TYPE_FP32", [count], _LABELS)]
    return found if head is None else [*found, _output(MAP, "TYPE_FP32", list(head.layout.sides), "")]


def _output(name: str, kind: str, dims: list[int], labels: str) -> str:
    of_labels = f'\n    label_filename: "{labels}"' if labels else ""
    return f"""
  {{
    name: "{name}"
    data_type: {kind}
    dims: [ {", ".join(map(str, dims))} ]{of_labels}
  }}"""


def notes(request: Request) -> list[str]:
    """How it is started, and that the comparison is of the model, not of the server."""
    place = request.folder / "repository"
    return [
        f"Start it with: tritonserver --model-repository={place}.",
        "What is compared is the model inside, in ONNX Runtime here; no server was started.",
    ]


def open_file(folder: Path) -> WholeFile:
    """The model inside, in ONNX Runtime."""
    return open_onnx(next((folder / "repository").glob("*/1/model.onnx")))
