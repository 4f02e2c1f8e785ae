"""Maps as pictures: what the colours say is true, in every kind of sight, and nothing is lost or covered."""

import io
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.drawing import heatmaps
from clearsight.errors import Refused
from clearsight.explaining import sheet as explaining_sheet
from clearsight.runner import results
from clearsight.runner.results import Attacked, Explanation
from clearsight.runner.run import attack, explain

Pixels = npt.NDArray[np.float64]

# Machado, Oliveira and Fernandes 2009, doi:10.1109/TVCG.2009.113: full severity, on linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(rgb: Pixels) -> Pixels:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def seen(rgb: Pixels, sight: str) -> Pixels:
    """sRGB as somebody sees it, as sRGB."""
    light = np.clip(linear(rgb) @ SIGHT[sight].T, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_stronger_the_darker(sight: str, sign: int) -> None:
    """On any grey that a photo can have below the map; so also in a grey print."""
    strength = np.linspace(0, 1, 65)
    for grey in np.linspace(heatmaps.PALEST, 1, 12):
        rgb = heatmaps.ink(np.full(65, grey), sign * strength)
        light = linear(seen(rgb, sight)) @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(light) < 0).all(), (sight, sign, grey)
        lightness = rgb2lab(seen(rgb, sight)[None])[0, :, 0]
        assert lightness[0] - lightness[-1] > 10


@pytest.mark.parametrize("sight", SIGHT)
def test_for_and_against_are_told_apart(sight: str) -> None:
    for strength in (0.5, 1.0):
        for grey in (heatmaps.PALEST, 0.8, 1.0):
            both = seen(heatmaps.ink(np.full(2, grey), np.array([strength, -strength])), sight)
            lab = rgb2lab(both[None])[0]
            assert deltaE_ciede2000(lab[0], lab[1]) > 12, (sight, strength, grey)


def test_a_map_of_zeros_is_the_plain_pale_photo() -> None:
    x = torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(0))
    a = pixels(heatmaps.overlay(x, torch.zeros(30, 40), signed=True))
    assert (a[..., 0] == a[..., 1]).all()
    assert (a[..., 0] == a[..., 2]).all()
    grey = np.einsum("c,chw->hw", [0.2126, 0.7152, 0.0722], x.double().numpy())
    assert np.abs(a[::7, ::7, 0] - 255 * (heatmaps.PALEST + (1 - heatmaps.PALEST) * grey)).max() <= 0.5 + 1e-6


def test_orange_speaks_for_and_purple_against() -> None:
    heat = torch.tensor([[1.0, -1.0, 0.0]]).repeat(3, 1)
    a = pixels(heatmaps.overlay(torch.ones(3, 3, 3), heat, signed=True)).astype(int)
    left, middle, right = (a[0, i * a.shape[1] // 3 + 5] for i in range(3))
    assert left[0] > left[1] > left[2]
    assert middle[2] > middle[0] > middle[1]
    assert (right == 255).all()
    unsigned = pixels(heatmaps.overlay(torch.ones(3, 3, 3), heat, signed=False))
    assert (unsigned[0, a.shape[1] // 3 + 5] == 255).all()
    assert (unsigned[0, 5] == left).all()


def test_full_ink_is_the_percentile_that_is_stated() -> None:
    heat = torch.arange(10_000.0).view(100, 100) - 9_000
    assert heatmaps.full_ink(heat) == pytest.approx(np.percentile(heat.abs().numpy(), 99.5))
    assert "99.5th percentile" in heatmaps.SCALE_WORDS
    one = torch.zeros(100, 100)
    one[3, 4] = -2
    assert heatmaps.full_ink(one) == 2  # nearly all zeros: what there is must show
    x = torch.rand(1, 100, 100)
    assert heatmaps.overlay(x, heat, signed=True) == heatmaps.overlay(x, heat * 1e-9, signed=True)
    twice = heatmaps.full_ink(2 * heat)
    assert heatmaps.overlay(x, heat, signed=True, full=twice) == heatmaps.overlay(
        x, 2 * heat, signed=True, full=2 * twice
    )
    assert heatmaps.overlay(x, heat, signed=True, full=twice) != heatmaps.overlay(x, heat, signed=True)
    spike = heat.clone()
    spike[0, 0] = 1e9
    assert heatmaps.full_ink(spike) < 9_100


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 28, 28), (224, 224)), ((3, 16, 24), (312, 208)), ((3, 224, 300), (300, 224))]
)
def test_small_pictures_are_enlarged_by_whole_factors(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    image = heatmaps.photo(x)
    assert image.size == size
    factor = size[0] // shape[2]
    blocks = pixels(image).reshape(shape[1], factor, shape[2], factor, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert np.abs(blocks[:, 0, :, 0].transpose(2, 0, 1) - 255 * x.numpy()).max() <= 0.5 + 1e-4


def test_a_very_flat_picture_stays_of_a_sane_size() -> None:
    assert max(heatmaps.photo(torch.rand(1, 1, 900)).size) <= heatmaps.LONGEST
    assert heatmaps.photo(torch.rand(3, 2, 9000)).size == (9000, 2)


def test_the_outline_shows_on_light_and_dark_and_covers_little() -> None:
    region = torch.zeros(224, 224, dtype=torch.bool)
    region[50:150, 60:200] = True
    for ground in (0.0, 1.0):
        x = torch.full((3, 224, 224), ground)
        a = pixels(heatmaps.photo(x, region))[..., 0].astype(int)
        changed = a != round(255 * ground)
        assert changed.any(1).nonzero()[0].min() >= 48
        assert not changed[56:144, 66:194].any()  # the inside is left as it is
        contrast = np.abs(a - round(255 * ground))[90, 55:70]
        assert contrast.max() > 200
    edge = torch.ones(224, 224, dtype=torch.bool)
    assert (pixels(heatmaps.photo(torch.zeros(3, 224, 224), edge))[0, 5:-5] > 0).all()
    assert heatmaps.photo(torch.zeros(3, 9, 9), torch.zeros(9, 9, dtype=torch.bool)) == heatmaps.photo(
        torch.zeros(3, 9, 9)
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_any_number_of_channels(channels: int) -> None:
    x = torch.full((channels, 20, 20), 0.5)
    assert abs(int(pixels(heatmaps.photo(x))[0, 0, 0]) - 128) <= 1
    heatmaps.overlay(x, torch.randn(20, 20), signed=True)


def test_a_sequence_is_a_line_with_bars() -> None:
    heat = torch.zeros(40)
    heat[3], heat[30] = 2.0, -1.0
    a = pixels(heatmaps.overlay(torch.rand(2, 40), heat, signed=True, region=heat > 1)).astype(int)
    step = a.shape[1] // 40
    up, down = a[130:171, 3 * step + 1], a[174:, 30 * step + 1]
    assert (up[:, 0] > up[:, 2]).any()
    assert (down[:, 2] > down[:, 0]).any()
    assert (a[174:, 20 * step + 1] == 255).all()
    assert heatmaps.photo(torch.rand(1, 5000)).width == 5000


def test_a_clip_is_a_strip_of_frames() -> None:
    x = torch.rand(3, 10, 224, 224)
    region = torch.ones(10, 224, 224, dtype=torch.bool)
    assert heatmaps.photo(x).size == (6 * 224, 224)
    assert heatmaps.overlay(x, torch.randn(10, 224, 224), signed=True, region=region).size == (6 * 224, 224)


def test_refusals() -> None:
    x = torch.rand(3, 8, 8)
    with pytest.raises(Refused, match="does not fit"):
        heatmaps.overlay(x, torch.zeros(8, 9), signed=True)
    with pytest.raises(Refused, match="not finite"):
        heatmaps.overlay(x, torch.full((8, 8), torch.nan), signed=True)
    with pytest.raises(Refused, match="cannot be drawn"):
        heatmaps.photo(torch.rand(3, 2, 2, 2, 2))
    with pytest.raises(Refused, match="at least one picture"):
        heatmaps.sheet([])
    with pytest.raises(Refused, match="at least one"):
        explaining_sheet.explanation_sheet([])


def test_the_difference_is_magnified_around_mid_grey() -> None:
    clean = torch.full((3, 224, 224), 0.25)
    moved = clean.clone()
    moved[:, 0, 0], moved[:, 0, 1], moved[:, 0, 2] = 0.26, 0.24, 0.9
    a = pixels(heatmaps.magnified_difference(clean, moved, 10))[0, :4, 0]
    assert a.tolist() == [153, 102, 255, 128]


def test_png_is_a_png_without_metadata() -> None:
    image = heatmaps.photo(torch.rand(3, 9, 9))
    data = heatmaps.png(image)
    back = Image.open(io.BytesIO(data))
    assert back.format == "PNG"
    assert back.info == {}
    assert back.convert("RGB") == image
    assert heatmaps.png(image) == data


def test_captions_are_wrapped_and_never_wider_than_asked() -> None:
    font = heatmaps.truetype_font(20)
    for text in (
        "a short one",
        "word " * 60,
        "a" * 300,
        "integrated-gradients(steps=50, baseline=black, rule=trapezoid)",
    ):
        lines = heatmaps.wrapped(text, font, 300)
        assert 1 <= len(lines) <= 2
        assert all(font.getlength(line) <= 300 for line in lines)
        assert lines[-1].endswith("…") == ("".join(lines).replace(" ", "") != text.replace(" ", ""))
    assert heatmaps.wrapped("one\ttwo\x1b\x07", font, 300) == ["one two"]
    assert heatmaps.wrapped("", font, 300) == []


def test_a_sheet_keeps_its_columns_apart() -> None:
    tile = Image.new("RGB", (448, 448), "black")
    row: list[heatmaps.Tile] = [(tile, "x" * 500 + "\n" + "words and more " * 40), (tile, "W" * 90), (None, "")]
    image = heatmaps.sheet([row, row[:2]], title="title " * 80, signed=True, note="note " * 200)
    assert image.width == 40 * 2 + 3 * 448 + 2 * 28
    a = pixels(image)
    top = next(y for y in range(len(a)) if (a[y, 40:488] == 0).all())
    bottom = len(a) - 1 - next(y for y in range(len(a)) if (a[-1 - y, 40:488] == 0).all())
    for left in (488, 964):
        assert (a[top:bottom, left : left + 28] == 255).all()
    assert (a[:, :30] == 255).all()
    assert (a[:, -30:] == 255).all()
    assert (a[-30:] == 255).all()


def test_the_scale_bar_has_the_colours_of_the_pictures() -> None:
    a = pixels(heatmaps.scale_bar(True)).astype(int)
    assert a[10, 20, 2] > a[10, 20, 0]
    assert a[10, -20, 0] > a[10, -20, 2]
    middle = a[10, a.shape[1] // 2]
    assert np.ptp(middle) < 4
    assert heatmaps.scale_colours(True)[-1] == heatmaps.scale_colours(False)[-1]
    assert len(set(heatmaps.scale_colours(True))) == 17


def test_strip() -> None:
    image = heatmaps.strip([heatmaps.photo(torch.rand(3, 224, 224))] * 3)
    assert image.size == (3 * 224 + 16, 224)
    assert np.asarray(image)[:, 226, 3].max() == 0  # nothing between them, so that it suits any page


@pytest.fixture
def explained(small: Classifier, x: Tensor) -> Explanation:
    return explain(replace(small, labels=("<b>a</b>", *small.labels[1:])), x, "saliency", seed=3)


@pytest.fixture
def attacked(small: Classifier, x: Tensor) -> Attacked:
    with small.undisturbed():
        y = small(x).argmax(1)
    return attack(small, x, y, "fgsm", eps=4 / 255)


def test_explanation_sheet(explained: Explanation, x: Tensor) -> None:
    regions = torch.zeros(4, 16, 24, dtype=torch.bool)
    regions[:, 2:9, 3:9] = True
    signed = replace(explained, maps=torch.randn(4, 16, 24), signed=True)
    image = explaining_sheet.explanation_sheet(
        [explained, signed], names=["n" * 90] * 4, probabilities=torch.rand(4), regions=regions, title="t"
    )
    assert image.width > 3 * 448
    told = results.caption(signed, 0, [0.5])
    method, question, span = told.split("\n")
    assert method == "saliency"
    assert question == f"{explained.questions()[0]} (p = 50.0 %)"
    assert span.startswith("raw map −")
    with pytest.raises(Refused, match="same pictures"):
        explaining_sheet.explanation_sheet([explained, replace(explained, maps=explained.maps[:1])])


def test_further_methods_stand_in_the_rows_below(explained: Explanation, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most five beside the picture, and the picture itself once."""
    rows: list[list[heatmaps.Tile]] = []
    monkeypatch.setattr(explaining_sheet, "sheet", lambda found, **_: rows.extend(found))
    explaining_sheet.explanation_sheet([replace(explained, method=f"m{i}") for i in range(12)], names=list("abcd"))
    assert [len(row) for row in rows] == [6, 6, 3] * 4
    assert [row[0][1].partition("\n")[0] for row in rows] == ["a", "", "", "b", "", "", "c", "", "", "d", "", ""]
    assert [row[0][0] is None for row in rows] == [False, True, True] * 4
    told = [caption.partition("\n")[0] for row in rows[:3] for _, caption in row[1:]]
    assert told == [f"m{i}" for i in range(12)]
    monkeypatch.undo()
    few, many = (explaining_sheet.explanation_sheet([explained] * n) for n in (5, 6))
    assert many.width == few.width
    assert many.height > few.height


def test_a_map_of_zeros_is_told_to_be_one(explained: Explanation) -> None:
    zeros = replace(explained, maps=explained.maps * torch.tensor([0.0, 1, 1, 1])[:, None, None], signed=False)
    assert results.caption(zeros, 0, None).endswith("raw map 0 everywhere: nothing speaks for it")
    signed = replace(zeros, signed=True)
    assert results.caption(signed, 0, None).endswith("raw map 0 everywhere: nothing speaks for it or against it")
    assert " to " in results.caption(zeros, 1, None)
    assert "0 everywhere" in results.explanation_html(zeros)


def test_reprs_are_a_short_line(explained: Explanation, attacked: Attacked) -> None:
    assert repr(replace(explained, model="demo")) == "<Explanation by saliency of demo, 4 pictures>"
    assert repr(replace(explained, model="", x=explained.x[:1])) == "<Explanation by saliency of a model, 1 picture>"
    fooled = torch.tensor([True, False, True, False])
    assert repr(replace(attacked, fooled=fooled)) == "<Attacked by fgsm, eps 4/255, 4 pictures, 2 fooled>"


def test_how_much_a_difference_is_magnified(attacked: Attacked) -> None:
    assert results.magnification(attacked) == 10  # 0.25 / (4 / 255) is 15.9
    assert results.magnification(replace(attacked, x=attacked.clean)) > 1
    assert results.magnification(replace(attacked, x=1 - attacked.clean)) == 1


def test_notebooks_show_the_first_eight_and_escape_labels(explained: Explanation, attacked: Attacked) -> None:
    many = replace(explained, x=explained.x.repeat(3, 1, 1, 1), maps=explained.maps.repeat(3, 1, 1))
    many = replace(many, target=type(many.target)(0))  # type: ignore[call-arg]
    page = results.explanation_html(many)
    assert page.count("<img") == 2 * 8
    assert "first 8 of 12" in page
    assert "&lt;b&gt;a&lt;/b&gt;" in page
    assert "<b>a</b>" not in page
    page = results.attacked_html(attacked)
    assert page.count("<img") == 3 * 4
    assert 'src="data:image/png;base64,' in page
    assert "eps 4/255" in page
    assert "http" not in page
