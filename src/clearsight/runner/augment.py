"""The runner of augmentations, which distrusts them, and what `clearsight data augment` does: sheets of versions.

Random numbers belong to the picture, the call and its place among the calls: neighbours and batch size cannot show, but
in what mixes pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from clearsight.core import rng
from clearsight.core.catalogue import Call, catalogue, parse, split_calls
from clearsight.core.classifier import Preprocess
from clearsight.core.output import write_whole
from clearsight.data.datasets import Picture, Pictures
from clearsight.data.file_stems import named
from clearsight.data.images import eight_bit, of_bytes, open_picture, to_pixels
from clearsight.errors import Refused

PARTNERS = 8  # pictures that a sheet mixes
ROUNDING = 1e-4  # by which the shares of a label may miss 1
FEW = "it mixes pictures: give several"


def read(words: str) -> tuple[Call, ...]:
    """The augmentations in words, in the order in which they are done; "none" and "" are no augmentation.

    What resizes is done first, while the picture has all its pixels, and what mixes pictures last.  Refused: unknown
    names and options, two that resize, what asks for more than the runner gives.

    >>> [str(call) for call in read("mixup, flip, crop(scale=0.5)")]
    ['crop(scale=0.5)', 'flip', 'mixup']
    """
    if words.strip().lower() in ("", "none"):
        return ()
    calls = [parse(part, "augmentations") for part in split_calls(words)]
    for call in calls:
        if more := call.method.injected - {"size"}:
            raise Refused(
                f"{call.method.name} asks for {', '.join(sorted(more))}: give every option but size a default"
            )
        if resizes(call) and mixes(call):
            raise Refused(f"{call.method.name} both resizes and mixes: pictures are resized one by one; make it two")
    resizing = [str(call) for call in calls if resizes(call)]
    if len(resizing) > 1:
        raise Refused(f"{' and '.join(resizing)} both resize: leave one of them out")
    return tuple(sorted(calls, key=lambda call: mixes(call) - resizes(call)))


def resizes(call: Call) -> bool:
    return "size" in call.method.injected


def mixes(call: Call) -> bool:
    return "mixes" in call.method.claims


def augment(
    pictures: Sequence[Tensor], y: Tensor, calls: Sequence[Call], size: tuple[int, int], *, seed: int
) -> tuple[Tensor, Tensor]:
    """Pictures (C, h, w), uint8 or float in [0, 1], and shares y (B, K) -> (B, C, *size) float32 and shares (B, K).

    calls: as `read` gives them.  Where one of them resizes, the pictures may be of any size, else they are of `size`
    (ValueError).  Same seed, same result.  Refused, by name: a method that gives another shape, values that are not
    finite, or shares that are negative or do not sum to 1; pixels beyond [0, 1] are set to its ends.
    """
    if not len(pictures) or len(pictures) != len(y) or y.dim() != 2:
        raise ValueError(f"{len(pictures)} pictures and shares {tuple(y.shape)}: one row (K,) for each, at least one")
    each = [_pixels(picture) for picture in pictures]
    y = y.detach().clone()
    todo = list(enumerate(calls, 1))
    with torch.no_grad():
        if todo and resizes(todo[0][1]):
            place, call = todo.pop(0)
            done = [_run(call, place, x[None], row, size, seed) for x, row in zip(each, y[:, None], strict=True)]
            each, y = [x[0] for x, _ in done], torch.cat([row for _, row in done])
        shapes = {tuple(x.shape) for x in each}
        if shapes != {(len(each[0]), *size)}:
            found = ", ".join(map(str, sorted(shapes)))
            raise ValueError(f"pictures of shape {found}, not of size {tuple(size)}: resize them, or add crop")
        x = torch.stack(each)
        for place, call in todo:
            x, y = _run(call, place, x, y, size, seed)
    return x, y


def _pixels(picture: Tensor) -> Tensor:
    """float32 in [0, 1] in memory of its own, or an error."""
    if picture.dim() != 3 or len(picture) not in (1, 3) or not picture.numel():
        raise ValueError(f"a picture of shape {tuple(picture.shape)}: (1, h, w) is grey, (3, h, w) is RGB")
    if picture.dtype == torch.uint8:
        return of_bytes(picture)
    low, high = picture.aminmax()
    if not picture.is_floating_point() or not (low >= 0 and high <= 1):
        raise ValueError(f"pixels of {picture.dtype} from {low:.3g} to {high:.3g}: give uint8, or floats in [0, 1]")
    return picture.detach().to(torch.float32, copy=True)


def _run(call: Call, place: int, x: Tensor, y: Tensor, size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """One call on pictures x (B, C, h, w) and shares y (B, K), checked."""
    shape = (*x.shape[:2], *size) if resizes(call) else tuple(x.shape)
    options = {**call.options, "size": tuple(size)} if resizes(call) else call.options
    labels = y.shape
    with _named(call), rng.seeded(seed, x, what=f"{call} at place {place}"):
        found = call.method(x, y, **options)
    if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(part, Tensor) for part in found):
        raise Refused(f"{call.method.name} gave {type(found).__name__}, not two tensors: pictures and shares")
    new, shares = found
    if tuple(new.shape) != shape or shares.shape != labels:
        raise Refused(
            f"{call.method.name} gave pictures {tuple(new.shape)} and shares {tuple(shares.shape)}, not {shape} and "
            f"{tuple(labels)}"
        )
    if not bool(torch.stack(new.aminmax()).isfinite().all()):  # not a number stays one
        raise Refused(f"{call.method.name} gave pixels that are not finite")
    if not bool((shares >= 0).all() and ((shares.sum(1) - 1).abs() <= ROUNDING).all()):
        raise Refused(f"{call.method.name} gave shares of the classes that are negative or do not sum to 1")
    return new.float().clamp(0, 1), shares.to(y.dtype)


@contextmanager
def _named(call: Call) -> Iterator[None]:
    """What goes wrong in a method of the user's own file is refused by its name; defects of ours go on."""
    try:
        yield
    except Refused as e:
        raise Refused(f"{call.method.name}: {e}") from e
    except Exception as e:
        if ".py:" not in call.method.name:
            raise
        raise Refused(f"{call.method.name} failed: {type(e).__name__}: {e}") from e


# Sheets ---------------------------------------------------------------------------------------------------------------


def augment_pictures(
    data: Pictures,
    words: Sequence[str],
    preprocess: Preprocess,
    make_folder: Callable[[], Path],
    *,
    samples: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """A sheet for each picture: a row for each augmentation, the picture itself and so many random versions of it.

    words: a call, or several with commas that are done one after the other in one row; without any, the catalogue.
    What resizes sees the whole picture, all else what the model is shown.  What mixes takes others of the pictures for
    partners, and the shares of the classes stand below; with one picture alone it is left out.  Pictures that cannot be
    read are named and left out; it is an error if nothing is left.
    """
    if samples < 1:
        raise Refused(f"samples={samples}: at least 1")
    asked = [read(word) for word in words] if words else [(Call(m),) for m in catalogue("augmentations").values()]
    if not all(asked):
        raise Refused("none leaves the pictures as they are: name an augmentation, such as -a flip")
    broken = [{"file": name, "reason": reason} for name, reason in data.broken]
    company = _company(data.pictures, preprocess)
    rows = [calls for calls in asked if len(company) > 1 or not any(map(mixes, calls))]
    left_out = [f"left out {_spelled(calls)}: {FEW}" for calls in asked if calls not in rows]
    if not rows:
        raise Refused(f"{_spelled(asked[0])}: {FEW}")
    where: Path | None = None
    told: list[dict[str, Any]] = []
    for picture, stem in named(data.pictures):
        try:
            image = open_picture(picture.path)
        except Refused as e:
            broken.append({"file": picture.name, "reason": str(e)})
            continue
        versions = [augmented_versions(picture, image, calls, company, preprocess, samples, seed) for calls in rows]
        where = where or make_folder()
        drawn = _sheet(picture, to_pixels(image, preprocess), rows, versions, seed)
        file = write_whole(where / f"{stem}.png", partial(drawn.save, format="PNG"))
        told.append({"picture": picture.name, "sheet": str(file), "augmentations": [_spelled(c) for c in rows]})
    if where is None:
        reason = f" ({broken[0]['file']}: {broken[0]['reason']})" if broken else ""
        raise Refused(f"none of the pictures can be read{reason}")
    lines = [*(f"left out {b['file']}: {b['reason']}" for b in broken), *left_out]
    return {
        "lines": [*lines, *(f"{t['picture']}: {t['sheet']}" for t in told), str(where)],
        "folder": str(where),
        "seed": seed,
        "pictures": told,
        "broken": broken,
    }


def _spelled(calls: Sequence[Call]) -> str:
    return ", ".join(map(str, calls))


def _company(pictures: Sequence[Picture], preprocess: Preprocess) -> list[tuple[Picture, Image.Image]]:
    """The first few pictures that can be read, one more than are mixed: whoever is asked about is taken out."""
    found: list[tuple[Picture, Image.Image]] = []
    for picture in pictures:
        try:
            image = open_picture(picture.path)
        except Refused:
            continue
        found.append((picture, image))
        if len(found) == PARTNERS:
            break
    return found


def augmented_versions(
    picture: Picture,
    image: Image.Image,
    calls: Sequence[Call],
    company: Sequence[tuple[Picture, Image.Image]],
    preprocess: Preprocess,
    samples: int,
    seed: int,
) -> list[tuple[Tensor, str]]:
    """So many (C, H, W) that the calls make of a picture, each with the shares of the classes where they are mixed."""
    mixed = any(map(mixes, calls))
    others = [(p, i) for p, i in company if p.name != picture.name][: PARTNERS - 1] if mixed else []
    batch = [(picture, image), *others]
    words = [_class(p) for p, _ in batch]
    classes = list(dict.fromkeys(words))
    y = torch.nn.functional.one_hot(torch.tensor([classes.index(w) for w in words]), len(classes)).float()
    whole = resizes(calls[0])
    pixels = [_whole(i, preprocess) if whole else to_pixels(i, preprocess) for _, i in batch]
    height, width = preprocess.size
    found = []
    for k in range(samples):
        x, shares = augment(pixels, y, calls, (height, width), seed=(seed + k) % 2**63)
        found.append((x[0], _shares(shares[0], classes) if mixed else ""))
    return found


def _class(picture: Picture) -> str:
    return picture.labels[0] if picture.labels else picture.path.stem


def _shares(shares: Tensor, classes: Sequence[str]) -> str:
    """The shares of the classes in words, the largest first: "cat 0.60, dog 0.40"."""
    ranked = sorted(zip(shares.tolist(), classes, strict=True), key=lambda pair: -pair[0])
    return ", ".join(f"{word} {share:.2f}" for share, word in ranked if share >= 0.005)


def _whole(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """All of a picture, (C, h, w) uint8 in the channels of the model."""
    if preprocess.channels not in (1, 3):
        raise Refused(f"the model takes {preprocess.channels} channels; pictures have 1 (grey) or 3 (RGB)")
    pixels: Tensor = F.pil_to_tensor(eight_bit(image).convert("L" if preprocess.channels == 1 else "RGB"))
    return pixels


def _sheet(
    picture: Picture,
    x: Tensor,
    rows: Sequence[Sequence[Call]],
    versions: Sequence[Sequence[tuple[Tensor, str]]],
    seed: int,
) -> Image.Image:
    """A row for each augmentation; x (C, H, W) is the picture as the model is shown it."""
    from clearsight.drawing.heatmaps import Tile, photo, sheet

    tiles: list[list[Tile]] = []
    for calls, found in zip(rows, versions, strict=True):
        told = calls[0].method.summary if len(calls) == 1 else ""
        tiles.append([(photo(x), f"{_spelled(calls)}\n{told}"), *((photo(v), words) for v, words in found)])
    last = seed + len(versions[0]) - 1
    note = f"The first of each row is the picture itself, {' × '.join(map(str, reversed(x.shape[1:])))} pixels as the "
    note += f"model is shown it; the others are random versions of it, of the seeds {seed} to {last}."
    return sheet(tiles, title=picture.name, note=note)
