"""Requests of CSIC-2010 as they were sent: read, divided without repetition, and told apart by their fault."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FILES = {"normal": "normalTrafficTraining.txt", "anomalous": "anomalousTrafficTest.txt"}  # or .gz of them
BEGIN = re.compile(r"(?m)^(?=(?:GET|POST|PUT|DELETE|HEAD|OPTIONS|TRACE) \S+ HTTP/)")
Range = tuple[int, int]


@dataclass(frozen=True)
class Request:
    """A request as it was sent, lines ended by a line break alone."""

    text: str

    @property
    def parts(self) -> tuple[Range, Range, Range]:
        """Where its start line, its headers and its body stand, as ranges of characters.

        >>> Request("POST /a HTTP/1.1\\nHost: b\\n\\nid=1").parts
        ((0, 16), (17, 24), (26, 30))
        """
        head = self.text.partition("\n\n")[0]
        start = len(head.partition("\n")[0])
        body = min(len(head) + 2, len(self.text))
        return (0, start), (min(start + 1, len(head)), len(head)), (body, len(self.text))

    @property
    def asks(self) -> str:
        """Its path and parameters, wherever it sends them: what is left of it without method, headers and session.

        >>> get, post = "GET /a?id=1 HTTP/1.1\\nCookie: c", "POST /a HTTP/1.1\\nCookie: d\\n\\nid=1"
        >>> Request(get).asks == Request(post).asks == "/a?id=1"
        True
        """
        path, _, query = self.text.split(" ", 2)[1].partition("?")
        start, stop = self.parts[2]
        return f"{path}?{'&'.join(filter(None, (query, self.text[start:stop])))}"


def read_requests(path: Path) -> list[Request]:
    """All requests of a file, one after the other."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("latin-1").replace("\r\n", "\n")
    return [Request(part.rstrip("\n")) for part in BEGIN.split(text) if part.strip()]


def write_table(folder: Path, table: Path) -> str:
    """Write all requests of the folder as a table of texts with splits, and start line and body marked -> in words.

    Requests that ask for the same stand in one part alone, drawn by what they ask: 15 % val, 15 % test.  Of these two
    parts each such set gives one request, since repetitions would count as if they were new.
    """
    rows, counts, asked = [], Counter[str](), dict[str, int]()
    for label, name in FILES.items():
        requests = read_requests(next(p for p in (folder / name, folder / f"{name}.gz") if p.exists()))
        seen = set[str]()
        for request in requests:
            split = part_of(request.asks)
            if split == "train" or request.asks not in seen:
                start, _, body = request.parts
                marks = [place for place in (start, body) if place[0] < place[1]]
                rows.append((request.text, label, split, json.dumps(marks)))
                counts[split] += 1
            seen.add(request.asks)
        counts[label], asked[label] = len(requests), len(seen)
    random.Random(0).shuffle(rows)
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label", "split", "marks"), *rows])
    sets = " and ".join(
        f"{counts[label]:,} {label} ones, which ask for {asked[label]:,} different things" for label in FILES
    )
    return f"{sets}; {counts['train']:,} in train, {counts['val']:,} in val, {counts['test']:,} in test"


def part_of(asks: str) -> str:
    """The part of all requests that ask for this."""
    share = int.from_bytes(hashlib.blake2b(asks.encode(), digest_size=8).digest(), "big") / 2**64
    return "test" if share < 0.15 else "val" if share < 0.3 else "train"


def kinds_of(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """ "normal", "renamed" or "attack" for each of the marked requests (CSIC-2010 spots).

    renamed: whatever is marked is a parameter with an A behind its name; the set has it without the A elsewhere.
    """
    names = {pair.partition("=")[0] for row in rows for pair in _pairs(row)}
    kinds = []
    for row in rows:
        marked = row.get("attacks") or ()
        assert isinstance(marked, Iterable)
        own = [str(piece).partition("=")[0] for piece in marked]
        renamed = bool(own) and all(name.endswith("A") and name[:-1] in names for name in own)
        kinds.append("normal" if not own else "renamed" if renamed else "attack")
    return kinds


def _pairs(row: Mapping[str, object]) -> list[str]:
    return f"{str(row['url']).partition('?')[2]}&{row['body']}".split("&")
