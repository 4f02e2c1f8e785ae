"""`clearsight demo detection`: the R-CNN family on one picture, and what each of its steps saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clearsight.core.output import write_whole
from clearsight.data.datasets import open_data
from clearsight.data.images import eight_bit, open_picture
from clearsight.demos import region_detectors as ways
from clearsight.demos.detection_page import render
from clearsight.demos.detection_records import DetectionDemo, Run, Setting, Stage
from clearsight.demos.region_detectors import Found
from clearsight.demos.selective_search import selective_search
from clearsight.detectors.fcos import fcos
from clearsight.errors import Refused
from clearsight.kinds.detections import detections
from clearsight.models.loading import load_classifier

PICTURE, PROPOSALS = "demo:coffee", 100
WINDOWS = (1 / 3, 1 / 2, 3 / 4)  # sides of the windows, as shares of the short side of the picture
CLASSES = 20  # of the one-shot network, as in Pascal VOC
SMALLEST = 64  # pixels of the short side of a picture
# seconds a picture that the papers give, VGG-16 on a graphics card of the time
PUBLISHED = {"R-CNN": "47", "Fast R-CNN": "0.32, and 2 for proposals", "Faster R-CNN": "0.2"}


def detection(
    folder: Path,
    *,
    picture: str = PICTURE,
    proposals: int = PROPOSALS,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> DetectionDemo:
    """Run the five ways on one picture, and write the page index.html into a folder.

    Args:
        folder: where the page goes.
        picture: words for one picture: a file, or demo:NAME.
        proposals: number of proposals; the papers take 2,000.
        seed: of the order of proposals and of untrained weights.
        say: called with a sentence when a stage begins.

    Refused: fewer than one proposal, words that name several pictures, and pictures with a side below 64 pixels.
    """
    if proposals < 1:
        raise Refused(f"proposals {proposals}", "ask for at least one")
    run = run_stages(opened(picture, seed), proposals, say)
    values = run.setting.values
    page = folder / "index.html"
    demo = DetectionDemo(run.setting.name, (values.shape[1], values.shape[0]), run.stages, run.agree, page)
    write_whole(page, render(demo, run))
    return demo


def opened(words: str, seed: int = 0) -> Setting:
    """The one picture that the words name, and the embedded model."""
    data = open_data(words)
    if len(data.pictures) != 1:
        raise Refused(f"{words} has {len(data.pictures)} pictures", "name one, such as demo:coffee or photo.jpg")
    (shown,) = data.pictures
    values = np.asarray(eight_bit(open_picture(shown.path)).convert("RGB"))
    if min(values.shape[:2]) < SMALLEST:
        raise Refused(f"{shown.name} has a side of {min(values.shape[:2])} pixels", f"give at least {SMALLEST}")
    boxes = [box for region in shown.regions or () for box in region.boxes]
    return Setting(
        load_classifier("demo", "demo detection"), shown.name, values, torch.tensor(boxes).float().reshape(-1, 4), seed
    )


def run_stages(setting: Setting, proposals: int, say: Callable[[str], None] = lambda line: None) -> Run:
    """Run all stages, each after passes that are not measured, so that none pays for the first."""
    model, x = setting.model, setting.x
    with model.undisturbed(), torch.no_grad():
        ways.by_crops(model, x, torch.tensor([[0.0, 0.0, x.shape[3], x.shape[2]]]))
        selective_search(setting.values[:SMALLEST, :SMALLEST])
        maps = ways.features(model, setting.large)
        sides = tuple(round(share * min(x.shape[2:])) for share in WINDOWS)
        windows = ways.windows(x.shape[2], x.shape[3], sides)
        say(f"sliding window: {len(windows)} crops, one pass each")
        sliding, _ = _cropped(setting, "Sliding window", windows, 0.0)
        say("selective search")
        with _timed() as searching:
            boxes = torch.from_numpy(selective_search(setting.values, most=proposals, seed=setting.seed)).float()
        say(f"R-CNN: {len(boxes)} crops, one pass each")
        slow, by_crop = _cropped(setting, "R-CNN", boxes, searching[0])
        say("Fast R-CNN, Faster R-CNN and one shot: one pass each")
        fast, by_region = _fast(setting, boxes, searching[0])
        faster, regions = _faster(setting, maps.shape[1], proposals)
        stages = (sliding, slow, fast, faster, _one_shot(setting))
    agree = float((by_crop.argmax(1) == by_region.argmax(1)).float().mean()) if len(boxes) else 1.0
    return Run(setting, windows, boxes, regions, stages, agree)


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Holds the seconds afterwards."""
    seconds = [0.0]
    start = time.perf_counter()
    yield seconds
    seconds[0] = time.perf_counter() - start


def _cropped(setting: Setting, name: str, boxes: Tensor, proposing: float) -> tuple[Stage, Tensor]:
    """Every box a crop, every crop a pass."""
    with ways.cost_of(setting.model.net) as cost, _timed() as judging:
        chances = ways.by_crops(setting.model, setting.x, boxes)
    found = setting.found(boxes, chances)
    return _stage(name, len(boxes), cost, proposing, judging[0], setting.best(boxes), found), chances


def _fast(setting: Setting, boxes: Tensor, proposing: float) -> tuple[Stage, Tensor]:
    """One pass; the same boxes are cut out of its map."""
    with ways.cost_of(setting.model.net) as cost, _timed() as judging:
        maps = ways.features(setting.model, setting.large)
        chances = ways.by_regions(setting.model, maps, boxes * setting.scale)
    found = setting.found(boxes, chances)
    return _stage("Fast R-CNN", len(boxes), cost, proposing, judging[0], setting.best(boxes), found), chances


def _faster(setting: Setting, channels: int, proposals: int) -> tuple[Stage, Tensor]:
    """One pass; a small network on its map proposes the boxes that are cut out of it."""
    rpn = ways.proposer(channels, proposals, setting.seed)
    ways.proposed(rpn, setting.large, torch.zeros(1, channels, 8, 8))
    with ways.cost_of(setting.model.net) as cost:
        with _timed() as first:
            maps = ways.features(setting.model, setting.large)
        with _timed() as proposing:
            boxes = ways.proposed(rpn, setting.large, maps)
        with _timed() as judging:
            ways.by_regions(setting.model, maps, boxes)
    best = setting.best(boxes / setting.scale)
    stage = _stage("Faster R-CNN", len(boxes), cost, proposing[0], first[0] + judging[0], best, trained=False)
    return stage, boxes / setting.scale


def _one_shot(setting: Setting) -> Stage:
    """One pass; every place of the maps says box and class."""
    net = fcos(CLASSES, tuple(setting.large.shape[1:])).eval()
    z = setting.model.normalised(setting.large)
    net(z)
    with ways.cost_of(net) as cost, _timed() as judging:
        outputs = net(z)
        detections(outputs)
    best = setting.best(outputs[0, :, :4] / setting.scale)
    return _stage("One shot", outputs.shape[1], cost, 0.0, judging[0], best, trained=False)


def _stage(
    name: str,
    boxes: int,
    cost: ways.Cost,
    proposing: float,
    judging: float,
    best: float | None,
    found: tuple[Found, ...] = (),
    *,
    trained: bool = True,
) -> Stage:
    published = PUBLISHED.get(name, "")
    return Stage(name, boxes, cost.passes, cost.pixels / 1e6, proposing, judging, published, trained, best, found)
