"""Move a picture and its truth together: mirror it, enlarge or shrink it, and shift it in its frame."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.data.truth_records import NOT_JUDGED

LEFT = 0.3  # share of an object's area that must stay in the frame for it to be learned


@dataclass(frozen=True)
class Move:
    """What is done to one picture of (height, width): mirrored, resized to (h, w), then put at (top, left).

    across, down: whether left and right, top and bottom are swapped.  Where (h, w) is larger than the frame, top and
    left are 0 or less and the picture is cut off; where it is smaller, there is a margin.
    """

    across: bool
    down: bool
    height: int
    width: int
    top: int
    left: int


def draw_move(number: int, seed: int, size: tuple[int, int], flips: str, scale: float) -> Move:
    """The move of picture `number` in an epoch whose seed this is: the same whatever else is drawn.

    The factor of its size is 1 + scale to the power of a number uniform in [-1, 1]; its place is uniform too.
    """
    words = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=7, person=b"move").digest()
    chances = torch.rand(5, generator=torch.Generator().manual_seed(int.from_bytes(words, "big"))).tolist()
    factor = (1 + scale) ** (2 * chances[2] - 1)
    height, width = (max(1, round(side * factor)) for side in size)
    top = _between(size[0] - height, chances[3])
    left = _between(size[1] - width, chances[4])
    return Move(flips != "none" and chances[0] < 0.5, flips == "both" and chances[1] < 0.5, height, width, top, left)


def _between(room: int, chance: float) -> int:
    """A whole number from 0 to the room, or from a negative room to 0."""
    return min(0, room) + int(chance * (abs(room) + 1))


def move_pixels(x: Tensor, move: Move, fill: tuple[float, ...]) -> Tensor:
    """Pixels x (C, H, W) in [0, 1] -> the same size; the margin has the colours `fill`, one for each channel."""
    high, wide = x.shape[1:]
    x = _mirrored(x, move)
    if (move.height, move.width) != (high, wide):
        smaller = move.height < high
        x = F.interpolate(x[None], (move.height, move.width), mode="bilinear", antialias=smaller)[0].clamp(0, 1)
    out = x.new_tensor(fill)[:, None, None].expand(-1, high, wide).clone()
    return _put(out, x, move)


def move_map(classes: Tensor, move: Move) -> Tensor:
    """A class map (H, W) -> the same size, each class that of the nearest pixel; the margin is not judged."""
    high, wide = classes.shape
    classes = _mirrored(classes, move)
    if (move.height, move.width) != (high, wide):
        rows, columns = (
            ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new).long()
            for new, old in ((move.height, high), (move.width, wide))
        )
        classes = classes[rows][:, columns]
    return _put(torch.full((high, wide), NOT_JUDGED, dtype=classes.dtype), classes, move)


def move_boxes(boxes: Tensor, labels: Tensor, move: Move, size: tuple[int, int], least: float) -> tuple[Tensor, Tensor]:
    """Boxes (M, 4) in pixels of the frame and their labels (M,) -> those that are left, cut off at its edges.

    Left out are boxes whose shorter side is below `least` pixels, and those of which less than 30 % is in the frame.
    """
    high, wide = size
    x1, y1, x2, y2 = boxes.unbind(1)
    if move.across:
        x1, x2 = wide - x2, wide - x1
    if move.down:
        y1, y2 = high - y2, high - y1
    across, down = move.width / wide, move.height / high
    whole = torch.stack(
        [x1 * across + move.left, y1 * down + move.top, x2 * across + move.left, y2 * down + move.top], 1
    )
    inside = torch.minimum(whole.clamp(min=0), whole.new_tensor([wide, high] * 2))
    sides = (inside[:, 2:] - inside[:, :2]).clamp(min=0)
    share = sides.prod(1) / (whole[:, 2:] - whole[:, :2]).prod(1)
    kept = (sides.amin(1) >= least) & (sides.amin(1) > 0) & (share >= LEFT)
    return inside[kept], labels[kept]


def _mirrored(x: Tensor, move: Move) -> Tensor:
    axes = [axis for axis, swapped in ((-1, move.across), (-2, move.down)) if swapped]
    return x.flip(axes) if axes else x


def _put(out: Tensor, x: Tensor, move: Move) -> Tensor:
    """x in its place in the frame `out`, both (..., h, w)."""
    high, wide = out.shape[-2:]
    y0, x0 = max(move.top, 0), max(move.left, 0)
    y1, x1 = min(move.top + move.height, high), min(move.left + move.width, wide)
    out[..., y0:y1, x0:x1] = x[..., y0 - move.top : y1 - move.top, x0 - move.left : x1 - move.left]
    return out
