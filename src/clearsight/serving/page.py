"""The page at /: drop a picture or open the camera, and see answer, probability and heatmap.

One file that asks nothing of anybody but this server, which its Content-Security-Policy holds it to.
"""

from __future__ import annotations

import base64
import hashlib
import json

from markupsafe import Markup

from clearsight.drawing.heatmaps import AGAINST, FOR, OPAQUE, PALEST, PERCENTILE, SCALE_WORDS, scale_colours
from clearsight.reporting.page_template import page_part, page_template
from clearsight.serving.backend import Backend


def page(backend: Backend, name: str, *, guarded: bool) -> tuple[str, str]:
    """(HTML, Content-Security-Policy) of a model's page.  guarded: whether it asks for an API key."""
    style = page_part("report.css") + page_part("page.css", "clearsight.serving")
    script = page_part("page.js", "clearsight.serving")
    height, width = backend.preprocess.size
    facts = {
        "width": width,
        "height": height,
        "resize": backend.preprocess.resize,
        "map": backend.map_shape is not None,
        "percentile": PERCENTILE,
        "palest": PALEST,
        "opaque": OPAQUE,
        "for": [_rgb(colour) for colour in FOR],
        "against": [_rgb(colour) for colour in AGAINST],
    }
    text = page_template("page.html.j2", package="clearsight.serving").render(
        name=name,
        classes=len(backend.labels),
        values=backend.scores == "values",
        engine=backend.engine,
        fingerprint=backend.fingerprint,
        width=width,
        height=height,
        map=facts["map"],
        guarded=guarded,
        colours=scale_colours(signed=True, steps=32),
        scale_words=SCALE_WORDS,
        style=Markup(style),
        script=Markup(script),
        facts=Markup(json.dumps(facts)),
    )
    policy = (
        "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
        f"style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
