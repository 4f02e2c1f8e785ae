"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from clearsight.errors import Refused


def write_whole(path: Path, write: bytes | str | Callable[[BinaryIO], object]) -> Path:
    """Write beside the file and then rename, so that nobody ever finds half of it.  Missing folders are made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as e:
        raise Refused(f"cannot write {path}: {e.strerror}") from e
    try:
        with os.fdopen(handle, "wb") as f:
            if callable(write):
                write(f)
            else:
                f.write(write.encode(errors="backslashreplace") if isinstance(write, str) else write)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException as e:
        Path(name).unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise Refused(f"cannot write {path}: {e.strerror}") from e
        raise
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
