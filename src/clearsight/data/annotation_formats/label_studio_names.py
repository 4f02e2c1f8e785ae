"""Label Studio: where a task's pictures are, and what their files may be called on the user's side."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from clearsight.data.annotation_formats.sheets import clean
from clearsight.data.images import SUFFIXES

_UPLOADED = re.compile(r"(^|/)[0-9a-f]{8}-(?=[^/]+$)")  # Label Studio puts 8 random hex digits before a file's name


def file_names(address: str) -> tuple[str, ...]:
    """What the picture at this address may be called, the best name first.

    The digits that Label Studio adds at upload are dropped last, so only where nothing has the name as it is.

    >>> file_names("abcd1234-cat.jpg")
    ('abcd1234-cat.jpg', 'cat.jpg')
    >>> file_names("/data/local-files/?d=photos%2Fa%20b.jpg")
    ('photos/a b.jpg',)
    >>> file_names("s3://bucket/photos/a.jpg?versionId=3")
    ('photos/a.jpg', 's3://bucket/photos/a.jpg?versionId=3')
    """
    address = clean(address)
    try:
        parts = urlsplit(address)
    except ValueError:  # such as "http://[x"
        return (address,)
    local = parse_qs(parts.query).get("d") if parts.path.rstrip("/").endswith("/local-files") else None
    if local:
        names = [clean(local[0])]
    elif "://" in address or address.startswith("/data/"):
        names = [unquote(parts.path).lstrip("/"), address]
    else:
        names = [address, unquote(parts.path)]
    names = [name for name in names if name]
    return tuple(dict.fromkeys([*names, *(_UPLOADED.sub(r"\1", name) for name in names)])) or (address,)


def pictures_of(data: dict[str, Any]) -> dict[str, list[str]]:
    """The addresses of pictures in a task's data, by key: those that end as a picture does, else the only text."""
    texts = {k: [v] if isinstance(v, str) else v for k, v in data.items() if isinstance(v, (str, list)) and v}
    texts = {k: v for k, v in texts.items() if all(isinstance(a, str) and a and not a.startswith("data:") for a in v)}
    pictures = {k: v for k, v in texts.items() if all(_is_picture(address) for address in v)}
    return pictures or ({k: v for k, v in texts.items() if len(v) == 1} if len(texts) == 1 else {})


def _is_picture(address: str) -> bool:
    return any(PurePosixPath(name).suffix.lower() in SUFFIXES for name in file_names(address))
