"""The templates, styles and scripts of pages: read from a package, and each template compiled once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template


@cache
def page_template(name: str, *functions: Callable[..., Any], package: str = "clearsight.reporting") -> Template:
    """A template of Jinja that escapes everything, and refuses words that it was not given.

    functions: what it can use as filters and as tests, by their own names.
    """
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    by_name = {f.__name__: f for f in functions}
    env.filters |= by_name
    env.tests |= by_name
    return env.from_string(page_part(name, package))


def page_part(name: str, package: str = "clearsight.reporting") -> str:
    """The text of a file in a package's folder `templates`."""
    return (resources.files(package) / "templates" / name).read_text(encoding="utf-8")
