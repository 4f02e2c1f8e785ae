"""Names of collected pictures: the folder of a class, the file of a picture, and keys that reveal duplicates."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from clearsight.curation.collection.sources import SourcePicture
from clearsight.data.datasets import part_of
from clearsight.data.images import SUFFIXES
from clearsight.errors import Refused

_RESERVED = frozenset(["con", "prn", "aux", "nul", *(f"{a}{n}" for a in ("com", "lpt") for n in range(1, 10))])


def class_word(words: str) -> str:
    """The name of a class folder that any system can hold and `data.folder` reads as a class.

    >>> class_word(" golden  retriever "), class_word("../etc/passwd"), class_word("AC/DC")
    ('golden retriever', 'etc_passwd', 'AC_DC')
    """
    word = unicodedata.normalize("NFC", " ".join(words.split()))
    word = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in word)
    word = word.lstrip("._ ").encode()[:100].decode(errors="ignore").rstrip("._ ")
    if Path(word).suffix.lower() in SUFFIXES:  # a folder called like a picture
        word = "_".join(word.rsplit(".", 1))
    if not re.search(r"\w", word):
        raise Refused(f"{words!r} has no letters for a class name: give one, label=NAME (--label NAME)")
    if part_of(word):
        raise Refused(
            f"a class folder called {word} would be read as a split: give another name, label=NAME (--label NAME)"
        )
    return f"{word}_" if word.partition(".")[0].lower() in _RESERVED or word == "__MACOSX" else word


def stem(picture: SourcePicture) -> str:
    """source-id, in letters that every file system accepts, with a checksum where letters were replaced.

    >>> stem(SourcePicture("wikimedia", "34564")), stem(SourcePicture("openverse", "../x"))
    ('wikimedia-34564', 'openverse-_x-d6b96a97')
    """
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", picture.id)[:60]
    if safe != picture.id:
        safe += "-" + hashlib.sha256(picture.id.encode(errors="replace")).hexdigest()[:8]
    return f"{picture.source}-{safe}"


def page_key(address: str) -> str:
    """A landing page, however it is written; "" for none.

    Wikimedia Commons has two addresses for one page; the short one tells the number that it goes by as a source.

    >>> page_key("https://commons.wikimedia.org/w/index.php?curid=34564"), page_key("http://www.x.org/a%20b/")
    ('wikimedia-34564', 'x.org/a_b')
    """
    try:
        parts = urlsplit(address)
        number = parse_qs(parts.query).get("curid", [""])[0]
    except ValueError:
        return ""
    host = (parts.hostname or "").removeprefix("www.").replace("commons.m.", "commons.")
    if host == "commons.wikimedia.org" and number.isdecimal():
        return f"wikimedia-{number}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{host}{unquote(parts.path).rstrip('/').replace(' ', '_')}{query}" if host else ""


def keys(picture: SourcePicture) -> set[str]:
    """The keys by which two results are the same picture."""
    return {stem(picture), *map(page_key, (picture.page, *picture.aliases))} - {""}
