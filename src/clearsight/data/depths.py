"""Scale the values of a picture to 8 bits where Pillow would truncate, shift or not invert them.

The bits and the white that the file states decide, never the values themselves.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from clearsight.data import jpeg2000, tiff
from clearsight.data.in_memory import InMemory
from clearsight.errors import Refused

Notes = tuple[str, ...]


def load(image: ImageFile, path: Path | InMemory, tags: tiff.TiffTags | None, mask: bool) -> tuple[Image.Image, Notes]:
    """An opened picture, decoded, and what was done to its values.

    tags: those of `tiff.read_tags`, for a TIFF.  mask: only whether a value is zero matters, and no other value becomes
    zero.  Refused where the white is unknown, and where Pillow cannot give the values.
    """
    if isinstance(image, TiffImageFile) and tags is not None:
        return _load_tiff(image, path, tags, mask)
    if image.format == "PNG":
        return _load_png(image, path, mask)
    if image.format == "PPM":
        return _load_netpbm(image, mask)
    if image.format == "JPEG2000":
        return _load_jpeg2000(image, path, mask)
    fives = _raw_mode(image) if image.format == "BMP" else ""
    image.load()
    if fives in ("BGR;15", "BGR;16"):  # Pillow rounds down
        sizes = (31, 63 if fives == "BGR;16" else 31, 31)
        return image.point([round(255 * -(-k * size // 255) / size) for size in sizes for k in range(256)]), ()
    return image, ()


def scaled(values: NDArray[Any], white: float, mask: bool) -> Image.Image:
    """Values from 0 to white (H, W) as grey of 8 bits; as a mask, 255 wherever they are not zero."""
    if mask:
        return Image.fromarray(np.where(values != 0, 255, 0).astype(np.uint8))
    if isinstance(white, int):
        values = values.astype(np.int64)
        return Image.fromarray(((values * 510 + white) // (2 * white)).astype(np.uint8))
    return Image.fromarray((values * (255 / white)).round().astype(np.uint8))


def depth_note(bits: int) -> Notes:
    """The note on grey or colour of more than 8 bits."""
    return (f"{bits} bits divided by {257 if bits == 16 else f'{(2**bits - 1) / 255:.4g}'}",)


def _load_tiff(
    image: TiffImageFile, path: Path | InMemory, tags: tiff.TiffTags, mask: bool
) -> tuple[Image.Image, Notes]:
    done = tiff.extra_bands_note(tags)
    tiff.correct_raw_mode(image, tags)
    if image.mode in ("RGB", "RGBA", "CMYK") and tags.bits[0] == 16:
        whole = _read_16_bits(image, path)
        white, notes = (1, ()) if mask else tiff.white_value(tags, whole)
        return _merge_bands(whole, image.mode, white, mask), (*done, *(notes or depth_note(16)))
    image.load()
    if image.mode == "La" and not mask:
        grey, alpha = (np.asarray(band).astype(np.int64) for band in image.split())
        return scaled((grey + 255 - alpha).clip(0, 255), 255, mask), (*done, "transparency laid on white")
    if image.mode in ("P", "PA"):
        image.putpalette(tiff.palette(image))
    if image.mode[0] not in "IF":
        return image, done
    values = np.asarray(image)
    if tags.formats[0] == 3:
        _check_floats(values, mask)
    white, notes = (1.0, ()) if mask and tags.photometric else tiff.white_value(tags, values)
    shown = white - values if tags.photometric == 0 else values
    if tags.formats[0] == 3:
        return scaled(shown, 1.0, mask), (*done, "floating point times 255")
    return scaled(shown, white, mask), (*done, *(notes or depth_note(tags.bits[0])))


def _check_floats(values: NDArray[Any], mask: bool) -> None:
    if np.isnan(values).any() and mask:
        raise Refused("floating point with NaN, which is neither zero nor another number: save it without")
    if not mask and not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise Refused("grey of floating point outside [0, 1], whose white is unknown: save it with 8 or 16 bits")


def _load_png(image: ImageFile, path: Path | InMemory, mask: bool) -> tuple[Image.Image, Notes]:
    """PNG states its transparent value in the bits of the file, but Pillow compares it with values of 8 bits."""
    with path.open("rb") as file:
        bits = file.read(25)[24]
    clear = image.info.get("transparency")
    if bits == 16 and image.mode in ("RGB", "RGBA"):
        mode = "LA" if _raw_mode(image) == "LA;16B" else image.mode
        whole = _read_16_bits(image, path)
        both = _merge_bands(whole, mode, 65535, mask)
        return both if clear is None else _add_alpha(both, (whole == np.array(clear)).all(-1)), depth_note(16)
    image.load()
    if bits in (2, 4) and image.mode == "L" and isinstance(clear, int):
        image.info["transparency"] = clear * 255 // (2**bits - 1)
    if image.mode == "1" and clear is not None:  # before Pillow 12 it is 1, where the picture has 255
        image.info["transparency"] = 255 if clear else 0
    if bits < 16:
        return image, ()
    values = np.asarray(image).astype(np.int64)
    grey = scaled(values, 65535, mask)
    return _add_alpha(grey, values == clear) if clear is not None else grey, depth_note(16)


def _add_alpha(image: Image.Image, clear: NDArray[np.bool_]) -> Image.Image:
    alpha = Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))
    return Image.merge(image.mode + "A", (*image.split(), alpha))


def _read_16_bits(image: ImageFile, path: Path | InMemory) -> NDArray[np.int64]:
    """(H, W, bands) of 16 bits: Pillow keeps the high byte, and with the other byte order the low one."""
    raw = _raw_mode(image)
    if raw == "LA;16B":  # four bytes to a pixel: of the grey the high and the low, then of the alpha
        tiff.decode_as(image, "RGBA")
        image.load()
        four = np.asarray(image).astype(np.int64)
        return four[..., 0::2] * 256 + four[..., 1::2]
    with path.open("rb") as file, Image.open(file, formats=[str(image.format)]) as other:
        tiff.decode_as(other, _other_order(raw))
        other.load()
        image.load()
        return np.asarray(image, np.int64) * 256 + np.asarray(other, np.int64)


def _merge_bands(whole: NDArray[np.int64], mode: str, white: float, mask: bool) -> Image.Image:
    return Image.merge(mode, [scaled(whole[..., i], white, mask) for i in range(whole.shape[-1])])


def _other_order(raw: str) -> str:
    name, _, order = raw.partition(";16")
    native = {"little": "L", "big": "B"}[sys.byteorder]
    return f"{name};16{'B' if order.replace('N', native) == 'L' else 'L'}"


def _raw_mode(image: ImageFile) -> str:
    """The raw mode that Pillow would decode with."""
    args = image.tile[0].args if image.tile else ""
    return args if isinstance(args, str) else str((args or ("",))[0])


def _load_netpbm(image: ImageFile, mask: bool) -> tuple[Image.Image, Notes]:
    """PGM and PPM state their white; that of a PFM is 1, or unknown.

    Pillow's own scaling from a white other than 255 is slow, rounds twice, and clips what is above that white.
    """
    tile = image.tile[0]
    args = tile.args if isinstance(tile.args, tuple) else ()
    if image.mode == "F":
        image.load()
        return _scale_floats(image, mask)
    white = int(args[1]) if tile.codec_name in ("ppm", "ppm_plain") and len(args) == 2 else 255
    if white == 255 and image.mode != "I":
        image.load()
        return image, ()
    white, plain = (65535, False) if tile.codec_name == "raw" else (white, tile.codec_name == "ppm_plain")
    assert image.fp is not None
    image.fp.seek(tile.offset)
    bands = 3 if image.mode == "RGB" else 1
    whole = _read_numbers(image.fp, image.width * image.height * bands, plain, ">u2" if white > 255 else "u1")
    if whole.max() > white or whole.min() < 0:
        raise Refused(f"truncated or damaged (its white is stated as {white}, but it holds {whole.max()})")
    whole = whole.reshape(image.height, image.width, bands)
    notes = depth_note(16) if white == 65535 else (f"white is {white}, as the file says",)
    return _merge_bands(whole, "RGB" if bands == 3 else "L", white, mask), notes


def _read_numbers(file: IO[bytes], count: int, plain: bool, kind: str) -> NDArray[np.int64]:
    """The next numbers of the file, as text (with comments after #) or in binary."""
    if plain:
        words = re.sub(rb"#[^\r\n]*", b" ", file.read()).split()[:count]
        numbers = np.array([int(word) for word in words], np.int64)
    else:
        size = np.dtype(kind).itemsize
        data = file.read(count * size)
        numbers = np.frombuffer(data[: len(data) // size * size], kind).astype(np.int64)
    if len(numbers) < count:
        raise Refused("truncated")
    return numbers


def _scale_floats(image: ImageFile, mask: bool) -> tuple[Image.Image, Notes]:
    if image.info.get("scale", 1) != 1 and not mask:
        raise Refused(
            f"a PFM whose scale is {image.info['scale']:g}, so its white is unknown: save it with 8 or 16 bits"
        )
    values = np.asarray(image)
    _check_floats(values, mask)
    return scaled(values, 1.0, mask), ("floating point times 255",)


def _load_jpeg2000(image: ImageFile, path: Path | InMemory, mask: bool) -> tuple[Image.Image, Notes]:
    """Pillow shifts values to 8 or to 16 bits: shifted back, they are scaled."""
    bits = jpeg2000.depth(path, image.mode)
    image.load()
    if image.mode.startswith("I;16"):
        return scaled(np.asarray(image) >> (16 - bits), 2**bits - 1, mask), depth_note(bits)
    if bits < 8:
        white = 2**bits - 1
        return image.point([round(255 * (k >> (8 - bits)) / white) for k in range(256)] * len(image.getbands())), ()
    return image, ()
