"""Pictures for a few words, from sources that say whose they are: a class folder, and a table of attribution."""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clearsight._version import __version__
from clearsight.core.output import write_whole
from clearsight.curation.collection.names import class_word, keys, page_key, stem
from clearsight.curation.collection.sources import FREE, LICENCES, Found, known, licence, plain
from clearsight.curation.collection.table import NAME, read_rows, write_rows
from clearsight.curation.collection.web import Web, fetch
from clearsight.data.images import open_picture
from clearsight.errors import Refused, nearest

MOST = 30_000_000  # bytes of one picture
MOST_PICTURES = 10_000
PAUSE = 1.0  # seconds between two pictures of one host
_MISSES = 100  # in a row: then a source is not asked for more
_LONGEST_QUERY = 200  # characters; Openverse reads no more
_KINDS = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"BM": ".bmp",
}
_OF_PIXELS = frozenset(["jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "tif", "tiff", "bmp", "x-ms-bmp"])


@dataclass(frozen=True)
class Collected:
    """What came of it.

    word: the class, which is the name of the pictures' folder below `folder`.  kept: the new files, below `folder`;
    there: how many pictures the class has now.  skipped: (name, reason) of what was found and not kept.  notes:
    sentences on sources that could not be asked to the end.
    """

    folder: Path
    query: str
    word: str
    kept: tuple[str, ...]
    there: int
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        skipped = [{"name": name, "reason": reason} for name, reason in self.skipped]
        return asdict(self) | {"folder": str(self.folder), "skipped": skipped}

    def lines(self) -> list[str]:
        """The same for the terminal: what was left out by its reason, the table of attribution last."""
        left = [f"left out {n}: {reason}" for reason, n in Counter(reason for _, reason in self.skipped).most_common()]
        new = "1 new picture" if len(self.kept) == 1 else f"{len(self.kept)} new pictures"
        kept = f"{new} of {self.word}, {self.there} in {self.folder / self.word}"
        return [*left, *self.notes, kept, str(self.folder / NAME)]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def collect(
    query: str,
    folder: str | Path,
    *,
    count: int = 100,
    label: str | None = None,
    sources: Sequence[str] = ("openverse", "wikimedia"),
    licences: Sequence[str] = FREE,
    size: int = 1024,
    contact: str = "",
    endpoints: Mapping[str, str] | None = None,
    trusted: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
    say: Callable[[str], None] = _to_stderr,
    web: Web | None = None,
) -> Collected:
    """Pictures for a query, in folder/class/source-id.jpg, and whose they are, in folder/ATTRIBUTION.csv.

    The same call again goes on until there are `count` pictures of the class.  The folder is then DATA for training;
    another query adds another class.  Pictures are kept as they come: nothing in them is changed.

    label: the class, where it is not the query.  sources: asked in turn, one picture each.  licences: of `LICENCES`;
    without them those that let everybody use and change a picture, for money too.  size: the longest side wished for;
    Wikimedia Commons gives the widest copy kept ready that is not wider, Openverse knows originals only.  contact: how
    a source can reach whoever asks, which Wikimedia wants.  endpoints: source -> address, for another server of the
    same kind.  trusted: "address:port" of servers that may be asked although they are not public.  web: how the web is
    asked; its agent, trusted and say are set here.

    Nothing but the query (and the contact) leaves this machine; `say` is told before whom it goes to.  Raises Refused
    where nothing could be collected, with the reasons, and where the folder holds other things.
    """
    words = " ".join(query.split())
    names = _sources(sources)
    wanted = _licences(licences)
    word = class_word(words if label is None else label)
    _check(words, count, size, contact)
    folder = Path(folder)
    rows = _earlier(folder)
    here = _there(rows, folder, word)
    tell = progress or (lambda what, done, total: None)
    if here >= count:
        return Collected(folder, words, word, (), here, notes=(f"{here} pictures of {word} were there already",))
    web = replace(web or Web(""), agent=_agent(contact), trusted=frozenset(trusted), say=say)
    modules = known()
    places = {name: (endpoints or {}).get(name, modules[name].ENDPOINT) for name in names}
    say(_announced(words, places, contact))
    waiting = deque(
        (name, modules[name].search(web, words, endpoint=places[name], licences=wanted, size=size)) for name in names
    )
    seen = _seen(rows, folder)
    before = {name for name, file in seen.items() if file.startswith(f"{word}/") and Path(file).stem == name}
    misses = dict.fromkeys(names, 0)
    kept: list[str] = []
    skipped: list[tuple[str, str]] = []
    notes: list[str] = []
    tell("collecting", here, count)
    while waiting and here < count:
        name, found = waiting.popleft()
        picture = _next(name, found, notes)
        if picture is None:
            continue
        if misses[name] == _MISSES:
            notes.append(f"{name} was not asked to the end: {_MISSES} pictures in a row could not be kept")
            continue
        waiting.append((name, found))
        called = stem(picture)
        if called in before:
            continue
        try:
            row, data = _taken(web, picture, word, words, wanted, seen)
        except Refused as e:
            skipped.append((called, plain(str(e))))
            misses[name] += 1
            continue
        misses[name] = 0
        rows = [*(r for r in rows if Path(r["file"]).stem != called), row]
        write_rows(folder, rows)  # before the picture, so that there is never one of which nobody knows whose it is
        write_whole(folder / row["file"], data)
        seen |= dict.fromkeys(keys(picture) | {row["sha256"]}, row["file"])
        kept.append(row["file"])
        here += 1
        tell("collecting", here, count)
    if not here:
        raise Refused(_nothing(words, skipped, notes))
    return Collected(folder, words, word, tuple(kept), here, tuple(skipped), tuple(notes))


def _check(words: str, count: int, size: int, contact: str) -> None:
    if not words:
        raise Refused('no words to look for: write them, such as "golden retriever"')
    if len(words) > _LONGEST_QUERY or not words.isprintable():
        raise Refused(f"the words to look for are at most {_LONGEST_QUERY} printable characters: use fewer")
    if not 1 <= count <= MOST_PICTURES:
        raise Refused(f"count {count}: a number of pictures from 1 to {MOST_PICTURES}")
    if not 32 <= size <= 10_000:
        raise Refused(f"size {size}: the longest side in pixels, from 32 to 10000")
    if not re.fullmatch(r"[ -~]{0,200}", contact):
        raise Refused("the contact is an address in plain letters: an e-mail or the page of your project")


def _sources(asked: Sequence[str]) -> list[str]:
    there = known()
    for name in asked:
        if name not in there:
            raise Refused(f"no source {name!r}: {nearest(name, there)}")
    if not asked:
        raise Refused(f"no source is named: there are {', '.join(there)}")
    return list(dict.fromkeys(asked))


def _licences(asked: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(licence(words) for words in asked))
    if not wanted or "" in wanted:
        wrong = next((words for words in asked if not licence(words)), "")
        raise Refused(f"no licence {wrong!r}: there are {', '.join(LICENCES)}")
    return wanted


def _agent(contact: str) -> str:
    return f"clearsight/{__version__} (collects pictures; contact: {contact.strip() or 'none given'})"


def _announced(words: str, places: Mapping[str, str], contact: str) -> str:
    hosts = " and ".join(urlsplit(place).netloc for place in places.values())
    line = f"asking {hosts} for {words!r}; the pictures are then fetched from the addresses that they name"
    if "wikimedia" in places and not contact.strip():
        line += "; Wikimedia asks for your address, and may answer less without: contact=ADDRESS (--contact ADDRESS)"
    return line


def _earlier(folder: Path) -> list[dict[str, str]]:
    """The rows that earlier runs left in a folder that is ours, empty or not there yet."""
    try:
        if folder.exists() and not (folder / NAME).exists():
            other = [p.name for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
            if other:
                raise Refused(f"{folder} holds other things ({plain(other[0])}) and no {NAME}: name a new folder")
    except OSError as e:
        raise Refused(f"cannot use {folder} as a folder: {e.strerror}") from None
    return read_rows(folder)


def _there(rows: Sequence[dict[str, str]], folder: Path, word: str) -> int:
    return sum(row["file"].startswith(f"{word}/") and (folder / row["file"]).is_file() for row in rows)


def _seen(rows: Sequence[dict[str, str]], folder: Path) -> dict[str, str]:
    """Whatever tells that two pictures are one (name, page, content) -> the file that there is."""
    seen: dict[str, str] = {}
    for row in rows:
        if (folder / row["file"]).is_file():
            told = {Path(row["file"]).stem, row["sha256"], page_key(row["page"])}
            seen |= dict.fromkeys(told - {""}, row["file"])
    return seen


def _next(name: str, found: Iterator[Found], notes: list[str]) -> Found | None:
    try:
        return next(found, None)
    except Refused as e:
        notes.append(f"{name} was not asked to the end: {plain(str(e))}")
        return None


def _taken(
    web: Web, found: Found, word: str, query: str, wanted: Sequence[str], seen: Mapping[str, str]
) -> tuple[dict[str, str], bytes]:
    """A picture's row and its bytes; Refused with the reason where it cannot be kept."""
    if reason := _against(found, wanted):
        raise Refused(reason)
    if same := next((seen[key] for key in sorted(keys(found)) if key in seen), None):
        raise Refused(f"the same as {same}")
    data = fetch(web, found.url, most=MOST, pause=PAUSE, accept="image/*").body
    digest = hashlib.sha256(data).hexdigest()
    if digest in seen:
        raise Refused(f"the same as {seen[digest]}")
    row = {
        "file": f"{word}/{stem(found)}{_suffix(data)}",
        "title": found.title,
        "creator": found.creator,
        "creator_url": found.creator_url,
        "licence": found.licence,
        "licence_url": found.licence_url,
        "source": found.source,
        "page": found.page,
        "url": found.url,
        "query": query,
        "sha256": digest,
        "date": datetime.now(UTC).date().isoformat(),
    }
    return row, data


def _against(found: Found, wanted: Sequence[str]) -> str:
    """Why a picture is not even fetched; "" where it is."""
    if missing := [name for name in ("id", "url", "page", "licence") if not getattr(found, name)]:
        return f"the source does not tell its {' and '.join(missing)}"
    allowed = licence(found.licence)
    if allowed not in wanted:
        return f"licence {found.licence}" + ("" if allowed else ", which is not known")
    if found.sensitive:
        return "marked as sensitive"
    kind = found.kind.removeprefix("image/")
    return f"not a picture of pixels but {kind}" if kind and kind not in _OF_PIXELS else ""


def _suffix(data: bytes) -> str:
    """The suffix for a picture's bytes, which are decoded whole to see that they are one."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "picture"
        path.write_bytes(data)
        open_picture(path)
    suffix = next((suffix for beginning, suffix in _KINDS.items() if data.startswith(beginning)), None)
    if suffix is None:
        raise Refused("a picture of a kind that is not kept")
    return suffix


def _nothing(words: str, skipped: Sequence[tuple[str, str]], notes: Sequence[str]) -> str:
    if skipped:
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(r for _, r in skipped).most_common(5))
        notes = [*notes, f"{len(skipped)} pictures were found and left out ({reasons})"]
    why = "; ".join(notes) or "no source knows such a picture: use other words, or allow more licences"
    return f"nothing was collected for {words!r}: {why}"
