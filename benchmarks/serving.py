"""Latency and throughput of `clearsight serve` beside other servers of the same network, one after the other in turns.

    python benchmarks/serving.py [--seconds 3] [--rounds 3] [--clients 1,8,64] [--litserve PYTHON] [--out FILE]

Every server is a process of its own that answers POST /predict with a JPEG's top five classes.  All run the embedded
EfficientNet-Lite0 on the same pictures:

- clearsight: `clearsight serve model.onnx`, the file that `clearsight export demo` writes; with the map: ?map=true
- plain ONNX Runtime: a hand-written FastAPI application around the same graph from its pixels on, in a thread pool
- FastAPI and torch: the usual loop, `model(x)` under torch.inference_mode(), in a thread pool
- LitServe, where --litserve names a Python that has it: LitAPI with the same ONNX Runtime session; it takes JSON,
  so its pictures are sent as base64, which takes its client and itself about half a millisecond

The client is below: asyncio streams, kept-alive connections, the next request as soon as the answer has come.  Servers
take turns, a few seconds each, so that what else the machine does falls on all of them; ratios are of each round.  On a
busy machine the processor time of the server per answer says more than the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLAIN = "plain ONNX Runtime"
OURS = "clearsight"
MAPPED = "clearsight, with the map"
TORCH = "FastAPI and torch"
LIT = "LitServe"
COLUMNS = ("p50", "p99", "rate", "cpu")

# What the other servers are: each as somebody would write it by hand -------------------------------------------------

SHARED = """
import io, sys
import numpy as np
from PIL import Image

def pixels(body):
    image = Image.open(io.BytesIO(body)).convert("RGB")
    w, h = image.size
    scale = 256 / min(w, h)
    image = image.resize((int(w * scale), int(h * scale)), Image.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32).transpose(2, 0, 1)[None] / 255

def top_five(p):
    return [{"class": int(k), "probability": float(p[k])} for k in np.argsort(-p)[:5]]
"""

APPLICATION = """
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
import uvicorn

app = FastAPI()

@app.post("/predict")
async def predict(request: Request):
    return {"answers": await run_in_threadpool(answer, await request.body())}

uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""

SESSION = """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
"""

SERVERS = {
    PLAIN: SHARED
    + SESSION
    + """
def answer(body):
    return top_five(session.run(["probabilities"], {"pixels": pixels(body)})[0][0])
"""
    + APPLICATION,
    TORCH: SHARED
    + """
import torch, clearsight
model = clearsight.load("demo")
net, mean, std = model.net.eval(), 0.5, 0.5

def answer(body):
    with torch.inference_mode():
        x = (torch.from_numpy(pixels(body)) - mean) / std
        return top_five(net(x).softmax(1)[0].numpy())
"""
    + APPLICATION,
    LIT: SHARED
    + """
import base64
import litserve
import onnxruntime

class Api(litserve.LitAPI):
    def setup(self, device):
        self.session = onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
    def decode_request(self, request):
        return pixels(base64.b64decode(request["picture"]))
    def predict(self, x):
        return self.session.run(["probabilities"], {"pixels": x})[0][0]
    def encode_response(self, p):
        return {"answers": top_five(p)}

if __name__ == "__main__":
    lit = litserve.LitServer(Api(), accelerator="cpu")
    lit.run(port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
""",
}  # fmt: skip


# The client ----------------------------------------------------------------------------------------------------------


async def client(port: int, path: str, bodies: list[bytes], until: float, start: int) -> list[float]:
    """The seconds of each request that one client sends until a time; an answer that is none raises."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    i = start
    while (began := time.perf_counter()) < until:
        body = bodies[i % len(bodies)]
        i += 1
        kind = "application/json" if body[:1] == b"{" else "image/jpeg"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        content = await reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 200") or b"answers" not in content:
            raise RuntimeError(f"{answer!r} {content[:200]!r}")
        took.append(time.perf_counter() - began)
    writer.close()
    return took


async def load(port: int, path: str, bodies: list[bytes], clients: int, seconds: float) -> dict[str, float]:
    """Quantiles of the latency in milliseconds, and answers per second, of so many clients at once."""
    began = time.perf_counter()
    each = await asyncio.gather(*[client(port, path, bodies, began + seconds, 7 * k) for k in range(clients)])
    lasted = time.perf_counter() - began
    took = sorted(1000 * t for one in each for t in one)
    return {"p50": quantile(took, 0.5), "p99": quantile(took, 0.99), "rate": len(took) / lasted, "n": len(took)}


def quantile(ordered: list[float], share: float) -> float:
    """A quantile of sorted numbers, the nearest of them."""
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


# The servers ---------------------------------------------------------------------------------------------------------


@contextmanager
def server(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that serves, from its first answer on; ended on leaving."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(process: subprocess.Popen[bytes], port: int, bodies: list[bytes]) -> None:
    """Return when a server answers."""
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(process.stderr.read().decode() if process.stderr else "it ended")
        try:
            asyncio.run(load(port, "/predict", bodies, 1, 0.05))
        except (OSError, asyncio.IncompleteReadError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"no answer at port {port}")


def processor_seconds(group: int) -> float:
    """Processor time of all processes of a group."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group:
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def photographs() -> list[bytes]:
    """The demo photographs as JPEG files."""
    from clearsight.data.datasets import demo_pictures
    from clearsight.data.images import open_picture

    files = []
    for picture in demo_pictures().pictures:
        file = io.BytesIO()
        open_picture(picture.path).convert("RGB").save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def in_json(files: list[bytes]) -> list[bytes]:
    """The same files as bodies of JSON."""
    return [json.dumps({"picture": base64.b64encode(file).decode()}).encode() for file in files]


def prepared(folder: Path) -> tuple[Path, Path]:
    """The exported file, and its graph from the pixels on, which the others run."""
    import onnx
    from onnx.utils import Extractor

    import clearsight as cs
    from clearsight.exporting.export import export

    whole = export(cs.load("demo"), folder).path
    inner = folder / "inner.onnx"
    onnx.save(Extractor(onnx.load(str(whole))).extract_model(["pixels"], ["probabilities"]), str(inner))
    return whole, inner


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Every server at every number of clients, in turns: all results by (server, clients)."""
    bodies = photographs()
    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        whole, inner = prepared(Path(name))
        ports = {server_name: free_port() for server_name in (OURS, PLAIN, TORCH, LIT)}
        words = {OURS: [sys.executable, "-m", "clearsight", "serve", str(whole), "--port", str(ports[OURS])]}
        for server_name, code in SERVERS.items():
            if server_name != LIT or args.litserve:
                script = Path(name) / f"{server_name.replace(' ', '_')}.py"
                script.write_text(code)
                python = args.litserve if server_name == LIT else sys.executable
                words[server_name] = [python, str(script), str(ports[server_name]), str(inner)]
        with_processes(words, ports, bodies, args, results)
    return {"results": results, "machine": f"{os.cpu_count()} cores, {platform.machine()}", "seconds": args.seconds}


def with_processes(
    words: dict[str, list[str]], ports: dict[str, int], bodies: list[bytes], args: argparse.Namespace, results: Any
) -> None:
    """Start all servers, and let them take turns."""
    from contextlib import ExitStack

    asked = {name: (ports[name], "/predict") for name in words}
    asked[MAPPED] = (ports[OURS], "/predict?map=true")
    groups: dict[str, int] = {}
    sent = {name: in_json(bodies) if name == LIT else bodies for name in asked}
    with ExitStack() as stack:
        for name, line in words.items():
            process = stack.enter_context(server(line))
            groups[name] = process.pid
            wait_for(process, ports[name], sent[name])
        groups[MAPPED] = groups[OURS]
        for turn in range(args.rounds):
            for clients in args.clients:
                order = list(asked) if turn % 2 == 0 else list(asked)[::-1]
                for name in order:
                    port, path = asked[name]
                    asyncio.run(load(port, path, sent[name], clients, 0.3))  # warm
                    before = processor_seconds(groups[name])
                    found = asyncio.run(load(port, path, sent[name], clients, args.seconds))
                    found["cpu"] = 1000 * (processor_seconds(groups[name]) - before) / found["n"]
                    results.setdefault(f"{name}|{clients}", []).append(found)
                    figures = "  ".join(f"{k} {found[k]:7.1f}" for k in COLUMNS)
                    print(f"{name:28} {clients:3} clients  {figures}", flush=True)


def table(found: dict[str, Any]) -> list[str]:
    """The medians over rounds, and the ratios to plain ONNX Runtime within each round."""
    results = found["results"]
    heads = ["server", "clients", "p50 ms", "p99 ms", "per second", "CPU ms", *(f"{k} / plain" for k in COLUMNS[1:])]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for key, rounds in sorted(results.items(), key=lambda item: (int(item[0].split("|")[1]), item[0])):
        name, clients = key.split("|")
        plain = results[f"{PLAIN}|{clients}"]
        cells = [f"{statistics.median(r[k] for r in rounds):.1f}" for k in COLUMNS]
        for k in COLUMNS[1:]:
            ratios = sorted(r[k] / p[k] for r, p in zip(rounds, plain, strict=True))
            cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        lines.append(f"| {name} | {clients} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 64])
    parser.add_argument("--litserve", default="", help="a Python that has litserve, onnxruntime and Pillow")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = measured(args)
    print("\n".join(table(found)))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
