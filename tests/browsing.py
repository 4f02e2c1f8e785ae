"""A real browser for tests: the Chromium that the system has, and how well a page can be read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra `test` brings playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

# selector -> [contrast with the ground, first words] of each element that shows text
CONTRAST = """selector => [...document.querySelectorAll(selector)]
  .filter(e => e.innerText?.trim()).map(e => {
    const light = c => {
      const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let ground = e;
    while (ground && getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const a = light(getComputedStyle(e).color), b = light(getComputedStyle(ground).backgroundColor);
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.innerText.slice(0, 40)];
  })"""


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """A Chromium that listens to nobody; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this system (chromium, chromium-browser or google-chrome)")
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=[*_ARGUMENTS, *arguments])
        yield browser
        browser.close()
