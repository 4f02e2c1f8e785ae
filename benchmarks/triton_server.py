"""Serve an exported repository by the real Triton: ``python benchmarks/triton_server.py ENVIRONMENT``.

ENVIRONMENT is a virtual environment with `nvidia-pytriton` and `onnxruntime`, by itself since Triton's wheel wants
NumPy 1.  That wheel holds a whole server for the CPU, but of its backends the Python one alone.  So the repository that
`--to triton` writes is served as it is, its config.pbtxt, labels, shapes, joined requests and warm-up, with two
changes: `backend` is "python", and a model.py beside model.onnx runs it in ONNX Runtime.  What is not tried is the
backend "onnxruntime" itself, which NVIDIA's images hold.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import onnxruntime

import clearsight as cs

MODEL = """
import pathlib

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        place = pathlib.Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(place), providers=["CPUExecutionProvider"])
        self.names = [o.name for o in self.session.get_outputs()]

    def execute(self, requests):
        answers = []
        for request in requests:
            picture = pb_utils.get_input_tensor_by_name(request, "picture").as_numpy()
            found = self.session.run(None, {"picture": picture})
            tensors = [pb_utils.Tensor(n, np.ascontiguousarray(v)) for n, v in zip(self.names, found)]
            answers.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return answers
"""


def main() -> int:
    environment = Path(sys.argv[1]).absolute()
    server = next(environment.glob("lib/python*/site-packages/pytriton/tritonserver"))
    with tempfile.TemporaryDirectory() as folder:
        result = cs.export(cs.load("demo"), folder, "triton")
        home = next(Path(folder).glob("repository/*"))
        config = home / "config.pbtxt"
        config.write_text(
            config.read_text()
            .replace('backend: "onnxruntime"', 'backend: "python"')
            .replace('default_model_filename: "model.onnx"', 'default_model_filename: "model.py"')
        )
        (home / "1" / "model.py").write_text(MODEL)
        backends = Path(folder) / "backends"  # with the part of the Python backend that fits this Python
        shutil.copytree(server / "backends", backends)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
        port = _free()
        running = subprocess.Popen(
            [
                str(server / "bin" / "tritonserver"), f"--model-repository={home.parent}", f"--http-port={port}",
                f"--backend-directory={backends}", "--allow-grpc=false", "--allow-metrics=false",
            ],
            env=_environment(environment, server),
            stderr=subprocess.STDOUT,
            stdout=(Path(folder) / "log").open("w"),
        )  # fmt: skip
        try:
            return _asked(port, home.name, result.path, running, Path(folder) / "log")
        finally:
            running.terminate()
            running.wait(60)


def _environment(environment: Path, server: Path) -> dict[str, str]:
    """This Python's own library first, and the packages of the environment."""
    packages = next(environment.glob("lib/python*/site-packages"))
    libraries = [Path(sys.base_prefix) / "lib", *packages.glob("*.libs"), server / "external_libs"]
    return os.environ | {
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
    }


def _asked(port: int, name: str, model: Path, running: subprocess.Popen, log: Path) -> int:
    for _ in range(240):
        if running.poll() is not None or _ready(port):
            break
        time.sleep(0.5)
    if running.poll() is not None or not _ready(port):
        print("\n".join(line for line in log.read_text().splitlines() if not line.startswith(("|", "+"))))
        return 1
    pictures = np.random.default_rng(0).integers(0, 256, (3, 90, 120, 3), dtype=np.uint8)
    wanted = onnxruntime.InferenceSession(model).run(None, {"picture": pictures})
    request = {
        "inputs": [
            {"name": "picture", "shape": [*pictures.shape], "datatype": "UINT8", "data": pictures.ravel().tolist()}
        ],
        "outputs": [{"name": "probabilities"}, {"name": "map"}],
    }
    for words, of in ((request, "all classes"), (_with_labels(request), "the three best, with their labels")):
        address = f"http://127.0.0.1:{port}/v2/models/{name}/infer"
        asked = urllib.request.Request(address, json.dumps(words).encode(), {"Content-Type": "application/json"})
        answer = json.load(urllib.request.urlopen(asked, timeout=60))
        outputs = {o["name"]: o for o in answer["outputs"]}
        if of == "all classes":
            for key, value in zip(("probabilities", "map"), wanted, strict=True):
                found = np.array(outputs[key]["data"]).reshape(outputs[key]["shape"])
                print(key, found.shape, "largest difference", float(np.abs(found - value).max()))
        else:
            print(of, outputs["probabilities"]["data"][:3])
    return 0


def _with_labels(request: dict) -> dict:
    outputs = [{"name": "probabilities", "parameters": {"classification": 3}}]
    return request | {"outputs": outputs}


def _ready(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2).status == 200
    except OSError:
        return False


def _free() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
