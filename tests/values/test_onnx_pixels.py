"""The pixels that an exported graph makes are those of `cs.pixels`, whatever the size of the picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import clearsight as cs
from clearsight.data.images import to_bytes
from clearsight.exporting.onnx_pixels import pixels_graph

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIZES = ((1, 1), (1, 40), (50, 1), (2, 3), (31, 33), (64, 32), (64, 16), (33, 400), (500, 9), (97, 131), (768, 576))


def session(preprocess: cs.Preprocess, change=lambda model: None):
    model = onnx.helper.make_model(
        pixels_graph(preprocess), opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    change(model)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise of all sizes, with the edges and the over- and undershoot that a photograph has."""
    rng = np.random.default_rng(seed)
    whole = np.zeros((height, width, 3))
    for side in (2, 5, 17, 60):
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        whole += np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST))
    return Image.fromarray((whole / 4 + rng.normal(0, 8, whole.shape)).clip(0, 255).astype(np.uint8))


def apart(run, picture: Image.Image, preprocess: cs.Preprocess) -> np.ndarray:
    """How many of 255 levels the graph's pixels lie from those of a file, value by value."""
    grey = picture.convert("L" if preprocess.channels == 1 else "RGB")
    given = np.asarray(grey).reshape(1, picture.height, picture.width, preprocess.channels)
    (pixels,) = run.run(None, {"picture": given})
    wanted = to_bytes(picture, preprocess).numpy()
    levels = np.round(pixels[0].astype(np.float64) * 255)
    assert (pixels[0] == (levels / 255).astype(np.float32)).all()  # each is the float nearest to k / 255
    return np.abs(levels - wanted)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "resize"), [((24, 40), None), ((33, 20), 40), ((64, 64), 73), ((64, 64), 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_odd_sizes(size, resize, interpolation, channels: int) -> None:
    preprocess = cs.Preprocess(size, (0.0,) * channels, (1.0,) * channels, interpolation, resize)
    run = session(preprocess)
    worst = [apart(run, photo(*sides, seed=i), preprocess).max() for i, sides in enumerate(SIZES)]
    assert max(worst) <= (0 if interpolation == "nearest" else 1), dict(zip(SIZES, worst, strict=True))


def test_pixels_of_noise_that_clips() -> None:
    """Black and white noise overshoots between the two passes: where their order is another, it is off by dozens."""
    rng = np.random.default_rng(0)
    preprocess = cs.Preprocess((24, 40), (0.0,) * 3, (1.0,) * 3, "bicubic")
    run = session(preprocess)
    for sides in ((32, 32), (31, 33), (44, 56), (64, 45), (64, 16), (24, 80), (80, 40), (45, 64)):
        noise = Image.fromarray(rng.integers(0, 2, (*sides, 3), dtype=np.uint8) * 255)
        assert apart(run, noise, preprocess).max() <= 1, sides


def test_a_huge_picture() -> None:
    preprocess = cs.Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, "bicubic", 256)
    levels = apart(session(preprocess), photo(2000, 3001), preprocess)
    assert levels.max() <= 1
    assert (levels > 0).mean() < 0.01


def test_several_pictures_of_one_size() -> None:
    preprocess = cs.Preprocess((24, 24), (0.5,) * 3, (0.5,) * 3, "bicubic", 30)
    run, pictures = session(preprocess), [photo(50, 70, seed) for seed in range(3)]
    together = run.run(None, {"picture": np.stack([np.asarray(p) for p in pictures])})[0]
    alone = [run.run(None, {"picture": np.asarray(p)[None]})[0][0] for p in pictures]
    assert (together == np.stack(alone)).all()


def without(attribute: str, value: float):
    """A change of a graph: the attribute of every Resize has another value."""

    def change(model) -> None:
        for node in model.graph.node:
            if node.op_type == "Resize":
                kept = [a for a in node.attribute if a.name != attribute]
                del node.attribute[:]
                node.attribute.extend([*kept, onnx.helper.make_attribute(attribute, value)])

    return change


@pytest.mark.parametrize(("attribute", "value"), [("exclude_outside", 0), ("cubic_coeff_a", -0.75)])
def test_each_setting_of_the_resize_matters(attribute: str, value: float) -> None:
    preprocess = cs.Preprocess((64, 64), (0.0,) * 3, (1.0,) * 3, "bicubic")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 2, (90, 80, 3), dtype=np.uint8) * 255)
    assert apart(session(preprocess), noise, preprocess).max() <= 1
    assert apart(session(preprocess, without(attribute, value)), noise, preprocess).max() >= 4


def test_cubic_bytes_without_antialias_fail_only_when_they_are_run() -> None:
    """The checker and the session take such a graph, so a file that was never run proves nothing."""
    preprocess = cs.Preprocess((64, 64), (0.0,) * 3, (1.0,) * 3, "bicubic")
    run = session(preprocess, without("antialias", 0))
    with pytest.raises(Exception, match="type mismatch"):
        run.run(None, {"picture": np.zeros((1, 90, 80, 3), np.uint8)})
