"""Read the tags of a TIFF, and correct or refuse what Pillow would read as other values.

Source: TIFF Revision 6.0 (Adobe, 1992), sections 3 to 8 and 16 to 23.  Pillow's table of what it reads is
PIL.TiffImagePlugin.OPEN_INFO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import COMPRESSION_INFO, OPEN_INFO, ImageFileDirectory_v2, TiffImageFile

from clearsight.errors import Refused

_BEGINNINGS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0")  # two as they are, two that Pillow reads too, BigTIFF
_BIG_ENDIAN = b"MM\0+"  # a BigTIFF too
SAVE = "save it as grey or RGB of 8 bits"
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
_BANDS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # without extra samples
_OTHERS = {4: "a transparency mask", 8: "colour in Lab", 9: "colour in Lab", 10: "colour in Lab"}
_OTHERS |= {32803: "the raw values of a camera's sensor", 34892: "the raw values of a camera's sensor"}
_NUMBERS = {2: "signed", 3: "floating point"}  # SampleFormat, where 1 is unsigned
_ALPHA = {1: "premultiplied", 2: "alpha"}  # ExtraSamples
_MOST = 6  # bands that Pillow reads
_JPEG, _OLD_JPEG = 7, 6  # Compression


@dataclass(frozen=True)
class TiffTags:
    """What the first picture of a TIFF states of its values: each field is the tag of that name."""

    little: bool
    photometric: int | None
    bits: tuple[int, ...]
    samples: int
    formats: tuple[int, ...]
    extra: tuple[int, ...]
    planar: int
    fill: int
    compression: int
    largest: int | None  # MaxSampleValue, or SMaxSampleValue where that is stated
    preview: bool  # NewSubfileType or SubfileType: a smaller version of another picture
    subsampling: tuple[int, ...]
    inks: int
    packed: bool  # the strips are as long as values of these bits are, one behind the other
    plain: bool  # neither YCbCrCoefficients, ReferenceBlackWhite nor DotRange says that the values mean something else


def read_tags(file: IO[bytes]) -> TiffTags | None:
    """The tags of the first picture; None where the file is not a TIFF.  Refused: tags that cannot be read."""
    head = file.read(8)
    if head[:4] == _BIG_ENDIAN:
        raise Refused("a big-endian BigTIFF, which is not supported: save it as TIFF")
    if head[:4] not in _BEGINNINGS:
        return None
    try:
        directory = ImageFileDirectory_v2(head + file.read(8) if head[2:3] == b"+" else head)
        file.seek(directory.next)
        directory.load(file)
        return _collect_tags(dict(directory), head[:2] == b"II")
    except Exception as e:  # damaged tags make Pillow raise nearly anything
        reason = str(e).partition("\n")[0] or type(e).__name__
        raise Refused(
            f"truncated or damaged: it begins like a TIFF file, and its tags cannot be read ({reason})"
        ) from None


def _collect_tags(values: dict[int, Any], little: bool) -> TiffTags:
    def all_of(tag: int, *otherwise: int) -> tuple[int, ...]:
        value = values.get(tag, otherwise)
        return tuple(int(v) for v in (value if isinstance(value, tuple) else (value,)))

    def one_of(tag: int, otherwise: int) -> int:
        return all_of(tag, otherwise)[0]

    colour, reference = values.get(262), values.get(532)
    samples, bits, formats = one_of(277, 1), all_of(258, 1), all_of(339, 1)
    largest = all_of(341) or all_of(281)
    coefficients = tuple(round(float(v), 3) for v in values.get(529, (0.299, 0.587, 0.114)))
    full = reference is None or tuple(map(float, reference)) in ((0, 255, 128, 255, 128, 255), (0, 255) * 3)
    dots = all_of(336, 0, 255)
    return TiffTags(
        little,
        None if colour is None else int(colour),
        bits * samples if len(bits) == 1 else bits,
        samples,
        formats * samples if len(formats) == 1 else formats,
        all_of(338),
        one_of(284, 1),
        one_of(266, 1),
        one_of(259, 1),
        min(largest, default=None),
        bool(one_of(254, 0) & 1) or one_of(255, 1) == 2,
        all_of(530, 2, 2),
        one_of(332, 1),
        _is_packed(values, bits[0] * samples, one_of(259, 1)),
        coefficients == (0.299, 0.587, 0.114) and full and dots[:2] in ((0, 255), (0, 65535)),
    )


def _is_packed(values: dict[int, Any], bits: int, compression: int) -> bool:
    """Whether uncompressed values of 9 to 15 bits are stored in so many, and not in 16 each."""
    if compression != 1 or bits % 8 == 0 or 279 not in values:
        return True
    counts = values[279] if isinstance(values[279], tuple) else (values[279],)
    return sum(counts) <= int(values[257]) * ((int(values[256]) * bits + 7) // 8)


def describe(tags: TiffTags) -> str:
    """The kind of picture in an error message: "grey of 10 bits, big-endian"."""
    if tags.photometric is None:
        return "a TIFF that does not say what its values mean (PhotometricInterpretation)"
    colour = _COLOURS.get(tags.photometric) or _OTHERS.get(
        tags.photometric, f"colour of an unknown kind (PhotometricInterpretation {tags.photometric})"
    )
    bits = " and ".join(str(b) for b in sorted(set(tags.bits)))
    words = [f"{colour} of {bits} {'bit' if bits == '1' else 'bits'}"]
    words += [_NUMBERS.get(f, f"SampleFormat {f}") for f in sorted(set(tags.formats)) if f != 1]
    words += [f"{tags.samples} bands"] if tags.extra else []
    words += ["0 is white"] if tags.photometric == 0 else []
    words += [] if tags.little else ["big-endian"]
    words += ["bits in reverse order (FillOrder 2)"] if tags.fill == 2 else []
    words += ["bands one after the other (PlanarConfiguration 2)"] if tags.planar == 2 else []
    words += [f"with {_ALPHA[e]}" if e == 2 else f"with {_ALPHA[e]} alpha" for e in tags.extra if e in _ALPHA]
    words += [f"compression {tags.compression}"] if tags.compression not in COMPRESSION_INFO else []
    return ", ".join(words)


def refuse_unsupported(tags: TiffTags, mask: bool) -> None:
    """Refuse pictures that Pillow reads as other values, and those that do not state their colours.

    mask: only whether a value is zero matters, so a white that is unknown is allowed.
    """
    if tags.preview:
        raise Refused(
            "its first picture is a preview of another, as in the raw files of cameras: save it as JPEG or PNG"
        )
    if tags.photometric not in _BANDS:
        raise Refused(f"{describe(tags)}, which is not supported: {SAVE}")
    _check_bands(tags)
    if len(set(tags.bits)) > 1 or len(set(tags.formats)) > 1 or len(tags.bits) != tags.samples:
        raise Refused(f"bands of different kinds ({describe(tags)}), which are not supported: {SAVE}")
    deep, planar = tags.bits[0] > 8, tags.planar == 2 and tags.samples > 1
    unsupported = [
        planar and (deep or tags.fill == 2 or 1 in tags.extra or tags.photometric == 6),
        deep and 1 in tags.extra,
        tags.compression == _OLD_JPEG or (deep and tags.compression == _JPEG),
        tags.photometric == 5 and (tags.inks != 1 or not tags.plain),
        tags.photometric == 6 and not tags.plain,
        tags.photometric == 6 and tags.compression == 1 and tags.subsampling != (1, 1),
        tags.photometric == 6 and tags.compression != _JPEG and tags.samples != 3,
    ]
    if any(unsupported):
        remark = ", as JPEG of before 1995" if tags.compression == _OLD_JPEG else ""
        raise Refused(f"{describe(tags)}{remark}, which is not supported: {SAVE}")
    if not tags.packed and deep:
        raise Refused(f"{describe(tags)}, but each value takes more bits in the file, which is not supported: {SAVE}")
    unknown = tags.formats[0] == 2 or (tags.formats[0] == 1 and tags.bits[0] > 16)
    if unknown and not mask:
        raise Refused(f"{describe(tags)}, whose white is unknown: save it with 8 or 16 bits")


def _check_bands(tags: TiffTags) -> None:
    """Refuse bands whose meaning is not stated."""
    assert tags.photometric is not None
    more = tags.samples - _BANDS[tags.photometric]
    grey = _BANDS[tags.photometric] == 1
    if more < 0:
        raise Refused(f"truncated or damaged ({tags.samples} bands cannot be {_COLOURS[tags.photometric]})")
    undefined = more > 0 and (len(tags.extra) != more or tags.extra[0] not in _ALPHA)
    if (undefined and (grey or len(tags.extra) != more or tags.extra[0] != 0)) or tags.samples > _MOST:
        raise Refused(
            f"{tags.samples} bands per pixel, but a picture has 1 (grey) or 3 (RGB), and the file does not say which "
            "bands these are: save those that the model was trained on as a picture of their own"
        )


def correct_raw_mode(image: ImageFile, tags: TiffTags) -> None:
    """Let Pillow decode with the raw mode that the file has, before it is loaded.

    For one band in planes of their own (PlanarConfiguration 2) Pillow takes the first letter of the raw mode.  Libtiff
    gives floats in this machine's byte order, and Pillow reads them in the file's.
    """
    if tags.planar == 2 and tags.samples == 1 and tags.compression == 1:
        order = b"II" if tags.little else b"MM"
        modes: dict[Any, tuple[str, str]] = dict(OPEN_INFO)
        decode_as(image, modes[order, tags.photometric, tags.formats, tags.fill, tags.bits, ()][1])
    if image.mode == "F" and image.tile[0].codec_name == "libtiff":
        decode_as(image, "F;32NF")


def decode_as(image: ImageFile, raw: str) -> None:
    """Let Pillow decode with this raw mode, before it is loaded."""
    image.tile = [t._replace(args=raw if isinstance(t.args, str) else (raw, *(t.args or ())[1:])) for t in image.tile]


def white_value(tags: TiffTags, values: NDArray[Any]) -> tuple[float, tuple[str, ...]]:
    """The value of white that the tags state, and a note on it.  values: refused where they contradict the tags.

    MaxSampleValue is the largest value used, for statistics alone (TIFF 6.0, page 37), but where it is that of fewer
    bits than the container has (4095 of 65535), it is how cameras of 10, 12 and 14 bits state their depth.
    """
    if tags.formats[0] == 3:
        return 1.0, ()
    full, largest = 2 ** tags.bits[0] - 1, tags.largest
    if largest is None or largest >= full:
        return full, ()
    if values.max() > largest:
        raise Refused(f"its largest value is stated as {largest}, but it holds {values.max()}: {SAVE}")
    if largest >= 255 and (largest & (largest + 1)) == 0:
        return largest, (f"white is {largest}, as the file says",)
    return full, (f"its largest value is stated as {largest} of {full}",)


def extra_bands_note(tags: TiffTags) -> tuple[str, ...]:
    """The note on bands that are left out."""
    used = _BANDS[tags.photometric or 0] + (tags.extra[0] in _ALPHA if tags.extra else 0)
    return (f"{tags.samples} bands, of which the first {used} are used",) if tags.samples > used else ()


def palette(image: TiffImageFile) -> list[int]:
    """The colours of the palette, 3 numbers of 8 bits each, scaled from 16 bits, which Pillow truncates."""
    colours = np.array(image.tag_v2[320], np.int64)
    if 0 < colours.max() < 256:
        raise Refused(f"a palette whose values may have 8 bits or 16: {SAVE}")
    flat: list[int] = ((colours + 128) // 257).reshape(3, -1).T.ravel().tolist()
    return flat
