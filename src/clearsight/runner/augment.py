"""Run augmentations, and check what they return.

Random numbers depend on the picture, the call and its place among the calls: neighbours and batch size matter only to
augmentations that mix pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import Call, parse, split_calls
from clearsight.data.images import of_bytes
from clearsight.errors import Refused

ROUNDING = 1e-4  # by which the shares of a label may miss 1


def read(words: str) -> tuple[Call, ...]:
    """Read the augmentations that words name, in the order in which they are run; "none" and "" are no augmentation.

    Those that resize run first, while the picture has all its pixels, and those that mix pictures last.  Refused:
    unknown names and options, two that resize, and one that needs more than the runner passes.

    >>> [str(call) for call in read("mixup, flip, crop(scale=0.5)")]
    ['crop(scale=0.5)', 'flip', 'mixup']
    """
    if words.strip().lower() in ("", "none"):
        return ()
    calls = [parse(part, "augmentations") for part in split_calls(words)]
    for call in calls:
        if more := call.method.injected - {"size"}:
            raise Refused(f"{call.method.name} needs {', '.join(sorted(more))}: give every option but size a default")
        if resizes(call) and mixes(call):
            raise Refused(
                f"{call.method.name} both resizes and mixes: write two, since pictures are resized one by one"
            )
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
    finite, or shares that are negative or do not sum to 1; pixels beyond [0, 1] are clipped.
    """
    x, y, _ = _augment(pictures, None, y, calls, size, seed)
    return x, y


def augment_regions(
    pictures: Sequence[Tensor],
    regions: Sequence[Tensor],
    y: Tensor,
    calls: Sequence[Call],
    size: tuple[int, int],
    *,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and regions (1, h, w) of the pictures, moved as these are: (B, 1, *size), 1 inside, 0 outside.

    An augmentation that moves pixels (it claims "moves") is run on the regions too, with the same random numbers; the
    others leave them as they are.  The calls are those that `fits_regions` lets through.
    """
    x, y, inside = _augment(pictures, regions, y, calls, size, seed)
    assert inside is not None
    return x, y, inside


def fits_regions(calls: Sequence[Call]) -> None:
    """Refuse augmentations of which it is not known how they move annotated regions.

    Those are the ones that mix pictures, and rand-augment, which moves pixels and changes their values at once.
    """
    for call in calls:
        if mixes(call) or call.method.claims >= {"moves", "recolours"}:
            raise Refused(
                f"{call.method.name} does not go with annotations: where the regions are afterwards is not known",
                "leave it out of --augment; crop, flip, affine, colour-jitter, lighting and blur go with them",
            )


def _augment(
    pictures: Sequence[Tensor],
    regions: Sequence[Tensor] | None,
    y: Tensor,
    calls: Sequence[Call],
    size: tuple[int, int],
    seed: int,
) -> tuple[Tensor, Tensor, Tensor | None]:
    if not len(pictures) or len(pictures) != len(y) or y.dim() != 2:
        raise ValueError(f"{len(pictures)} pictures and shares {tuple(y.shape)}: one row (K,) for each, at least one")
    each = [_pixels(picture) for picture in pictures]
    insides = None if regions is None else [_pixels(region) for region in regions]
    y = y.detach().clone()
    todo = list(enumerate(calls, 1))
    with torch.no_grad():
        if todo and resizes(todo[0][1]):
            place, call = todo.pop(0)
            if insides is not None:
                insides = [
                    _run(call, place, part[None], row, size, seed, drawn_for=x[None])[0][0]
                    for x, part, row in zip(each, insides, y[:, None], strict=True)
                ]
            done = [_run(call, place, x[None], row, size, seed) for x, row in zip(each, y[:, None], strict=True)]
            each, y = [x[0] for x, _ in done], torch.cat([row for _, row in done])
        shapes = {tuple(x.shape) for x in each}
        if shapes != {(len(each[0]), *size)}:
            listed = ", ".join(map(str, sorted(shapes)))
            raise ValueError(f"pictures of shape {listed}, not of size {tuple(size)}: resize them, or add crop")
        x = torch.stack(each)
        inside = None if insides is None else torch.stack(insides)
        for place, call in todo:
            if inside is not None and "moves" in call.method.claims:
                inside, _ = _run(call, place, inside, y, size, seed, drawn_for=x)
            x, y = _run(call, place, x, y, size, seed)
    return x, y, inside


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


def _run(
    call: Call,
    place: int,
    x: Tensor,
    y: Tensor,
    size: tuple[int, int],
    seed: int,
    drawn_for: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One call on pictures x (B, C, h, w) and shares y (B, K), checked; drawn_for: whose random numbers it uses."""
    shape = (*x.shape[:2], *size) if resizes(call) else tuple(x.shape)
    options = {**call.options, "size": tuple(size)} if resizes(call) else call.options
    labels = y.shape
    with (
        _refuse_by_name(call),
        rng.seeded(seed, x if drawn_for is None else drawn_for, what=f"{call} at place {place}"),
    ):
        result = call.method(x, y, **options)
    if not isinstance(result, tuple) or len(result) != 2 or not all(isinstance(part, Tensor) for part in result):
        raise Refused(f"{call.method.name} gave {type(result).__name__}, not two tensors: pictures and shares")
    new, shares = result
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
def _refuse_by_name(call: Call) -> Iterator[None]:
    """Refuse errors in a method of the user's own file by its name; others are clearsight's and are raised."""
    try:
        yield
    except Refused as e:
        raise Refused(f"{call.method.name}: {e}") from e
    except Exception as e:
        if ".py:" not in call.method.name:
            raise
        raise Refused(f"{call.method.name} failed: {type(e).__name__}: {e}") from e
