"""Wikimedia Commons, https://commons.wikimedia.org/w/api.php: freely licensed files, each with a page of its own.

Formats: https://www.mediawiki.org/wiki/API:Search, API:Imageinfo, API:Continue, and CommonsMetadata for extmetadata,
whose values are HTML.  It asks for a User-Agent that tells how to reach whoever asks.
Here files are found; `collect.py` fetches and keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from clearsight.curation.collection.sources import SourcePicture, link, plain
from clearsight.curation.collection.web import PATIENCE, TRIES, Web, read_json, wait_for
from clearsight.errors import Refused

ENDPOINT = "https://commons.wikimedia.org/w/api.php"
PAUSE = 1.0
_WIDTHS = (250, 330, 500, 960, 1280, 1920, 3840)  # those that are kept ready; others are refused (phabricator T211661)
_LAG = 5  # seconds by which its copies may be behind before it would rather not be asked
_QUESTIONS = 400
_PARAMETERS = {
    "action": "query",
    "generator": "search",
    "gsrnamespace": 6,
    "gsrlimit": 50,
    "prop": "imageinfo",
    "iiprop": "url|size|mime|extmetadata",
    "maxlag": _LAG,
    "format": "json",
    "formatversion": 2,
}


def search(web: Web, query: str, *, endpoint: str, licences: Sequence[str], size: int) -> Iterator[SourcePicture]:
    """The pictures for a query, most fitting first; of each the widest copy kept ready that is not wider than size.

    The licences cannot be asked for: who calls looks at them.
    """
    width = max([w for w in _WIDTHS if w <= size], default=_WIDTHS[0])
    parameters = _PARAMETERS | {"gsrsearch": f"filetype:bitmap {query}", "iiurlwidth": width}
    position: dict[str, Any] = {}
    pages: dict[str, dict[str, Any]] = {}
    for _ in range(_QUESTIONS):
        answer = _ask(web, f"{endpoint}?{urlencode(parameters | position)}")
        for page in _pages_in(answer):  # one answer may hold less than is told of a page; the next one holds the rest
            pages.setdefault(plain(page.get("pageid")), {}).update(page)
        following = answer.get("continue")
        if answer.get("batchcomplete") or not following:
            yield from (_picture(page, endpoint) for page in sorted(pages.values(), key=_rank))
            pages = {}
        if not isinstance(following, dict) or following == position:
            return
        position = following


def _ask(web: Web, url: str) -> dict[str, Any]:
    for turn in range(TRIES):
        reply = read_json(web, url, PAUSE)
        error = reply.value.get("error") if isinstance(reply.value, dict) else None
        if not isinstance(reply.value, dict):
            raise Refused("the answer does not follow MediaWiki's documentation: it is not a JSON object")
        if not error:
            return reply.value
        code, info = (plain(error.get(word)) if isinstance(error, dict) else "" for word in ("code", "info"))
        if code != "maxlag":
            raise Refused(f"the server answers with an error: {code} {info}".strip())
        wait = _LAG if reply.wait is None else reply.wait
        if turn == TRIES - 1 or wait > PATIENCE:
            break
        wait_for(web, url, wait, "is busy")
    raise Refused("the server is busy (maxlag): run the same command later to continue")


def _pages_in(answer: dict[str, Any]) -> list[dict[str, Any]]:
    query = answer.get("query", {})  # missing where nothing is found
    pages = query.get("pages", []) if isinstance(query, dict) else None
    if not isinstance(pages, list):
        raise Refused("the answer does not follow MediaWiki's documentation: it holds no list of pages")
    return [page for page in pages if isinstance(page, dict)]


def _rank(page: dict[str, Any]) -> float:
    index = page.get("index")
    return index if isinstance(index, int) else float("inf")


def _picture(page: dict[str, Any], base: str) -> SourcePicture:
    infos = page.get("imageinfo")
    info = infos[0] if isinstance(infos, list) and infos and isinstance(infos[0], dict) else {}
    about = info.get("extmetadata")
    about = about if isinstance(about, dict) else {}
    values = {name: field.get("value") for name, field in about.items() if isinstance(field, dict)}
    url = info.get("thumburl") or info.get("url")
    return SourcePicture(
        "wikimedia",
        plain(page.get("pageid")),
        plain(values.get("ObjectName")) or plain(page.get("title")).removeprefix("File:"),
        plain(values.get("Artist")) or plain(values.get("Credit")),
        link(values.get("Artist"), base),
        plain(values.get("LicenseShortName")),
        link(values.get("LicenseUrl"), base),
        link(info.get("descriptionurl"), base),
        url.strip() if isinstance(url, str) else "",
        aliases=tuple(filter(None, [link(info.get("descriptionshorturl"), base)])),
        kind=plain(info.get("mime")).lower(),
    )
