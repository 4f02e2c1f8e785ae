"""Pages of blocks, each of pictures, tables and the command that shows it again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from clearsight.reporting.findings import Cell, Figure, Table

INDEX = "index.html"


@dataclass(frozen=True)
class Shown:
    """One picture on a page: its name, facts about it, and the address of the page it leads to ("" for none)."""

    name: str
    figure: Figure
    facts: dict[str, Cell] = field(default_factory=dict)
    page: str = ""


@dataclass(frozen=True)
class Block:
    """The result of one method on one thing, such as a unit.

    title: in few words; words: a sentence with the numbers.  small: its pictures are many and small.  links: words that
    stand in the first column of a table -> the page they lead to.  layer, units, targets: what the command that shows
    it again must name.  The rest is filled in by the verb.
    """

    title: str
    words: str
    shown: tuple[Shown, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    small: bool = False
    links: Mapping[str, str] = field(default_factory=dict)
    layer: str = ""
    units: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    command: str = ""
    method: str = ""
    summary: str = ""
    paper: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Page:
    """A page, or a part of one: pages of one address are joined.  address: below the folder, with slashes."""

    address: str
    title: str
    blocks: tuple[Block, ...]


def layer_page(layer: str) -> str:
    """The address of a layer, which never changes.

    >>> layer_page("blocks.4"), layer_page("a/b")
    ('layers/blocks.4.html', 'layers/a~2f~b.html')
    """
    return f"layers/{_file_name(layer)}.html"


def unit_page(layer: str, unit: int) -> str:
    """The address of a unit, which never changes.

    >>> unit_page("blocks.4", 7)
    'units/blocks.4/7.html'
    """
    return f"units/{_file_name(layer)}/{unit}.html"


def joined(parts: Iterable[Page]) -> tuple[Page, ...]:
    """One page for each address, its blocks in the order in which they came; the index first."""
    pages: dict[str, Page] = {}
    for part in parts:
        earlier = pages.get(part.address)
        pages[part.address] = replace(earlier, blocks=(*earlier.blocks, *part.blocks)) if earlier else part
    return tuple(sorted(pages.values(), key=lambda p: p.address != INDEX))


def _file_name(layer: str) -> str:
    """The layer's name as a file's, other characters by their number, so that no two layers share one."""
    return re.sub(r"[^A-Za-z0-9_.-]", lambda m: f"~{ord(m[0]):x}~", layer)
