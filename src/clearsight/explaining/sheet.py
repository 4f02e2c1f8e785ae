"""The pictures of explanations side by side, with their words."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from clearsight.auditing.map_tests import MapTest, tests_in_words
from clearsight.drawing.heatmaps import BESIDE, SCALE_WORDS, Tile, boxed, overlay, photo, sheet
from clearsight.errors import Refused
from clearsight.runner.results import Explanation, caption


def explanation_sheet(
    found: Sequence[Explanation],
    *,
    names: Sequence[str] = (),
    probabilities: Sequence[float] | Tensor | None = None,
    regions: Tensor | None = None,
    tests: Sequence[Sequence[MapTest]] = (),
    boxes: Tensor | None = None,
    outlined: str = "the annotated object",
    title: str = "",
) -> Image.Image:
    """The picture and what each method makes of it, side by side; a row for each picture and target.

    More than five methods go on in the rows below, where the place under the picture stays empty.

    found: one Explanation per method, all of the same pictures and targets in the same order (a picture that is asked
    about for three classes stands there three times).  names (B): what to call the pictures; probabilities (B): of the
    class each row asks about; regions (B, *S) bool: outlined on every picture; tests: as ``examine`` gives them for
    found; their words stand under the maps, and those that fail are drawn in grey.  boxes (M, 4): thin lines on each
    picture, in its pixels, for what else was found there; outlined: what the regions are.
    """
    if not found or any(e.maps.shape != found[0].maps.shape for e in found):
        raise Refused("a sheet needs at least one explanation, and all of the same pictures")
    first = found[0]
    rows: list[list[Tile]] = []
    for i, x in enumerate(first.x):
        region = None if regions is None else regions[i]
        name = names[i] if names else f"picture {i + 1}"
        seen = f"{name}\n{' × '.join(map(str, reversed(x.shape[1:])))} pixels as the model sees it"
        drawn = photo(x, region)
        if boxes is not None:
            drawn = boxed(drawn, boxes, (x.shape[1], x.shape[2]))
        picture: Tile = (drawn, seen)
        told: list[MapTest | None] = [each[i] for each in tests] or [None] * len(found)
        tiles = [
            (
                overlay(x, e.maps[i], signed=e.signed, region=region, grey=bool(t and t.failed)),
                "\n".join([caption(e, i, probabilities), *(t.lines() if t else ())]),
            )
            for e, t in zip(found, told, strict=True)
        ]
        starts = range(0, len(tiles), BESIDE)
        rows += [[(None, "") if start else picture, *tiles[start : start + BESIDE]] for start in starts]
    outline = f" The double line is {outlined}." if regions is not None else ""
    note = f"{SCALE_WORDS}{outline} {tests_in_words('picture') if tests else ''}"
    note = f"{note.rstrip()} Model {first.model}, weights {first.fingerprint}, seed {first.seed}."
    failed = [[bool(t.failed) for t in each] for each in tests] or [[False]] * len(found)
    colour = [e.signed for e, bad in zip(found, failed, strict=True) if not all(bad)]
    greys = [e.signed for e, bad in zip(found, failed, strict=True) if any(bad)]
    return sheet(
        rows, title=title, signed=any(colour) if colour else None, grey=any(greys) if greys else None, note=note
    )
