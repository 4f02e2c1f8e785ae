"""Texts coloured by a map: the right colours at the right characters, in the terminal, without colours, and in HTML."""

from __future__ import annotations

import io
import re

import pytest
import torch
from rich.console import Console

from clearsight.drawing.heatmaps import AGAINST, FOR, scale_colours
from clearsight.drawing.text import SCALE_WORDS, Run, colours, print_text, runs, scale_html, shown, text_html
from clearsight.drawing.text_picture import HEIGHT, MARGIN, WIDTH, stacked, text_picture
from clearsight.errors import Refused

HEAT = torch.tensor([0.0, 1.0, 1.0, -1.0, 0.5, 9.0])


def printed(pieces: list[Run], signed: bool = True, **options: object) -> str:
    out = io.StringIO()
    print_text(Console(file=out, width=40, **options), pieces, signed=signed)  # type: ignore[arg-type]
    return out.getvalue()


def test_runs_hold_the_characters_of_one_colour() -> None:
    pieces = runs("abcde", HEAT, signed=True, full=1.0)
    assert [(r.text, r.level) for r in pieces] == [("a", 0), ("bc", 16), ("d", -16), ("e", 8)]
    assert [(r.text, r.level) for r in runs("abcde", HEAT, signed=False, full=1.0)][2] == ("d", 0)
    assert runs("", HEAT, signed=True) == []


def test_the_scale_is_that_of_the_text_and_not_of_what_lies_behind_it() -> None:
    assert [r.level for r in runs("abcde", HEAT * 7, signed=True)] == [0, 16, -16, 8]
    assert [r.level for r in runs("abcdef", HEAT, signed=True, full=9.0)] == [0, 2, -2, 1, 16]


def test_line_breaks_end_lines_and_marks_part_runs() -> None:
    pieces = runs("a\nbc\r\n", torch.zeros(6), signed=True, marks=[(3, 4)])
    assert pieces == [Run("a↵", 0, False, True), Run("b", 0), Run("c", 0, True), Run("\\r↵", 0, False, True)]


def test_nothing_in_a_text_steers_or_hides() -> None:
    assert "".join(map(shown, "\x00\x1b\x7f\x85\u200b\u2028\té ")) == r"\x00\x1b\x7f\x85\u200b\u2028⇥é "
    assert shown("\U000e0041") == "\\U000e0041"
    out = printed(runs("\x1b[2J\u202e", torch.zeros(5), signed=True), force_terminal=True, color_system="truecolor")
    assert "\x1b[2J" not in out
    assert "\\x1b[2J\\u202e" in out


def test_a_map_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Refused, match=r"a map \(6,\) does not fit a text of 7 characters"):
        runs("abcdefg", HEAT, signed=True)
    with pytest.raises(Refused, match="not finite"):
        runs("a", torch.tensor([float("nan")]), signed=True)


def test_colours_are_those_of_the_heatmaps_and_can_be_read() -> None:
    full_for, full_against = (f"#{''.join(f'{v:02x}' for v in (ink_of(c)))}" for c in (FOR[1], AGAINST[1]))
    assert (colours(16)[0], colours(-16)[0]) == (full_for, full_against)
    for grey in (False, True):
        for level in range(-16, 17):
            assert contrast(*colours(level, grey)) >= 4.4
    assert colours(7, grey=True) == colours(-7, grey=True)


def ink_of(colour: str) -> list[int]:
    """Full ink of an opacity of 0.92 on white."""
    return [round(0.08 * 255 + 0.92 * int(colour[i : i + 2], 16)) for i in (1, 3, 5)]


def contrast(a: str, b: str) -> float:
    """As the Web Content Accessibility Guidelines 2.1 define it."""

    def bright(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((bright(a), bright(b)))
    return (high + 0.05) / (low + 0.05)


def test_the_terminal_shows_each_run_in_its_colours() -> None:
    pieces = runs("abcde", HEAT, signed=True, full=1.0, marks=[(0, 1)])
    out = printed(pieces, force_terminal=True, color_system="truecolor")
    r, g, b = (int(colours(16)[0][i : i + 2], 16) for i in (1, 3, 5))
    assert f"48;2;{r};{g};{b}mbc\x1b" in out
    assert "\x1b[4ma" in out  # underlined
    assert SCALE_WORDS.split()[0] in out
    fewer = runs("abc", HEAT, signed=True, full=1.25)  # rich remembers how it wrote a style
    assert re.search(r"48;5;\d+mbc", printed(fewer, force_terminal=True, color_system="256"))


@pytest.mark.parametrize("options", [{}, {"force_terminal": True, "color_system": "256", "no_color": True}])
def test_without_colours_signs_stand_below_the_characters(options: dict[str, object]) -> None:
    heat = torch.tensor([0, 1, 1, -1, 0.5, 0, 0.1, -0.1, 0.0])
    pieces = runs("abcde\nxyz", heat, signed=True, full=1.0, marks=[(1, 3)])
    out = printed(pieces, **options)
    assert "\x1b" not in out
    assert [line.rstrip() for line in out.split("\n")[:5]] == ["abcde↵", " ##=+", " ^^", "xyz", ".,"]
    assert "for the class, from faint to strong: ., +, #, against it: ,, -, =" in out.replace("\n", "")


def test_long_lines_are_cut_with_their_signs() -> None:
    out = printed(runs("ab" * 30, torch.tensor([0.0, 1.0] * 30), signed=True)).split("\n")
    assert out[:4] == ["ab" * 20, " #" * 20, "ab" * 10, " #" * 10]


def test_html_is_escaped_and_its_scale_is_stated() -> None:
    page = text_html(runs('<b>&\n"', torch.tensor([0, 1.0, 0, 0, 0, -1]), signed=True, marks=[(3, 4)]))
    pro, con = (f'style="background:{background};color:{ink}"' for background, ink in map(colours, (16, -16)))
    assert page == (
        f'<pre class="text">&lt;<span {pro}>b</span>&gt;'
        f'<span class="marked">&amp;</span>↵\n<span {con}>&quot;</span></pre>'
    )
    assert all(c in scale_html(True) for c in scale_colours(True, 16))
    assert "against" in scale_html(True)
    assert "against" not in scale_html(False)
    assert "for or against" in scale_html(True, grey=True)
    assert ("underlined" in scale_html(True, marked=True), "underlined" in scale_html(True)) == (True, False)


def test_a_text_as_a_picture_has_its_colours_at_its_characters() -> None:
    """The corner of each character's place: 80 in a line, a new line at a line break, marked ones underlined."""
    heat = torch.zeros(84)
    heat[1], heat[80], heat[83] = 1.0, -1.0, 1.0
    image = text_picture(runs("a" * 82 + "\nb", heat, signed=True, full=1.0, marks=[(0, 1)]))
    assert image.size == (80 * WIDTH + 2 * MARGIN, 3 * HEIGHT + 2 * MARGIN)

    def at(line: int, column: int, down: int = 0) -> str:
        pixel = image.getpixel((MARGIN + column * WIDTH, MARGIN + line * HEIGHT + down))
        return "#" + "".join(f"{v:02x}" for v in pixel)  # type: ignore[union-attr]

    assert [at(0, 0), at(0, 1), at(1, 0), at(1, 1), at(2, 0)] == [
        "#ffffff", colours(16)[0], colours(-16)[0], "#ffffff", colours(16)[0],
    ]  # fmt: skip
    assert (at(0, 0, HEIGHT - 3), at(0, 1, HEIGHT - 3)) == ("#111111", "#ffffff")
    assert stacked([image, image]).size == (image.width, 2 * image.height + 8)
    assert "99.5th percentile" in scale_html(False)
