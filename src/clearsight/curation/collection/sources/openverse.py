"""Openverse, https://api.openverse.org/v1/: a catalogue of openly licensed pictures that lie elsewhere.

Without an account 20 questions a minute and 200 a day are answered, with 20 pictures each and 12 pages at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from clearsight.curation.collection.sources import SourcePicture, link, plain
from clearsight.curation.collection.web import Web, read_json
from clearsight.errors import Refused

ENDPOINT = "https://api.openverse.org/v1/images/"
PAUSE = 3.0  # 20 a minute
_PAGE_SIZE = 20
_PAGES = 12


def search(web: Web, query: str, *, endpoint: str, licences: Sequence[str], size: int) -> Iterator[SourcePicture]:
    """The pictures for a query, most fitting first, page by page.  size is not used: Openverse names the originals."""
    codes = ",".join(words.removeprefix("CC ").lower() for words in licences)
    page = pages = 1
    while page <= min(pages, _PAGES):
        parameters = {"q": query, "page": page, "page_size": _PAGE_SIZE, "license": codes, "mature": "false"}
        answer = read_json(web, f"{endpoint}?{urlencode(parameters)}", PAUSE).value
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list):
            raise Refused("the answer does not follow Openverse's documentation: it holds no list of results")
        yield from (_picture(item) for item in results if isinstance(item, dict))
        count = answer.get("page_count")
        pages = count if results and isinstance(count, int) else 0
        page += 1


def _picture(item: dict[str, Any]) -> SourcePicture:
    code, version = plain(item.get("license")).upper(), plain(item.get("license_version"))
    named = code if code in ("CC0", "PDM") else f"CC {code}"
    return SourcePicture(
        "openverse",
        plain(item.get("id")),
        plain(item.get("title")),
        plain(item.get("creator")),
        link(item.get("creator_url")),
        f"{named} {version}".strip() if code else "",
        link(item.get("license_url")),
        link(item.get("foreign_landing_url")),
        _address(item.get("url")),
        kind=plain(item.get("filetype")).lower(),
        sensitive=item.get("mature") is True,
    )


def _address(value: object) -> str:
    """The address unchanged: `web.fetch` checks whether it may be fetched."""
    return value.strip() if isinstance(value, str) else ""
