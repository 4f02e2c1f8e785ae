"""The page of a served model in a real browser: answer, probability and heatmap of a file and of the camera."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from browsing import CONTRAST, chromium
from clearsight.serving.gate import Gate
from clearsight.serving.keys import new_key
from clearsight.serving.serve import gate_of
from clearsight.serving.service import Service
from clearsight.serving.torch_backend import torch_backend
from servers import as_file, picture, pooled_model, served

pytestmark = pytest.mark.browser
SIZE = (96, 128)  # (height, width): what the browser need not resize
MODEL = replace(pooled_model(classes=2), labels=("free", "blocked"))
MODEL = replace(MODEL, preprocess=replace(MODEL.preprocess, size=SIZE, resize=None))
FILE = {"name": "x.png", "mimeType": "image/png", "buffer": as_file(picture(1, (SIZE[1], SIZE[0])))}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(Service(torch_backend(MODEL), "small")) as place:
        yield place


def answered(page: Any) -> None:
    page.locator("#status", has_text="Answered").wait_for(timeout=15000)


def test_a_picture_is_answered_and_its_heatmap_drawn_as_everywhere(browser, address):
    page = browser.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    page.set_input_files("#file", FILE)
    answered(page)
    right = httpx.post(f"{address}/predict", content=FILE["buffer"]).json()["answers"]
    assert page.inner_text("#answer") == right[0]["label"]
    assert page.inner_text("#sure") == f"{100 * right[0]['probability']:.1f} %"
    assert page.locator("#rows tr").all_inner_texts() == [
        f"{a['label']}\t\n{100 * a['probability']:.1f} %" for a in right
    ]
    overlay = httpx.post(f"{address}/explain?as=overlay", content=FILE["buffer"]).content
    drawn = page.evaluate("canvas.toDataURL()")
    found, expected = (np.asarray(Image.open(io.BytesIO(b)).convert("RGB"), int) for b in (of_url(drawn), overlay))
    assert expected.shape == (3 * SIZE[0], 3 * SIZE[1], 3)  # a small picture is drawn larger
    assert np.abs(found - expected[1::3, 1::3]).max() <= 2
    page.uncheck("#heat")
    plain = np.asarray(Image.open(io.BytesIO(of_url(page.evaluate("canvas.toDataURL()")))).convert("RGB"), int)
    assert np.abs(plain - np.asarray(Image.open(io.BytesIO(FILE["buffer"])), int)).max() <= 1
    assert {url.removeprefix(address) for url in asked if not url.startswith(("data:", "blob:"))} == {
        "/", "/predict?top=5&map=true",
    }  # fmt: skip
    assert said == []
    page.close()


def of_url(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


def test_the_camera_is_answered_again_and_again_until_it_is_closed(browser, address):
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    page.goto(address)
    page.click("#camera")
    answered(page)
    for _ in range(200):
        if asked.count("POST") >= 3:
            break
        page.wait_for_timeout(50)
    assert asked.count("POST") >= 3
    assert page.inner_text("#answer") in MODEL.labels
    first, second = page.evaluate("canvas.toDataURL()"), ""
    for _ in range(100):  # the fake camera shows a clock
        page.wait_for_timeout(50)
        second = page.evaluate("canvas.toDataURL()")
        if second != first:
            break
    assert second != first
    page.click("#camera")
    assert page.inner_text("#camera") == "Open the camera"
    page.wait_for_timeout(300)
    before = asked.count("POST")
    page.wait_for_timeout(300)
    assert asked.count("POST") == before
    page.close()


def test_what_is_no_picture_gets_the_server_s_sentence(browser, address):
    page = browser.new_page()
    page.goto(address)
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"hello"})
    page.locator("#status", has_text="not a picture").wait_for(timeout=15000)
    assert page.inner_text("#answer") == "No answer"
    page.close()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("light", ["light", "dark"])
def test_it_can_be_read_in_any_light_and_on_a_phone(browser, address, width, light):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=light)
    page.goto(address)
    page.set_input_files("#file", FILE)
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = page.evaluate(CONTRAST, "p, h1, td, th, label, button, a, code, span")
    assert len(found) > 15
    assert [f for f in found if f[0] < 4.5] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (light == "dark")
    page.close()


def test_a_network_without_a_map_is_explained_on_request_and_a_key_is_asked_for(browser, new_small, tmp_path):
    key = new_key(tmp_path / "keys.json", "lab", [])
    gate: Gate = gate_of(tmp_path / "keys.json")
    with served(Service(torch_backend(new_small()), "<b>small</b>", gate=gate)) as place:
        page = browser.new_page()
        page.goto(place)
        assert page.title() == "Clearsight: <b>small</b>"
        page.set_input_files("#file", FILE)
        page.locator("#status", has_text="API key").wait_for(timeout=15000)
        page.fill("#apikey", key)
        page.set_input_files("#file", FILE)
        answered(page)
        before = page.evaluate("canvas.toDataURL()")
        page.click("#explain")
        page.locator("#status", has_text="Explained").wait_for(timeout=15000)
        assert page.evaluate("canvas.toDataURL()") != before
        page.close()
