"""D-RISE: all masks of a small grid enumerated, a slow replica written from the paper, and its own doubt."""

from __future__ import annotations

import importlib
import math
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.core import rng
from clearsight.core.preprocess import Preprocess
from clearsight.explainers.common import grid_masks, linear_control
from clearsight.explainers.common.linear_control import ControlledSums, without_linear_part
from clearsight.explainers.common.mask_sums import HELD, MaskSums
from clearsight.internals.fused_forward import fused_forward
from clearsight.kinds.box_targets import box_scores
from clearsight.kinds.detector import Detector
from clearsight.testing import tiny_detector
from kindnets import shapes, small_pyramid, taught_shapes

module_of_d_rise = importlib.import_module("clearsight.explainers.d_rise")


class Affine(nn.Module):
    """One candidate of one class whose score, not its logit, is linear in the pixels."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, z: Tensor) -> Tensor:
        score = 0.3 + (z * self.weight).sum((1, 2, 3))
        box = z.new_tensor([0.0, 0, 9, 9]).expand(len(z), -1)
        return torch.cat([box, torch.full_like(score, 50.0)[:, None], score.logit()[:, None]], 1)[:, None]


@pytest.mark.parametrize(("cells", "states"), [(3, 2), (2, 4)])
def test_all_masks_of_a_grid_give_what_each_cell_adds(cells, states, monkeypatch):
    """Where the score is b + the sum of a_i m_i, E[S m_i] / p - E[S] is (1 - p) a_i; p is 1/2 and 1/4."""
    side, keep = 9 if cells == 3 else 8, 1 / states
    masks = torch.cartesian_prod(*[torch.arange(states)] * cells**2) == 0
    drawn = iter(masks.double().view(-1, cells, cells))

    def enumerated(_grid: object, kept: Tensor, _shifts: object, like: Tensor) -> Tensor:
        mask = torch.stack([next(drawn) for _ in kept])
        return mask.repeat_interleave(side // cells, 1).repeat_interleave(side // cells, 2).to(like)

    monkeypatch.setattr(grid_masks.MaskGrid, "enlarged", enumerated)
    weight = torch.randn(1, side, side, generator=torch.Generator().manual_seed(0)).double() / 200
    model = Detector(Affine(weight), Preprocess((side, side), (0.0,), (1.0,)), ("it",))
    x = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(1)).double()
    target = cs.BoxScore(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0]))
    method = cs.catalogue("explainers")["d-rise"]
    found = method(model, x, target, masks=len(masks), keep=keep, cells=cells, control=False)[0]
    cell = nn.functional.avg_pool2d((x * weight)[0], side // cells, divisor_override=1)[0]
    added = cell.repeat_interleave(side // cells, 0).repeat_interleave(side // cells, 1)
    assert float((found - (1 - keep) * added).abs().max()) < 2e-15
    assert float(added.abs().max()) > 0.01


def from_the_paper(model: Detector, x: Tensor, box: Tensor, asked: Tensor, masks: Tensor, cover: Tensor) -> Tensor:
    """Algorithm 1, a mask and a candidate at a time, before any floor: the mean of mask times similarity."""
    total = torch.zeros(x.shape[1:])
    for mask in masks:
        best = 0.0
        for *sides, objectness, first, second in model((cover + mask * (x - cover))[None])[0].tolist():
            left, top = max(sides[0], box[0]), max(sides[1], box[1])
            right, bottom = min(sides[2], box[2]), min(sides[3], box[3])
            inter = max(right - left, 0) * max(bottom - top, 0)
            union = (sides[2] - sides[0]) * (sides[3] - sides[1]) + (box[2] - box[0]) * (box[3] - box[1]) - inter
            p, q = (1 / (1 + math.exp(-v)) for v in (first, second))
            cosine = (p * asked[0] + q * asked[1]) / math.hypot(p, q) / math.hypot(*asked)
            best = max(best, inter / union * cosine / (1 + math.exp(-objectness)))
        total += best * mask[0]
    return total / len(masks)


@torch.no_grad()
def test_it_is_what_the_paper_says():
    model, x = small_pyramid(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    outputs = model(x)[0]
    raw = torch.tensor([37])
    classes = outputs[raw, 5:].argmax(1)
    target = cs.BoxScore(outputs[raw, :4], classes, raw)
    words = 'd-rise(masks=6, cells=4, keep=0.4, centre=false, control=false, sureness="objectness")'
    maps = cs.explain(model, x, words, target, seed=5).maps[0]
    with rng.seeded(5, x, "d-rise"):
        masks = grid_masks.MaskGrid((32, 32), 4, 0.4).drawn(x, torch.zeros(6, dtype=torch.long))
    cover = torch.full((3, 32, 32), 0.5)
    slow = from_the_paper(
        model, x[0], outputs[37, :4].tolist(), outputs[37, 5:].sigmoid().tolist(), masks[:, None], cover
    )
    torch.testing.assert_close(maps, slow / 0.4, rtol=1e-5, atol=1e-6)
    other = cs.BoxScore(outputs[raw, :4], 1 - classes, raw)  # another class than the candidate's own: it stands alone
    alone = nn.functional.one_hot(1 - classes, 2)[0].tolist()
    slow = from_the_paper(model, x[0], outputs[37, :4].tolist(), alone, masks[:, None], cover)
    torch.testing.assert_close(cs.explain(model, x, words, other, seed=5).maps[0], slow / 0.4, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [(7,), (4, 6), (5, 5), (2, 3, 4)])
def test_a_mask_and_its_averages_vary_together_as_over_all_masks(side):
    """Every grid of two cells along each axis at every shift, each as likely as it is."""
    grid = grid_masks.MaskGrid(side, 2, 0.3)
    axes = len(side)
    kept = torch.cartesian_prod(*[torch.tensor([False, True])] * 2**axes).view(-1, *[2] * axes)
    shifts = torch.cartesian_prod(*[torch.arange(math.ceil(n / 2)) for n in side]).view(-1, axes)
    chance = (0.7 - 0.4 * kept.double()).flatten(1).prod(1).repeat_interleave(len(shifts))  # 0.3 and 0.7
    masks = grid.enlarged(
        kept.repeat_interleave(len(shifts), 0), shifts.repeat(len(kept), 1), torch.zeros(0, dtype=torch.float64)
    )
    slopes = torch.randn(3, *grid.blocks, generator=torch.Generator().manual_seed(0)).double()
    averages = grid.averages(masks)
    assert float((chance[:, None] * averages.flatten(1)).sum(0).abs().max()) < 1e-12
    flat = (part.flatten(1) for part in (masks, averages, slopes))
    wanted = torch.einsum("n,np,nb,db->dp", chance / len(shifts), *flat)
    torch.testing.assert_close(grid.mean_product(slopes).flatten(1), wanted, rtol=1e-9, atol=1e-12)


def test_each_score_is_compared_with_a_fit_to_the_others():
    generator = torch.Generator().manual_seed(0)
    z, y = (torch.rand(9, n, generator=generator).double() - 0.5 for n in (4, 2))
    rest, slopes = without_linear_part(z, y)
    penalty = z.square().sum() / 9 * torch.eye(4)
    fits = []
    for i in range(9):
        others = torch.arange(9) != i
        fits.append(torch.linalg.solve(z[others].T @ z[others] + penalty, z[others].T @ (y - y.mean(0))[others]))
        torch.testing.assert_close(rest[i], y[i] - z[i] @ fits[i])
    torch.testing.assert_close(slopes, torch.stack(fits).mean(0))


def drawn_scores(seed: int, masks: int, *, control: bool) -> tuple[Tensor, Tensor]:
    """The map of a score that is linear in half of the pixels but for a bend, and its standard error."""
    grid, x = grid_masks.MaskGrid((6, 6), 3, 0.5), torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    sums = ControlledSums(1, grid, x, masks, control=control)
    with rng.seeded(seed, x):
        kept, shifts = grid.draw(x, torch.zeros(masks, dtype=torch.long))
    mask = grid.enlarged(kept, shifts, x)
    for part in torch.arange(masks).split(11):
        sums.add(kept[part], shifts[part], mask[part], bent(mask[part]))
    return sums.estimate(centred=True)


def bent(mask: Tensor) -> Tensor:
    seen = mask[:, :3].mean((1, 2)) - mask[:, 3:, 2:].mean((1, 2)) / 2
    return (seen + (seen - 0.3).clamp_min(0) ** 2)[:, None]


def test_the_control_leaves_the_map_what_it_is_and_lowers_its_error():
    """Beside all masks there are: 200 maps of 60 masks, their mean, and the spread that each tells of itself."""
    grid, x = grid_masks.MaskGrid((6, 6), 3, 0.5), torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    kept = torch.cartesian_prod(*[torch.tensor([False, True])] * 9).view(-1, 3, 3).repeat_interleave(4, 0)
    shifts = torch.cartesian_prod(torch.arange(2), torch.arange(2)).repeat(len(kept) // 4, 1)
    every = grid.enlarged(kept, shifts, x)
    truth = ((bent(every) - bent(every).mean())[..., None] * every).mean(0)
    spread = []
    for control in (True, False):
        maps, errors = (
            torch.stack(part) for part in zip(*[drawn_scores(i, 60, control=control) for i in range(200)], strict=True)
        )
        spread.append(maps.var(0).mean())
        short = 1 if control else 59 / 60  # the mean that is taken off holds each score itself
        bias = (maps.mean(0) / short - truth) / (maps.std(0) / math.sqrt(200))
        assert float(bias.square().mean()) < 2
        torch.testing.assert_close(errors.square().mean(0).mean().sqrt(), spread[-1].sqrt(), rtol=0.15, atol=0)
    assert float(spread[1] / spread[0]) > 4


def test_of_more_masks_several_fits_are_made(monkeypatch):
    monkeypatch.setattr(linear_control, "MOST", 25)
    grid, x = grid_masks.MaskGrid((6, 6), 3, 0.5), torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    kept, shifts = grid.draw(x.expand(40, -1, -1, -1), torch.zeros(40, dtype=torch.long))
    mask = grid.enlarged(kept, shifts, x)
    found = []
    for parts in ([slice(0, 40)], [slice(0, 20), slice(20, 40)]):
        for rows in parts:
            sums = ControlledSums(1, grid, x, len(mask[rows]), control=True)
            for one in torch.arange(40)[rows].split(5):
                sums.add(kept[one], shifts[one], mask[one], bent(mask[one]))
            found.append(sums.estimate(centred=False)[0])
    torch.testing.assert_close(found[0], (found[1] + found[2]) / 2)


def squares() -> Tensor:
    """Two red squares and a blue one, in windows of `tiny_detector`."""
    x = torch.full((1, 3, 32, 32), 0.2)
    x[0, 0, 4:8, 8:12] = x[0, 0, 20:24, 24:28] = x[0, 2, 24:28, 0:4] = 0.9
    return x


def test_masks_lie_between_cells_smoothly_and_keep_their_share():
    x = torch.rand(1, 1, 48, 40)
    with rng.seeded(0, x):
        masks = grid_masks.MaskGrid((48, 40), 8, 0.3).drawn(x, torch.zeros(2000, dtype=torch.long))
    assert masks.shape == (2000, 48, 40)
    assert 0 <= masks.min() < masks.max() <= 1 + 1e-6
    torch.testing.assert_close(masks.mean(0), torch.full((48, 40), 0.3), atol=0.05, rtol=0)
    assert float((masks[:, 1:] - masks[:, :-1]).abs().max()) < 0.3  # bilinear: no step between two pixels
    spread = masks.var(0)  # shifted by up to a cell: no pixel is always in the middle of one
    assert float(spread.min() / spread.max()) > 0.4
    assert (masks[:50] != masks[50:100]).any()


def test_the_boxes_of_one_picture_share_their_passes_and_lie_where_they_belong(monkeypatch):
    """However few pictures go through at once; where their sums do not fit, in turn and by the same masks."""
    model, x = tiny_detector(), squares()
    (found,) = model.detect(x)
    assert found.labels.tolist().count(0) == 2
    together = cs.explain(model, x.expand(3, -1, -1, -1), "d-rise(masks=400, cells=8)", box_scores(found), batch=2)
    assert together.forwards == pytest.approx(401 / 3)
    monkeypatch.setattr(module_of_d_rise, "BYTES", 1)
    in_turn = cs.explain(model, x.expand(3, -1, -1, -1), "d-rise(masks=400, cells=8)", box_scores(found))
    assert in_turn.forwards == 401
    torch.testing.assert_close(in_turn.maps, together.maps)
    assert together.diagnostics["masks"].tolist() == [400] * 3
    for i, box in enumerate(found.boxes.int().tolist()):
        alone = cs.explain(model, x, "d-rise(masks=400, cells=8)", box_scores(found[i : i + 1]))
        assert alone.forwards == 401
        torch.testing.assert_close(alone.maps[0], together.maps[i])
        top = int(together.maps[i].argmax())
        assert box[1] <= top // 32 < box[3]
        assert box[0] <= top % 32 < box[2]


def test_fused_passes_give_the_same_maps(monkeypatch):
    model, x = small_pyramid(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    outputs, raw = model(x)[0].detach(), torch.tensor([37, 60])
    target = cs.BoxScore(outputs[raw, :4], outputs[raw, 5:].argmax(1), raw)
    seen: list[int] = []
    run = model.net.stem[0]._conv_forward
    monkeypatch.setattr(model.net.stem[0], "_conv_forward", lambda z, *more: seen.append(len(z)) or run(z, *more))
    maps, asked = [], []
    for enter in (lambda *_: nullcontext(), fused_forward):
        monkeypatch.setattr(module_of_d_rise, "fused_forward", enter)
        seen.clear()
        maps.append(cs.explain(model, x.expand(2, -1, -1, -1), "d-rise(masks=128, cells=4)", target).maps)
        asked.append(sum(seen))
    assert asked[1] < asked[0] - 100  # the network itself was not asked
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-5, atol=1e-5 * float(maps[0].abs().max()))


def test_pictures_that_differ_have_masks_of_their_own_in_any_order():
    model, x = tiny_detector(), torch.cat([squares(), squares().flip(3), squares()])
    target = cs.BoxScore(torch.tensor([[8.0, 4, 12, 8], [0, 20, 4, 24], [0, 24, 4, 28]]), torch.tensor([0, 0, 1]))
    whole = cs.explain(model, x, "d-rise(masks=40, cells=8)", target)
    assert whole.forwards == pytest.approx(82 / 3)
    order = torch.tensor([1, 2, 0])
    torch.testing.assert_close(
        cs.explain(model, x[order], "d-rise(masks=40, cells=8)", target[order]).maps, whole.maps[order]
    )
    errors = cs.explain(model, x[order], "d-rise(masks=40, cells=8)", target[order]).diagnostics["standard error"]
    torch.testing.assert_close(errors, whole.diagnostics["standard error"][order])


@pytest.mark.parametrize("centred", [True, False])
def test_the_standard_error_is_the_spread_of_the_map_over_seeds(centred):
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(300, 200, 6, generator=generator).double() ** 2
    score = 0.2 + mask[..., :2] * 0.5 + 0.1 * torch.rand(300, 200, 2, generator=generator) ** 2
    maps, errors = [], []
    for m, s in zip(mask, score, strict=True):
        sums = MaskSums(2, (6,), torch.device("cpu"))
        sums.add(m[: HELD - 1], s[: HELD - 1])  # held
        sums.add(m[HELD - 1 : 50], s[HELD - 1 : 50])
        sums.add(m[50:], s[50:])
        maps.append(sums.map(centred=centred))
        errors.append(sums.standard_error(centred=centred))
    torch.testing.assert_close(torch.stack(errors).mean(0), torch.stack(maps).std(0), rtol=0.15, atol=0)


def test_it_stops_where_the_map_is_steady():
    model, x = tiny_detector(), squares()
    target = box_scores(model.detect(x)[0][:1])
    whole = cs.explain(model, x, "d-rise(masks=2000, cells=4)", target)
    early = cs.explain(model, x, "d-rise(masks=2000, cells=4, stop=0.1)", target)
    asked = int(early.diagnostics["masks"])
    assert asked < 2000
    assert asked % 256 == 0
    assert early.forwards == asked + 1
    assert float(early.diagnostics["standard error as a share of the range"]) <= 0.1
    assert float(whole.diagnostics["standard error"]) < float(early.diagnostics["standard error"])


def test_what_it_cannot_do_is_refused():
    model, x = tiny_detector(), squares()
    with pytest.raises(cs.Refused, match="d-rise takes a detector"):
        cs.explain(cs.testing.tiny_segmenter(), x, "d-rise")

    class Mine:
        kind = "detector"

        def __call__(self, outputs: Tensor) -> Tensor:
            return outputs.sum((1, 2))

        def __getitem__(self, rows: object) -> Mine:
            return self

        def words(self, labels: tuple[str, ...]) -> list[str]:
            return ["all"]

    with pytest.raises(cs.Refused, match="d-rise explains boxes, not Mine"):
        cs.explain(model, x, "d-rise", Mine())
    for options in ("masks=0", "cells=0", "keep=0.0", "stop=-1.0"):
        with pytest.raises(cs.Refused, match="must be at least 1"):
            cs.explain(model, x, f"d-rise({options})")


def test_without_the_mean_and_what_is_linear_the_map_is_as_sure_after_fewer_masks():
    """The mean similarity times the uneven cover is most of the error that the paper's sum has."""
    model = taught_shapes()
    for x in shapes(2, 7)[0]:
        target = box_scores(model.detect(x[None])[0][:1])
        controlled, centred, plain = (
            float(
                cs.explain(model, x[None], f"d-rise(masks=400, cells=8, {how})", target).diagnostics["standard error"]
            )
            for how in ("centre=true", "control=false", "centre=false, control=false")
        )
        assert (plain / centred) ** 2 > 3
        assert (centred / controlled) ** 2 > 1.5


def test_the_box_gaussian_marks_the_box_and_nothing_of_the_picture():
    """Which wins every pointing game, so that a pointing game alone tells nothing of a map of a box."""
    model, x = taught_shapes(), shapes(4, 7)[0]
    target = box_scores(model.detect(x[:1])[0][:1])[torch.zeros(4, dtype=torch.long)]
    maps = cs.explain(model, x, "box-gaussian(sigma=0.5)", target).maps
    assert torch.equal(maps[0], maps[3])
    left, top, right, bottom = target.boxes[0].tolist()
    for row, column in ((3, 5), (20, 11), (31, 0)):
        away = ((column + 0.5 - (left + right) / 2) / (right - left)) ** 2 + (
            (row + 0.5 - (top + bottom) / 2) / (bottom - top)
        ) ** 2
        assert float(maps[0, row, column]) == pytest.approx(math.exp(-2 * away), abs=1e-6)
    rows, columns = torch.arange(32)[:, None] + 0.5, torch.arange(32) + 0.5
    inside = ((columns > left) & (columns < right) & (rows > top) & (rows < bottom)).expand(4, 32, 32)
    assert cs.measure(model, x, maps, "pointing-game", target, regions=inside).tolist() == [1] * 4
    for call in ("box-gaussian(sigma=0.0)", "box-gaussian(sigma=-1.0)"):
        with pytest.raises(cs.Refused, match="must be above 0"):
            cs.explain(model, x, call, target)
