"""The files of a form, multipart/form-data.  Source: RFC 7578, and RFC 2046, 5.1.1."""

from __future__ import annotations

import re

from clearsight.serving.problems import Problem

_MOST_PARTS = 100


def form_files(body: bytes, content_type: str) -> list[tuple[str, bytes]]:
    """(name of the field, content) of each part of a form, in their order.

    Refused: a type without a boundary, a body in which the boundary is not closed, parts without a name.

    >>> form_files(b'--b\\r\\nContent-Disposition: form-data; name="x"\\r\\n\\r\\nhi\\r\\n--b--\\r\\n', "x; boundary=b")
    [('x', b'hi')]
    """
    found = re.search(r"""boundary=(?:"([^"]{1,70})"|([^;,\s"]{1,70}))""", content_type, re.IGNORECASE)
    if found is None:
        raise Problem(400, "the form states no boundary", "send Content-Type: multipart/form-data; boundary=...")
    mark = b"--" + (found[1] or found[2]).encode("latin-1", "replace")
    _, *parts = (b"\r\n" + body).split(b"\r\n" + mark)
    if not parts or not parts[-1].startswith(b"--"):
        raise Problem(400, "the form is truncated", "its last boundary, which ends with --, does not come")
    if len(parts) - 1 > _MOST_PARTS:
        raise Problem(413, f"a form of {len(parts) - 1} parts", f"send at most {_MOST_PARTS}")
    return [_part(part) for part in parts[:-1]]


def _part(part: bytes) -> tuple[str, bytes]:
    head, gap, content = part.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    for line in lines:
        key, _, value = line.partition(":")
        name = re.search(r'\bname="([^"]*)"', value) if key.strip().lower() == "content-disposition" else None
        if name and gap:
            return name[1], content
    raise Problem(400, "a part of the form has no name", 'send Content-Disposition: form-data; name="picture"')
