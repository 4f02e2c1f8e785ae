"""The report in a real browser: it opens from disk, asks for nothing, and can be read in any light and on a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browsing import CONTRAST, chromium
from reportbyhand import by_hand

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = by_hand().save(tmp_path_factory.mktemp("report"))
    return (folder / "report.html").as_uri()


def test_it_asks_for_nothing_and_complains_of_nothing(browser: Any, address: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address, wait_until="load")
    page.wait_for_timeout(200)
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert said == []
    assert page.title() == "Clearsight: demo on photos/<b>2026</b>"  # and not what a script made of it
    page.close()


def test_every_picture_is_drawn(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    widths = page.evaluate(
        "async () => Promise.all([...document.images].map(async i => (await i.decode(), i.naturalWidth)))"
    )
    assert len(widths) == 6
    assert min(widths) > 0
    styled = page.evaluate("getComputedStyle(document.querySelector('.gallery')).display")
    assert styled == "grid"  # the policy lets the page's own styles in
    page.close()


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_it_never_scrolls_sideways(browser: Any, address: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.scrollWidth") <= width
    page.close()


@pytest.mark.parametrize("light", ["light", "dark"])
def test_all_text_can_be_read(browser: Any, address: str, light: str) -> None:
    page = browser.new_page(color_scheme=light)  # type: ignore[arg-type]
    page.goto(address)
    found = page.evaluate(CONTRAST, "body, p, h1, h2, h3, td, th, a, code, dt, dd, .mark, summary, figcaption, caption")
    assert len(found) > 100
    assert [f for f in found if f[0] < 4.5] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (light == "dark")
    page.close()


@pytest.mark.slow
def test_a_long_table_opens_without_a_script(browser: Any, address: str) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(address)
    row = page.get_by_text("class 39", exact=True)
    assert not row.is_visible()
    page.get_by_text("all 40 rows").click()
    assert row.is_visible()
    page.close()


@pytest.mark.slow
def test_it_prints_on_white(browser: Any, address: str) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(address)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    page.close()
