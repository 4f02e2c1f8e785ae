"""Every depth, colour and order of values that a file can state: the values that it states, or a refusal by name."""

import base64
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from clearsight.data.images import notes, open_mask, open_picture, picture_size
from clearsight.errors import Refused
from picturefiles import bmp, chunk, png, tiff

BANDS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # of a photometric interpretation
NAMES = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "colour in Lab"}
KINDS = [(bits, 1) for bits in (1, 2, 4, 8, 10, 12, 14, 16, 32)] + [(8, 2), (16, 2), (32, 2), (16, 3), (32, 3), (64, 3)]


def written(folder: Path, content: bytes, name: str = "x.tif") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def ramp(bits: int, kind: int, bands: int) -> np.ndarray:
    """(3, 16, bands) from the least to the greatest value, both there."""
    if kind == 3:
        return np.linspace(0, 1, 48 * bands).reshape(3, 16, bands)
    least, most = (0, 2**bits - 1) if kind == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return np.linspace(least, most, 48 * bands).round().astype(np.int64).reshape(3, 16, bands)


def eighths(values: np.ndarray, white: float) -> np.ndarray:
    """255 v / white, rounded half up, in whole numbers."""
    if white == 1.0 and values.dtype.kind == "f":
        return np.rint(values.astype(np.float32) * 255).astype(int)
    return np.array([(510 * int(v) + white) // (2 * white) for v in values.ravel()]).reshape(values.shape)


def meant(values: np.ndarray, bits: int, kind: int, photometric: int) -> np.ndarray:
    """What people see, of 8 bits, by what TIFF 6.0 says of these values; the palette of the tests is one of greys."""
    white = 1.0 if kind == 3 else 2**bits - 1
    if photometric == 0:
        return eighths(white - values, white)
    if photometric == 5:
        c, m, y, k = np.moveaxis(255 - eighths(values, white), -1, 0)
        return np.rint(np.stack([c * k, m * k, y * k], -1) / 255).astype(int)
    if photometric == 6:
        y, b, r = np.moveaxis(values - np.array([0, 128, 128]), -1, 0)
        return np.rint(np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], -1)).clip(0, 255)
    return eighths(values, white)


def readable(bits: int, kind: int, photometric: int, order: str, fill: int, planar: int, deflated: bool) -> bool:
    """The table of what is read; everything else is refused."""
    if (kind, bits) == (3, 32):
        return photometric in (0, 1) and fill == 1
    if kind != 1:
        return False
    if photometric in (0, 1) and bits <= 8:
        return not (photometric == 0 and bits == 8 and fill == 2 and not deflated)
    if photometric in (0, 1) and bits == 12:
        return photometric == 1 and order == "<" and fill == 1
    if photometric in (0, 1) and bits == 16:
        return (order == "<" and (fill == 1 or photometric == 1)) or (photometric == 1 and fill == 1)
    if photometric == 3 and bits <= 8:
        return fill == 1 or deflated or bits == 8
    if photometric in (2, 5) and bits == 16:
        return fill == 1 and planar == 1
    if bits == 8:
        return {2: fill == 1 or planar == 1, 5: fill == 1, 6: fill == 1 and planar == 1}.get(photometric, False)
    return False


@pytest.mark.parametrize("photometric", BANDS)
@pytest.mark.parametrize(("bits", "kind"), KINDS)
def test_a_tiff_has_the_values_it_states_or_is_refused_by_name(
    tmp_path: Path, bits: int, kind: int, photometric: int
) -> None:
    values = ramp(bits, kind, BANDS[photometric])
    tags = {530: (3, [1, 1])} if photometric == 6 else {}
    if photometric == 3 and kind == 1 and bits <= 8:
        tags = {320: (3, [k * 65535 // (2**bits - 1) for k in range(2**bits)] * 3)}
    seen = meant(values, bits, kind, photometric)
    for order, fill, planar, deflated in itertools.product("<>", (1, 2), (1, 2), (False, True)):
        how = (bits, kind, photometric, order, fill, planar, deflated)
        path = written(tmp_path, tiff(values, bits, photometric, kind, order, fill, planar, (), deflated, tags))
        if not readable(*how):
            with pytest.raises(Refused, match=rf"^{NAMES[photometric]} of {bits} bits?\b.*: save it"):
                open_picture(path)
            continue
        image = open_picture(path)
        got = np.asarray(image).astype(int).reshape(3, 16, -1)
        assert np.abs(got - seen).max() <= (photometric == 6), how  # YCbCr has no whole numbers
        assert image.mode == ("L" if photometric in (0, 1) else "RGB")
        assert picture_size(path) == image.size
        if photometric in (0, 1, 2):
            black = (values == (0 if photometric else values.max())).all(-1)
            assert np.array_equal(open_mask(path), ~black), how


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("order", "<>")
def test_a_mask_needs_no_white(tmp_path: Path, bits: int, kind: int, order: str) -> None:
    """Numbers of objects, of any depth, signed or not, also where dividing would make them zero."""
    numbers = np.array([[0, 1, 2], [100, 0, 127]])
    path = written(tmp_path, tiff(numbers[..., None], bits, 1, kind, order, tags={281: (3, [100])}))
    if (bits, kind, order) == (32, 1, ">"):
        with pytest.raises(Refused, match=r"^grey of 32 bits, big-endian, which is not supported"):
            open_mask(path)
    else:
        assert np.array_equal(open_mask(path), numbers != 0)


def test_masks_of_16_bits_in_colour(tmp_path: Path) -> None:
    values = np.array([[[0, 0, 0], [0, 0, 5]], [[256, 0, 0], [0, 0, 0]]])
    for content in (tiff(values, 16, 2), png(values, 16, 2), b"P6 2 2 65535 " + values.astype(">u2").tobytes()):
        assert open_mask(written(tmp_path, content)).tolist() == [[False, True], [True, False]]
    text = b"P3 2 2 4095\n0 0 0 0 0 5 # remark 7\n256 0 0 0 0 0\n"
    assert open_mask(written(tmp_path, text)).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("tag", [281, 341])
@pytest.mark.parametrize("white", [255, 1023, 4095, 16383])
def test_the_white_that_a_tiff_states(tmp_path: Path, tag: int, white: int) -> None:
    values = np.linspace(0, white, 48).round().astype(int).reshape(3, 16, 1)
    for photometric, seen in ((1, values), (0, white - values), (2, values)):
        bands = np.repeat(values, BANDS[photometric], -1)
        image = open_picture(
            written(tmp_path, tiff(bands, 16, photometric, tags={tag: (3, [white] * bands.shape[-1])}))
        )
        assert np.array_equal(np.asarray(image).reshape(3, 16, -1)[..., :1], eighths(seen, white))
        assert notes(image) == (f"white is {white}, as the file says",)


def test_what_a_tiff_says_of_its_white_is_not_believed_against_its_values(tmp_path: Path) -> None:
    values = np.array([[[0], [3000]]])
    image = open_picture(written(tmp_path, tiff(values, 16, 1, tags={281: (3, [3000])})))
    assert (np.asarray(image).tolist(), notes(image)) == ([[0, 12]], ("its largest value is stated as 3000 of 65535",))
    image = open_picture(written(tmp_path, tiff(values, 16, 1)))  # a camera's file without the tag: 16 bits, as it says
    assert (np.asarray(image).tolist(), notes(image)) == ([[0, 12]], ("16 bits divided by 257",))
    with pytest.raises(Refused, match=r"^its largest value is stated as 1023, but it holds 3000: save it"):
        open_picture(written(tmp_path, tiff(values, 16, 1, tags={281: (3, [1023])})))


FEW = np.arange(1, 31).reshape(2, 3, 5) * 8
BANDS_SAID = (
    r"^{n} bands per pixel, but a picture has 1 \(grey\) or 3 \(RGB\), .* save those that the model was trained"
)


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize(
    ("bands", "photometric", "extra"),
    [(5, 1, (0,) * 4), (5, 1, ()), (2, 1, (0,)), (2, 1, ()), (2, 0, (0,)), (3, 1, (0, 0)), (4, 2, ()), (4, 2, (999,))],
)
def test_bands_of_which_it_is_not_said_what_they_are(
    tmp_path: Path, bands: int, photometric: int, extra: tuple[int, ...], planar: int
) -> None:
    path = written(tmp_path, tiff(FEW[..., :bands], 8, photometric, planar=planar, extra=extra))
    for read in (open_picture, open_mask, picture_size):
        with pytest.raises(Refused, match=BANDS_SAID.format(n=bands)):
            read(path)


@pytest.mark.parametrize("bits", [8, 16])
def test_bands_besides_the_colours(tmp_path: Path, bits: int) -> None:
    deep = 257 if bits == 16 else 1
    four = FEW[..., :4]
    image = open_picture(written(tmp_path, tiff(four * deep, bits, 2, extra=(0,))))
    assert np.array_equal(np.asarray(image), four[..., :3])
    assert notes(image)[0] == "4 bands, of which the first 3 are used"
    opaque = four[..., 3:] / 255
    image = open_picture(written(tmp_path, tiff(four * deep, bits, 2, extra=(2,))))
    assert np.abs(np.asarray(image) - (four[..., :3] * opaque + 255 * (1 - opaque))).max() <= 1
    assert notes(image)[-1] == "transparency laid on white"
    grey = four[..., [0, 3]]
    for kind in (1, 2):
        path = written(tmp_path, tiff(grey * deep, bits, 1, extra=(kind,)))
        if bits == 16:
            with pytest.raises(
                Refused, match=r"^grey of 16 bits, 2 bands, with .*alpha, which is not supported: save it"
            ):
                open_picture(path)
            continue
        seen = grey[..., 0] + 255 - grey[..., 1] if kind == 1 else (four[..., :1] * opaque + 255 * (1 - opaque))[..., 0]
        assert np.abs(np.asarray(open_picture(path).convert("L")) - seen).max() <= 1
        assert open_mask(path).all()
    path = written(tmp_path, tiff(four * deep, bits, 2, extra=(1,)))
    if bits == 16:
        with pytest.raises(
            Refused, match=r"^RGB of 16 bits, 4 bands, with premultiplied alpha, which is not supported"
        ):
            open_picture(path)
    else:
        assert np.abs(np.asarray(open_picture(path)) - (four[..., :3] + 255.0 - four[..., 3:])).max() <= 1


def test_premultiplied_black_is_no_mask(tmp_path: Path) -> None:
    values = np.array([[[0, 255], [9, 255], [0, 0]]])
    assert open_mask(written(tmp_path, tiff(values, 8, 1, extra=(1,)))).tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("said", "content"),
    [
        ("bands of different kinds (RGB of 5 and 6 bits)", tiff(FEW[..., :3], 8, 2, tags={258: (3, [5, 6, 5])})),
        ("bands of different kinds (RGB of 8 bits, signed)", tiff(FEW[..., :3], 8, 2, tags={339: (3, [1, 1, 2])})),
        ("a TIFF that does not say what its values mean", tiff(FEW[..., :1], 8, 1, without=(262,))),
        ("its first picture is a preview of another", tiff(FEW[..., :3], 8, 2, tags={254: (4, [1])})),
        ("a palette whose values may have", tiff(FEW[..., :1] % 4, 2, 3, tags={320: (3, [1, 2, 3, 4] * 3)})),
        ("the raw values of a camera's sensor of 16 bits", tiff(FEW[..., :1], 16, 32803)),
        ("a transparency mask of 1 bit", tiff(FEW[..., :1] % 2, 1, 4)),
        ("grey of 12 bits, but each value takes more bits", tiff(FEW[..., :1], 16, 1, tags={258: (3, [12])})),
        ("CMYK of 8 bits, which is not supported", tiff(FEW[..., :4], 8, 5, tags={332: (3, [2])})),
        ("YCbCr of 8 bits, which is not supported", tiff(FEW[..., :3], 8, 6)),  # 2 x 2 pixels share a colour
        ("grey of 8 bits, compression 34712, which is not", tiff(FEW[..., :1], 8, 1, tags={259: (3, [34712])})),
        ("YCbCr of 8 bits, as JPEG of before 1995", tiff(FEW[..., :3], 8, 6, tags={259: (3, [6])})),
        ("truncated or damaged (2 bands cannot be RGB)", tiff(FEW[..., :2], 8, 2)),
        ("7 bands per pixel", tiff(np.ones((2, 3, 7), int), 8, 2, extra=(0,) * 4)),
        ("grey of floating point outside [0, 1]", tiff(FEW[..., :1], 32, 1, 3)),
        ("a big-endian BigTIFF", b"MM\0+\0\x08\0\0" + b"\0" * 40),
        ("a TIFF that does not say what its values mean", b"II*\0\x08\0\0\0\xff\xff" + b"\1" * 40),
        ("truncated or damaged: it begins like a TIFF", tiff(FEW[..., :1], 8, 1, tags={262: (11, [np.nan])})),
        ("grey of 16 bits, signed, whose white", tiff(FEW[..., :1] - 99, 16, 1, 2).replace(b"II*\0", b"II\0*")),
    ],
)
def test_other_tiffs_are_refused_by_name(tmp_path: Path, said: str, content: bytes) -> None:
    path = written(tmp_path, content)
    with pytest.raises(Refused) as refused:
        open_picture(path)
    assert str(refused.value).startswith(said)


def test_a_palette_is_scaled_and_not_cut(tmp_path: Path) -> None:
    colours = [0, 128, 129, 33153, 65406, 65407, 65535, 0x80FF]  # 33153 = 129 x 257
    numbers = np.arange(8).reshape(1, 8, 1)
    path = written(tmp_path, tiff(numbers, 4, 3, tags={320: (3, (colours + [0] * 8) * 3)}))
    assert np.asarray(open_picture(path))[0, :, 0].tolist() == [0, 0, 1, 129, 254, 255, 255, 128]


def test_a_floating_mask_of_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="with NaN, which is neither zero nor another number"):
        open_mask(written(tmp_path, tiff(np.array([[[0.0], [np.nan]]]), 32, 1, 3)))


@pytest.mark.parametrize(
    ("bits", "colour", "bands"),
    [
        (1, 0, 1),
        (2, 0, 1),
        (4, 0, 1),
        (8, 0, 1),
        (16, 0, 1),
        (8, 2, 3),
        (16, 2, 3),
        (8, 4, 2),
        (16, 4, 2),
        (8, 6, 4),
        (16, 6, 4),
    ],
)
@pytest.mark.parametrize("significant", [False, True])
def test_a_png_has_the_values_it_states(tmp_path: Path, bits: int, colour: int, bands: int, significant: bool) -> None:
    """sBIT says how many bits the source had; the values are scaled to the full depth (PNG 3rd edition, 11.3.2.7)."""
    white, values = 2**bits - 1, ramp(bits, 1, bands)
    before = chunk(b"sBIT", bytes([max(1, bits - 4)] * bands)) if significant else b""
    path = written(tmp_path, png(values, bits, colour, before), "x.png")
    seen = eighths(values, white)
    if bands in (2, 4):
        opaque = seen[..., -1:] / 255
        seen = seen[..., :-1] * opaque + 255 * (1 - opaque)
    image = open_picture(path)
    got = np.asarray(image).reshape(3, 16, -1)[..., : seen.shape[-1]]
    assert np.abs(got - seen).max() <= (bands in (2, 4))
    assert ("16 bits divided by 257" in notes(image)) == (bits == 16)
    shown = values[..., :-1].any(-1) & (values[..., -1] > 0) if bands in (2, 4) else values.any(-1)
    assert np.array_equal(open_mask(path), shown)


@pytest.mark.parametrize(("bits", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)])
def test_the_colour_that_is_clear_in_a_png(tmp_path: Path, bits: int, colour: int) -> None:
    bands, white = (1 if colour == 0 else 3), 2**bits - 1
    clear = white // 2 + 1  # of 16 bits it has a neighbour with the same high byte
    values = np.array([[[clear], [clear + 1 if bits == 16 else 0], [white - clear]]]).repeat(bands, -1)
    before = chunk(b"tRNS", np.full(bands, clear, ">u2").tobytes())
    path = written(tmp_path, png(values, bits, colour, before), "x.png")
    seen = eighths(values[..., 0], white)
    seen[values[..., 0] == clear] = 255
    image = open_picture(path)
    assert np.array_equal(np.asarray(image.convert("L")), seen)
    assert notes(image)[-1] == "transparency laid on white"
    assert np.array_equal(open_mask(path), (values[..., 0] != 0) & (values[..., 0] != clear))


def test_the_checksums_of_a_png_are_looked_at(tmp_path: Path) -> None:
    whole = png(ramp(8, 1, 3), 8, 2)
    at = whole.index(b"IEND") - 8  # the last byte but three of the checksum of IDAT
    damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    assert open_picture(written(tmp_path, whole, "x.png")).size == (16, 3)
    for read in (open_picture, open_mask):
        with pytest.raises(Refused, match=r"^truncated or damaged"):
            read(written(tmp_path, damaged, "x.png"))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_palette_of_a_png(tmp_path: Path, bits: int) -> None:
    colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3), dtype=np.uint8)
    numbers = np.arange(8).reshape(2, 4, 1) % 2**bits
    before = chunk(b"PLTE", colours.tobytes())
    path = written(tmp_path, png(numbers, bits, 3, before), "x.png")
    assert np.array_equal(np.asarray(open_picture(path)), colours[numbers[..., 0]])
    assert np.array_equal(open_mask(path), numbers[..., 0] != 0)
    clear = written(tmp_path, png(numbers, bits, 3, before + chunk(b"tRNS", b"\xff\0")), "x.png")
    assert np.array_equal(open_mask(clear), (numbers[..., 0] != 0) & (numbers[..., 0] != 1))


@pytest.mark.parametrize("white", [1, 2, 3, 100, 254, 255, 256, 1023, 4095, 65535])
@pytest.mark.parametrize("letter", [b"P2", b"P3", b"P5", b"P6"])
def test_the_white_that_a_netpbm_file_states(tmp_path: Path, letter: bytes, white: int) -> None:
    bands = 1 if letter in (b"P2", b"P5") else 3
    one = np.unique(np.linspace(0, white, 700).round().astype(int))
    values = one[None, :, None].repeat(bands, -1)
    if letter in (b"P2", b"P3"):
        data = " ".join(map(str, values.ravel())).encode()
    else:
        data = values.astype(">u2" if white > 255 else "u1").tobytes()
    path = written(tmp_path, letter + b" %d 1 # a remark\n%d\n" % (len(one), white) + data, "x.pnm")
    image = open_picture(path)
    assert np.array_equal(np.asarray(image).reshape(1, len(one), -1)[..., :1], eighths(values[..., :1], white))
    assert bool(notes(image)) == (white != 255)
    assert np.array_equal(open_mask(path), values[..., 0] > 0)


@pytest.mark.parametrize("content", [b"P5 2 1 100\n\x03\x65", b"P6 1 1 1000\n\0\1\0\1\x04\0", b"P2 2 1 100\n3 101"])
def test_more_than_white_is_damage(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Refused, match=r"^truncated or damaged \(its white is stated as 1000?, but it holds 1\d\d\d?\)"):
        open_picture(written(tmp_path, content, "x.pgm"))


@pytest.mark.parametrize(
    "content", [b"P5 2 1 100\n\x03", b"P6 1 1 1000\n\0\1\0\1\1", b"P2 2 1 100\n3", b"P3 1 1 300 1 2"]
)
def test_too_few_values_are_truncated(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Refused, match=r"^truncated$"):
        open_picture(written(tmp_path, content, "x.pgm"))


def test_floating_point_maps(tmp_path: Path) -> None:
    values = np.array([[0, 0.25, 0.5], [1, 0.75, 0.125]])
    for scale, order in ((b"-1.0", "<"), (b"1.0", ">")):
        data = b"Pf\n3 2\n" + scale + b"\n" + values[::-1].astype(f"{order}f4").tobytes()  # from the bottom row up
        path = written(tmp_path, data, "x.pfm")
        assert np.asarray(open_picture(path)).tolist() == [[0, 64, 128], [255, 191, 32]]
        assert np.array_equal(open_mask(path), values > 0)
    with pytest.raises(Refused, match=r"^a PFM whose scale is 2.5, so its white is unknown: save it"):
        open_picture(written(tmp_path, b"Pf\n1 1\n-2.5\n" + b"\0" * 4, "x.pfm"))


@pytest.mark.parametrize("sizes", [(5, 5, 5), (5, 6, 5)])
def test_bmp_of_16_bits(tmp_path: Path, sizes: tuple[int, int, int]) -> None:
    red, green, blue = (np.arange(64) % 2**n for n in sizes)
    values = (red << (sizes[1] + 5)) | (green << 5) | blue
    masks = (0x7C00, 0x3E0, 0x1F) if sizes[1] == 5 else (0xF800, 0x7E0, 0x1F)
    seen = np.stack([eighths(v, 2**n - 1) for v, n in zip((red, green, blue), sizes, strict=True)], -1)
    path = written(tmp_path, bmp(values.reshape(2, 32), 16, masks), "x.bmp")
    assert np.array_equal(np.asarray(open_picture(path)), seen.reshape(2, 32, 3))
    assert np.array_equal(open_mask(path), (values != 0).reshape(2, 32))
    if sizes[1] == 5:
        path = written(tmp_path, bmp(values.reshape(2, 32), 16), "x.bmp")
        assert np.array_equal(np.asarray(open_picture(path)), seen.reshape(2, 32, 3))
    with pytest.raises(
        Refused, match=r"^in an unsupported variant of its format \(Unsupported BMP .*\): save it as PNG$"
    ):
        open_picture(written(tmp_path, bmp(values.reshape(2, 32), 16, (0xF00, 0xF0, 0xF)), "x.bmp"))


@pytest.mark.parametrize(
    "masks", [(), (0xFF0000, 0xFF00, 0xFF), (0xFF000000, 0xFF0000, 0xFF00), (0xFF, 0xFF00, 0xFF0000, 0xFF000000)]
)
def test_bmp_of_32_bits(tmp_path: Path, masks: tuple[int, ...]) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (2, 3, 3))
    places = [mask.bit_length() - 8 for mask in masks] or [16, 8, 0]
    values = sum(colours[..., i].astype(np.int64) << places[i] for i in range(3))
    if len(masks) == 4:
        values = values | (255 << places[3])
    path = written(tmp_path, bmp(values, 32, masks), "x.bmp")
    assert np.array_equal(np.asarray(open_picture(path)), colours)


# Written by imagecodecs 2026.3.6 (OpenJPEG, libavif and libjpeg-turbo): TWELVE of 12 bits, TWELVE // 256 of 4 bits,
# LONG of 10 and of 12 bits.
TWELVE = np.linspace(0, 4095, 32).round().astype(int).reshape(4, 8)
FILES = {
    "grey12.jp2": (
        "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAABAAAAAgAAQsHAAAAAAAPY29scgEAAAAA"
        "ABEAAACwanAyY/9P/1EAKQAAAAAACAAAAAQAAAAAAAAAAAAAAAgAAAAEAAAAAAAAAAAAAQsBAf9SAAwAAAABAAAEBAAB/1wABEBg"
        "/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBFRyB2ZXJzaW9uIDIuNS40/5AACgAAAAAAPgAB/5Pf4LQSJSiUKVsRay5w5knjp8G7USn9"
        "/Au5PSk6NKIRVAD/gFmY1E4Izw1IFCPUE4X/2Q=="
    ),
    "grey12.j2k": (
        "/0//UQApAAAAAAAIAAAABAAAAAAAAAAAAAAACAAAAAQAAAAAAAAAAAABCwEB/1IADAAAAAEAAAQEAAH/XAAEQGD/ZAAlAAFDcmVh"
        "dGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAAA+AAH/k9/gtBIlKJQpWxFrLnDmSeOnwbtRKf38C7k9KTo0ohFU"
        "AP+AWZjUTgjPDUgUI9QThf/Z"
    ),
    "grey4.jp2": (
        "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAABAAAAAgAAQMHAAAAAAAPY29scgEAAAAA"
        "ABEAAACSanAyY/9P/1EAKQAAAAAACAAAAAQAAAAAAAAAAAAAAAgAAAAEAAAAAAAAAAAAAQMBAf9SAAwAAAABAAAEBAAB/1wABEAg"
        "/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBFRyB2ZXJzaW9uIDIuNS40/5AACgAAAAAAIAAB/5PfIPASXyhZhEUbifzg7dbGQx//2Q=="
    ),
    "rgb4.jp2": (
        "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAABAAAAAgAAwMHAAAAAAAPY29scgEAAAAA"
        "ABAAAACaanAyY/9P/1EALwAAAAAACAAAAAQAAAAAAAAAAAAAAAgAAAAEAAAAAAAAAAAAAwMBAQMBAQMBAf9SAAwAAAABAQAEBAAB"
        "/1wABEAg/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBFRyB2ZXJzaW9uIDIuNS40/5AACgAAAAAAIgAB/5PfIPASXyhZhEUbifzg7dbG"
        "Qx+AgP/Z"
    ),
    "rgb12.jp2": (
        "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAABAAAAAgAAwsHAAAAAAAPY29scgEAAAAA"
        "ABAAAAC4anAyY/9P/1EALwAAAAAACAAAAAQAAAAAAAAAAAAAAAgAAAAEAAAAAAAAAAAAAwsBAQsBAQsBAf9SAAwAAAABAQAEBAAB"
        "/1wABEBg/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBFRyB2ZXJzaW9uIDIuNS40/5AACgAAAAAAQAAB/5Pf4LQSJSiUKVsRay5w5knj"
        "p8G7USn9/Au5PSk6NKIRVAD/gFmY1E4Izw1IFCPUE4WAgP/Z"
    ),
    "signed.jp2": (
        "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAABAAAAAgAAY8HAAAAAAAPY29scgEAAAAA"
        "ABEAAACzanAyY/9P/1EAKQAAAAAACAAAAAQAAAAAAAAAAAAAAAgAAAAEAAAAAAAAAAAAAY8BAf9SAAwAAAABAAAEBAAB/1wABECA"
        "/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBFRyB2ZXJzaW9uIDIuNS40/5AACgAAAAAAQQAB/5PB/gvAOMOy5knR3WHFsYvNr2itP2fs"
        "xGoJmCes4cYGUMelavowJo7x7q1yFb4AhHqCcL//2Q=="
    ),
    "rgba8.jp2": (
        "AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAABAAAAAgABAcHAAAAAAAPY29scgEAAAAA"
        "ABAAAAEJanAyY/9P/1EAMgAAAAAACAAAAAQAAAAAAAAAAAAAAAgAAAAEAAAAAAAAAAAABAcBAQcBAQcBAQcBAf9SAAwAAAABAAAE"
        "BAAB/1wABEBA/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBFRyB2ZXJzaW9uIDIuNS40/5AACgAAAAAAjgAB/5PfgOgSJSiUKVsRay5w"
        "5gwgBDOS0aCwKyeWV5T06mSUv9+A6BIlKJQpWxFrLnDmDCAEM5LRoLArJ5ZXlPTqZJS/34DoEiUolClbEWsucOYMIAQzktGgsCsn"
        "lleU9OpklL/fgOgSJSiUKVsRay5w5gwgBDOS0aCwKyeWV5T06mSUv//Z"
    ),
    "grey10.avif": (
        "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAOltZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
        "AA5waXRtAAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAAQ0AAABpAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAAAQAAYXYw"
        "MUNvbG9yAAAAAGhpcHJwAAAASWlwY28AAAAUaXNwZQAAAAAAAAAQAAAAEAAAAA5waXhpAAAAAAEKAAAADGF2MUOBAFwAAAAAE2Nv"
        "bHJuY2x4AAIAAgACgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAcW1kYXQSAAoFGAz/+dQyXhAAbgSnbp1x/mTXTsoczeR7loo+"
        "zWcBEtgHN2mkUa8F1qW/zT6H8vaBf2JjUv/puPS01Fbot/THz3DT0lIsmd81QnhlZADxSsjmAV2RRVOCeI/5sQdcouShyBT+VFY="
    ),
    "grey12.avif": (
        "AAAAHGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZgAAAOltZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
        "AA5waXRtAAAAAAABAAAAHmlsb2MAAAAARAAAAQABAAAAAQAAAQ0AAACbAAAAKGlpbmYAAAAAAAEAAAAaaW5mZQIAAAAAAQAAYXYw"
        "MUNvbG9yAAAAAGhpcHJwAAAASWlwY28AAAAUaXNwZQAAAAAAAAAQAAAAEAAAAA5waXhpAAAAAAEMAAAADGF2MUOBQHwAAAAAE2Nv"
        "bHJuY2x4AAIAAgACgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAo21kYXQSAAoFWAz/+OoyjwEQAG4Ep3OO+P5H8iimIMyv5rcA"
        "G67kDctSd6VSl4Ukd+5bUsahrJ9vi6mcioGudcLuMdpDCSjv1G46hIv50Y/JPEpykqjkaVR4u8RZzZ/dvyoOrlf/8V7nqQfFa7CW"
        "dqVb2lQpQC0Bwz3E44hdd2a3BILLlpd3vaam9IQlI2pxxS/R4R7PnKuGuqUrVijBmA=="
    ),
    "rgb10.avif": (
        "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAA"
        "AAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAA6wAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEA"
        "AGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAAEAAAABAAAAAQcGl4aQAAAAADCgoKAAAADGF2MUOBIEAA"
        "AAAAE2NvbHJuY2x4AAIAAgAAgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAA821kYXQSAAoIOAz/+cCAgCQy3AEQAADQJgf876pA"
        "7734rks96uIe+qm+jealGpuv3Y2b/X3StzahMhVtwtxwywhbmm+80APIInAgQ+ecHdkyT428xQCGKXWWDT1hET1W2FaPkWKKibEz"
        "nhiJGxUkVIxFOqtUiHixI222S4dkxq7iSkjuGsNq+1dVkcN+vqVxvPTTCedPd3Hu973FjuDvI59xaIExSO1dAfTOPz/9wthtetj6"
        "gvmPXR7/4XfqSt35k3vNiKuFnP8dHeSYrEvuEt+PabrlGi4r8YxX+0KUls3AONS04KY8rUezxODHDu7u"
    ),
    "jpeg12.jpg": (
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoK"
        "CgoKBggLDAsKDAkKCgr/wQALDAAEAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAADP/EAB0QAAECBwAAAAAAAAAAAAAAAAEHDQAM"
        "G0dVYmf/2gAIAQEAAD8AYwy0ww7rbKkICaLfjLlJ5pz6P//Z"
    ),
}


def from_text(folder: Path, name: str) -> Path:
    return written(folder, base64.b64decode("".join(FILES[name])), name)


def test_jpeg_2000(tmp_path: Path) -> None:
    for name in ("grey12.jp2", "grey12.j2k"):
        image = open_picture(from_text(tmp_path, name))
        assert np.array_equal(np.asarray(image), eighths(TWELVE, 4095))
        assert notes(image) == ("12 bits divided by 16.06",)
    four = eighths(TWELVE // 256, 15)
    assert np.array_equal(np.asarray(open_picture(from_text(tmp_path, "grey4.jp2"))), four)
    assert np.array_equal(np.asarray(open_picture(from_text(tmp_path, "rgb4.jp2"))), np.stack([four] * 3, -1))
    for name, said in {
        "rgb12.jp2": "JPEG 2000 colour of 12 bits, of which only 8 are supported: save it as PNG",
        "signed.jp2": "JPEG 2000 of signed values, whose white is unknown: save it as PNG",
        "rgba8.jp2": "JPEG 2000 of 4 bands, and the file does not say what the last one is: save those ...",
    }.items():
        with pytest.raises(Refused) as refused:
            open_picture(from_text(tmp_path, name))
        assert str(refused.value).startswith(said.removesuffix("..."))
    image = Image.new("RGBA", (64, 64), (10, 20, 30, 255))
    image.save(tmp_path / "alpha.jp2", irreversible=False)  # it says which band is the alpha
    assert open_picture(tmp_path / "alpha.jp2").getpixel((5, 5)) == (10, 20, 30)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_of_10_and_12_bits(tmp_path: Path) -> None:
    for bits in (10, 12):
        long = np.linspace(0, 2**bits - 1, 256).round().astype(int).reshape(16, 16)
        assert np.array_equal(
            np.asarray(open_picture(from_text(tmp_path, f"grey{bits}.avif"))), eighths(long, 2**bits - 1)
        )
    long = np.linspace(0, 1023, 256).round().astype(int).reshape(16, 16)
    assert np.array_equal(np.asarray(open_picture(from_text(tmp_path, "rgb10.avif")))[..., 1], eighths(long, 1023))


def test_jpeg_of_12_bits_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^JPEG of 12 bits, which is not supported: save it as PNG or with 8 bits$"):
        open_picture(from_text(tmp_path, "jpeg12.jpg"))


def test_the_first_of_a_pyramid(tmp_path: Path) -> None:
    """A second picture in the file, a smaller version of the first: the first is shown, and that is told."""
    whole, small = Image.new("L", (8, 8), 200), Image.new("L", (4, 4), 9)
    whole.save(tmp_path / "x.tif", save_all=True, append_images=[small])
    image = open_picture(tmp_path / "x.tif")
    assert (image.size, image.getpixel((0, 0)), notes(image)) == ((8, 8), 200, ("first frame of several",))
