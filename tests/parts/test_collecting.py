"""Pictures from sources with a licence: what is kept, whose it is, and what is never asked for.

A server on this machine speaks the protocols of both sources.  Nothing else is ever connected to, and time is made up.
"""

import csv
import doctest
import importlib
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

import clearsight as cs
from clearsight.curation.collection import collect as collecting
from clearsight.curation.collection import sources
from clearsight.curation.collection import web as network
from clearsight.curation.collection.collect import Collected, collect
from clearsight.curation.collection.names import class_word, keys, stem
from clearsight.curation.collection.sources import SourcePicture, licence, link, plain
from clearsight.curation.collection.table import COLUMNS, NAME, read_rows
from clearsight.curation.collection.web import Web, fetch, public
from clearsight.data.images import SUFFIXES
from clearsight.errors import Refused

Answer = Callable[[BaseHTTPRequestHandler], None]
FIELDS = "file title creator creator_url licence licence_url source page url query sha256 date"


@dataclass
class Clock:
    """Time that passes only when somebody sleeps."""

    now: float = 1000.0
    naps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@dataclass
class Site:
    """Both sources on one server: what they know, what else is answered, and what was asked when."""

    clock: Clock
    port: int = 0
    openverse: list[Any] = field(default_factory=list)
    commons: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=dict)  # path -> what is answered first, next, ...
    asked: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    def paths(self, start: str = "") -> list[str]:
        return [path for url in self.asked if (path := urlsplit(url).path).startswith(start)]


def png(number: int) -> bytes:
    """A picture of its own for each number."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def openverse(site: Site, number: int, **other: Any) -> dict[str, Any]:
    """One result as api.openverse.org gives it."""
    return {
        "id": f"aaaa-{number:04}",
        "title": f"Cat {number}",
        "creator": "Ann",
        "creator_url": "https://example.org/ann",
        "license": "by",
        "license_version": "2.0",
        "license_url": "https://creativecommons.org/licenses/by/2.0/",
        "attribution": f'"Cat {number}" by Ann is licensed under CC BY 2.0.',
        "url": site.url(f"/pictures/{number}.png"),
        "foreign_landing_url": f"https://example.org/photos/{number}",
        "width": 8,
        "height": 6,
        "filetype": "png",
        "mature": False,
    } | other


def commons(site: Site, number: int, **other: Any) -> dict[str, Any]:
    """One page as the API of Wikimedia Commons gives it (formatversion 2)."""
    about = {
        "ObjectName": f"Cat {number}",
        "Artist": f'<a href="//commons.wikimedia.org/wiki/User:Bo" title="User:Bo">Bo</a> &amp; {number}',
        "LicenseShortName": "CC BY-SA 4.0",
        "LicenseUrl": "https://creativecommons.org/licenses/by-sa/4.0",
        "AttributionRequired": "true",
    } | other.pop("about", {})
    info = {
        "thumburl": site.url(f"/pictures/{number}.png"),
        "url": "https://upload.example/whole.png",
        "descriptionurl": f"https://commons.wikimedia.org/wiki/File:Cat_{number}.png",
        "descriptionshorturl": f"https://commons.wikimedia.org/w/index.php?curid={number}",
        "mime": "image/png",
        "extmetadata": {name: {"value": value, "source": "commons-desc-page"} for name, value in about.items()},
    } | other
    page = {"pageid": number, "ns": 6, "title": f"File:Cat {number}.png", "index": number, "imageinfo": [info]}
    return {name: value for name, value in page.items() if value is not None}


def send(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer; a header's name is written with _ for -."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def as_json(value: Any, **headers: str) -> Answer:
    return send(200, json.dumps(value).encode(), Content_Type="application/json", **headers)


def answer_of(site: Site, url: str) -> Answer:
    """What the two sources and their store of pictures answer where nothing else is said."""
    parts = urlsplit(url)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if parts.path == "/v1/images/":
        page, size = int(asked["page"]), int(asked["page_size"])
        if size > 20 or page > 12:
            return send(401)
        shown = site.openverse[(page - 1) * size : page * size]
        return as_json({"result_count": 9, "page_count": -(-len(site.openverse) // size), "results": shown})
    if parts.path == "/w/api.php":
        start = int(asked.get("gsroffset", 0))
        more = (
            {"continue": {"gsroffset": start + 3, "continue": "gsroffset||"}} if start + 3 < len(site.commons) else {}
        )
        found = {"query": {"pages": site.commons[start : start + 3][::-1]}} if site.commons else {}
        return as_json({"batchcomplete": True} | more | found)
    if parts.path.startswith("/pictures/"):
        return send(200, png(int(Path(parts.path).stem)))
    return send(404)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _only_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would connect to another machine fails the test; names are not looked up."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded(self: socket.socket, place: Any) -> None:
        if place[0] != "127.0.0.1":
            pytest.fail(f"a connection to {place}")
        connect(self, place)

    def numeric(host: str, port: int, **options: Any) -> Any:
        return look_up(host, port, flags=socket.AI_NUMERICHOST, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", numeric)


@pytest.fixture
def open_site(clock: Clock) -> Iterator[Callable[[], Site]]:
    servers = []

    def start() -> Site:
        site = Site(clock)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                site.times.append(clock.now)
                site.agents.add(self.headers["User-Agent"])
                waiting = site.answers.get(urlsplit(self.path).path)
                with suppress(OSError):  # the other side may have gone
                    (waiting.pop(0) if waiting else answer_of(site, self.path))(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        site.port = server.server_port
        return site

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def site(open_site: Callable[[], Site]) -> Site:
    return open_site()


def gather(site: Site, folder: Path, query: str = "cat", **options: Any) -> Collected:
    """collect() from the server of this test."""
    places = {"openverse": site.url("/v1/images/"), "wikimedia": site.url("/w/api.php")}
    web = Web("", clock=lambda: site.clock.now, sleep=site.clock.sleep, timeout=5.0, whole=10.0)
    told = {"endpoints": places, "trusted": [site.address], "web": web, "say": lambda line: None} | options
    return collect(query, folder, **told)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / NAME).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*") if p.name != NAME)


def reasons(found: Collected) -> dict[str, str]:
    return dict(found.skipped)


# what is kept


def test_both_sources_fill_a_class_folder_with_its_attribution(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, n) for n in (1, 2)]
    site.commons = [commons(site, n) for n in (11, 12)]
    folder = tmp_path / "new" / "data"
    began = datetime.now(UTC).date().isoformat()
    found = gather(site, folder)
    assert files(folder) == [
        "cat/openverse-aaaa-0001.png", "cat/openverse-aaaa-0002.png", "cat/wikimedia-11.png", "cat/wikimedia-12.png",
    ]  # fmt: skip
    assert sorted(found.kept) == files(folder)
    assert (found.there, found.word, found.skipped, found.notes) == (4, "cat", (), ())
    assert (folder / "cat/wikimedia-11.png").read_bytes() == png(11)  # not one byte is changed
    rows = {row["file"]: row for row in table(folder)}
    assert sorted(rows) == files(folder)
    assert " ".join(rows["cat/wikimedia-11.png"]) == FIELDS == " ".join(COLUMNS)
    first = rows["cat/openverse-aaaa-0001.png"]
    assert first.pop("date") in (began, datetime.now(UTC).date().isoformat())
    assert len(first.pop("sha256")) == 64
    assert first == {
        "file": "cat/openverse-aaaa-0001.png",
        "title": "Cat 1",
        "creator": "Ann",
        "creator_url": "https://example.org/ann",
        "licence": "CC BY 2.0",
        "licence_url": "https://creativecommons.org/licenses/by/2.0/",
        "source": "openverse",
        "page": "https://example.org/photos/1",
        "url": site.url("/pictures/1.png"),
        "query": "cat",
    }
    second = rows["cat/wikimedia-11.png"]
    assert second["creator"] == "Bo & 11"  # it comes as HTML
    assert second["creator_url"] == "http://commons.wikimedia.org/wiki/User:Bo"  # http as the server of this test
    assert second["page"] == "https://commons.wikimedia.org/wiki/File:Cat_11.png"
    assert second["licence"] == "CC BY-SA 4.0"


def test_the_folder_is_data_for_training(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, n) for n in (1, 2)]
    gather(site, tmp_path)
    site.openverse = [openverse(site, 3), openverse(site, 1)]
    other = gather(site, tmp_path, "a dog")
    assert reasons(other) == {"openverse-aaaa-0001": "the same as cat/openverse-aaaa-0001.png"}
    data = cs.folder(tmp_path)
    assert {p.name: p.labels for p in data.pictures} == {
        "a dog/openverse-aaaa-0003.png": ("a dog",),
        "cat/openverse-aaaa-0001.png": ("cat",),
        "cat/openverse-aaaa-0002.png": ("cat",),
    }
    assert (data.broken, data.notes) == ((), ("1 other file skipped (1 .csv)",))
    assert [row["query"] for row in table(tmp_path)] == ["cat", "cat", "a dog"]


def test_what_is_asked_and_who_is_told(site: Site, tmp_path: Path) -> None:
    site.openverse, site.commons = [openverse(site, 1)], [commons(site, 11)]
    said: list[tuple[str, int]] = []
    gather(
        site, tmp_path, "  red   cat", contact="ann@example.org", say=lambda line: said.append((line, len(site.asked)))
    )
    assert said == [
        (
            f"asking {site.address} and {site.address} for 'red cat'; "
            "pictures are then downloaded from the addresses in the answers",
            0,  # before anything was asked
        )
    ]
    assert site.agents == {f"clearsight/{cs.__version__} (collects pictures; contact: ann@example.org)"}
    first, second = (parse_qs(urlsplit(url).query) for url in site.asked if "/pictures/" not in url)
    assert first == {
        "q": ["red cat"],
        "page": ["1"],
        "page_size": ["20"],
        "license": ["cc0,pdm,by,by-sa"],
        "mature": ["false"],
    }
    assert second.pop("gsrsearch") == ["filetype:bitmap red cat"]
    assert second.pop("iiurlwidth") == ["960"]  # the widest of those kept ready below 1024
    assert " ".join(f"{name}={value[0]}" for name, value in sorted(second.items())) == (
        "action=query format=json formatversion=2 generator=search gsrlimit=50 gsrnamespace=6 "
        "iiprop=url|size|mime|extmetadata maxlag=5 prop=imageinfo"
    )


def test_without_a_contact_it_is_said(site: Site, tmp_path: Path) -> None:
    site.commons = [commons(site, 11)]
    said: list[str] = []
    gather(site, tmp_path, say=said.append)
    assert "--contact" in said[0]
    assert "contact: none given" in min(site.agents)


@pytest.mark.parametrize(("size", "width"), [(100, 250), (500, 500), (1279, 960), (1280, 1280), (9999, 3840)])
def test_only_widths_that_are_kept_ready_are_asked_for(site: Site, tmp_path: Path, size: int, width: int) -> None:
    site.commons = [commons(site, 11)]
    gather(site, tmp_path, size=size, sources=["wikimedia"])
    assert f"iiurlwidth={width}&" in site.asked[0] + "&"


def test_page_after_page(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, n) for n in range(1, 45)]
    found = gather(site, tmp_path, sources=["openverse"])
    assert found.there == 44
    assert [parse_qs(urlsplit(u).query)["page"] for u in site.asked if "/v1/" in u] == [["1"], ["2"], ["3"]]


def test_at_most_twelve_pages_are_asked_for(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, n) for n in range(1, 270)]
    site.openverse[1:] = [item | {"license": "by-nc"} for item in site.openverse[1:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "MISSES", 10_000)
        found = gather(site, tmp_path, sources=["openverse"])
    assert (len(site.paths("/v1/")), found.notes) == (12, ())


def test_continue_of_wikimedia(site: Site, tmp_path: Path) -> None:
    site.commons = [commons(site, n) for n in range(1, 9)]
    found = gather(site, tmp_path, sources=["wikimedia"], count=7)
    assert [Path(file).stem for file in found.kept] == [f"wikimedia-{n}" for n in range(1, 8)]  # by rank, not as sent
    assert len(site.paths("/w/")) == 3
    assert [parse_qs(urlsplit(u).query).get("gsroffset") for u in site.asked if "/w/" in u] == [None, ["3"], ["6"]]


def test_a_page_of_wikimedia_told_in_two_answers(site: Site, tmp_path: Path) -> None:
    one, two = commons(site, 1), commons(site, 2)
    bare = {name: value for name, value in two.items() if name != "imageinfo"}
    after = {"iicontinue": "Cat_2.png|2026", "continue": "||"}
    site.answers["/w/api.php"] = [
        as_json({"continue": after, "query": {"pages": [one, bare]}}),
        as_json({"batchcomplete": True, "query": {"pages": [two | {"imageinfo": two["imageinfo"]}]}}),
    ]
    found = gather(site, tmp_path, sources=["wikimedia"])
    assert (found.there, found.skipped) == (2, ())
    assert "iicontinue=Cat_2.png%7C2026" in next(u for u in site.asked[1:] if "/w/" in u)


def test_sources_take_turns_up_to_the_count(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, n) for n in range(1, 9)]
    site.commons = [commons(site, n) for n in range(11, 19)]
    shown: list[tuple[str, int, int]] = []
    found = gather(site, tmp_path, count=3, progress=lambda *told: shown.append(told))
    assert [Path(file).stem for file in found.kept] == ["openverse-aaaa-0001", "wikimedia-11", "openverse-aaaa-0002"]
    assert shown == [("collecting", n, 3) for n in range(4)]
    assert len(site.paths("/pictures/")) == 3


def test_what_is_told_of_it(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, 1), openverse(site, 2, license="by-nc"), openverse(site, 3, license="by-nc")]
    found = gather(site, tmp_path)
    assert found.lines() == [
        "left out 2: licence CC BY-NC 2.0",
        f"1 new picture of cat, 1 in {tmp_path / 'cat'}",
        str(tmp_path / NAME),
    ]
    assert json.loads(json.dumps(found.as_dict()))["skipped"][0] == {
        "name": "openverse-aaaa-0002",
        "reason": "licence CC BY-NC 2.0",
    }


# what is kept once, and what goes on


def test_one_picture_of_both_sources_is_kept_once(site: Site, tmp_path: Path) -> None:
    short = "https://commons.wikimedia.org/w/index.php?curid=11"
    site.openverse = [openverse(site, 1, foreign_landing_url=short), openverse(site, 2)]
    site.commons = [commons(site, 11), commons(site, 12, thumburl=site.url("/pictures/2.png"))]
    found = gather(site, tmp_path)
    assert reasons(found) == {
        "wikimedia-11": "the same as cat/openverse-aaaa-0001.png",  # by its page, without being fetched
        "wikimedia-12": "the same as cat/openverse-aaaa-0002.png",  # by its bytes
    }
    assert "/pictures/11.png" not in site.paths()
    again = gather(site, tmp_path)
    assert (again.kept, again.there) == ((), 2)
    assert again.skipped == found.skipped


def test_a_picture_kept_before_is_known_by_the_number_of_its_page(site: Site, tmp_path: Path) -> None:
    site.commons = [commons(site, 11)]
    gather(site, tmp_path)
    short = "https://commons.wikimedia.org/w/index.php?curid=11"
    site.openverse, site.commons = [openverse(site, 1, foreign_landing_url=short)], []
    assert reasons(gather(site, tmp_path)) == {"openverse-aaaa-0001": "the same as cat/wikimedia-11.png"}


def test_a_stopped_run_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, n) for n in range(1, 7)]

    def stop(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gather(site, tmp_path, count=5, progress=stop)
    assert len(files(tmp_path)) == len(table(tmp_path)) == 3
    found = gather(site, tmp_path, count=5)
    assert (len(found.kept), found.there, found.skipped) == (2, 5, ())
    assert sorted(site.paths("/pictures/")) == [f"/pictures/{n}.png" for n in range(1, 6)]  # each of them once
    asked = len(site.asked)
    more = gather(site, tmp_path, count=5)
    assert (more.kept, more.there, len(site.asked)) == ((), 5, asked)  # there is nothing to ask for
    assert more.notes == ("the folder already has 5 pictures of cat",)


def test_there_is_never_a_picture_of_which_nobody_knows_whose_it_is(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.openverse = [openverse(site, 1)]

    def full(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "write_whole", full)
        with pytest.raises(KeyboardInterrupt):
            gather(site, tmp_path)
    assert (files(tmp_path), len(table(tmp_path))) == ([], 1)
    found = gather(site, tmp_path)
    assert (found.there, len(table(tmp_path))) == (1, 1)  # the row of the picture that was not there is written anew


def test_columns_of_the_user_are_kept(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, 1)]
    gather(site, tmp_path)
    text = (tmp_path / NAME).read_text().splitlines()
    (tmp_path / NAME).write_text(f"{text[0]},mine\n{text[1]},good\n")
    site.openverse.append(openverse(site, 2))
    gather(site, tmp_path)
    assert [row["mine"] for row in table(tmp_path)] == ["good", ""]


# licences


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("CC0", "CC0"), ("cc0 1.0", "CC0"), ("PDM 1.0", "PDM"), ("Public domain", "PDM"), ("Public Domain Mark", "PDM"),
        ("CC BY 2.0", "CC BY"), ("CC-BY-3.0", "CC BY"), ("CC BY-SA 3.0 de", "CC BY-SA"), ("by-sa 4.0", "CC BY-SA"),
        ("CC BY-SA 4.0,3.0,2.5,2.0,1.0", "CC BY-SA"), ("CC BY-NC-SA 2.0", "CC BY-NC-SA"), ("CC BY-ND 4.0", "CC BY-ND"),
        ("GFDL", ""), ("CC SA 1.0", ""), ("CC BY or worse", ""), ("Not CC0", ""), ("CC BY-NC-BY 2.0", ""), ("", ""),
        ("Attribution", ""), ("CC BY\u2010NC 2.0", ""), ("CC BY-SA-NC 2.0", ""),
    ],
)  # fmt: skip
def test_licences_are_known_by_their_words(words: str, kind: str) -> None:
    assert licence(words) == kind


def test_other_licences_are_left_out(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, n, license=code) for n, code in enumerate(("by-nc", "by-nd", "gpl", ""), 1)]
    site.commons = [
        commons(site, 11, about={"LicenseShortName": "GFDL"}),
        commons(site, 12, about={"LicenseShortName": "CC BY-NC 4.0"}),
        commons(site, 13, about={"LicenseShortName": "Public domain", "LicenseUrl": ""}),
    ]
    found = gather(site, tmp_path)
    assert found.kept == ("cat/wikimedia-13.png",)
    assert reasons(found) == {
        "openverse-aaaa-0001": "licence CC BY-NC 2.0",
        "openverse-aaaa-0002": "licence CC BY-ND 2.0",
        "openverse-aaaa-0003": "licence CC GPL 2.0, which is unknown",
        "openverse-aaaa-0004": "the source does not give its licence",
        "wikimedia-11": "licence GFDL, which is unknown",
        "wikimedia-12": "licence CC BY-NC 4.0",
    }
    assert site.paths("/pictures/") == ["/pictures/13.png"]  # the others are not even fetched


def test_the_licences_may_be_chosen(site: Site, tmp_path: Path) -> None:
    site.openverse = [
        openverse(site, 1),
        openverse(site, 2, license="by-nc"),
        openverse(site, 3, license="cc0", license_version="1.0"),
    ]
    found = gather(site, tmp_path, licences=["cc by-nc", "CC0"])
    assert [row["licence"] for row in table(tmp_path)] == ["CC BY-NC 2.0", "CC0 1.0"]
    assert found.skipped == (("openverse-aaaa-0001", "licence CC BY 2.0"),)
    assert "license=by-nc%2Ccc0&" in site.asked[0]


# what strangers write


def test_html_and_formulas_in_fields(site: Site, tmp_path: Path) -> None:
    artist = (
        '<div class="fn"><script>x()</script>Bo<br>Li <span style="display: none;">Bo Li</span><img src=x>&lt;3</div>'
    )
    site.commons = [commons(site, 11, about={"Artist": artist, "ObjectName": "=HYPERLINK(1)\n\x1b[31m"})]
    site.openverse = [
        openverse(site, 1, title="<b>Cat</b> &amp; a < b", creator="@ann", creator_url="javascript:alert(1)")
    ]
    gather(site, tmp_path)
    rows = {row["source"]: row for row in table(tmp_path)}
    assert (rows["wikimedia"]["creator"], rows["wikimedia"]["creator_url"]) == ("Bo Li <3", "")
    assert rows["wikimedia"]["title"] == "'=HYPERLINK(1) [31m"
    assert (rows["openverse"]["title"], rows["openverse"]["creator"]) == ("Cat & a < b", "'@ann")
    assert rows["openverse"]["creator_url"] == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""), (True, ""), (["x"], ""), (7, "7"), ("a\n\tb", "a b"), ("x" * 900, "x" * 500), ("a<![x[b", "a"),
        ("-1", "'-1"), ("a-1", "a-1"), ("<p>one<style>p{}</style></p>two", "onetwo"), ("\u202eevil", "evil"),
    ],
)  # fmt: skip
def test_fields_are_plain(value: object, shown: str) -> None:
    assert plain(value) == shown


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ('<a href="javascript:x">a</a><a href="https://b.org/">b</a>', "https://b.org/"), ("", ""), (None, ""),
        ("file:///etc/passwd", ""), ("javascript://a.org/%0Ax()", ""), ("ftp://a.org/x", ""),
        ("https://", ""), ("http://[", ""), (" https://a.org/x ", "https://a.org/x"),
    ],
)  # fmt: skip
def test_links_are_of_the_web(value: object, address: str) -> None:
    assert link(value) == address


def test_missing_and_strange_fields(site: Site, tmp_path: Path) -> None:
    site.openverse = [
        "no object",
        {},
        openverse(site, 2, url=None),
        openverse(site, 3, foreign_landing_url=17),
        openverse(site, 4, mature=True),
        openverse(site, 5, filetype="svg"),
        openverse(site, 6, title=None, creator=None, creator_url=None),
    ]
    bare = commons(site, 11)
    site.commons = [
        bare | {"imageinfo": []},
        commons(site, 12, extmetadata=[]),
        commons(site, 13, mime="image/vnd.djvu"),
    ]
    found = gather(site, tmp_path)
    assert found.kept == ("cat/openverse-aaaa-0006.png",)
    assert reasons(found) == {
        "openverse-": "the source does not give its id and url and page and licence",
        "openverse-aaaa-0002": "the source does not give its url",
        "openverse-aaaa-0003": "the source does not give its page",
        "openverse-aaaa-0004": "marked as sensitive",
        "openverse-aaaa-0005": "not a raster image but svg",
        "wikimedia-11": "the source does not give its url and page and licence",
        "wikimedia-12": "the source does not give its licence",
        "wikimedia-13": "not a raster image but vnd.djvu",
    }


@pytest.mark.parametrize(
    ("name", "start"),
    [("../../x", "openverse-_x-"), ("a/b", "openverse-a_b-"), ("a b", "openverse-a_b-"), ("é" * 99, "openverse-_-")],
)
def test_files_have_safe_names(site: Site, tmp_path: Path, name: str, start: str) -> None:
    site.openverse = [openverse(site, 1, id=name)]
    (file,) = gather(site, tmp_path).kept
    assert file.startswith(f"cat/{start}")
    assert files(tmp_path) == [file]
    assert (
        stem(SourcePicture("openverse", "a/b"))
        != stem(SourcePicture("openverse", "a b"))
        != stem(SourcePicture("openverse", "a_b"))
    )


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ("golden  retriever", "golden retriever"), ("../..//etc", "etc"), ("a:b*c?", "a_b_c"), (".hidden", "hidden"),
        ("photo.png", "photo_png"), ("St. Bernard", "St. Bernard"), ("CON", "CON_"), ("nul.x", "nul.x_"), ("猫", "猫"),
        ("x" * 300, "x" * 100), ("é" * 80, "é" * 50), ("cafe\u0301", "café"), ("trains", "trains"), ("dog..", "dog"),
    ],
)  # fmt: skip
def test_class_words(words: str, word: str) -> None:
    assert class_word(words) == word


@pytest.mark.parametrize("words", ["???", "..", "/", "train", "Test"])
def test_no_class_words(words: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="--label"):
        collect(words, tmp_path)


def test_a_class_may_have_another_name_than_the_query(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, 1)]
    found = gather(site, tmp_path, "train", label="railway train")
    assert found.kept == ("railway train/openverse-aaaa-0001.png",)
    assert table(tmp_path)[0]["query"] == "train"


# pictures that are none


def test_pictures_that_cannot_be_kept_are_named(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "MOST", 3000)
    site.openverse = [openverse(site, n) for n in range(1, 9)]
    whole = png(1)

    ended: list[bool] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(50):
            handler.wfile.write(bytes(1_000_000))
        ended.append(True)

    site.answers |= {
        "/pictures/1.png": [send(200, whole[:80])],
        "/pictures/2.png": [send(200, b"<html>gone</html>")],
        "/pictures/3.png": [send(200, whole, Content_Length=str(len(whole) + 9))],
        "/pictures/4.png": [send(200, bytes(4000))],
        "/pictures/5.png": [endless],
        "/pictures/6.png": [send(404)],
        "/pictures/7.png": [send(200)],
    }
    found = gather(site, tmp_path)
    assert found.kept == ("cat/openverse-aaaa-0008.png",)
    assert [reason for _, reason in found.skipped] == [
        "truncated", "not a picture", "truncated on the way", "larger than 0.003 MB", "larger than 0.003 MB",
        f"{site.address} answers 404 Not Found", "empty (0 bytes)",
    ]  # fmt: skip
    assert files(tmp_path) == [*found.kept]
    assert ended == []  # what is too large is not read to its end


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_the_content_names_the_kind(form: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(out, form)
    suffix = collecting.suffix_of(out.getvalue())
    assert suffix == {"JPEG": ".jpg", "TIFF": ".tif"}.get(form, f".{form.lower()}")
    assert suffix in SUFFIXES


def test_other_kinds_are_not_kept() -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(out, "PPM")
    with pytest.raises(Refused, match="a format that is not kept"):
        collecting.suffix_of(out.getvalue())


def test_slow_answers_end(site: Site) -> None:
    go_on = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        go_on.wait(5)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"x")
            go_on.wait(0.02)

    def drip_head(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(200):
            handler.wfile.write(b"x")
            go_on.wait(0.02)

    site.answers |= {"/silent": [silent], "/drip": [drip], "/head": [drip_head]}
    quiet, steady = Web("x", frozenset([site.address]), 0.2, 60.0), Web("x", frozenset([site.address]), 20.0, 0.3)
    for web, path, word in (
        (quiet, "/silent", r"sent nothing for 0\.2 s"),
        (steady, "/drip", r"took longer than 0\.3 s"),
        (steady, "/head", r"took longer than 0\.3 s"),
    ):
        began = time.monotonic()
        with pytest.raises(Refused, match=word):
            fetch(web, site.url(path), most=10**6, pause=0, accept="*/*")
        assert time.monotonic() - began < 3  # they would go on for 4 s and more
    go_on.set()


# manners


def test_pauses_between_questions_and_between_pictures(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, n) for n in range(1, 25)]
    gather(site, tmp_path, sources=["openverse"])
    due = [3.0 if "/v1/" in url else 1.0 for url in site.asked[1:]]
    assert np.diff(site.times).tolist() == due
    assert len(due) == 25


def test_each_host_has_a_pause_of_its_own(open_site: Callable[[], Site], clock: Clock) -> None:
    one, two = open_site(), open_site()
    web = Web("x", frozenset([one.address, two.address]), clock=lambda: clock.now, sleep=clock.sleep)
    for site in (one, two, one):
        fetch(web, site.url("/pictures/1.png"), most=10**6, pause=2.0, accept="*/*")
    assert clock.naps == [2.0]
    clock.now += 5
    fetch(web, two.url("/pictures/1.png"), most=10**6, pause=2.0, accept="*/*")
    assert clock.naps == [2.0]  # long enough ago


def test_a_host_that_says_later_is_asked_later(site: Site, tmp_path: Path, clock: Clock) -> None:
    site.openverse = [openverse(site, 1)]
    site.answers = {"/v1/images/": [send(429, Retry_After="70")], "/pictures/1.png": [send(503), send(500)]}
    said: list[str] = []
    assert gather(site, tmp_path, sources=["openverse"], say=said.append).there == 1
    assert clock.naps == [70.0, 1.0, 5.0, 10.0]  # as it says; between two requests; and twice where it says nothing
    assert said[1] == f"{site.address} answers 429: waiting 70 s"


def test_a_host_that_says_much_later_is_left_alone(
    site: Site, open_site: Callable[[], Site], tmp_path: Path, clock: Clock
) -> None:
    other = open_site()
    other.answers["/v1/images/"] = [send(429, Retry_After="86400")] * 9
    site.commons = [commons(site, 11), commons(site, 12, thumburl=other.url("/pictures/12.png"))]
    places = {"openverse": other.url("/v1/images/"), "wikimedia": site.url("/w/api.php")}
    found = gather(site, tmp_path, endpoints=places, trusted=[site.address, other.address])
    why = f"{other.address} answers 429 Too Many Requests and asks to wait 86400 s"
    assert found.notes == (f"openverse was not read to the end: {why}",)
    assert found.kept == ("cat/wikimedia-11.png",)
    assert found.skipped == (("wikimedia-12", why),)
    assert len(other.asked) == 1  # never asked again, nor for pictures
    assert max(clock.naps) <= 1.0


def test_a_host_that_says_later_for_ever(site: Site, tmp_path: Path, clock: Clock) -> None:
    site.answers["/v1/images/"] = [send(429)] * 9
    with pytest.raises(Refused, match=r"nothing was collected for 'cat': openverse was not .* 429 Too Many Requests$"):
        gather(site, tmp_path, sources=["openverse"])
    assert (len(site.asked), clock.naps) == (3, [5.0, 10.0])


def test_wikimedia_that_lags_is_asked_later(site: Site, tmp_path: Path, clock: Clock) -> None:
    lag = {"error": {"code": "maxlag", "info": "Waiting for a copy: 7 seconds lagged"}}
    site.commons = [commons(site, 11)]
    site.answers["/w/api.php"] = [as_json(lag, Retry_After="9"), as_json(lag)]
    assert gather(site, tmp_path, sources=["wikimedia"]).there == 1
    assert clock.naps == [9.0, 5.0, 1.0]
    site.answers["/w/api.php"] = [as_json(lag)] * 9
    with pytest.raises(Refused, match=r"the server is busy \(maxlag\)"):
        gather(site, tmp_path / "new", sources=["wikimedia"])
    site.answers["/w/api.php"] = [as_json(lag, Retry_After="9000")]
    with pytest.raises(Refused, match=r"the server is busy \(maxlag\)"):
        gather(site, tmp_path / "new", sources=["wikimedia"])


def test_a_source_of_nothing_but_misses_is_left(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "MISSES", 4)
    site.openverse = [openverse(site, n, license="by" if n % 4 == 0 else "by-nc") for n in range(1, 11)]
    site.openverse += [openverse(site, n, license="by-nc") for n in range(11, 40)]
    found = gather(site, tmp_path)
    assert found.notes == ("openverse was not read to the end: 4 pictures in a row could not be kept",)
    assert (found.there, len(found.skipped)) == (2, 10)


# addresses


def addresses(*found: str) -> Callable[..., list[Any]]:
    """What socket.getaddrinfo would give."""

    def look_up(host: str, port: int, **_: object) -> list[Any]:
        return [
            (
                socket.AF_INET6 if ":" in a else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (a, port, *[0, 0] * (":" in a)),
            )
            for a in found
        ]

    return look_up


def get(web: Web, url: str) -> bytes:
    return fetch(web, url, most=10**6, pause=0.0, accept="*/*").body


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("93.184.216.34", True), ("2606:4700::1111", True), ("64:ff9b::808:808", True),
        ("127.0.0.1", False), ("127.9.9.9", False), ("0.0.0.0", False), ("10.0.0.1", False), ("172.16.0.1", False),
        ("192.168.1.1", False), ("100.64.0.1", False), ("169.254.169.254", False), ("224.0.0.1", False),
        ("240.0.0.1", False), ("255.255.255.255", False), ("192.0.2.1", False), ("198.18.0.1", False),
        ("::1", False), ("::", False), ("fe80::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("fec0::1", False), ("ff02::1", False), ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", False),
        ("64:ff9b::7f00:1", False), ("64:ff9b::a9fe:a9fe", False), ("64:ff9b:1::808:808", False),
        ("2002:7f00:1::", False), ("2002:808:808::", False), ("2001:0:7f00:1::", False), ("2001:db8::1", False),
        ("::127.0.0.1", False), ("2606:4700::1111%1", False), ("example.org", False), ("", False),
    ],
)  # fmt: skip
def test_what_is_public(address: str, is_public: bool) -> None:
    assert public(address) is is_public


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://127.0.0.1/x", "is at 127.0.0.1, which is not a public address"),
        ("https://2130706433/x", "is at 127.0.0.1, which"),
        ("https://0x7f.1/x", "is at 127.0.0.1, which"),
        ("https://[::1]/x", "is at ::1, which"),
        ("https://[::ffff:127.0.0.1]/x", "not a public address"),
        ("https://10.0.0.1/x", "is at 10.0.0.1, which"),
        ("https://169.254.169.254/latest/meta-data", "is at 169.254.169.254, which"),
        ("https://0.0.0.0/", "is at 0.0.0.0, which"),
        ("file:///etc/passwd", "file"),
        ("http://93.184.216.34/x", "with http:: only https is fetched"),
        ("ftp://93.184.216.34/x", "with ftp:: only https is fetched"),
        ("data:image/png;base64,AAAA", "not a valid address"),
        ("//example.org/x", "no scheme"),
        ("https://user:word@93.184.216.34/x", "an invalid host"),
        ("https://a b/x", "an invalid host"),
        ("https://\x1b[31m/", "not a valid address|an invalid host"),
        ("https://[::1/", "not a valid address"),
        ("https://93.184.216.34:99999/", "not a valid address"),
        ("https://" + "é" * 400 + ".org/", "not a valid address"),
        ("", "not a valid address"),
    ],
)
def test_addresses_that_are_not_fetched(url: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason if reason != "file" else "not a valid address|with file:"):
        get(Web("x"), url)


def test_pictures_on_this_machine_are_refused_unless_it_is_said(
    site: Site, open_site: Callable[[], Site], tmp_path: Path
) -> None:
    other = open_site()
    hidden = [other.url("/pictures/1.png"), f"https://{other.address}/pictures/1.png", "https://10.0.0.1/x.png"]
    site.openverse = [openverse(site, n, url=url) for n, url in enumerate([*hidden, "file:///etc/hostname"], 1)]
    site.openverse += [openverse(site, 9)]
    found = gather(site, tmp_path)
    assert found.kept == ("cat/openverse-aaaa-0009.png",)
    assert [reason for _, reason in found.skipped] == [
        "an address with http:: only https is fetched",
        "127.0.0.1 is at 127.0.0.1, which is not a public address",
        "10.0.0.1 is at 10.0.0.1, which is not a public address",
        "not a valid address",
    ]
    assert other.asked == []


def test_a_source_on_this_machine_is_refused_unless_it_is_said(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="only https is fetched"):
        gather(site, tmp_path, trusted=[])
    with pytest.raises(Refused, match="only https is fetched"):
        gather(site, tmp_path, trusted=["127.0.0.1:1", "127.0.0.1"])
    places = {"openverse": f"https://{site.address}/v1/images/"}
    with pytest.raises(Refused, match="not a public address"):
        gather(site, tmp_path, endpoints=places, sources=["openverse"], trusted=[])
    assert site.asked == []


def test_redirects_are_judged_like_first_addresses(site: Site, open_site: Callable[[], Site], tmp_path: Path) -> None:
    other = open_site()
    away = [
        other.url("/pictures/1.png"), "https://169.254.169.254/", "https://[::1]/", "file:///etc/passwd",
        "http://example.org/", "//[", "/pictures/6.png",
    ]  # fmt: skip
    site.openverse = [openverse(site, n) for n in range(1, 9)]
    for n, place in enumerate(away, 1):
        site.answers[f"/pictures/{n}.png"] = [send(302, Location=place)]
    site.answers["/pictures/6.png"] = [send(301, Location="//["), *[send(200, png(66))]]
    site.answers["/pictures/8.png"] = [send(302, Location="/pictures/8.png")] * 9
    found = gather(site, tmp_path)
    assert found.kept == ("cat/openverse-aaaa-0007.png",)  # a redirect within the source is followed
    assert [reason for _, reason in found.skipped] == [
        "an address with http:: only https is fetched",
        "169.254.169.254 is at 169.254.169.254, which is not a public address",
        "::1 is at ::1, which is not a public address",
        "not a valid address",
        "an address with http:: only https is fetched",
        "a redirect to something that is not an address",
        f"{site.address} redirects more than 5 times",
    ]
    assert other.asked == []
    assert site.paths("/pictures/8") == ["/pictures/8.png"] * 6


@pytest.mark.parametrize("found", [["10.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::1"], ["93.184.216.34", "::1"]])
def test_a_name_that_means_a_private_address(monkeypatch: pytest.MonkeyPatch, found: list[str]) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", addresses(*found))
    with pytest.raises(Refused, match=r"pictures\.example is at .*, which is not a public address"):
        get(Web("x"), "https://pictures.example/x")  # a connection would fail the test


def test_what_was_judged_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [addresses("93.184.216.34", "93.184.216.35"), addresses("127.0.0.1")]
    connected: list[object] = []

    def connect(self: socket.socket, place: object) -> None:
        connected.append(place)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers.pop(0)(*a, **k))
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(Refused, match=r"cannot reach pictures\.example: Connection refused"):
        get(Web("x"), "https://pictures.example/x")
    assert connected == [("93.184.216.34", 443), ("93.184.216.35", 443)]  # and the name was looked up once
    assert len(answers) == 1


def test_the_certificate_is_held_against_the_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", addresses("127.0.0.1"))
    web = Web("x", frozenset([site.address]), timeout=2.0)
    url = f"https://pictures.example:{site.port}/x"
    with pytest.raises(Refused, match=r"cannot reach pictures\.example:"):  # the server speaks no TLS at all
        get(web, url)
    held: list[tuple[object, ...]] = []
    wrap = ssl.SSLContext.wrap_socket

    def recorded(self: ssl.SSLContext, sock: socket.socket, **options: Any) -> ssl.SSLSocket:
        held.append((self.verify_mode, self.check_hostname, options["server_hostname"]))
        return wrap(self, sock, **options)

    def wrong(self: ssl.SSLSocket, *_: object) -> None:
        raise ssl.SSLCertVerificationError

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", recorded)
    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", wrong)
    with pytest.raises(Refused, match=rf"the certificate of pictures.example:{site.port} is not valid for it"):
        get(web, url)
    assert held == [(ssl.CERT_REQUIRED, True, "pictures.example")]
    assert site.asked == []


def test_addresses_are_sent_as_they_must_be(site: Site) -> None:
    web = Web("x", frozenset([site.address]))
    site.answers["/a%20b/%C3%A9"] = [send(200, b"here")]
    assert get(web, site.url("/a b/é?q=x y#part")) == b"here"
    assert site.asked == ["/a%20b/%C3%A9?q=x%20y"]


# what cannot be done


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (send(200, b"{not json"), "answers with something that is not JSON"),
        (send(200, b"[" * 100_000), "answers with something that is not JSON"),
        (as_json([1]), "it holds no list of results|not a JSON object"),
        (as_json({"results": {}, "query": 7}), "it holds no list of"),
        (as_json({"query": {"pages": {"1": {}}}}), "it holds no list of"),
        (as_json({"error": {"code": "bad", "info": "no <b>such</b> thing"}}), "bad no such thing|list of results"),
        (as_json({"error": "bad"}), "answers with an error|list of results"),
        (send(401), "answers 401 Unauthorized"),
        (send(403), "answers 403 Forbidden"),
        (send(500), "answers 500 Internal Server Error"),
        (send(302), "answers 302 Found"),
        (send(299), "answers 299$"),
        (send(200, b"x", Content_Length="99999999"), "larger than 10 MB"),
    ],
)
def test_answers_that_are_none(site: Site, tmp_path: Path, answer: Answer, reason: str) -> None:
    for name, path in (("openverse", "/v1/images/"), ("wikimedia", "/w/api.php")):
        site.answers[path] = [answer] * 3
        with pytest.raises(
            Refused, match=f"nothing was collected for 'cat': {name} was not read to the end: .*({reason})"
        ):
            gather(site, tmp_path / "new", sources=[name])
    assert not (tmp_path / "new").exists()


def test_one_source_may_fail(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, 1)]
    site.answers["/w/api.php"] = [send(403)]
    found = gather(site, tmp_path)
    assert (found.there, found.notes) == (
        1,
        (f"wikimedia was not read to the end: {site.address} answers 403 Forbidden",),
    )


def test_no_picture_at_all(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="'cat': no source has such a picture: use other words, or allow more licences"):
        gather(site, tmp_path)
    site.openverse = [openverse(site, 1, license="by-nc"), openverse(site, 2, license="by-nc")]
    with pytest.raises(Refused, match=r"2 pictures were left out \(2 licence CC BY-NC 2.0\)"):
        gather(site, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    with pytest.raises(Refused) as refused:
        collect("cat", tmp_path, say=lambda line: None)
    assert str(refused.value) == (
        "nothing was collected for 'cat': openverse was not read to the end: api.openverse.org is not found: "
        "check its name and the network; wikimedia was not read to the end: commons.wikimedia.org is not found: "
        "check its name and the network"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"query": " "}, "the query is empty"),
        ({"query": "x" * 201}, "at most 200"),
        ({"query": "a\x00b"}, "at most 200 printable"),
        ({"count": 0}, "count 0"),
        ({"count": 10**6}, "count 1000000"),
        ({"size": 1}, "size 1"),
        ({"sources": ["openvers"]}, "did you mean openverse"),
        ({"sources": []}, "no source is given: choose from openverse, wikimedia"),
        ({"licences": ["GPL"]}, "no licence 'GPL': choose from CC0, PDM, CC BY"),
        ({"licences": []}, "no licence ''"),
        ({"contact": "a\r\nX-Evil: 1"}, "the contact"),
    ],
)
def test_what_is_asked_for_wrongly(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    options = {"query": "cat", "label": "cat", "folder": tmp_path} | options
    with pytest.raises(Refused, match=reason):
        collect(**options)


def test_folders_of_others_are_left_alone(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, 1)]
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(Refused, match=r"holds other files \(mine.txt\) and no ATTRIBUTION.csv: give a new folder"):
        gather(site, tmp_path)
    with pytest.raises(Refused, match=r"cannot use .*mine\.txt as a folder"):
        gather(site, tmp_path / "mine.txt")
    (tmp_path / NAME).write_text("file,title\n")
    with pytest.raises(Refused, match="lacks the columns creator, creator_url"):
        gather(site, tmp_path)
    assert site.asked == []
    (tmp_path / "new").mkdir()
    (tmp_path / "new/.DS_Store").write_text("x")
    assert gather(site, tmp_path / "new").there == 1


def test_sources_are_found_by_looking() -> None:
    assert list(sources.known()) == ["openverse", "wikimedia"]
    for name, module in sources.known().items():
        assert module.ENDPOINT.startswith("https://"), name


@pytest.mark.parametrize("name", ["names", "web", "sources"])
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"clearsight.curation.collection.{name}"))
    assert found.attempted > 0 == found.failed


def test_rows_are_read_as_they_were_written(site: Site, tmp_path: Path) -> None:
    site.openverse = [openverse(site, 1, title='a "b", c; d\te')]
    gather(site, tmp_path)
    assert read_rows(tmp_path) == table(tmp_path)
    assert keys(SourcePicture("openverse", "1", page="https://example.org/x/")) == {"openverse-1", "example.org/x"}
    assert network.PATIENCE == 120
