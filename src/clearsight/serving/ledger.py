"""What each key has used, on disk before it is answered: a server that is killed forgets nothing that it answered."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

from clearsight.errors import Refused
from clearsight.serving.keys import Key, Limit

_TABLE = """CREATE TABLE IF NOT EXISTS used (
    key TEXT, resource TEXT, period INTEGER, start INTEGER, amount INTEGER NOT NULL,
    PRIMARY KEY (key, resource, period, start)
) WITHOUT ROWID"""
_ADD = """INSERT INTO used VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (key, resource, period, start) DO UPDATE SET amount = amount + excluded.amount"""


class Ledger:
    """How much of each limited resource every key has used in the period that runs.

    A period begins at a multiple of its length since 1970 (a day at midnight UTC).  Amounts are whole numbers; seconds
    are counted in millionths.  Several servers may share one file.

    Args:
        path: an SQLite file, which is made where there is none.

    Refused: a file that is none of SQLite's, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # a kill loses nothing; the loss of power the last moments
            self._db.execute(_TABLE)
        except sqlite3.Error as e:
            raise Refused(f"{path} cannot be used to count what keys use ({e})", "name another --keys FILE") from e

    def take(self, key: Key, resource: str, amount: int, least_left: int = 0) -> Limit | None:
        """Use an amount of a resource, unless a limit forbids it: then nothing is used and that limit is returned.

        least_left: what must be left besides.
        """
        limits = key.of(resource)
        if not limits:
            return None
        now = time.time()
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for limit in limits:
                    if self._used(key, limit, now) + amount + least_left > limit.most:
                        self._db.execute("ROLLBACK")
                        return limit
                if amount:
                    self._db.executemany(_ADD, [self._row(key, limit, now, amount) for limit in limits])
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return None

    def add(self, key: Key, resource: str, amount: int) -> None:
        """Write down what was used, whatever the limits say."""
        now = time.time()
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_ADD, [self._row(key, limit, now, amount) for limit in key.of(resource)])
            self._db.execute("COMMIT")

    def used(self, key: Key, limit: Limit) -> int:
        """How much of a limit a key has used in the period that runs."""
        with self._lock:
            return self._used(key, limit, time.time())

    def close(self) -> None:
        """Forget the periods that are over, and close the file."""
        with self._lock:
            self._db.execute("DELETE FROM used WHERE period > 0 AND start + 2 * period < ?", (int(time.time()),))
            self._db.close()

    def _used(self, key: Key, limit: Limit, now: float) -> int:
        row = (key.name, limit.resource, limit.period, _start(limit, now))
        asked = "SELECT amount FROM used WHERE key = ? AND resource = ? AND period = ? AND start = ?"
        found = self._db.execute(asked, row).fetchone()
        return int(found[0]) if found else 0

    @staticmethod
    def _row(key: Key, limit: Limit, now: float, amount: int) -> tuple[str, str, int, int, int]:
        return key.name, limit.resource, limit.period, _start(limit, now), amount


def seconds_left(limit: Limit, now: float) -> float | None:
    """How long the period of a limit still runs; None for one that never ends.

    >>> from clearsight.serving.keys import read_limit
    >>> seconds_left(read_limit("requests=1/minute"), 119.0)
    1.0
    """
    return _start(limit, now) + limit.period - now if limit.period else None


def _start(limit: Limit, now: float) -> int:
    return int(now // limit.period) * limit.period if limit.period else 0
