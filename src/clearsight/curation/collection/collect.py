"""Collect pictures for a query into a class folder, with a table of their authors and licences."""

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
from clearsight.curation.collection.sources import FREE, LICENCES, SourcePicture, known, licence, plain
from clearsight.curation.collection.table import NAME, read_rows, write_rows
from clearsight.curation.collection.web import Web, fetch
from clearsight.data.images import open_picture
from clearsight.errors import Refused, nearest

MOST = 30_000_000  # bytes of one picture
MOST_PICTURES = 10_000
PAUSE = 1.0  # seconds between two pictures of one host
MISSES = 100  # in a row: then a source is not asked for more
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
    """The result of `collect`.

    word: the class, which is the name of the pictures' folder below `folder`.  kept: the new files, below `folder`.
    there: how many pictures the class has now.  skipped: (name, reason) of pictures that were not kept.  notes:
    sentences on sources that were not read to the end.
    """

    folder: Path
    query: str
    word: str
    kept: tuple[str, ...]
    there: int
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values, for --json."""
        skipped = [{"name": name, "reason": reason} for name, reason in self.skipped]
        return asdict(self) | {"folder": str(self.folder), "skipped": skipped}

    def lines(self) -> list[str]:
        """The result for the terminal: what was left out by reason, the table of attribution last."""
        left_out = [
            f"left out {n}: {reason}" for reason, n in Counter(reason for _, reason in self.skipped).most_common()
        ]
        new = "1 new picture" if len(self.kept) == 1 else f"{len(self.kept)} new pictures"
        summary = f"{new} of {self.word}, {self.there} in {self.folder / self.word}"
        return [*left_out, *self.notes, summary, str(self.folder / NAME)]


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
    """Collect pictures for a query in folder/class/source-id.jpg, and their authors in folder/ATTRIBUTION.csv.

    The same call again continues until the class has `count` pictures.  The folder is then DATA for training; another
    query adds another class.  The files are saved unchanged.

    label: the class, where it is not the query.  sources: asked in turn, one picture each.  licences: some of
    `LICENCES`; by default those that let everybody use and change a picture, also commercially.  size: the longest
    side in pixels; Wikimedia Commons serves its widest prepared copy that is not wider, Openverse only originals.
    contact: how a source can reach you, which Wikimedia asks for.  endpoints: source -> address, for another server of
    the same kind.  trusted: "address:port" of servers that may be asked although they are not public.  web: settings of
    requests; its agent, trusted and say are set here.

    Only the query and the contact leave this machine; `say` names the hosts before they are sent.  Refused: a query
    without any picture, with the reasons, and a folder that holds other files.
    """
    words = " ".join(query.split())
    names = _check_sources(sources)
    wanted = _check_licences(licences)
    word = class_word(words if label is None else label)
    _check(words, count, size, contact)
    folder = Path(folder)
    rows = _read_earlier(folder)
    present = _count_present(rows, folder, word)
    report = progress or (lambda what, done, total: None)
    if present >= count:
        return Collected(
            folder, words, word, (), present, notes=(f"the folder already has {present} pictures of {word}",)
        )
    web = replace(web or Web(""), agent=_user_agent(contact), trusted=frozenset(trusted), say=say)
    modules = known()
    places = {name: (endpoints or {}).get(name, modules[name].ENDPOINT) for name in names}
    say(_announcement(words, places, contact))
    waiting = deque(
        (name, modules[name].search(web, words, endpoint=places[name], licences=wanted, size=size)) for name in names
    )
    files_by_key = _known_files(rows, folder)
    complete = {name for name, file in files_by_key.items() if file.startswith(f"{word}/") and Path(file).stem == name}
    misses = dict.fromkeys(names, 0)
    new_files: list[str] = []
    skipped: list[tuple[str, str]] = []
    notes: list[str] = []
    report("collecting", present, count)
    while waiting and present < count:
        name, results = waiting.popleft()
        picture = _next_result(name, results, notes)
        if picture is None:
            continue
        if misses[name] == MISSES:
            notes.append(f"{name} was not read to the end: {MISSES} pictures in a row could not be kept")
            continue
        waiting.append((name, results))
        file_stem = stem(picture)
        if file_stem in complete:
            continue
        try:
            row, data = _fetch_picture(web, picture, word, words, wanted, files_by_key)
        except Refused as e:
            skipped.append((file_stem, plain(str(e))))
            misses[name] += 1
            continue
        misses[name] = 0
        rows = [*(r for r in rows if Path(r["file"]).stem != file_stem), row]
        write_rows(folder, rows)  # before the picture, so that there is never one of which nobody knows whose it is
        write_whole(folder / row["file"], data)
        files_by_key |= dict.fromkeys(keys(picture) | {row["sha256"]}, row["file"])
        new_files.append(row["file"])
        present += 1
        report("collecting", present, count)
    if not present:
        raise Refused(_nothing_message(words, skipped, notes))
    return Collected(folder, words, word, tuple(new_files), present, tuple(skipped), tuple(notes))


def _check(words: str, count: int, size: int, contact: str) -> None:
    if not words:
        raise Refused('the query is empty: give words to search for, such as "golden retriever"')
    if len(words) > _LONGEST_QUERY or not words.isprintable():
        raise Refused(f"the query must have at most {_LONGEST_QUERY} printable characters: use fewer words")
    if not 1 <= count <= MOST_PICTURES:
        raise Refused(f"count {count}: give a number of pictures from 1 to {MOST_PICTURES}")
    if not 32 <= size <= 10_000:
        raise Refused(f"size {size}: give the longest side in pixels, from 32 to 10000")
    if not re.fullmatch(r"[ -~]{0,200}", contact):
        raise Refused("the contact must be an address in ASCII letters: an e-mail or the page of your project")


def _check_sources(requested: Sequence[str]) -> list[str]:
    available = known()
    for name in requested:
        if name not in available:
            raise Refused(f"no source {name!r}: {nearest(name, available)}")
    if not requested:
        raise Refused(f"no source is given: choose from {', '.join(available)}")
    return list(dict.fromkeys(requested))


def _check_licences(requested: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(licence(words) for words in requested))
    if not wanted or "" in wanted:
        wrong = next((words for words in requested if not licence(words)), "")
        raise Refused(f"no licence {wrong!r}: choose from {', '.join(LICENCES)}")
    return wanted


def _user_agent(contact: str) -> str:
    return f"clearsight/{__version__} (collects pictures; contact: {contact.strip() or 'none given'})"


def _announcement(words: str, places: Mapping[str, str], contact: str) -> str:
    hosts = " and ".join(urlsplit(place).netloc for place in places.values())
    line = f"asking {hosts} for {words!r}; pictures are then downloaded from the addresses in the answers"
    if "wikimedia" in places and not contact.strip():
        line += "; Wikimedia may limit requests without a contact: give one, contact=ADDRESS (--contact ADDRESS)"
    return line


def _read_earlier(folder: Path) -> list[dict[str, str]]:
    """Read the rows that earlier runs wrote.  Refused: a folder with other files and no table of attribution."""
    try:
        if folder.exists() and not (folder / NAME).exists():
            other = [p.name for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
            if other:
                raise Refused(f"{folder} holds other files ({plain(other[0])}) and no {NAME}: give a new folder")
    except OSError as e:
        raise Refused(f"cannot use {folder} as a folder: {e.strerror}") from None
    return read_rows(folder)


def _count_present(rows: Sequence[dict[str, str]], folder: Path, word: str) -> int:
    return sum(row["file"].startswith(f"{word}/") and (folder / row["file"]).is_file() for row in rows)


def _known_files(rows: Sequence[dict[str, str]], folder: Path) -> dict[str, str]:
    """Each key of a picture (name, page, content) -> its file: two pictures that share a key are the same."""
    files_by_key: dict[str, str] = {}
    for row in rows:
        if (folder / row["file"]).is_file():
            keys_of_row = {Path(row["file"]).stem, row["sha256"], page_key(row["page"])}
            files_by_key |= dict.fromkeys(keys_of_row - {""}, row["file"])
    return files_by_key


def _next_result(name: str, results: Iterator[SourcePicture], notes: list[str]) -> SourcePicture | None:
    try:
        return next(results, None)
    except Refused as e:
        notes.append(f"{name} was not read to the end: {plain(str(e))}")
        return None


def _fetch_picture(
    web: Web, picture: SourcePicture, word: str, query: str, wanted: Sequence[str], files_by_key: Mapping[str, str]
) -> tuple[dict[str, str], bytes]:
    """Download a picture: its row and its bytes.  Refused, with the reason: a picture that cannot be kept."""
    if reason := _why_unwanted(picture, wanted):
        raise Refused(reason)
    if same := next((files_by_key[key] for key in sorted(keys(picture)) if key in files_by_key), None):
        raise Refused(f"the same as {same}")
    data = fetch(web, picture.url, most=MOST, pause=PAUSE, accept="image/*").body
    digest = hashlib.sha256(data).hexdigest()
    if digest in files_by_key:
        raise Refused(f"the same as {files_by_key[digest]}")
    row = {
        "file": f"{word}/{stem(picture)}{suffix_of(data)}",
        "title": picture.title,
        "creator": picture.creator,
        "creator_url": picture.creator_url,
        "licence": picture.licence,
        "licence_url": picture.licence_url,
        "source": picture.source,
        "page": picture.page,
        "url": picture.url,
        "query": query,
        "sha256": digest,
        "date": datetime.now(UTC).date().isoformat(),
    }
    return row, data


def _why_unwanted(picture: SourcePicture, wanted: Sequence[str]) -> str:
    """Why a picture is not downloaded; "" where it is."""
    if missing := [name for name in ("id", "url", "page", "licence") if not getattr(picture, name)]:
        return f"the source does not give its {' and '.join(missing)}"
    allowed = licence(picture.licence)
    if allowed not in wanted:
        return f"licence {picture.licence}" + ("" if allowed else ", which is unknown")
    if picture.sensitive:
        return "marked as sensitive"
    kind = picture.kind.removeprefix("image/")
    return f"not a raster image but {kind}" if kind and kind not in _OF_PIXELS else ""


def suffix_of(data: bytes) -> str:
    """The suffix for a picture's bytes, which are decoded first.  Refused: bytes that are not a picture."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "picture"
        path.write_bytes(data)
        open_picture(path)
    suffix = next((suffix for beginning, suffix in _KINDS.items() if data.startswith(beginning)), None)
    if suffix is None:
        raise Refused("a picture of a format that is not kept")
    return suffix


def _nothing_message(words: str, skipped: Sequence[tuple[str, str]], notes: Sequence[str]) -> str:
    if skipped:
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(r for _, r in skipped).most_common(5))
        notes = [*notes, f"{len(skipped)} pictures were left out ({reasons})"]
    why = "; ".join(notes) or "no source has such a picture: use other words, or allow more licences"
    return f"nothing was collected for {words!r}: {why}"
