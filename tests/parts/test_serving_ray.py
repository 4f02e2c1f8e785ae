"""The application as a deployment of Ray Serve: two replicas answer as one server does."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from clearsight.errors import Refused
from clearsight.serving.ray_deployment import ray_deployment

INSTALLED = find_spec("ray") is not None and find_spec("grpc_reflection") is not None  # what ray[serve] brings

CODE = """if True:
    import httpx, ray, socket
    from ray import serve
    from clearsight.serving.ray_deployment import ray_deployment
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(ray_deployment("demo", replicas=2), route_prefix="/")
    from clearsight.data.datasets import demo_pictures
    (path,) = [p.path for p in demo_pictures().pictures if p.name == "coffee"]
    for _ in range(6):
        found = httpx.post(f"http://127.0.0.1:{port}/predict?map=true", content=path.read_bytes(), timeout=60).json()
        print(found["answers"][0]["label"], found["map"]["shape"], flush=True)
    print(httpx.post(f"http://127.0.0.1:{port}/predict", content=b"x", timeout=60).status_code, flush=True)
    serve.shutdown()
    ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="Ray Serve is not installed (pip install 'ray[serve]')")
def test_two_replicas_answer():
    command = [sys.executable, "-c", CODE]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240, env=env).stdout
    assert [line for line in out.splitlines() if line.startswith("espresso")] == ["espresso [7, 7]"] * 6
    assert "400" in out.splitlines()


@pytest.mark.skipif(INSTALLED, reason="Ray Serve is installed")
def test_without_ray_serve_it_says_what_to_install():
    with pytest.raises(Refused, match=r"pip install 'clearsight\[serve,ray\]'"):
        ray_deployment("demo")
