"""The script that lays a GPU beside the CPU knows every method, sees what differs, and keeps its time."""

from __future__ import annotations

import copy
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clearsight.core.catalogue import catalogue, module_of
from clearsight.errors import Refused

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> Any:
    return module_of(SCRIPT)


@pytest.fixture(scope="module")
def segmenter(gpu: Any) -> Any:
    return gpu.subject("segmenter", "cpu", tiny=True)


def test_every_explainer_and_attack_is_run(gpu: Any) -> None:
    pairs = gpu.pairs()
    assert len(pairs) == len(set(pairs))
    for folder in ("explainers", "attacks"):
        assert {name for _, which, name in pairs if which == folder} == set(catalogue(folder))
    assert ("detector", "attacks", "pgd") in pairs
    assert ("detector", "explainers", "cam") not in pairs


def test_a_device_that_computes_the_same_agrees_and_another_does_not(gpu: Any, segmenter: Any) -> None:
    assert gpu.compare(segmenter, "explainers", "occlusion(window=16)") == {"difference": 0, "correlation": 1, "n": 2}
    same = gpu.compare(segmenter, "attacks", "pgd(steps=4)")
    assert same == {"difference": 0, "device": same["cpu"], "cpu": same["cpu"], "n": 2}
    net = copy.deepcopy(segmenter.there.net)
    with torch.no_grad():
        net[0].weight.mul_(torch.tensor([1.5, 0.5, -1.0])[:, None, None, None])
    broken = replace(segmenter, there=replace(segmenter.there, net=net))
    found = gpu.compare(broken, "explainers", "gradient-x-input")
    assert found["difference"] > 0.1
    assert gpu.told([{"kind": "segmenter", "call": "x", **found}]).startswith(
        "Of 1 runs 1 differ by more than 0.001: x"
    )
    assert "is defined for ReLU" in gpu.compare(segmenter, "explainers", "guided-backprop")["note"]


def test_batches_grow_until_the_most(gpu: Any, segmenter: Any) -> None:
    row = gpu.saturate(segmenter, "explainers", "saliency", 16)
    sizes = [n for n, _, _ in row["steps"]]
    assert sizes == [4, 16]
    assert all(ms > 0 and peak is None for _, ms, peak in row["steps"])
    text = gpu.table(["# A"], [], [{"kind": "segmenter", "call": "saliency", **row}])
    assert "| method | 4 | 16 | ended because |" in text


def test_no_method_takes_more_than_the_time(gpu: Any, segmenter: Any) -> None:
    def sleepy(*_: object) -> dict[str, Any]:
        try:
            time.sleep(5)
        except Exception as e:
            raise Refused("swallowed") from e
        return {}

    def failing(*_: object) -> dict[str, Any]:
        raise ValueError("no such kernel")

    now = time.monotonic()
    late = gpu.in_time(now + 0.55, 1.0, sleepy, segmenter, "explainers", "saliency")
    assert time.monotonic() - now < 2
    assert late["note"] == "cut off after 1 s"
    assert gpu.in_time(now, 1.0, sleepy, segmenter, "explainers", "saliency")["note"] == "left out: the time is over"
    failed = gpu.in_time(now + 60, 1.0, failing, segmenter, "explainers", "saliency")
    assert failed["note"] == "FAILED: ValueError: no such kernel"


@pytest.mark.slow
def test_the_whole_script_on_a_cpu(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "gpu.md"
    words = ["gpu.py", "--device", "cpu", "--tiny", "--limit", "20", "--most", "4", "--only", "saliency,pgd,dag"]
    monkeypatch.setattr("sys.argv", [*words, "--out", str(out)])
    monkeypatch.setattr(os, "environ", os.environ.copy())
    gpu.main()
    assert "Of 8 runs 0 differ by more than 0.001: none." in out.read_text()
