"""A Ray cluster at an address: every verb gives what one worker gives, also where one of four is killed.

The cluster is real, listens on this machine alone, and ends with these tests, also where they end by force.  It takes
half a minute to begin, so that these tests are slow ones; `.ci/run` runs them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clearsight as cs
import shardwork
from clearsight.sharding.shards import hired, spread
from conftest import Ran
from placepictures import BLUE, RED, painted
from quickruns import OWN
from workshop import lay_out

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"),
    pytest.mark.filterwarnings("ignore"),
]
Run = Callable[..., Ran]
CPUS = 4
HEAD = f"""if True:
    import sys, ray
    ray.init(num_cpus={CPUS}, include_dashboard=False, object_store_memory=2**28, _node_ip_address="127.0.0.1",
             _temp_dir=sys.argv[1], log_to_driver=False, logging_level=50)
    print("at", ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()  # until who began it has ended, however that came
    ray.shutdown()
"""
MODELS = """
from pathlib import Path
from clearsight.testing import tiny_detector
from shardwork import mortal

def colours():
    return mortal(Path(__file__).with_name("marker"))

def slow():
    model = colours()
    model.net.pause = 0.05
    return model

def squares():
    return tiny_detector()
"""
VERBS = {
    "audit": ("audit", "./mine.py:colours", "photos", "--only", "accuracy, robustness(steps=2), corruptions(which=fog)",
              "-m", "saliency"),
    "attack": ("attack", "./mine.py:colours", "photos", "-a", "pgd(steps=3)", "-m", "saliency"),
    "explain": ("explain", "./mine.py:colours", "photos", "-m", "occlusion(window=16)", "-m", "saliency", "--no-tests"),
    "of a detector": ("audit", "./mine.py:squares", "scenes", "--boxes", "scenes.json", "--only", "detection-accuracy"),
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with four processors, which asks for a token that these tests know."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets need short paths
    shared = {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }  # fmt: skip
    path = os.pathsep.join([OWN["PYTHONPATH"], str(Path(__file__).parents[1])])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared.items():
            patch.setenv(name, value)
        head = subprocess.Popen(
            [sys.executable, "-c", HEAD, folder], env=OWN | shared | {"PYTHONPATH": path}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert head.stdin is not None
        assert head.stdout is not None
        try:
            lines: list[str] = []
            while not lines and (line := head.stdout.readline()):
                lines += [line.split()[1]] if line.startswith("at ") else []
            assert lines, "the cluster did not begin"
            yield lines[0]
        finally:
            head.stdin.close()
            try:
                head.wait(30)
            except subprocess.TimeoutExpired:
                head.kill()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with two models, photos and scenes."""
    lay_out(tmp_path, 12)
    (tmp_path / "mine.py").write_text(MODELS)
    (tmp_path / "scenes").mkdir()
    generator = np.random.default_rng(0)
    images, boxes = [], []
    for i in range(35):
        corners = [(int(a) * 4, int(b) * 4) for a, b in generator.permuted(np.arange(8)).reshape(4, 2)[:2]]
        squares = [(*corner, colour) for corner, colour in zip(corners, (RED, BLUE), strict=True)]
        Image.fromarray(painted(squares)).save(tmp_path / "scenes" / f"{i:02}.png")
        images.append({"id": i, "file_name": f"{i:02}.png", "width": 32, "height": 32})
        boxes += [
            {"id": 2 * i + k, "image_id": i, "category_id": k, "bbox": [*corner, 4, 4], "area": 16, "iscrowd": 0}
            for k, corner in enumerate(corners)
        ]
    classes = [{"id": k, "name": f"class {k}"} for k in range(2)]
    (tmp_path / "scenes.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": classes}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def counted(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """Every shard that a task of Ray begins is written down; gives for each who began it."""
    from clearsight.sharding.ray_tasks import RayTasks

    original, calls = RayTasks.spread, count()

    def written_down(self: RayTasks, work: Any, kept: Any, shards: Any) -> Any:
        noted = partial(shardwork.noted, place, next(calls), work)
        return original(self, noted, kept, ((n, *shard) for n, shard in enumerate(shards)))

    monkeypatch.setattr(RayTasks, "spread", written_down)
    return lambda: [f.read_text().split() for f in sorted(place.glob("ran-*"))]


def results(folder: Path) -> dict[str, Any]:
    """Every file of a run, without times and the words of the command."""
    files = [f for f in folder.rglob("*") if f.is_file() and f.suffix not in (".html", ".json")]
    found: dict[str, Any] = {str(f.relative_to(folder)): f.read_bytes() for f in files}
    if (folder / "report.json").exists():
        found["report"] = bare(json.loads((folder / "report.json").read_text()))
    return found


def unlike(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two results differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [place for k in a for place in unlike(a[k], b[k], f"{where}/{k}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            place for k, (one, two) in enumerate(zip(a, b, strict=True)) for place in unlike(one, two, f"{where}/{k}")
        ]
    return [] if a == b else [where]


def bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: bare(v) for k, v in value.items() if k not in ("seconds", "command", "made")}
    return [bare(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("verb", VERBS)
def test_four_workers_at_an_address_of_which_one_is_killed(
    verb: str, cluster: str, place: Path, run: Run, counted: Callable[[], list[list[str]]]
) -> None:
    """The killed one costs its shard, and nothing that the verb writes shows it."""
    ways = {"one": ("--workers", "1"), "three": ("--workers", "3"), "ray": ("--ray", cluster, "--workers", "4")}
    found = {}
    for name, how in ways.items():
        marker = "after" if verb == "of a detector" else "armed"
        if name == "ray":
            (place / marker).touch()
        got = run(*VERBS[verb], *how, "-o", name, "--quiet")
        assert got.status == 0, got.err
        found[name] = results(place / name)
    assert unlike(found["one"], found["three"]) == []
    assert unlike(found["one"], found["ray"]) == []
    assert not [m for m in ("armed", "marker", "after") if (place / m).exists()]  # somebody was killed
    began = counted()
    assert sorted(map(len, began))[-2:] == [1, 2]  # one shard twice, all others once
    assert str(os.getpid()) not in {pid for who in began for pid in who}
    assert len({pid for who in began for pid in who}) >= 3


def test_progress_and_budget_hold_over_a_cluster(cluster: str, place: Path, run: Run) -> None:
    told: list[tuple[str, int, int]] = []
    with cs.workers(ray=cluster):
        cs.audit(
            shardwork.mortal(place / "marker"), place / "photos", only="accuracy", progress=lambda *w: told.append(w)
        )
    assert ("reading", 36, 36) in told
    reading = [done for what, done, _ in told if what == "reading"]
    assert reading == sorted(reading)
    words = ("attack", "./mine.py:slow", "photos", "-a", "pgd(steps=40)", "-m", "saliency", "--workers", "4")
    began = time.monotonic()
    got = run(*words, "--ray", cluster, "--budget", "6s", "-o", "short", "--quiet")
    assert got.status == 0, got.err
    assert time.monotonic() - began < 60  # all of it takes minutes
    (finding,) = json.loads((place / "short" / "report.json").read_text())["findings"]
    assert 0 < finding["n"] < 36


def test_work_that_the_cluster_cannot_do_is_refused(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here_alone.py").write_text("def work(kept, number):\n    return number\n")
    monkeypatch.syspath_prepend(tmp_path)
    from importlib import import_module

    words = "does not work on shard 1: .*here_alone.*every machine of the cluster needs Clearsight"
    with cs.workers(2, ray=cluster):
        assert hired()
        with pytest.raises(cs.Refused, match=words):
            list(spread(import_module("here_alone").work, tmp_path, [(1,)]))


@pytest.mark.parametrize("verb", ["audit", "attack", "explain", "of a detector"])
def test_an_address_where_nobody_answers_is_one_sentence_at_once(verb: str, place: Path, run: Run) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{s.getsockname()[1]}"
    before, began = sorted(place.rglob("*")), time.monotonic()
    got = run(*VERBS[verb], "--ray", free)
    assert time.monotonic() - began < 10
    assert got.status == 2
    assert f"no Ray cluster answers at {free} (Connection refused): give the HOST:PORT" in " ".join(got.err.split())
    assert got.out == ""
    assert [f for f in sorted(place.rglob("*")) if "__pycache__" not in f.parts] == before


def test_a_cluster_that_asks_for_a_token_is_refused_soon(cluster: str, place: Path) -> None:
    words = [sys.executable, "-m", "clearsight", *VERBS["explain"], "--ray", cluster]
    env = {k: v for k, v in (os.environ | OWN).items() if not k.startswith("RAY_")}
    env["PYTHONPATH"] = os.pathsep.join([OWN["PYTHONPATH"], str(Path(__file__).parents[1])])
    began = time.monotonic()
    got = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert time.monotonic() - began < 60
    assert got.returncode == 2
    assert "set RAY_AUTH_MODE=token" in " ".join(got.stderr.split())
    assert "Traceback" not in got.stderr
    assert not (place / "clearsight-runs").exists()
