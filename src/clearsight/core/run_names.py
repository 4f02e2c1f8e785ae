"""Where results go: clearsight-runs/KIND-N, or the folder that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clearsight.errors import Refused

HOME = Path("clearsight-runs")


@contextmanager
def new_run(kind: str, out: Path | None, *, holds: str = "") -> Iterator[Path]:
    """A folder for results (see ``new_folder``), which is gone afterwards if nothing was written into it."""
    with unless_empty(new_folder(kind, out, holds=holds)) as folder:
        yield folder


@contextmanager
def unless_empty(folder: Path) -> Iterator[Path]:
    """A folder that is gone afterwards if it is empty then, and so is clearsight-runs around it."""
    try:
        yield folder
    finally:
        with suppress(OSError):  # it holds something, or is gone already
            folder.rmdir()
            if folder.parent == HOME:
                HOME.rmdir()


def new_folder(kind: str, out: Path | None, *, holds: str = "") -> Path:
    """Make a folder for results.  Without ``out`` it is the next free clearsight-runs/KIND-N.

    A folder that holds something else than an earlier result (a file called ``holds``) is refused, never written into.
    """
    if out is None:
        for n in range(1, 1_000_000):
            folder = HOME / f"{kind}-{n}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as e:
                raise Refused(f"cannot make {folder}: {e.strerror}; give another folder, folder=DIR (-o DIR)") from None
            return folder
        raise Refused(f"{HOME} has no free name for a run: give another folder, folder=DIR (-o DIR)")
    if out.exists() and not out.is_dir():
        raise Refused(f"{out} is a file: give a folder")
    if out.is_dir() and any(out.iterdir()) and not (holds and (out / holds).exists()):
        raise Refused(f"{out} holds other files: give a new or an empty folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise Refused(f"cannot make {out}: {e.strerror}") from None
    return out
