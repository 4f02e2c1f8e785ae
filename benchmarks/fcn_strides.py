"""Whether FCN-8s beats 16s beats 32s on real photos: ``python benchmarks/fcn_strides.py DATA [SEEDS]``.

DATA is a folder with images/*.jpg and semantic/*.png of the same names: class numbers of COCO's panoptic annotations, 1
to 90 things, from 91 on stuff, 0 not labelled.  Each photo is a test picture once, in one of five folds, and the other
folds train.  The backbone is EfficientNet-Lite0 with the embedded ImageNet weights, which stay as they are, so its maps
are computed once; the scores, the skips and the transposed convolutions learn.  Writes benchmarks/fcn_strides.md and
.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import pil_to_tensor

from clearsight.core.catalogue import catalogue
from clearsight.core.memory import reuse_memory
from clearsight.models.loading import load
from clearsight.segmenters.common.losses import NOT_JUDGED, cross_entropy

OUT = Path(__file__).with_suffix(".md")
SIDE, FOLDS, EPOCHS, BATCH, RATE, DRAWS = 224, 5, 40, 8, 3e-3, 2000
STRIDES = (32, 16, 8)


def things(ids: Tensor) -> Tensor:
    """Things (1) or stuff (0)."""
    return torch.where(ids == 0, NOT_JUDGED, (ids <= 90).long())


def person(ids: Tensor) -> Tensor:
    """People (1) or anything else (0)."""
    return torch.where(ids == 0, NOT_JUDGED, (ids == 1).long())


def every_class(ids: Tensor) -> Tensor:
    """Every class of COCO by itself."""
    return torch.where(ids == 0, NOT_JUDGED, ids)


TASKS: dict[str, Callable[[Tensor], Tensor]] = {"things or stuff": things, "person or not": person}


def read(folder: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Photos (N, 3, 224, 224) in [0, 1], class numbers (N, 224, 224), names; squeezed to the square."""
    photos, ids, names = [], [], []
    for file in sorted((folder / "images").glob("*.jpg")):
        photo = Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        classes = Image.open(folder / "semantic" / f"{file.stem}.png").resize((SIDE, SIDE), Image.Resampling.NEAREST)
        photos.append(pil_to_tensor(photo) / 255)
        ids.append(pil_to_tensor(classes)[0].long())
        names.append(file.stem)
    return torch.stack(photos), torch.stack(ids), names


def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Judged pixels by truth and prediction (N, K, K), a matrix for each picture."""
    judged = truth != NOT_JUDGED
    cells = (truth * classes + predicted)[..., None].flatten(1)
    return torch.stack(
        [
            c[j].bincount(minlength=classes**2).view(classes, classes)
            for c, j in zip(cells, judged.flatten(1), strict=True)
        ]
    )


def mean_iou(matrix: Tensor) -> Tensor:
    """The mean over the classes that are there of their IoU, from matrices (..., K, K)."""
    both = matrix.diagonal(dim1=-2, dim2=-1).double()
    either = matrix.sum(-1) + matrix.sum(-2) - both
    return (both / either).nanmean(-1)


def ceiling(truth: Tensor, stride: int) -> Tensor:
    """The truth as it comes back from one class for each place of a map at this stride."""
    coarse = interpolate(truth[:, None].float(), scale_factor=1 / stride, mode="nearest-exact")
    return interpolate(coarse, size=truth.shape[1:], mode="nearest-exact")[:, 0].long()


def maps_of(photos: Tensor) -> list[Tensor]:
    """The backbone's maps of the photos and of their mirror images: [(2, N, C, h, w)] at strides 8, 16 and 32."""
    net = catalogue("segmenters")["fcn"](2, (3, SIDE, SIDE)).eval().backbone
    weights = load("demo").net.state_dict()
    net.load_state_dict({name: weights[name] for name in net.state_dict()})
    sides = []
    with torch.no_grad():
        for x in (photos, photos.flip(-1)):
            parts = [net((part - 0.5) / 0.5) for part in x.split(BATCH)]
            sides.append([torch.cat(maps) for maps in zip(*parts, strict=True)])
    return [torch.stack(both) for both in zip(*sides, strict=True)]


def fit(stride: int, maps: list[Tensor], truth: Tensor, train: Tensor, seed: int) -> torch.nn.Module:
    """The part above the backbone, trained on the photos that train (n,) numbers, each mirrored half of the time."""
    torch.manual_seed(seed)
    head = catalogue("segmenters")["fcn"](2, (3, SIDE, SIDE), stride=stride).head.train()
    adam = torch.optim.AdamW(head.parameters(), RATE)
    steps = EPOCHS * (len(train) // BATCH)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    order = torch.Generator().manual_seed(seed)  # the same pictures in the same order at every stride
    for _ in range(EPOCHS):
        for some in train[torch.randperm(len(train), generator=order)].split(BATCH)[: len(train) // BATCH]:
            turned = torch.randint(2, (len(some),), generator=order)
            y = torch.where(turned[:, None, None] == 1, truth[some].flip(-1), truth[some])
            logits = head([m[turned, some] for m in maps])
            loss = cross_entropy(interpolate(logits, size=SIDE, mode="bilinear"), y)
            adam.zero_grad()
            loss.backward()
            adam.step()
            slower.step()
    return head.eval()


def judged(stride: int, maps: list[Tensor], truth: Tensor, seed: int) -> Tensor:
    """The matrix of every photo (N, 2, 2), by a network that was not trained on it."""
    fold = torch.randperm(len(truth), generator=torch.Generator().manual_seed(seed)) % FOLDS
    found = torch.zeros(len(truth), 2, 2, dtype=torch.long)
    for k in range(FOLDS):
        head, test = fit(stride, maps, truth, (fold != k).nonzero()[:, 0], seed), (fold == k).nonzero()[:, 0]
        with torch.no_grad():
            logits = interpolate(head([m[0, test] for m in maps]), size=SIDE, mode="bilinear")
        found[test] = confusion(logits.argmax(1), truth[test], 2)
    return found


def resampled(matrices: Tensor) -> Tensor:
    """The mean IoU over draws of as many photos with replacement: matrices (..., N, K, K) -> (..., DRAWS)."""
    n = matrices.shape[-3]
    draws = torch.randint(n, (DRAWS, n), generator=torch.Generator().manual_seed(0))
    counts = torch.zeros(DRAWS, n, dtype=torch.double).scatter_add_(1, draws, torch.ones(DRAWS, n, dtype=torch.double))
    return mean_iou(torch.einsum("dn,...nij->...dij", counts, matrices.double()))


def between(values: Tensor) -> str:
    """The middle 95 % of values (..., DRAWS), averaged over whatever comes before."""
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return f"{low:+.3f} to {high:+.3f}"


def rows(task: str, found: dict[int, Tensor]) -> list[str]:
    """found: by stride, the matrices (seeds, N, 2, 2)."""
    drawn = {s: resampled(m).mean(0) for s, m in found.items()}
    by_seed = {s: mean_iou(m.sum(1)) for s, m in found.items()}
    lines = []
    for s, coarser in ((32, None), (16, 32), (8, 16)):
        values = by_seed[s]
        cells = [task, f"{s}s", f"{values.mean():.3f}", f"{values.min():.3f} to {values.max():.3f}"]
        if coarser is None:
            cells += ["", "", ""]
        else:
            gain = values - by_seed[coarser]
            won = f"{int((gain > 0).sum())} of {len(gain)}"
            cells += [f"{gain.mean():+.3f}", between(drawn[s] - drawn[coarser]), won]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ceilings(ids: Tensor) -> list[str]:
    lines = []
    for name, task in (*TASKS.items(), ("every class of COCO", every_class)):
        truth = task(ids)
        classes = int(truth[truth != NOT_JUDGED].max()) + 1
        cells = []
        for s in STRIDES:
            back = ceiling(ids, s)
            guess = torch.where(task(back) == NOT_JUDGED, 0, task(back))
            cells.append(f"{mean_iou(confusion(guess, truth, classes).sum(0)):.3f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    folder, seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    began = time.process_time()
    photos, ids, names = read(folder)
    maps = maps_of(photos)
    results, lines, kept = [], [], {}
    for task, of in TASKS.items():
        found = {}
        for s in STRIDES:
            found[s] = torch.stack([judged(s, maps, of(ids), seed) for seed in range(seeds)])
            print(task, s, mean_iou(found[s].sum(1)).tolist(), f"{time.process_time() - began:.0f} s", flush=True)
        lines += rows(task, found)
        kept[task] = {str(s): m.tolist() for s, m in found.items()}
    results = ceilings(ids)
    minutes = (time.process_time() - began) / 60
    OUT.write_text(text(len(names), seeds, minutes, lines, results))
    OUT.with_suffix(".json").write_text(json.dumps({"photos": names, "matrices": kept}) + "\n")


def text(photos: int, seeds: int, minutes: float, lines: list[str], ceiling_lines: list[str]) -> str:
    return "\n".join(
        [
            "# FCN-32s, 16s and 8s on real photos",
            "",
            f"Made by `python benchmarks/fcn_strides.py DATA {seeds}`: {photos} photos of COCO 2017, squeezed to",
            f"{SIDE} x {SIDE} pixels. Each is a test picture once, in one of {FOLDS} folds, for each of {seeds} seeds,",
            "which also draw the folds. The backbone is EfficientNet-Lite0 with ImageNet's weights, which stay as they",
            f"are; the layers above it are trained for {EPOCHS} epochs, at every stride with the same pictures in the",
            "same order. Pixels without a label are not judged. mIoU is of one matrix over all photos, in pixels of",
            "the square. The interval of a gain is the middle 95 % over draws of the photos with replacement, the same",
            f"for both strides, of the mean over seeds. {minutes:.0f} minutes of one core.",
            "",
            "| task | network | mIoU, mean over seeds | lowest to highest seed | gain over the coarser "
            "| 95 % of the gain | seeds it wins |",
            "|---|---|---:|---:|---:|---:|---:|",
            *lines,
            "",
            "## What a stride allows",
            "",
            "The truth itself, kept at one pixel of each square of stride x stride and enlarged again: the mIoU of a",
            "network that is right at each place but has only one class there. Bilinear logits can do better.",
            "",
            "| task | 32 | 16 | 8 |",
            "|---|---:|---:|---:|",
            *ceiling_lines,
            "",
        ]
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    reuse_memory()
    main()
