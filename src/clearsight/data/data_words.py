"""Words that name pictures: what is wrong with them, told without torch."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from clearsight.core.tables import one_row
from clearsight.errors import Refused, nearest
from clearsight.models.model_words import is_run


def check_data_words(words: str | Path) -> None:
    """Refuse words of which the names and files alone show that they are no pictures."""
    head, _, names = str(words).partition(":")
    if head != "demo" or isinstance(words, Path):
        if not os.path.exists(words) and one_row(words) is None:
            raise Refused(f"no pictures at {words}: there is no such file or folder")
        if is_run(Path(words)):
            raise Refused(f"{words} is a model folder and holds no pictures: give the model first, then DATA")
        return
    known = [entry["name"] for entry in demo_entries()]
    for word in demo_names(names):
        if word not in known:
            raise Refused(f"no demo picture {word!r}: {nearest(word, known)}")


def demo_names(names: str) -> list[str]:
    """The names in "coffee, rocket"."""
    return [word.strip() for word in names.split(",") if word.strip()]


def demo_entries() -> list[dict[str, Any]]:
    """What is known of each demo picture: its name, package, file, classes and boxes."""
    listed: list[dict[str, Any]] = json.loads((files("clearsight.data") / "demo" / "pictures.json").read_text("utf-8"))[
        "pictures"
    ]
    return listed
