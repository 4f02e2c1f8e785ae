"""Pictures inside a page, whose bytes stand there once, however often a picture is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from markupsafe import Markup

from clearsight.drawing.heatmaps import data_uri, webp
from clearsight.reporting.findings import Figure

_ONE = Markup('<img src="{}" alt="{}">')
_SIZED = Markup('<img src="{}" alt="{}" width="{}" height="{}">')
_FRAME = Markup(
    '<svg class="picture" role="img" aria-label="{0}" viewBox="0 0 {1} {2}" width="{1}" height="{2}">{3}</svg>'
)
_FIRST = Markup('<image id="{}" href="{}" width="{}" height="{}"/>')
_AGAIN = Markup('<use href="#{}"/>')


def embedding(figures: Iterable[Figure]) -> Callable[[Figure], Markup]:
    """A function that writes the figures of one page, in the order in which they stand there.

    A figure that is shown once is an <img>.  Where a picture is shown several times, the first place holds it as the
    <image> of an <svg>, and the others show that one with <use>, which needs neither a script nor a request.  Styles
    know both as `:is(img, .picture)`.

    figures: all that the page shows, a picture as often as it is shown; a drawing whose size nobody knows is an <img>.

    >>> from PIL import Image
    >>> from clearsight.drawing.heatmaps import png
    >>> a, b = (Figure(f"{name}.png", png(Image.new("RGB", (8, 4))), "", name) for name in "ab")
    >>> embedded = embedding([a, b])
    >>> first, again = str(embedded(a)), str(embedded(b))
    >>> first.count("data:"), again.count("data:"), again[-33:]
    (1, 0, '4"><use href="#picture_1"/></svg>')
    """
    addresses: dict[bytes, str] = {}
    times: Counter[str] = Counter()
    for figure in figures:
        if figure.data not in addresses:
            addresses[figure.data] = uri(figure)
        times[addresses[figure.data]] += 1
    ids: dict[str, str] = {}

    def embedded(figure: Figure) -> Markup:
        address, wh = addresses[figure.data], size(figure)
        if wh is None:
            return _ONE.format(address, figure.alt)
        if times[address] == 1:
            return _SIZED.format(address, figure.alt, *wh)
        again = address in ids
        name = ids.setdefault(address, f"picture_{len(ids) + 1}")  # an anchor holds no underscore
        return _FRAME.format(figure.alt, *wh, _AGAIN.format(name) if again else _FIRST.format(name, address, *wh))

    return embedded


def uri(figure: Figure) -> str:
    """The figure as an address that holds it: a picture as WebP, a fifth of its PNG, which lies beside the report."""
    if figure.name.endswith(".svg"):
        return data_uri(figure.data, "image/svg+xml")
    small = webp(figure.data)
    return data_uri(small, "image/webp") if len(small) < len(figure.data) else data_uri(figure.data)


def size(figure: Figure) -> tuple[int, int] | None:
    """Width and height of a PNG, which keep its place while the page is laid out."""
    if figure.data[:8] != b"\x89PNG\r\n\x1a\n" or len(figure.data) < 24:
        return None
    return int.from_bytes(figure.data[16:20], "big"), int.from_bytes(figure.data[20:24], "big")
