"""Read a picture file as 8 bits, then as pixels in [0, 1], and map points of the picture to the model's input.

Coordinates are (x, y) in pixels, x to the right and y down, of the picture as people see it: turned as its EXIF says.
The centre of the pixel in the top left corner is (0.5, 0.5).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from torch import Tensor

from clearsight.core.preprocess import Preprocess
from clearsight.core.torchvision_v2 import F, InterpolationMode
from clearsight.data import depths, tiff
from clearsight.data.in_memory import InMemory
from clearsight.errors import Refused

MOST_PIXELS = 178_956_970  # twice what Pillow warns of, where Pillow itself refuses
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000")
_SUFFIXES = "jpg jpeg jpe jfif png apng gif webp tif tiff bmp dib ppm pgm pbm pnm pfm avif jp2 heic heif"
SUFFIXES = frozenset(f".{word}" for word in _SUFFIXES.split())

_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
}
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112  # the EXIF tag
_CUT_SHORT = (
    "truncated",
    "but only got",
    "not enough",
    "unpack requires",
    "unexpected end",
    "end of file",
    "bytes not processed",
)
_NOT_READ = ("unsupported", "unknown raw mode")
_turn = threading.Lock()  # silencing warnings is not safe with threads before Python 3.14: they take turns
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_turn.acquire, after_in_parent=_turn.release, after_in_child=_turn.release)


silent_for_good = False


def read_in_threads() -> None:
    """From now on pictures are read in several threads at a time, and Pillow's warnings are hidden for good.

    For a process that serves: elsewhere threads take turns, so that the user's warnings stay as they are.
    """
    global silent_for_good
    warnings.filterwarnings("ignore", module=r"PIL\b")
    silent_for_good = True


@contextmanager
def _silence() -> Iterator[None]:
    """Inside, nothing warns."""
    if silent_for_good:
        yield
        return
    with _turn, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class TooLarge(Refused):
    """A picture of more pixels than are ever decoded."""


def open_picture(path: str | Path | InMemory, check: Callable[[tuple[int, int]], object] | None = None) -> Image.Image:
    """The picture in a file, in mode "RGB" or "L" with 8 bits, turned as its EXIF says; `notes` tells what was done.

    Values of other depths than 8 bits are scaled from the white that the file states to 255 and rounded (16 bits are
    divided by 257); floating point is taken where it lies in [0, 1].  Transparency is laid on white, of an animation
    the first frame is shown; the content decides, not the name.  Never hangs or warns.  path: the file, or one
    held in memory.  Raises Refused with the reason alone ("truncated"), since the caller knows which file
    it was; so too where the file does not state what is white or which of its bands are the colours.
    check: called with (width, height) as the head of the file states them, before anything is decoded; may refuse.
    """
    with _open_image(path if isinstance(path, InMemory) else Path(path), "picture", check) as (image, done):
        return eight_bit(image, done)


def open_mask(path: str | Path) -> NDArray[np.bool_]:
    """(H, W), True where the file's picture is not zero: any channel, or the number in the palette; never where clear.

    Zero is black as people see it, so the largest value where the file says that 0 is white.  Turned as its EXIF says.
    Raises Refused as `open_picture` does, but not for a white that is unknown.
    """
    return _read_mask(path)[0]


def mask_values(path: str | Path) -> list[tuple[int, ...]]:
    """The different values that a mask file holds where `open_mask` is True, a number for each channel, in order.

    One value means that the file marks one thing.  Several may be objects, classes, or a border that is neither.
    Values of more than 8 bits are given as 255 where they are not 0.
    Raises Refused as `open_mask` does.
    """
    inside, values = _read_mask(path)
    marked = values[inside]
    different = marked[:1] if (marked == marked[:1]).all() else np.unique(marked, axis=0)  # which sorts
    return [tuple(map(int, row)) for row in different]


def _read_mask(path: str | Path) -> tuple[NDArray[np.bool_], NDArray[np.generic]]:
    """(H, W) of `open_mask`, and the values (H, W, C) without the alpha channel."""
    with _open_image(Path(path), "mask") as (image, _):
        values = np.atleast_3d(np.asarray(image))
        clear = np.zeros(values.shape[:2], bool)
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
            values, clear = values[..., :-1], values[..., -1] == 0
        elif "transparency" in image.info:
            clear = np.asarray(image.convert("RGBA").getchannel("A")) == 0
        return (values != 0).any(-1) & ~clear, values


def open_ids(path: str | Path) -> NDArray[np.uint32]:
    """(H, W), the number that a pixel's colour stands for in COCO's panoptic files: R + 256 G + 65536 B.

    Turned as its EXIF says.  Raises Refused as `open_picture` does, and for a file whose pixels are not RGB.
    """
    with _open_image(Path(path), "picture") as (image, _):
        if image.mode != "RGB":
            raise Refused(f"its pixels are {image.mode}, and ids are colours of RGB")
        return np.asarray(image).astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)


def open_classes(path: str | Path) -> NDArray[np.int64]:
    """(H, W), the number that a file holds for each pixel: of its palette, or its grey as written, up to 65535.

    Colours of which the three channels are equal are grey.  Turned as its EXIF says.
    Raises Refused as `open_picture` does, for colours, which are not numbers, and for formats that change numbers.
    """
    path = Path(path)
    with _open_image(path, "size") as (image, _):
        if image.format not in ("PNG", "GIF", "TIFF", "BMP", "PPM"):
            raise Refused(f"{image.format} changes the numbers of classes a little: save them as PNG")
        if image.format == "PNG":
            _verify_png(path)
        turned, is_tiff = _orientation(image), image.format == "TIFF"
        values = np.asarray(image if is_tiff or turned not in _TURNED else image.transpose(_TURNED[turned]))
        mode = image.mode
    if mode in ("LA", "RGBA") and (values[..., -1] == 255).all():
        values = values[..., :-1]
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "bui":
        colours = f"its pixels are colours ({mode}), which are no numbers of classes"
        raise Refused(f"{colours}: save the numbers as grey or with a palette; panoptic PNGs need their JSON")
    numbers = values.astype(np.int64)
    with path.open("rb") as file:
        head = file.read(26)
    if head.startswith(b"\x89PNG") and head[25] == 0 and head[24] in (2, 4):  # grey that Pillow stretches to 0..255
        numbers //= 255 // (2 ** head[24] - 1)
    return numbers


def picture_size(path: str | Path | InMemory) -> tuple[int, int]:
    """(width, height) of a picture as people see it, from the head of its file.  Refused as in `open_picture`."""
    with _open_image(path if isinstance(path, InMemory) else Path(path), "size") as (image, _):
        turned = image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8)  # Pillow turns a TIFF by itself
        return (image.height, image.width) if turned else (image.width, image.height)


def stored_size(path: str | Path | InMemory) -> tuple[int, int]:
    """(width, height) as the head of a picture file states them, not turned.  Refused as in `open_picture`.

    Nothing is decoded, as `picture_size` does to a PNG: it looks for its EXIF.
    """
    with _open_image(path if isinstance(path, InMemory) else Path(path), "size") as (image, _):
        return image.width, image.height


def notes(image: Image.Image) -> tuple[str, ...]:
    """What `open_picture` did: "turned as its EXIF says", "first frame of several", "transparency laid on white"..."""
    return tuple(image.info.get("notes", ()))


def check_file(path: Path) -> None:
    """Refuse what cannot hold a picture, without opening it: missing, empty, a folder, a pipe.  The reason alone."""
    try:
        status = path.stat()
    except ValueError:  # a zero byte; Python words it differently from version to version
        raise Refused("not a valid file name") from None
    except OSError as e:
        if os.path.islink(path):  # unlike Path's, it takes a name that is too long
            raise Refused("a link to a file that does not exist") from None
        if e.errno == errno.ENAMETOOLONG:
            raise Refused("a name that is too long for this system") from None
        raise Refused("missing" if isinstance(e, FileNotFoundError) else _why_unreadable(e, path)) from None
    if stat.S_ISDIR(status.st_mode):
        raise Refused("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise Refused("not a file but a pipe, socket or device")
    if not status.st_size:
        raise Refused("empty (0 bytes)")


def eight_bit(image: Image.Image, done: tuple[str, ...] = ()) -> Image.Image:
    """Any picture of Pillow's as "RGB" or "L" with 8 bits; Refused where the value of white is unknown."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        new, done = Image.fromarray(((values + 128) // 257).astype(np.uint8)), (*done, "16 bits divided by 257")
    elif mode == "I":
        raise Refused("grey of 32 bits, whose white is unknown: save it with 8 or 16 bits")
    elif mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise Refused("grey of floating point outside [0, 1], whose white is unknown: save it with 8 or 16 bits")
        new, done = Image.fromarray((values * 255).round().astype(np.uint8)), (*done, "floating point times 255")
    elif "transparency" in image.info or mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        clear = image.convert("RGBa").convert("RGBA") if mode in ("La", "RGBa") else image.convert("RGBA")
        new = Image.alpha_composite(Image.new("RGBA", image.size, "white"), clear).convert("RGB")
        if clear.getchannel("A").getextrema() != (255, 255):
            done = (*done, "transparency laid on white")
    elif mode in ("1", "L"):
        new = image.convert("L") if mode == "1" else image.copy()
    else:
        new = image.copy() if mode == "RGB" else image.convert("RGB")
        done = (*done, "CMYK turned into RGB") if mode == "CMYK" else done
    new.info = {"notes": done or notes(image)}
    return new


def shown(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """The model's input as a picture: resized and cut to `size`, in mode "L" or "RGB" by the channels.

    The same as torchvision's Resize and CenterCrop on a Pillow image (antialiased).  Refused where the model takes no
    pictures, or where the picture is so long and thin that resizing its short side would make it enormous.
    """
    if preprocess.channels not in (1, 3):
        raise Refused(f"the model takes {preprocess.channels} channels, but pictures have 1 (grey) or 3 (RGB)")
    mode = "L" if preprocess.channels == 1 else "RGB"
    if image.mode != mode or "transparency" in image.info:  # no copy of what is right already
        image = eight_bit(image).convert(mode)
    wide, high, left, top = _geometry(image.size, preprocess)
    if wide * high > MOST_PIXELS:
        raise Refused(f"{image.width} x {image.height} pixels: too long and thin to be resized to {preprocess.resize}")
    whole = F.resize(image, [high, wide], InterpolationMode(preprocess.interpolation), antialias=True)
    cut: Image.Image = F.crop(whole, top, left, *preprocess.size)
    return cut


def to_pixels(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """A picture -> (C, H, W) float32 in [0, 1], resized and cut as `preprocess` says, not normalised.  See `shown`."""
    return of_bytes(to_bytes(image, preprocess))


def to_bytes(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """The same, (C, H, W) uint8 from 0 to 255: a quarter of the memory."""
    values = torch.from_numpy(np.array(shown(image, preprocess)))
    return values.permute(2, 0, 1) if values.dim() == 3 else values[None]


def of_bytes(values: Tensor) -> Tensor:
    """Values of 8 bits, of any shape, as float32 in [0, 1]: the float nearest to each k / 255.

    Every reader of pictures calls it: random numbers are drawn from the exact bits of a picture (see `core.rng`).
    Torchvision multiplies by 1 / 255, which is rounded twice and gives another float for 126 of the 256.

    >>> of_bytes(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    return values.float() / 255


def to_model(points: Tensor, image_size: tuple[int, int], preprocess: Preprocess) -> Tensor:
    """Points (..., 2) as (x, y) in the picture -> (..., 2) float64 as (x, y) in the model's input, perhaps outside it.

    image_size: (width, height) of the picture as people see it, as Pillow's `image.size` gives it.
    """
    wide, high, left, top = _geometry(image_size, preprocess)
    points = points.double()
    grown = points * points.new_tensor([wide, high]) / points.new_tensor(image_size)
    return grown - points.new_tensor([left, top])


def from_model(points: Tensor, image_size: tuple[int, int], preprocess: Preprocess) -> Tensor:
    """Points (..., 2) as (x, y) in the model's input -> (..., 2) float64 in the picture: what `to_model` undoes."""
    wide, high, left, top = _geometry(image_size, preprocess)
    points = points.double()
    return (points + points.new_tensor([left, top])) * points.new_tensor(image_size) / points.new_tensor([wide, high])


def sources(image_size: tuple[int, int], preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    """The row (H,) and the column (W,) of the picture that lie under the centres of the model's pixels."""
    wide, high, left, top = _geometry(image_size, preprocess)
    rows, columns = (torch.arange(n) for n in preprocess.size)
    width, height = image_size
    return (2 * (rows + top) + 1) * height // (2 * high), (2 * (columns + left) + 1) * width // (2 * wide)


def _geometry(image_size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Width and height of the whole picture after resizing, and the left and top of what is cut out of it."""
    if len(preprocess.size) != 2:
        raise Refused(f"the model takes inputs of size {preprocess.size}, not pictures of (height, width)")
    height, width = preprocess.size
    if preprocess.resize is None:
        return width, height, 0, 0
    short = min(image_size)
    wide, high = (int(preprocess.resize * side / short) if side > short else preprocess.resize for side in image_size)
    return wide, high, round((wide - width) / 2), round((high - height) / 2)


@contextmanager
def _open_image(
    path: Path | InMemory,
    want: Literal["picture", "mask", "size"],
    check: Callable[[tuple[int, int]], object] | None = None,
) -> Iterator[tuple[Image.Image, tuple[str, ...]]]:
    """A picture whose file is open, decoded and turned, with what was done; every failure is Refused."""
    if isinstance(path, Path):
        check_file(path)
    elif not path.content:
        raise Refused("empty (0 bytes)")
    tags = None
    with _silence():
        try:
            Image.init()
            with path.open("rb") as file:
                tags = tiff.read_tags(file)
                if tags is not None:
                    tiff.refuse_unsupported(tags, want == "mask")
                file.seek(0)
                with Image.open(file, formats=[f for f in FORMATS if f in Image.OPEN]) as image:
                    _check_size(image)
                    if check is not None:
                        check(image.size)
                    if want != "size" and image.format == "PNG":
                        _verify_png(path)
                    yield (image, ()) if want == "size" else _decode(image, path, tags, want == "mask")
        except Refused:
            raise
        except Exception as e:  # a damaged file makes Pillow raise nearly anything
            kind = TooLarge if isinstance(e, Image.DecompressionBombError) else Refused
            raise kind(_why_unreadable(e, path, tags)) from None


def _verify_png(path: Path | InMemory) -> None:
    """Look at the checksums of a PNG, as Pillow's decoder does not."""
    with path.open("rb") as second:
        Image.open(second, formats=["PNG"]).verify()


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise Image.DecompressionBombError
    if min(image.size) < 1:
        raise Refused(f"it has no pixels ({image.width} x {image.height})")


def _decode(
    image: ImageFile, path: Path | InMemory, tags: tiff.TiffTags | None, mask: bool
) -> tuple[Image.Image, tuple[str, ...]]:
    done: tuple[str, ...] = ()
    if getattr(image, "is_animated", False):
        done = ("first frame of several",)
    turned = 1 if image.format == "PNG" else _orientation(image)  # Pillow forgets a TIFF's as it decodes
    whole, depth_notes = depths.load(image, path, tags, mask)
    turned = _orientation(image) if image.format == "PNG" else turned  # Pillow decodes a PNG to look for it
    if turned in _TURNED:
        done = (*done, "turned as its EXIF says")
        if image.format != "TIFF":  # Pillow turns a TIFF by itself
            about = whole.info
            whole = whole.transpose(_TURNED[turned])
            whole.info = about
    return whole, (*done, *depth_notes)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where the EXIF is damaged."""
    try:
        value: Any = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as above
        return 1
    return value if isinstance(value, int) else 1


def _why_unreadable(e: Exception, path: Path | InMemory, tags: tiff.TiffTags | None = None) -> str:
    words = str(e).partition("\n")[0]
    unread = any(sign in words.lower() for sign in _NOT_READ)
    if tags is not None and (unread or isinstance(e, UnidentifiedImageError)):
        return f"{tiff.describe(tags)}, which is not supported: {tiff.SAVE}"
    if isinstance(e, UnidentifiedImageError):
        return _why_unidentified(path)
    if unread:
        return f"in an unsupported variant of its format ({words}): save it as PNG"
    if isinstance(e, Image.DecompressionBombError):
        return f"too large: more than {MOST_PIXELS / 1e6:.0f} million pixels"
    if isinstance(e, MemoryError):
        return "too large for the memory of this machine"
    if isinstance(e, PermissionError):
        return "no permission to read it"
    if isinstance(e, EOFError) or any(sign in words.lower() for sign in _CUT_SHORT):
        return "truncated"
    return f"truncated or damaged ({getattr(e, 'strerror', None) or words or type(e).__name__})"


def _why_unidentified(path: Path | InMemory) -> str:
    with path.open("rb") as file:
        start = file.read(16)
        bits = _jpeg_bits(file) if start.startswith(b"\xff\xd8") else 8
    if bits != 8:
        return f"JPEG of {bits} bits, which is not supported: save it as PNG or with 8 bits"
    for beginning, name in _BEGINNINGS.items():
        if start.startswith(beginning):
            return f"truncated or damaged: it begins like a {name} file"
    if start[4:8] == b"ftyp":
        avif = start[8:12] in (b"avif", b"avis")
        return "truncated or damaged AVIF" if avif else "HEIC, which is not supported: save it as JPEG or PNG"
    return "not a picture"


def _jpeg_bits(file: IO[bytes]) -> int:
    """How many bits the frame header (SOF) of a JPEG states; 8 where there is none."""
    at = 2
    while True:
        file.seek(at)
        head = file.read(5)
        if len(head) < 5 or head[0] != 0xFF:
            return 8
        if head[1] in range(0xC0, 0xD0) and head[1] not in (0xC4, 0xC8, 0xCC):
            return head[4]
        at += 2 + int(struct.unpack_from(">H", head, 2)[0])
