"""D-RISE beside the loops that other tools run: ``python benchmarks/d_rise.py``, some minutes.

Maps of 1, 3 and 10 boxes of one picture, from as many masks each; processor time of one thread, the three ways
interleaved, in F (one forward of one picture in batches of 4 in the same process, timed before and after).  Network:
EfficientNet-Lite0 with a pyramid of strides 8 and 16 and a head of two convolutions, random weights, 224 pixels: what
it has learned takes no time.

vision-explanation-methods 0.1.1 (MIT) runs where it is installed (``pip install --no-deps``).  The loop is written here
as users of captum and xplique write it: for each box its own masks, one picture a pass, the boxes after the floor and
the suppression, and the similarity of the paper.
"""

from __future__ import annotations

import importlib
import statistics
import time
import types
from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

from clearsight.core.boxes import iou_table
from clearsight.core.preprocess import Preprocess
from clearsight.kinds.box_targets import box_scores
from clearsight.kinds.detections import Detections
from clearsight.kinds.detector import Detector
from clearsight.runner.run import explain

MASKS, SIZE, BOXES, REPEATS = 128, 224, (1, 3, 10), 3


class LitePyramid(nn.Module):
    """FCOS on EfficientNet-Lite0: two levels of 64 channels, three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3))
        channels = self.backbone.feature_info.channels()
        self.lateral = nn.ModuleList(nn.Conv2d(c, 64, 1) for c in channels)
        tower = [m for _ in range(2) for m in (nn.Conv2d(64, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.ReLU())]
        self.head = nn.Sequential(*tower, nn.Conv2d(64, 8, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        fine, coarse = (lateral(f) for lateral, f in zip(self.lateral, self.backbone(z), strict=True))
        fine = fine + nn.functional.interpolate(coarse, fine.shape[2:])
        return torch.cat([_candidates(self.head(fine), 8), _candidates(self.head(coarse), 16)], 1)


def _candidates(out: Tensor, stride: int) -> Tensor:
    rows, columns = (stride * (torch.arange(n) + 0.5) for n in out.shape[2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    left, top, right, bottom = (4 * stride * nn.functional.softplus(out[:, :4])).unbind(1)
    return torch.cat([torch.stack([x - left, y - top, x + right, y + bottom], 1), out[:, 4:]], 1).flatten(2).mT


def detector() -> Detector:
    """With an objectness that lets about twenty boxes of a noise picture pass the floor."""
    torch.manual_seed(0)
    model = Detector(LitePyramid().eval(), Preprocess((SIZE, SIZE), (0.5,) * 3, (0.5,) * 3), tuple("abc"))
    last, x = model.net.head[-1], torch.rand(4, 3, SIZE, SIZE)
    with torch.no_grad():
        last.weight[4] *= 3 / model(x)[..., 4].std()
        scores = model(x)[..., 4].flatten()
        last.bias[4] -= scores.kthvalue(len(scores) - 80).values + 1.5
    return model


def loop(model: Detector, x: Tensor, found: Detections) -> list[Tensor]:
    """For each box its own masks, a picture at a time."""
    maps = []
    for box, chances in zip(found.boxes, found.probabilities, strict=True):
        total = torch.zeros(SIZE, SIZE)
        for _ in range(MASKS):
            mask = _mask()
            (seen,) = model.detect(0.5 + mask * (x - 0.5))
            if len(seen):
                cosine = nn.functional.cosine_similarity(seen.probabilities, chances[None])
                total += (iou_table(box[None], seen.boxes)[0] * cosine * seen.scores).max() * mask
        maps.append(total / MASKS)
    return maps


def _mask() -> Tensor:
    """16 x 16 cells, enlarged bilinearly and shifted."""
    large = nn.functional.interpolate((torch.rand(1, 1, 16, 16) < 0.5).float(), (238, 238), mode="bilinear")[0, 0]
    top, left = torch.randint(0, 14, (2,)).tolist()
    return large[top : top + SIZE, left : left + SIZE]


def packaged(tools: types.ModuleType, model: Detector) -> Callable[[Detector, Tensor, Detections], object]:
    """The function of vision-explanation-methods, all boxes at once."""
    common = importlib.import_module("vision_explanation_methods.explanations.common")

    def record(found: Detections) -> object:
        ones = torch.ones(len(found))
        return common.DetectionRecord(
            bounding_boxes=found.boxes, class_scores=found.probabilities, objectness_scores=ones
        )

    wrapper = types.SimpleNamespace(predict=lambda z: [record(found) for found in model.detect(z)])

    def run(_model: Detector, x: Tensor, found: Detections) -> object:
        return tools.DRISE_saliency(wrapper, x, [record(found)], MASKS, (16, 16))

    return run


def ours(model: Detector, x: Tensor, found: Detections) -> object:
    return explain(model, x.expand(len(found), -1, -1, -1), f"d-rise(masks={MASKS})", box_scores(found)).maps


def main() -> None:
    """Measure, and print a table."""
    torch.set_num_threads(1)
    model, x = detector(), torch.rand(1, 3, SIZE, SIZE)
    (found,) = model.detect(x)
    ways: dict[str, Callable[[Detector, Tensor, Detections], object]] = {"d-rise": ours}
    try:
        tools = importlib.import_module("vision_explanation_methods.explanations.drise")
        ways["vision-explanation-methods 0.1.1"] = packaged(tools, model)
    except ImportError as e:
        print(f"vision-explanation-methods is left out: {e}\n")
    ways["a loop over boxes and masks"] = loop

    def forward() -> float:
        with model.undisturbed(), torch.no_grad():
            began = time.process_time()
            model(x.expand(4, -1, -1, -1))
            return (time.process_time() - began) / 4

    def timed(way: Callable[[Detector, Tensor, Detections], object], boxes: Detections) -> float:
        before = forward()
        began = time.process_time()
        way(model, x, boxes)
        took = time.process_time() - began
        return took / statistics.mean([before, forward()]) / MASKS

    print("## D-RISE beside other tools' loops\n")
    print(f"Made by `python benchmarks/d_rise.py`: processor time for one mask of one picture, in F; {MASKS} masks,")
    print(
        f"median of {REPEATS} interleaved runs on one thread, {len(found)} boxes found in a picture of {SIZE} pixels.\n"
    )
    print("| boxes explained | " + " | ".join(ways) + " | slower than d-rise |")
    print("|---:" * (len(ways) + 2) + "|")
    ours(model, x, found[:1])
    for n in BOXES:
        runs = [[timed(way, found[:n]) for way in ways.values()] for _ in range(REPEATS)]
        medians = [statistics.median(column) for column in zip(*runs, strict=True)]
        slower = " and ".join(f"{m / medians[0]:.1f} x" for m in medians[1:])
        print(f"| {n} | " + " | ".join(f"{m:.2f}" for m in medians) + f" | {slower} |", flush=True)


if __name__ == "__main__":
    main()
