"""D-RISE beside other tools' loops: ``python benchmarks/d_rise.py``, some ten minutes, writes d_rise.md.

Maps of 1, 3 and 10 boxes of one picture, all ways in turn in one process and one thread, so that what else the machine
does meets them alike.  Counted is the time of the processor, in F: one plain forward of one picture in batches of 4,
timed before and after each run.  The network is clearsight's FCOS on EfficientNet-Lite0, taught on squares and discs
for a minute; the picture has twelve of them.

vision-explanation-methods 0.1.1 (MIT) and xplique 2.0.2 (MIT, on TensorFlow) run where they are installed.  The loop is
written here as users of captum write it: for each box a function of the picture, which is called with one masked
picture at a time.  All have cells of 16 x 16, each kept with probability 1/2, over the mean colour or black.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import statistics
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from clearsight.core.boxes import iou_table
from clearsight.core.catalogue import catalogue
from clearsight.core.preprocess import Preprocess
from clearsight.kinds.box_targets import box_scores
from clearsight.kinds.candidates import candidates
from clearsight.kinds.detections import Detections
from clearsight.kinds.detector import Detector
from clearsight.models.loading import load
from clearsight.runner.run import explain

HERE = Path(__file__).parent
MASKS, SIZE, BOXES, REPEATS, STEPS = 100, 224, (1, 3, 10), 3, 90
RUNS = 4  # maps of the same box from which an error is worked out
UNCONTROLLED = "d-rise(control=false)"
DOUBT = {"d-rise": 1000, UNCONTROLLED: 1000, "xplique 2.0.2": 500}  # masks of such a map; of the others:
OTHERS = 400
Way = Callable[[Detector, Tensor, Detections, int], list[Tensor]]  # model, picture, boxes, masks -> a map for each box


def pictures(number: int, seed: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Twelve squares (class 1) and discs on noise, in cells of 56 pixels; their boxes and classes."""
    g = torch.Generator().manual_seed(seed)
    x = 0.3 + 0.3 * torch.rand(number, 3, SIZE, SIZE, generator=g)
    rows, columns = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    boxes, classes = [], []
    for picture in x:
        cell = torch.randperm(16, generator=g)[:12]
        side = 24 + 24 * torch.rand(12, generator=g)
        corner = 56 * torch.stack([cell % 4, cell // 4], 1) + torch.rand(12, 2, generator=g) * (56 - side)[:, None]
        kinds = torch.randint(0, 2, (12,), generator=g)
        for (left, top), long, kind in zip(corner.tolist(), side.tolist(), kinds.tolist(), strict=True):
            across, down = (columns - left - long / 2).abs(), (rows - top - long / 2).abs()
            inside = torch.maximum(across, down) < long / 2 if kind else torch.hypot(across, down) < long / 2
            picture[:, inside] = torch.rand(3, 1, generator=g)
        boxes.append(torch.cat([corner, corner + side[:, None]], 1))
        classes.append(kinds)
    return x, boxes, classes


def detector() -> Detector:
    """FCOS from the embedded backbone, taught for `STEPS` batches of 4."""
    torch.manual_seed(0)
    net = catalogue("detectors")["fcos"](2, (3, SIZE, SIZE))
    net.backbone.load_state_dict(load("demo").net.state_dict(), strict=False)
    model = Detector(net, Preprocess((SIZE, SIZE), (0.5,) * 3, (0.5,) * 3), ("disc", "square"))
    adam = torch.optim.AdamW(net.parameters(), 1e-3)
    net.train()
    for step in range(STEPS):
        x, boxes, classes = pictures(4, step)
        losses = net.loss(model.normalised(x), boxes, classes)
        adam.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        adam.step()
    net.eval()
    return model


def ours(model: Detector, x: Tensor, found: Detections, masks: int, *, control: bool = True) -> list[Tensor]:
    copies, call = x.expand(len(found), -1, -1, -1), f"d-rise(masks={masks}, control={control})"
    return list(explain(model, copies, call, box_scores(found), seed=next(SEEDS)).maps)


SEEDS: Iterator[int] = itertools.count()


def loop(model: Detector, x: Tensor, found: Detections, masks: int) -> list[Tensor]:
    """For each box its own masks, a picture at a time, the boxes after the floor and the suppression."""
    maps = []
    for box, chances in zip(found.boxes, found.probabilities, strict=True):

        def similarity(seen: Tensor, box: Tensor = box, chances: Tensor = chances) -> Tensor:
            (boxes,) = model.detect(seen)
            if not len(boxes):
                return torch.zeros(())
            cosine = nn.functional.cosine_similarity(boxes.probabilities, chances[None])
            return (iou_table(box[None], boxes.boxes)[0] * cosine * boxes.scores).max()

        drawn = [mask_of_cells() for _ in range(masks)]
        scores = torch.stack([similarity(0.5 + mask * (x - 0.5)) for mask in drawn])
        maps.append(torch.einsum("n,nhw->hw", scores, torch.stack(drawn)) / masks)
    return maps


def mask_of_cells() -> Tensor:
    """16 x 16 cells, enlarged bilinearly and shifted."""
    large = nn.functional.interpolate((torch.rand(1, 1, 16, 16) < 0.5).float(), (238, 238), mode="bilinear")[0, 0]
    top, left = torch.randint(0, 14, (2,)).tolist()
    return large[top : top + SIZE, left : left + SIZE]


def with_vision_explanation_methods() -> Way:
    """The package's function, which gives all boxes their maps from the same masks."""
    tools: types.ModuleType = importlib.import_module("vision_explanation_methods.explanations.drise")
    common = importlib.import_module("vision_explanation_methods.explanations.common")

    def record(found: Detections) -> object:
        ones = torch.ones(len(found))
        return common.DetectionRecord(
            bounding_boxes=found.boxes, class_scores=found.probabilities, objectness_scores=ones
        )

    def run(model: Detector, x: Tensor, found: Detections, masks: int) -> list[Tensor]:
        wrapper = types.SimpleNamespace(predict=lambda z: [record(boxes) for boxes in model.detect(z)])
        (maps,) = tools.DRISE_saliency(wrapper, x, [record(found)], masks, (16, 16))
        return [one["detection"][0] for one in maps]

    return run


class Probabilities(nn.Module):
    """A detector as xplique takes one: boxes, objectness and classes as probabilities, before any suppression."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.net, self.model = model.net, model

    def forward(self, x: Tensor) -> Tensor:
        parts = candidates(self.model(x))
        return torch.cat([parts.boxes, parts.objectness.sigmoid()[..., None], parts.classes.sigmoid()], 2)


def with_xplique() -> Way:
    """Its Rise with the operator for detection; each box is a picture of its own, as its documentation says."""
    tf = importlib.import_module("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    wrappers, attributions = (importlib.import_module(f"xplique.{name}") for name in ("wrappers", "attributions"))

    @functools.cache
    def wrapped(model: Detector) -> object:
        return wrappers.TorchWrapper(Probabilities(model).eval(), "cpu", is_channel_first=True, requires_grad=False)

    def run(model: Detector, x: Tensor, found: Detections, masks: int) -> list[Tensor]:
        rise = attributions.Rise(
            wrapped(model), batch_size=4, operator="object detection", nb_samples=masks, grid_size=16, mask_value=0.5
        )
        boxes = torch.cat([found.boxes, found.scores[:, None], found.probabilities], 1).numpy()
        copies = x.expand(len(found), -1, -1, -1).permute(0, 2, 3, 1).numpy()
        return list(torch.from_numpy(rise.explain(copies, boxes).numpy())[..., 0])

    return run


def ways() -> tuple[dict[str, Way], list[str]]:
    """Every way that can run here, and why others cannot."""
    found: dict[str, Way] = {"d-rise": ours}
    missing = []
    for name, make in (
        ("vision-explanation-methods 0.1.1", with_vision_explanation_methods),
        ("xplique 2.0.2", with_xplique),
    ):
        try:
            found[name] = make()
        except ImportError as e:
            missing.append(f"{name} is left out: {e}")
    return found | {"a captum-style loop": loop}, missing


def forward(model: Detector, x: Tensor) -> float:
    """Seconds of one plain forward of one picture, in a batch of 4."""
    with model.undisturbed(), torch.no_grad():
        began = time.process_time()
        model(x.expand(4, -1, -1, -1))
        return (time.process_time() - began) / 4


def timed(way: Way, model: Detector, x: Tensor, found: Detections, masks: int) -> tuple[float, list[Tensor]]:
    """F for one mask, and the maps."""
    before = forward(model, x)
    began = time.process_time()
    maps = way(model, x, found, masks)
    took = time.process_time() - began
    return took / statistics.mean([before, forward(model, x)]) / masks, maps


def noise(maps: list[Tensor]) -> float:
    """The variance of a map over its masks, as a multiple of the variance of the map without error over the picture.

    Two maps from masks of their own correlate by 1 / (1 + this), whatever their scale: the mean over all pairs.  It is
    infinite where they do not.
    """
    alike = torch.corrcoef(torch.stack([m.flatten() for m in maps]).double())
    mean = float(alike[~torch.eye(len(maps), dtype=torch.bool)].mean())
    return 1 / mean - 1 if mean > 0 else math.inf


def of_cost(model: Detector, x: Tensor, found: Detections, all_ways: dict[str, Way]) -> list[str]:
    lines = ["| boxes | " + " | ".join(all_ways) + " |", "|---:" * (len(all_ways) + 1) + "|"]
    for n in BOXES:
        runs = [[timed(w, model, x, found[:n], MASKS)[0] for w in all_ways.values()] for _ in range(REPEATS)]
        cells = []
        for column in zip(*runs, strict=True):
            ratio = statistics.median(c / r[0] for c, r in zip(column, runs, strict=True))
            beside = f", {ratio:.1f} x" if column[0] != runs[0][0] else ""
            cells.append(f"{statistics.median(column):.2f} ({min(column):.2f} to {max(column):.2f}){beside}")
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines


def of_accuracy(model: Detector, x: Tensor, found: Detections, all_ways: dict[str, Way]) -> list[str]:
    """One box: F for a mask, the map's error, how many masks have the error of d-rise's, and in how much longer."""
    cost: dict[str, list[float]] = {name: [] for name in all_ways}
    maps: dict[str, list[Tensor]] = {name: [] for name in all_ways}
    for _ in range(RUNS):
        for name, way in all_ways.items():
            took, (one,) = timed(way, model, x, found[:1], DOUBT.get(name, OTHERS))
            cost[name].append(took)
            maps[name].append(one)
    each = {name: noise(maps[name]) * DOUBT.get(name, OTHERS) for name in all_ways}  # of one mask
    lines = [
        "| way | F a mask | error of 1000 masks | masks for the error of d-rise's 1000 | times d-rise's time |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, own in each.items():
        masks, median = 1000 * own / each["d-rise"], statistics.median(cost[name])
        slower = masks / 1000 * median / statistics.median(cost["d-rise"])
        lines.append(f"| {name} | {median:.2f} | {math.sqrt(own / 1000):.2f} | {masks:.0f} | {slower:.1f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure, and write the tables."""
    warnings.simplefilter("ignore")
    all_ways, missing = ways()
    torch.set_num_threads(1)
    model, x = detector(), pictures(1, 10**6)[0]
    (found,) = model.detect(x)
    print(f"{len(found)} boxes, scores {[round(s, 2) for s in found.scores.tolist()]}", flush=True)
    first = timed(ours, model, x, found[:1], MASKS)[0]
    for way in all_ways.values():
        way(model, x, found[:1], MASKS)
    again = timed(ours, model, x, found[:1], MASKS)[0]
    sure = of_accuracy(model, x, found, all_ways | {UNCONTROLLED: functools.partial(ours, control=False)})
    text = [
        "## D-RISE beside other tools' loops\n",
        "Made by `python benchmarks/d_rise.py`: processor time of one thread, in F, a plain forward of one picture in",
        f"batches of 4 ({SIZE} pixels, FCOS on EfficientNet-Lite0), timed before and after each run; all ways in turn.",
        f"F for one mask: median (least to most) of {REPEATS} runs of {MASKS} masks, and the median of how many times",
        f"d-rise's it is.  Its first run took {(first - again) * MASKS:.0f} F more, once: it records the net.\n",
        *of_cost(model, x, found, all_ways),
        *(f"\n{line}" for line in missing),
        "\nOne box, until its map is as sure.  The error is the spread of a map over sets of masks, as a share of its",
        f"spread over the picture, by how {RUNS} maps from masks of their own correlate.  It falls with the root of",
        "the masks, so the time for an error is in proportion to F a mask times the error squared.\n",
        *sure,
    ]
    (HERE / "d_rise.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
