"""API keys: who may ask, and how much.  A file holds the SHA-256 of each key, never the key.

A key is 256 random bits, which nobody can guess, so that a plain hash of it is enough; slow hashes are for passwords.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearsight.core.output import write_whole
from clearsight.errors import Refused, nearest

RESOURCES = ("requests", "bytes", "pixels", "seconds")
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "ever": 0}
_TIMES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Limit:
    """At most so much of a resource in each period; seconds are counted in millionths.  A period of 0 never ends."""

    resource: str
    most: int
    period: int

    def __str__(self) -> str:
        unit = next(word for word, seconds in PERIODS.items() if seconds == self.period)
        most = f"{self.most / 1e6:g}" if self.resource == "seconds" else f"{self.most:,}"
        return f"{most} {self.resource}" + (f" per {unit}" if self.period else " in all")


@dataclass(frozen=True)
class Key:
    """Who asks, and what that key may use."""

    name: str
    limits: tuple[Limit, ...] = ()

    def of(self, resource: str) -> tuple[Limit, ...]:
        """The limits on one resource."""
        return tuple(limit for limit in self.limits if limit.resource == resource)


def read_limit(text: str) -> Limit:
    """A limit as it is written: requests=1000/day, bytes=200M/hour, seconds=30/minute, requests=5000/ever.

    Refused: other resources and periods, and what is no number above 0.

    >>> str(read_limit("bytes=2M/hour"))
    '2,000,000 bytes per hour'
    """
    found = re.fullmatch(r"\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)([kMG]?)\s*/\s*(\w+)\s*", text)
    if found is None:
        raise Refused(f"limit {text!r}", "write one such as requests=1000/day, bytes=200M/hour or seconds=30/minute")
    resource, number, times, period = found.groups()
    if resource not in RESOURCES:
        raise Refused(f"limit {text!r}: no resource {resource!r}", nearest(resource, RESOURCES))
    if period not in PERIODS:
        raise Refused(f"limit {text!r}: no period {period!r}", nearest(period, PERIODS))
    most = round(float(number) * _TIMES[times] * (10**6 if resource == "seconds" else 1))
    if most < 1:
        raise Refused(f"limit {text!r}", "give a number above 0")
    return Limit(resource, most, PERIODS[period])


def read_limits(texts: Sequence[str]) -> tuple[Limit, ...]:
    """Several limits.  Refused: two on one resource in one period."""
    limits = tuple(map(read_limit, texts))
    for i, limit in enumerate(limits):
        if any((limit.resource, limit.period) == (other.resource, other.period) for other in limits[:i]):
            raise Refused(f"limits {', '.join(texts)}: {limit.resource} is limited twice in one period", "keep one")
    return limits


def digest(key: str) -> str:
    """What a file holds of a key.

    >>> digest("cs_x")[:8]
    'b1d20a29'
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key(path: Path, name: str, limits: Sequence[str]) -> str:
    """Make a key, add its hash to the file, which is made where there is none, and return the key itself.

    Refused: a name that the file has already, or that is no word, and limits that cannot be read.
    """
    if not re.fullmatch(r"[\w.@-]{1,64}", name):
        raise Refused(f"key name {name!r}", "take letters, digits and . _ - @, at most 64")
    read_limits(limits)
    entries = _entries(path) if path.exists() else []
    if any(entry["name"] == name for entry in entries):
        raise Refused(f"{path} has a key named {name!r} already", "take another name, or delete that entry")
    key = f"cs_{secrets.token_urlsafe(32)}"
    entries.append({"name": name, "sha256": digest(key), "limits": [*limits]})
    write_whole(path, json.dumps({"keys": entries}, indent=1, ensure_ascii=False) + "\n")
    path.chmod(0o600)
    return key


def read_keys(path: Path) -> dict[str, Key]:
    """The keys of a file, by their hash.

    Refused: a file that is missing or broken, that holds no key, or two of one name.
    """
    keys: dict[str, Key] = {}
    names: set[str] = set()
    for entry in _entries(path):
        if entry["name"] in names:
            raise Refused(f"{path} has two keys named {entry['name']!r}", "give each its own name")
        names.add(entry["name"])
        keys[entry["sha256"]] = Key(entry["name"], read_limits(entry["limits"]))
    if not keys:
        raise Refused(f"{path} holds no key", f"make one: clearsight serve --keys {path} --new-key NAME")
    return keys


def _entries(path: Path) -> list[dict[str, Any]]:
    """The entries of a file of keys, each checked."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise Refused(f"{path}: {e.strerror}", f"make one: clearsight serve --keys {path} --new-key NAME") from None
    except (ValueError, RecursionError):
        raise Refused(f"{path} is no JSON", "it is a file that clearsight serve --new-key makes") from None
    entries = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise Refused(f"{path} has no list of keys", "it is a file that clearsight serve --new-key makes")
    for i, entry in enumerate(entries):
        right = (
            isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and re.fullmatch(r"[0-9a-f]{64}", str(entry.get("sha256")))
            and isinstance(entry.get("limits", []), list)
            and all(isinstance(limit, str) for limit in entry.get("limits", []))
        )
        if not right:
            raise Refused(f"{path}: key {i} is broken", "it needs name, sha256 and a list of limits")
        entry.setdefault("limits", [])
    return entries
