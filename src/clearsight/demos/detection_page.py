"""The page of `clearsight demo detection`: one HTML file that opens from disk, with no script and no request."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from clearsight._version import __version__
from clearsight.core.boxes import iou_table, suppress
from clearsight.demos import box_pictures as pictures
from clearsight.demos import region_detectors as ways
from clearsight.demos.detection_records import DetectionDemo, Run, Stage
from clearsight.reporting.embedding import embedding
from clearsight.reporting.figures import figure
from clearsight.reporting.findings import Figure
from clearsight.reporting.html_report import anchors, linked, tight
from clearsight.reporting.page_template import page_part, page_template

SHOWN = 60  # proposals in a drawing
# the worked example of suppression: boxes in pixels, and their scores
EXAMPLE = ((0.0, 0.0, 10.0, 10.0), (1.0, 1.0, 11.0, 11.0), (14.0, 2.0, 22.0, 10.0), (2.0, 0.0, 9.0, 6.0))
SCORES = (0.9, 0.8, 0.7, 0.6)
LIMIT = 0.5


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    id: str
    title: str
    words: tuple[str, ...]
    figures: tuple[Figure, ...]
    paper: str = ""
    facts: dict[str, str] = field(default_factory=dict)


def render(demo: DetectionDemo, run: Run) -> str:
    """The page as HTML: styles and pictures inside, everything from the data escaped."""
    style = page_part("report.css") + page_part("lesson.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    parts = [_sliding(run), _r_cnn(run), suppression_part(), _fast(run), _faster(run), _one_shot(run)]
    page = page_template("lesson.html.j2", tight, linked).render(
        picture=demo.picture,
        verdict=demo.verdict,
        opening=_opening(demo),
        rows=_rows(demo.stages, demo.stage("R-CNN")),
        legend=LEGEND,
        parts=parts,
        embedded=embedding(figure for part in parts for figure in part.figures),
        style=Markup(style),
        digest=digest,
        version=__version__,
    )
    return page.strip() + "\n"


LEGEND = (
    "Every way runs here, on one backbone: EfficientNet-Lite0, for the first three with its ImageNet weights, whose "
    "1,000 classes are the classes of the boxes. Seconds are of this machine; other work on it shows in them. The "
    "bar is the time, on one scale: grey until the boxes are there, coloured until they are judged.",
    "Best IoU: of all boxes that are judged, the one that fits the object drawn by hand best. The region proposals "
    "of Faster R-CNN and the one-shot network are untrained here, as no such weights come with an installed package "
    "under a free licence: their costs are what they are, and their boxes are chance. Published: seconds a picture "
    "in the papers, by the VGG-16 of 138 million parameters on a graphics card.",
)


def _opening(demo: DetectionDemo) -> list[str]:
    wide, high = demo.size
    every = wide * (wide + 1) // 2 * (high * (high + 1) // 2)
    return [
        f"A picture of {wide} × {high} pixels holds {every / 1e9:,.1f} billion boxes. To find objects is to look "
        "at few "
        "of them, and to compute little for each."
    ]


def _rows(stages: Sequence[Stage], slow: Stage) -> list[dict[str, Any]]:
    names = anchors(s.name for s in stages)
    longest = max(s.seconds for s in stages)
    return [
        {
            "id": name,
            "name": s.name,
            "boxes": f"{s.boxes:,}",
            "passes": f"{s.passes:,}",
            "megapixels": f"{s.megapixels:.2f}",
            "seconds": f"{s.seconds:.2f}",
            "bar": _bar(s, longest),
            "ratio": "–" if s is slow else f"{slow.seconds / s.seconds:.1f} ×",
            "best": "–" if s.best is None else f"{s.best:.2f}",
            "published": s.published or "–",
        }
        for name, s in zip(names, stages, strict=True)
    ]


def _bar(stage: Stage, longest: float) -> Markup:
    """A drawing of the seconds, which stand beside it as a number."""
    first, rest = (100 * v / longest for v in (stage.proposing, stage.judging))
    words = f"{stage.proposing:.2f} s for proposals, {stage.judging:.2f} s in the network"
    return Markup(
        f'<svg viewBox="0 0 100 14" preserveAspectRatio="none" role="img" aria-label="{words}">'
        f'<rect class="ground" width="100" height="14"/><rect class="boxed" width="{first:.2f}" height="14"/>'
        f'<rect class="took" x="{first:.2f}" width="{rest:.2f}" height="14"/></svg>'
    )


def _sliding(run: Run) -> Part:
    boxes, values = run.windows, run.setting.values
    sides = (boxes[:, 2] - boxes[:, 0]).long()
    different = sorted(set(sides.tolist()))
    groups = [different.index(s) for s in sides.tolist()]
    strong = [max(k for k, g in enumerate(groups) if g == group) for group in range(len(different))]
    counts = ", ".join(f"{groups.count(k)} of {s} pixels" for k, s in enumerate(different))
    drawn = pictures.many_boxes(values, boxes.tolist(), groups, strong)
    return Part(
        "sliding-window",
        "Sliding window",
        (
            "A classifier says what a picture shows, not where. So it is asked about a window at every place, in "
            f"several sizes: {counts}, each half a side from the next. Every window is cropped, warped to 224 "
            "pixels, and passes through the whole network by itself.",
            "Only squares are tried, half a side apart, and that is already many passes: each finer step or further "
            "shape multiplies them.",
        ),
        (
            _figure("windows", drawn, f"All {len(boxes)} windows; of each size one is drawn strong."),
            _found(run, "Sliding window"),
        ),
    )


def _r_cnn(run: Run) -> Part:
    boxes = run.proposals[:SHOWN]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    groups = (area.argsort().argsort() * 4 // max(1, len(area))).tolist()
    best = _best(run, boxes)
    drawn = pictures.many_boxes(run.setting.values, boxes.tolist(), groups, best)
    told = f"The first {len(boxes)} of {len(run.proposals)} proposals, a colour for each quarter of their sizes."
    told += " Strong: the one that fits the object best." if best else ""
    return Part(
        "r-cnn",
        "Region proposals: R-CNN",
        (
            "Objects differ from what is around them. Selective search cuts the picture into small segments and "
            "merges the two neighbours that are most alike, until one is left; the box around every region on the "
            "way is a proposal. It knows no class and needs no network. R-CNN crops each, warps it to 224 pixels, "
            "whatever its shape, and gives each a pass of its own.",
            "Boxes of parts, and boxes far too large, stay on the right: an ImageNet classifier has never been "
            "shown “nothing here” or “half a cup”, so it names them, too. R-CNN therefore trains on proposals, with "
            "background as a class of its own, and moves each box by a regression.",
        ),
        (_figure("proposals", drawn, told), _found(run, "R-CNN")),
        "Girshick et al. 2014, arXiv:1311.2524; selective search: Uijlings et al. 2013, doi:10.1007/s11263-013-0620-5",
    )


def _best(run: Run, boxes: Tensor) -> list[int]:
    """The place of the proposal that fits an object best; none where no object is known."""
    if not len(run.setting.truth):
        return []
    return [int(iou_table(boxes, run.setting.truth).amax(1).argmax())]


def suppression_part() -> Part:
    boxes, scores = torch.tensor(EXAMPLE), torch.tensor(SCORES)
    kept = suppress(boxes, scores, LIMIT).tolist()
    table = iou_table(boxes, boxes)
    drawn = pictures.suppression(EXAMPLE, SCORES, kept)
    gone = [k for k in range(len(SCORES)) if k not in kept]
    told = [
        f"IoU of A and {'ABCD'[k]}: {_overlap(EXAMPLE[0], EXAMPLE[k])} = {float(table[0, k]):.2f}" for k in (1, 2, 3)
    ]
    stay, go = (" and ".join("ABCD"[k] for k in some) for some in (kept, gone))
    figure_of = _figure(
        "suppression", drawn, f"Boxes with their scores; with a limit of {LIMIT} {stay} stay, {go} goes."
    )
    return Part(
        "suppression",
        "One object, one box: suppression",
        (
            "Many boxes lie on one object. The surest stays, and boxes of its class that overlap it by more than a "
            "limit go; then the surest of what is left, and so on. Overlap is intersection over union, IoU: the "
            "area that two boxes share, over the area that they cover together.",
            f"{'. '.join(told)}. The boxes of parts above survive for the same reason as D: a small box within a "
            "large one has a low IoU with it.",
        ),
        (figure_of,),
    )


def _overlap(a: Sequence[float], b: Sequence[float]) -> str:
    """IoU as the fraction of two areas."""
    wide, high = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return f"{wide * high:g} / {sum(areas) - wide * high:g}"


def _fast(run: Run) -> Part:
    setting = run.setting
    found = next(s for s in run.stages if s.name == "R-CNN").found
    box = found[0].box if found else tuple(run.proposals[0].tolist())
    high, wide = (n // ways.STRIDE for n in setting.large.shape[2:])
    across = (box[2] - box[0]) * float(setting.scale[0]) / ways.STRIDE
    down = (box[3] - box[1]) * float(setting.scale[1]) / ways.STRIDE
    drawn = pictures.pooled_region(setting.values, (wide, high), box, ways.BINS)
    return Part(
        "fast-r-cnn",
        "RoI pooling: Fast R-CNN",
        (
            "The crops overlap, so their passes repeat each other. Fast R-CNN lets the whole picture pass once, "
            f"with a short side of {ways.SIDE} pixels, and cuts the proposals out of the last map instead: a map of "
            f"{wide} × {high} cells, each {ways.STRIDE} pixels. RoI pooling makes {ways.BINS} × {ways.BINS} values "
            "of any box, as many as the map of a whole crop has, so the same head can read them. Here it is "
            "RoIAlign: bilinear samples in each part, and nothing is rounded to whole cells.",
            f"What it costs: a small box has few cells. To {100 * run.agree:.0f} % of the proposals this head, which "
            "has never seen pooled regions, gives the class that R-CNN gives. Fast R-CNN trains the head and the "
            "backbone on them, together.",
        ),
        (
            _figure(
                "roi",
                drawn,
                f"Thin: cells of the map. Blue: one proposal, {across:.1f} × {down:.1f} cells, in {ways.BINS} × "
                f"{ways.BINS} parts; each gives one value of every channel.",
            ),
            _found(run, "R-CNN"),
            _found(run, "Fast R-CNN"),
        ),
        "Girshick 2015, arXiv:1504.08083; RoIAlign: He et al. 2017, arXiv:1703.06870",
        {"same class as R-CNN": f"{100 * run.agree:.0f} % of the proposals"},
    )


def _faster(run: Run) -> Part:
    setting = run.setting
    high, wide = (n // ways.STRIDE for n in setting.large.shape[2:])
    middle = torch.tensor([wide // 2, high // 2, wide // 2, high // 2]) * float(ways.STRIDE)
    anchors_there, groups = [], []
    for k, side in enumerate(ways.ANCHOR_SIDES):
        for shape in ways.ANCHOR_SHAPES:
            half = torch.tensor([side / shape**0.5, side * shape**0.5]) / 2
            anchors_there.append(((middle + torch.cat([-half, half])) / setting.scale).tolist())
            groups.append(k)
    drawn = pictures.many_boxes(setting.values, anchors_there, groups, list(range(len(groups))))
    regions = run.regions[:SHOWN]
    chance = pictures.many_boxes(setting.values, regions.tolist(), [0] * len(regions))
    return Part(
        "faster-r-cnn",
        "A network proposes: Faster R-CNN",
        (
            "Now selective search is what takes the time. The map knows already where something is: a small network "
            f"on it, the RPN, looks at each of the {wide} × {high} places and says for {len(groups)} anchors, boxes "
            f"of {len(ways.ANCHOR_SIDES)} sizes and {len(ways.ANCHOR_SHAPES)} shapes, whether an object is there and "
            f"how to move the box: {wide * high * len(groups):,} anchors, of which the surest stay after "
            "suppression. Proposals become nearly free.",
            "Its weights are random here, so its proposals are chance and are not asked for classes; the time is "
            "that of the trained network.",
        ),
        (
            _figure("anchors", drawn, f"The {len(groups)} anchors of one place, a colour for each size."),
            _figure("regions", chance, f"{len(regions)} of the boxes that the untrained RPN proposes."),
        ),
        "Ren et al. 2015, arXiv:1506.01497",
    )


def _one_shot(run: Run) -> Part:
    stage = next(s for s in run.stages if s.name == "One shot")
    sheet = pictures.Sheet(run.setting.values, pale=0.3)
    high, wide = run.setting.values.shape[:2]
    rows, columns = run.setting.large.shape[2:]
    for stride, colour, opacity in ((8, "#76808c", 90), (16, "#2b83b5", 170)):
        sheet.grid((0, 0, wide, high), columns / stride, rows / stride, colour, opacity)
    return Part(
        "one-shot",
        "One shot: YOLO, FCOS",
        (
            "If the map can propose, it can also name. YOLO and its successors drop the second stage: every place "
            "says at once how sure it is of an object, which class, and where the box ends. The FCOS network of "
            f"this library does so at {stage.boxes:,} places at strides 8 and 16; then suppression, and that is all. "
            "One pass, no proposals, no pooling.",
            "Its head is untrained here, so it shows no boxes. Small objects pay first: of several in one cell, one "
            "is found.",
        ),
        (_figure("places", sheet.image, "The places that each give a box: fine at stride 8, blue at stride 16."),),
        "Redmon et al. 2016, arXiv:1506.02640; Tian et al. 2019, arXiv:1904.01355",
    )


def _found(run: Run, name: str) -> Figure:
    stage = next(s for s in run.stages if s.name == name)
    told = ", ".join(f"{f.label} {100 * f.probability:.0f} %" for f in stage.found) or "nothing above 50 %"
    drawn = pictures.found_boxes(run.setting.values, stage.found)
    passes = "1 pass" if stage.passes == 1 else f"{stage.passes} passes"
    return _figure(f"found by {name}", drawn, f"{name}, {passes}, {stage.seconds:.2f} s: {told}.")


def _figure(name: str, image: Image.Image, caption: str) -> Figure:
    return figure(name, image, caption, caption)
