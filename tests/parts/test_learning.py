"""The networks of the textbooks learn digits: MNIST where it lies beside the project; else they are skipped."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.training.loop import train
from clearsight.training.recipe import Recipe

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
EACH = {"train": 120, "val": 20, "test": 60}  # digits of each class

# network: (side, epochs, learning rate, the accuracy that it must pass; chance is 10 %)
QUICK = {
    "perceptron": (28, 6, "0.003", 0.75),
    "mlp": (28, 6, "0.002", 0.8),
    "lenet5": (32, 8, "0.005", 0.8),
    "lenet5(c3=full)": (32, 8, "0.005", 0.8),
    "plain-cnn": (28, 8, "0.003", 0.85),
    "plain-cnn(norm=batch)": (28, 8, "0.003", 0.85),
    "resnet(depth=20, stem=cifar)": (28, 3, "0.003", 0.8),
}
SLOW = {
    "alexnet": (67, 9, "0.0005", 0.9),
    "zfnet": (67, 9, "0.0005", 0.9),
    "vgg(depth=11, norm=batch)": (32, 3, "0.0003", 0.9),
    "googlenet": (67, 6, "0.001", 0.8),
    "densenet": (32, 3, "0.001", 0.9),
    "se-resnet(depth=18)": (32, 3, "0.001", 0.9),
}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few digits of each class as pictures, in train, val and test."""
    if not MNIST.is_dir():
        pytest.skip("MNIST does not lie beside the project")
    folder = tmp_path_factory.mktemp("digits")
    images, labels = (
        np.frombuffer(gzip.decompress(next(MNIST.glob(f"train-{kind}*")).read_bytes()), np.uint8, offset=offset)
        for kind, offset in (("images", 16), ("labels", 8))
    )
    images = images.reshape(-1, 28, 28)
    for k in range(10):
        own = iter(np.nonzero(labels == k)[0])
        for part, n in EACH.items():
            (folder / part / str(k)).mkdir(parents=True)
            for i in [next(own) for _ in range(n)]:
                Image.fromarray(images[i]).save(folder / part / str(k) / f"{i}.png")
    return folder


def learned(name: str, side: int, epochs: int, lr: str, digits: Path, out: Path) -> float:
    recipe = Recipe(
        arch=f"clearsight:{name}", size=side, grey=True, epochs=epochs, lr=lr, augment="none", schedule="one-cycle"
    )
    list(train(digits, recipe, out))
    told = json.loads((out / "metrics.json").read_text())
    assert told["judged_on"] == "test"
    assert told["accuracy"]["n"] == 600
    return float(told["accuracy"]["value"])


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_small_networks_learn_digits(name: str, digits: Path, tmp_path: Path) -> None:
    side, epochs, lr, least = QUICK[name]
    assert learned(name, side, epochs, lr, digits, tmp_path / "run") > least


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_large_networks_learn_digits(name: str, digits: Path, tmp_path: Path) -> None:
    side, epochs, lr, least = SLOW[name]
    assert learned(name, side, epochs, lr, digits, tmp_path / "run") > least
