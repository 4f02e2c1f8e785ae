"""Servers on loopback for tests: each stops by itself when its test is over."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.score_kinds import Scores
from clearsight.serving.app import build_app
from clearsight.serving.run import address_of, listening, run_until_stopped
from clearsight.serving.service import Service

SIZE = (16, 24)
LABELS = tuple("abcde")


def pooled_model(scores: Scores = "logits", classes: int = 5) -> Classifier:
    """A network with global average pooling before its one linear layer, drawn from a seed."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(6, 7, 3, padding=1),
        nn.BatchNorm2d(7),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, classes),
    )
    net[7].weight.data *= 8
    preprocess = Preprocess(SIZE, (0.5,) * 3, (0.25,) * 3, "bicubic", 26)
    return Classifier(net.eval(), preprocess, LABELS[:classes], "tests:pooled", scores=scores)


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A picture (width, height) of smooth colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def as_file(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@contextmanager
def served(
    service: Service, *, head_seconds: float = 10.0, log: list[str] | None = None, made: list[Any] | None = None
) -> Iterator[str]:
    """The address of a server that answers inside, and stops on leaving.  made: to it uvicorn's server is added."""
    socket = listening("127.0.0.1", 0)
    address = address_of(socket)
    made = [] if made is None else made
    app = build_app(service, None if log is None else log.append)

    def work() -> None:
        run_until_stopped(app, socket, stop_seconds=10, head_seconds=head_seconds, made=made.append)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        made[0].should_exit = True
        thread.join(20)
        assert not thread.is_alive()
