"""Small real networks and pictures that several tests share."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from clearsight.cli.app import main
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from workshop import lay_out

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded in tests
torch.set_num_threads(1)  # the networks are tiny, and as many processes run as there are cores


def pytest_collection_finish() -> None:
    """What was loaded until now stays: nobody needs to look again and again whether it is garbage."""
    gc.collect()
    gc.freeze()


class Ran(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def new_small() -> Callable[[], Classifier]:
    """Makes a convolutional network with BatchNorm, in training mode, its parameters wanting gradients."""

    def make() -> Classifier:
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 5),
        )
        return Classifier(net.train(), Preprocess((16, 24), (0.5,) * 3, (0.25,) * 3), tuple("abcde"), "small")

    return make


@pytest.fixture(autouse=True)
def warnings_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server sets for its whole process ends with its test."""
    if (images := sys.modules.get("clearsight.data.images")) is not None:
        monkeypatch.setattr(images, "silent_for_good", False)


@pytest.fixture
def small(new_small: Callable[[], Classifier]) -> Classifier:
    """Such a network of a test's own."""
    return new_small()


@pytest.fixture
def x() -> Tensor:
    """Four pictures for it, (4, 3, 16, 24)."""
    return torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with photos/, boxes.json and net.py (see workshop.py)."""
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def threads() -> Iterator[None]:
    """A test begins with one thread, and leaves as many as there were."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command line in this process: run("audit", "demo") -> its exit status, output and errors."""

    def go(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["clearsight", *map(str, words)])
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as stop:
                main()
        finally:
            signal.signal(signal.SIGTERM, handler)
        out, err = capsys.readouterr()
        return Ran(int(stop.value.code or 0), out, err)

    return go
