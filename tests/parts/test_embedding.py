"""The bytes of a picture stand in a page once, and wherever it is shown it has its size and its words."""

import dataclasses
import re
from html.parser import HTMLParser

from clearsight.reporting.embedding import size, uri
from clearsight.reporting.report import Report
from reportbyhand import by_hand

RASTER = r'"(data:image/(?:webp|png)[^"]*)"'


class Tags(HTMLParser):
    """Tags with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_picture_that_is_shown_again_stands_in_the_page_once() -> None:
    report = by_hand()
    shown = next(f for f in report.findings if f.evidence)
    again = dataclasses.replace(shown, check="./mine.py:again", figures=())
    twice = Report(report.facts, (*report.findings, again)).html()
    tags = Tags(twice).found
    pictures = re.findall(RASTER, twice)
    assert sorted(pictures) == sorted(set(re.findall(RASTER, report.html())))
    frames = [a for t, a in tags if t == "svg" and a.get("class") == "picture"]
    assert [a["aria-label"] for a in frames] == 2 * [e.figure.alt for e in shown.evidence]
    wide, high = size(shown.evidence[0].figure) or (0, 0)
    assert {(a["viewbox"], a["width"], a["height"]) for a in frames} == {(f"0 0 {wide} {high}", str(wide), str(high))}
    held = [(a["id"], a["href"]) for t, a in tags if t == "image"]
    assert [f"#{name}" for name, _ in held] == [a["href"] for t, a in tags if t == "use"]
    assert [href for _, href in held] == [uri(e.figure) for e in shown.evidence]  # each where it is shown first
