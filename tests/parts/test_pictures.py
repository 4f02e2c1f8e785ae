"""Any file -> a picture of 8 bits or a refusal that says why; a picture -> the pixels that a model sees."""

import os
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from clearsight.attacking.eight_bit import from_png
from clearsight.auditing.case import Case
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.data.datasets import open_data
from clearsight.data.datasets import pixels as read_all
from clearsight.data.images import (
    MOST_PIXELS,
    mask_values,
    notes,
    of_bytes,
    open_mask,
    open_picture,
    picture_size,
    shown,
    sources,
    to_model,
    to_pixels,
)
from clearsight.data.in_memory import InMemory
from clearsight.errors import Refused
from clearsight.training.batches import Store

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
HALF = ((0.5,) * 3, (0.5,) * 3)


def saved(path: Path, image: Image.Image = RGB, **options: object) -> Path:
    image.save(path, **options)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif", "webp"])
def test_plain_pictures_are_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    image = open_picture(saved(tmp_path / f"x.{suffix}", **({"lossless": True} if suffix == "webp" else {})))
    assert (image.mode, image.size, notes(image)) == ("RGB", (50, 30), ())
    assert np.array_equal(pixels(image), pixels(RGB))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", width, height, 8, 2, 0, 0, 0, 0)


def broken(folder: Path) -> dict[str, tuple[Path, str]]:
    jpeg = saved(folder / "whole.jpg").read_bytes()
    png = saved(folder / "whole.png").read_bytes()
    (folder / "folder.jpg").mkdir()
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "round.jpg").symlink_to(folder / "round.jpg")
    os.mkfifo(folder / "pipe.jpg")
    big = saved(folder / "float.tif", Image.fromarray(np.full((4, 4), 3.5, np.float32)))
    nan = saved(folder / "nan.tif", Image.fromarray(np.full((4, 4), np.nan, np.float32)))
    whole = saved(folder / "int.tif", Image.fromarray(np.full((4, 4), 70000, np.int32)))
    return {
        "truncated JPEG": (written(folder / "half.jpg", jpeg[: len(jpeg) // 2]), "truncated"),
        "truncated PNG": (written(folder / "half.png", png[: len(png) // 2]), "truncated"),
        "head of a JPEG": (written(folder / "head.jpg", jpeg[:3]), "truncated or damaged: it begins like a JPEG file"),
        "damaged PNG": (written(folder / "bad.png", png[:60] + b"\xff" * 200 + png[260:]), "truncated or damaged (..."),
        "empty": (written(folder / "empty.jpg", b""), "empty (0 bytes)"),
        "text called .jpg": (written(folder / "text.jpg", b"I am no picture at all.\n" * 9), "not a picture"),
        "page called .png": (written(folder / "page.png", b"<!doctype html><html></html>"), "not a picture"),
        "program for Ghostscript": (written(folder / "x.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%EOF"), "not a picture"),
        "HEIC": (
            written(folder / "x.heic", b"\0\0\0\x18ftypheic\0\0\0\0heic"),
            "HEIC, which is not supported: save it as JPEG or PNG",
        ),
        "no pixels": (
            written(folder / "zero.png", png_header(0, 0)),
            "truncated or damaged: it begins like a PNG file",
        ),
        "bomb": (
            written(folder / "bomb.pgm", b"P5 60000 60000 255\n" + b"0" * 99),
            "too large: more than 179 million pixels",
        ),
        "nearly a bomb": (written(folder / "large.pgm", b"P5 12000 12000 255\n" + b"0" * 99), "truncated"),
        "folder": (folder / "folder.jpg", "a folder, not a file"),
        "missing": (folder / "missing.jpg", "missing"),
        "link to nothing": (folder / "dangling.jpg", "a link to a file that does not exist"),
        "link to itself": (folder / "round.jpg", "a link to a file that does not exist"),
        "pipe": (folder / "pipe.jpg", "not a file but a pipe, socket or device"),
        "device": (Path("/dev/zero"), "not a file but a pipe, socket or device"),
        "impossible name": (Path("a\0b.jpg"), "not a valid file name"),
        "float above 1": (big, "grey of floating point outside [0, 1], whose white is unknown: ..."),
        "float NaN": (nan, "grey of floating point outside [0, 1], whose white is unknown: ..."),
        "32 bits": (whole, "grey of 32 bits, signed, whose white is unknown: save it with 8 or 16 bits"),
    }


def test_every_broken_file_is_refused_with_its_reason(tmp_path: Path) -> None:
    for what, (path, reason) in broken(tmp_path).items():
        for read in (open_picture, picture_size):
            said = "no refusal"
            try:
                read(path)
            except Refused as e:
                said = str(e)
            if read is open_picture:
                assert said.startswith(reason[:-3]) if reason.endswith("...") else said == reason, f"{what}: {said!r}"


def test_a_file_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.png")
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read all

        def no(self: Path, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", no)
    with pytest.raises(Refused, match=r"^no permission to read it$"):
        open_picture(path)


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    RGB.save(path, format="PNG")
    assert np.array_equal(pixels(open_picture(path)), pixels(RGB))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "lzw.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture(tmp_path: Path, suffix: str, orientation: int) -> None:
    scene = np.zeros((40, 64, 3), np.uint8)  # a camera held so that the picture's white corner lies top left
    scene[:16, :32] = 255
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.swapaxes(0, 1),
        6: np.rot90(scene, 1),
        7: np.rot90(scene, 2).swapaxes(0, 1),
        8: np.rot90(scene, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if suffix == "lzw.tif" else {}
    path = saved(tmp_path / f"x.{suffix}", Image.fromarray(np.ascontiguousarray(stored)), exif=exif, **options)
    image = open_picture(path)
    assert image.size == picture_size(path) == (64, 40)
    assert np.abs(pixels(image).astype(int) - scene).mean() < 3  # JPEG and WebP lose a little
    assert notes(image) == (() if orientation == 1 else ("turned as its EXIF says",))


def test_damaged_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xee" * 40)
    assert open_picture(path).size == picture_size(path) == (50, 30)


def test_odd_modes(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    sixteen = open_picture(saved(tmp_path / "16.png", Image.fromarray(ramp * 257)))
    assert sixteen.mode == "L"
    assert np.array_equal(pixels(sixteen), ramp)
    assert notes(sixteen) == ("16 bits divided by 257",)
    tiff = open_picture(saved(tmp_path / "16.tif", Image.fromarray(ramp * 257)))
    assert np.array_equal(pixels(tiff), ramp)
    pgm = open_picture(written(tmp_path / "16.pgm", b"P5 16 16 65535\n" + (ramp * 257).astype(">u2").tobytes()))
    assert np.array_equal(pixels(pgm), ramp)
    between = Image.fromarray(np.array([[128, 129, 65406, 65407, 65535]], np.uint16))
    assert pixels(open_picture(saved(tmp_path / "between.png", between))).tolist() == [[0, 1, 254, 255, 255]]
    floating = open_picture(saved(tmp_path / "f.tif", Image.fromarray((ramp / 255).astype(np.float32))))
    assert np.array_equal(pixels(floating), ramp)
    bits = open_picture(saved(tmp_path / "1.png", Image.fromarray(ramp > 99)))
    assert bits.mode == "L"
    assert np.array_equal(pixels(bits), (ramp > 99) * 255)
    palette = open_picture(saved(tmp_path / "p.png", Image.new("RGB", (4, 4), (10, 200, 30)).convert("P")))
    assert (palette.mode, palette.getpixel((0, 0))) == (
        "RGB",
        Image.new("RGB", (1, 1), (10, 200, 30)).convert("P").convert("RGB").getpixel((0, 0)),
    )


def test_cmyk_and_ycck(tmp_path: Path) -> None:
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    image = open_picture(saved(tmp_path / "x.jpg", red, quality=95))  # Pillow writes Adobe's inverted CMYK
    assert (image.mode, notes(image)) == ("RGB", ("CMYK turned into RGB",))
    assert np.abs(pixels(image).astype(int) - (250, 10, 10)).max() < 12
    assert open_picture(saved(tmp_path / "x.tif", red)).getpixel((0, 0)) == (250, 10, 10)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_transparency_lies_on_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (60, 60, 60, 0))
    options = {}
    if mode in ("P", "L"):
        image = Image.fromarray(np.array([[0, 60]], np.uint8))
        options = {"transparency": 60}
        image = image.convert(mode)
    path = saved(tmp_path / "x.png", image.convert(mode), **options)
    opened = open_picture(path)
    assert pixels(opened.convert("L")).tolist() == [[0, 255]]
    assert notes(opened) == ("transparency laid on white",)


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    assert (
        open_picture(saved(tmp_path / "x.png", Image.new("RGBA", (1, 1), (0, 0, 0, 51)))).getpixel((0, 0)) == (204,) * 3
    )


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_first_frame_of_several(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    lossless = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"x.{suffix}", frames[0], save_all=True, append_images=frames[1:], **lossless)
    image = open_picture(path)
    assert image.getpixel((4, 4)) == (255, 0, 0)
    assert notes(image) == ("first frame of several",)


def test_threads_read_at_once(tmp_path: Path) -> None:
    path, sizes = saved(tmp_path / "x.png"), []
    threads = [threading.Thread(target=lambda: sizes.append(open_picture(path).size)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sizes == [(50, 30)] * 8


def test_mask_is_what_is_not_zero(tmp_path: Path) -> None:
    numbers = np.array([[0, 1], [2, 0]], np.uint8)
    palette = Image.fromarray(numbers).convert("P")
    palette.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9])  # number 1 is black, 0 is white
    clear = Image.fromarray(np.array([[[0, 0, 0, 255], [9, 0, 0, 255]], [[0, 0, 1, 255], [9, 9, 9, 0]]], np.uint8))
    files = [
        saved(tmp_path / "l.png", Image.fromarray(numbers)),
        saved(tmp_path / "p.png", palette),
        saved(tmp_path / "16.png", Image.fromarray(numbers.astype(np.uint16))),
        saved(tmp_path / "1.png", Image.fromarray(numbers > 0)),
        saved(tmp_path / "rgba.png", clear),
    ]
    for file in files:
        assert open_mask(file).tolist() == [[False, True], [True, False]], file.name
    values = [mask_values(file) for file in files]
    assert values == [[(1,), (2,)], [(1,), (2,)], [(255,)], [(1,)], [(0, 0, 1), (9, 0, 0)]]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(50, 30), (30, 50), (37, 37), (41, 97)])
def test_pixels_are_those_of_torchvision(interpolation: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    how = InterpolationMode(interpolation)
    for resize in (None, 24, 31, 64):
        preprocess = Preprocess((20, 24), *HALF, interpolation, resize)  # type: ignore[arg-type]
        steps = [v2.Resize((20, 24), how)] if resize is None else [v2.Resize(resize, how), v2.CenterCrop((20, 24))]
        there = v2.Compose([*steps, v2.PILToTensor()])(image)
        here = to_pixels(image, preprocess)
        assert (here.dtype, here.shape) == (torch.float32, (3, 20, 24))
        assert torch.equal((here * 255).round().to(torch.uint8), there), (resize, size)
        assert 0 <= here.min() <= here.max() <= 1


def test_channels_follow_the_model() -> None:
    grey = to_pixels(Image.new("RGB", (9, 9), (255, 0, 0)), Preprocess(8, (0.5,), (0.5,)))
    assert grey.shape == (1, 8, 8)
    assert grey[0, 0, 0].item() == pytest.approx(76 / 255)  # 0.299 of 255
    assert to_pixels(Image.new("L", (9, 9), 51), Preprocess(8, *HALF))[:, 0, 0].tolist() == pytest.approx([0.2] * 3)
    with pytest.raises(Refused, match="takes 4 channels"):
        to_pixels(RGB, Preprocess(8, (0.5,) * 4, (0.5,) * 4))
    with pytest.raises(Refused, match=r"size \(100,\), not pictures"):
        to_pixels(RGB, Preprocess((100,), *HALF))


def test_a_colour_that_stands_for_nothing_is_laid_on_white_in_memory_too() -> None:
    image = Image.new("RGB", (9, 9), (255, 0, 0))
    assert to_pixels(image, Preprocess(8, *HALF)).min() == 0
    image.info["transparency"] = (255, 0, 0)
    assert to_pixels(image, Preprocess(8, *HALF)).min() == 1


def test_eight_bits_are_the_nearest_floats() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert np.array_equal(of_bytes(every).numpy(), (np.arange(256) / 255).astype(np.float32))
    assert torch.equal((of_bytes(every) * 255).round().to(torch.uint8), every)


@pytest.mark.parametrize("channels", [1, 3])
def test_all_that_reads_a_picture_gives_the_same_bits(tmp_path: Path, channels: int) -> None:
    """Random numbers belong to a picture by its bits: else the command that a report quotes shows another one."""
    pre = Preprocess((11, 9), (0.5,) * channels, (0.5,) * channels)
    model = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(channels * 99, 2)), pre, ("a", "b"))
    for k, size in enumerate([(9, 11), (7, 5), (31, 13), (12, 12)]):
        values = np.random.default_rng(k).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        saved(tmp_path / f"{k}.png", Image.fromarray(values if channels == 3 else values[..., 0]))
    demo = open_data("demo")
    for data in open_data(tmp_path), replace(demo, pictures=tuple(replace(p, labels=()) for p in demo.pictures)):
        x = read_all(model, data)
        rows = range(len(x))
        assert torch.equal(Case(model, data).pixels(rows), x)
        assert torch.equal(Store(data.pictures, pre, whole=False).pixels(rows), x)
        assert torch.equal(torch.stack([to_pixels(open_picture(p.path), pre) for p in data.pictures]), x)
    assert torch.equal(from_png(tmp_path / "0.png"), read_all(model, tmp_path / "0.png")[0])


def test_long_and_thin_is_refused_rather_than_made_enormous() -> None:
    with pytest.raises(Refused, match="too long and thin"):
        shown(Image.new("L", (1, 60_000)), Preprocess(224, *HALF, resize=256))
    assert shown(Image.new("L", (1, 60_000)), Preprocess(224, *HALF)).size == (224, 224)
    assert MOST_PIXELS > 1e8


def test_points_by_hand() -> None:
    # 100 x 50 -> shorter side to 24: 48 x 24 -> the middle 16 x 20 begins at x 14, y 4
    cropped = Preprocess((16, 20), *HALF, resize=24)
    points = torch.tensor([[0, 0], [50, 25], [100, 50], [100 * 14 / 48, 50 * 4 / 24]], dtype=torch.float64)
    assert to_model(points, (100, 50), cropped).tolist() == [
        pytest.approx(p) for p in ([-14, -4], [10, 8], [34, 20], [0, 0])
    ]
    squeezed = Preprocess((16, 20), *HALF)
    assert to_model(torch.tensor([10.0, 25.0]), (100, 50), squeezed).tolist() == [2, 8]
    rows, columns = sources((100, 50), squeezed)
    assert rows.tolist()[:3] == [1, 4, 7]  # 0.5, 1.5, 2.5 times 50 / 16 = 1.56, 4.69, 7.81
    assert columns.tolist()[:3] == [2, 7, 12]


@pytest.mark.parametrize("served", [False, True])
def test_a_process_that_serves_reads_several_pictures_at_a_time(served):
    """A picture whose file does not come holds up others only where threads take turns."""
    code = f"""if True:
        import io, threading
        from PIL import Image
        from clearsight.data.images import open_picture, read_in_threads
        from clearsight.data.in_memory import InMemory
        file = io.BytesIO()
        Image.new("RGB", (4, 3), "red").save(file, "PNG")
        inside, go_on, done = threading.Event(), threading.Event(), threading.Event()

        class Slow(InMemory):
            def open(self, mode="rb"):
                inside.set()
                go_on.wait(20)
                return super().open(mode)

        if {served}:
            read_in_threads()
        slow = threading.Thread(target=open_picture, args=(Slow(file.getvalue()),))
        quick = threading.Thread(target=lambda: (open_picture(InMemory(file.getvalue())), done.set()))
        slow.start()
        inside.wait(20)
        quick.start()
        print(done.wait(5 if {served} else 0.3), flush=True)
        go_on.set()
        slow.join()
        quick.join()
        print(done.is_set())
    """
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.split() == [str(served), "True"]


def test_a_picture_in_memory_is_read_as_its_file_is(tmp_path):
    Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).convert("RGB").save(tmp_path / "x.jpg")
    content = InMemory((tmp_path / "x.jpg").read_bytes())
    assert open_picture(content).tobytes() == open_picture(tmp_path / "x.jpg").tobytes()
    assert picture_size(content) == (40, 30)
    with pytest.raises(Refused, match="empty"):
        open_picture(InMemory(b""))
