"""Sources of licensed pictures: one file for each source, found by its place in this folder.

A source defines its address (ENDPOINT), the seconds between two requests (PAUSE), and

    search(web, query, *, endpoint, licences, size) -> Iterator[Found]

which requests the next page only when the pictures of the last one are used up.  Refused: an answer that it cannot
read.
"""

from __future__ import annotations

import pkgutil
import re
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import import_module
from types import ModuleType
from urllib.parse import urljoin, urlsplit

LICENCES = ("CC0", "PDM", "CC BY", "CC BY-SA", "CC BY-ND", "CC BY-NC", "CC BY-NC-SA", "CC BY-NC-ND")
FREE = LICENCES[:4]  # use and change are allowed to everybody, for money too

_CC = re.compile(r"(?:CC[ -])?(BY(?:-(?:NC|ND|SA))*)(?:[ -]\d(?:\.\d)?(?:,\d(?:\.\d)?)*)?(?:[ -][A-Z]+)?")
_PUBLIC = re.compile(r"(?:PDM|PUBLIC DOMAIN(?: MARK)?)(?: 1\.0)?")
_READ = 20_000  # characters of a field that are looked at
_LONGEST = 500  # characters of a title or a name
_FORMULA = "=+-@"  # how a cell begins that a spreadsheet would calculate
_EMPTY = frozenset(["br", "hr", "img", "input", "link", "meta", "wbr"])  # elements that have no end


@dataclass(frozen=True)
class SourcePicture:
    """One picture as a source describes it; "" where a field is missing.  Text is plain, addresses are unchanged.

    id: its name in the source.  licence: in the words of the source.  page: where people see it, aliases: other
    addresses of that page.  kind: the file's type.  sensitive: the source marks it as not for everybody.
    """

    source: str
    id: str
    title: str = ""
    creator: str = ""
    creator_url: str = ""
    licence: str = ""
    licence_url: str = ""
    page: str = ""
    url: str = ""
    aliases: tuple[str, ...] = ()
    kind: str = ""
    sensitive: bool = False


def known() -> dict[str, ModuleType]:
    """Name -> the module of every source there is."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return {name: import_module(f"{__name__}.{name}") for name in names}


def licence(words: str) -> str:
    """One of LICENCES, whatever its version and country; "" for any other licence.

    >>> licence("CC BY-SA 3.0 de"), licence("by-nc 2.0"), licence("Public domain"), licence("GFDL")
    ('CC BY-SA', 'CC BY-NC', 'PDM', '')
    """
    words = " ".join(words.upper().split())
    if words in ("CC0", "CC0 1.0"):
        return "CC0"
    if _PUBLIC.fullmatch(words):
        return "PDM"
    match = _CC.fullmatch(words)
    named = f"CC {match[1]}" if match else ""
    return named if named in LICENCES else ""


def plain(value: object) -> str:
    """The visible text of a value that may hold HTML, on one line; "" for what is neither text nor a number.

    Hidden elements, scripts and control characters are left out.  Text that a spreadsheet would read as a formula gets
    an apostrophe before it.

    >>> plain('<a href="//x.org">Ann</a>&amp;<script>x</script>Bo'), plain("=1+1"), plain(None)
    ('Ann&Bo', "'=1+1", '')
    """
    text = " ".join(_read(value)[0].split())
    text = "".join(c for c in text if c.isprintable())[:_LONGEST].strip()
    return f"'{text}" if text[:1] in tuple(_FORMULA) else text


def link(value: object, base: str = "") -> str:
    """The first link in HTML, or the value itself where it is an address; "" where neither is one of the web.

    >>> link('by <a href="//x.org/ann">Ann</a>', "https://y.org"), link("https://x.org"), link("javascript:x")
    ('https://x.org/ann', 'https://x.org', '')
    """
    if not isinstance(value, str):
        return ""
    links = _read(value)[1] if "<" in value else [value.strip()]
    for address in links:
        try:
            whole = urljoin(base, address)
            if urlsplit(whole).scheme in ("http", "https") and urlsplit(whole).hostname and whole.isprintable():
                return whole
        except ValueError:
            continue
    return ""


def _read(value: object) -> tuple[str, list[str]]:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return "", []
    reader = _Reader()
    with suppress(AssertionError):  # how the parser refuses some broken declarations
        reader.feed(str(value)[:_READ])
        reader.close()
    return "".join(reader.text), reader.links


class _Reader(HTMLParser):
    """The text and the links of a piece of HTML."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.links: list[str] = []
        self.hidden = 0  # how many elements deep inside one that is not seen

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        is_hidden = (
            tag in ("script", "style") or "display:none" in (attributes.get("style") or "").replace(" ", "").lower()
        )
        if tag in _EMPTY:
            self.text.append(" " * (tag == "br"))
        elif self.hidden or is_hidden:
            self.hidden += 1
        elif tag == "a" and attributes.get("href"):
            self.links.append(str(attributes["href"]).strip())

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.text.append(" " * (tag == "br"))

    def handle_endtag(self, tag: str) -> None:
        if self.hidden and tag not in _EMPTY:
            self.hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.text.append(data)
