"""What training by default comes to, beside timm's and fastai's defaults: ``python benchmarks/training.py DATA``.

DATA holds clothing10/ and grocery12/ (class folders, the latter in train/ and test/) and mnist/ (idx files).  Ours is
trained first; the others are given its split, the weights that it began with, its epochs and its input size, and all
else is what they do by themselves.  Runs are kept in --work, what was measured in benchmarks/training.json, and the
table is benchmarks/training.md.  fastai has to be installed for its rows: pip install fastai.

    python benchmarks/training.py DATA --only clothing10 --by timm
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from digits import digits
from PIL import Image
from torch import Tensor, nn

from clearsight.core.statistics import wilson
from clearsight.training.fine_tuning import TrainableNetwork, build_for_training
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe, read_recipe
from clearsight.training.run_folder import METRICS, RECIPE, SPLIT

HERE = Path(__file__).parent
FOUND = HERE / "training.json"
SETS = ("clothing10", "grocery12", "mnist")
OTHERS = ("timm", "fastai")


def main() -> None:
    """Train by each on each, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("clearsight-runs/benchmark"))
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--by", choices=OTHERS)
    words = parser.parse_args()
    for name in [words.only] if words.only else SETS:
        run, data = words.work / name, words.data / name
        if name == "mnist":
            data = digits(data, words.work / "mnist-pictures")
        if not (run / METRICS).exists():
            began = now()
            for epoch in train(data, Recipe(), run):
                print(name, "ours", epoch.line(), flush=True)
            told = json.loads((run / METRICS).read_text())
            right = round(told["accuracy"]["value"] * told["accuracy"]["n"])
            note(f"{name} ours", right, told["accuracy"]["n"], told["epochs"][-1]["number"], began)
        for by in [words.by] if words.by else OTHERS:
            began = now()
            recipe, _, _ = read_recipe(run / RECIPE)
            right, n = (by_timm if by == "timm" else by_fastai)(run, recipe)
            note(f"{name} {by}", right, n, recipe.epochs or 0, began)


def now() -> tuple[float, float]:
    """Seconds on the clock, and seconds of processors that this process has taken."""
    return time.monotonic(), time.process_time()


def note(what: str, right: int, n: int, epochs: int, began: tuple[float, float]) -> None:
    """Keep what was measured, and write the table anew."""
    found: dict[str, Any] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    wall, cpu = now()
    found[what] = {
        "right": right,
        "n": n,
        "epochs": epochs,
        "minutes": (wall - began[0]) / 60,
        "processor": (cpu - began[1]) / 60,
    }
    print(what, found[what], flush=True)
    FOUND.write_text(json.dumps(found, indent=1) + "\n")
    (HERE / "training.md").write_text(table(found))


def table(found: dict[str, Any]) -> str:
    """Accuracy on test with its interval, and minutes, as Markdown."""
    lines = [
        "# Training by default",
        "",
        f"Made by `python benchmarks/training.py DATA` on {os.cpu_count()} cores. The same split, epochs, input size",
        "and weights to begin with; all else is what each does by itself: ours `clearsight train DATA` without an",
        "option; timm the transforms, optimiser (SGD, 0.05) and schedule (cosine, five epochs of warm-up) of its",
        "training script; fastai `vision_learner` with `aug_transforms` and `fine_tune` (small networks:",
        "`fit_one_cycle`). Test pictures chose nothing; intervals are 95 %. Ours reads all pictures first to find",
        "duplicates, and judges and reports at the end; that is in its minutes.",
        "",
        "In the committed run the machine did other work beside some rows, which two threads on two cores take badly:",
        "minutes are at most what is written, by up to three times on mnist (an epoch of ours took 40 s when alone).",
        "timm and fastai had clothing10 in torch's usual order of memory, the others in the faster one. Ours was as",
        "`--no-first-head --patience 0` is now; first_model.md shows what a first head changes.",
        "",
        "| data | by | right on test | interval | n | epochs | minutes | of processors |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for what, m in found.items():
        low, high = wilson(m["right"], m["n"])
        lines.append(
            f"| {what.replace(' ', ' | ')} | {100 * m['right'] / m['n']:.1f} % | {100 * low:.1f} to {100 * high:.1f} % "
            f"| {m['n']} | {m['epochs']} | {m['minutes']:.1f} | {m['processor']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def begun(recipe: Recipe, classes: int) -> TrainableNetwork:
    """The network as ours began with it, in the order of memory that is the faster one for all."""
    start = build_for_training(
        recipe.arch, recipe.weights, classes, size=recipe.size, grey=bool(recipe.grey), seed=recipe.seed
    )
    start.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return start


def files(run: Path) -> dict[str, list[tuple[Path, str]]]:
    """(file, class) of each part."""
    parts: dict[str, list[tuple[Path, str]]] = {"train": [], "val": [], "test": []}
    with (run / SPLIT).open() as f:
        for row in csv.DictReader(f):
            parts[row["split"]].append((run / row["file"], row["label"]))
    return parts


class Folder(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Pictures and their class numbers, by a transform of timm's."""

    def __init__(self, own: list[tuple[Path, str]], labels: list[str], transform: Any, mode: str) -> None:
        self.own, self.labels, self.transform, self.mode = own, labels, transform, mode

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        path, label = self.own[i]
        return self.transform(Image.open(path).convert(self.mode)), self.labels.index(label)


def by_timm(run: Path, recipe: Recipe) -> tuple[int, int]:
    """timm's library with the defaults of its training script; the epoch that is best on val is judged."""
    from timm.data import create_transform
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    parts, labels = files(run), sorted({label for own in files(run).values() for _, label in own})
    start = begun(recipe, len(labels))
    pre, net, mode = start.preprocess, start.net, "L" if start.preprocess.channels == 1 else "RGB"
    how = {
        "input_size": (pre.channels, *pre.size), "mean": pre.mean, "std": pre.std, "interpolation": pre.interpolation,
        "crop_pct": pre.size[0] / (pre.resize or pre.size[0]),
    }  # fmt: skip
    varied = create_transform(**how, is_training=True, **({"color_jitter": None} if mode == "L" else {}))
    plain = create_transform(**how)
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(Folder(parts["train"], labels, varied, mode), 32, shuffle=True)
    opt = create_optimizer_v2(net, "sgd", lr=0.05, weight_decay=2e-5, momentum=0.9)
    epochs = recipe.epochs or 1
    pace, _ = create_scheduler_v2(opt, "cosine", num_epochs=epochs, warmup_epochs=min(5, epochs - 1), warmup_lr=1e-5)
    best, kept = -1, {k: v.clone() for k, v in net.state_dict().items()}
    for epoch in range(epochs):
        pace.step(epoch)
        net.train()
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
        right = judged(net, Folder(parts["val"], labels, plain, mode))
        print("timm", epoch + 1, right, len(parts["val"]), flush=True)
        if right > best:
            best, kept = right, {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(kept)
    return judged(net, Folder(parts["test"], labels, plain, mode)), len(parts["test"])


def judged(net: nn.Module, data: Folder) -> int:
    """How many are right."""
    net.eval()
    with torch.no_grad():
        found = [(net(x).argmax(1) == y).sum() for x, y in torch.utils.data.DataLoader(data, 32)]
    return int(sum(found))


def by_fastai(run: Path, recipe: Recipe) -> tuple[int, int]:
    """fastai's own way of transfer learning: vision_learner (or Learner for random weights) and fine_tune."""
    warnings.simplefilter("ignore")
    from fastai.vision import all as fast

    parts, labels = files(run), sorted({label for own in files(run).values() for _, label in own})
    start = begun(recipe, len(labels))
    pre = start.preprocess
    class_of = {str(p): label for own in parts.values() for p, label in own}
    val = {str(p) for p, _ in parts["val"]}
    stats = fast.Normalize.from_stats(list(pre.mean), list(pre.std))
    torch.manual_seed(0)
    block = fast.DataBlock(
        blocks=(
            fast.ImageBlock(fast.PILImageBW if pre.channels == 1 else fast.PILImage),
            fast.CategoryBlock(vocab=labels),
        ),
        get_items=lambda _: [p for part in ("train", "val") for p, _ in parts[part]],
        get_y=lambda p: class_of[str(p)],
        splitter=lambda items: (
            [i for i, p in enumerate(items) if str(p) not in val],
            [i for i, p in enumerate(items) if str(p) in val],
        ),
        item_tfms=fast.Resize(max(pre.size)),
        batch_tfms=[*fast.aug_transforms(size=max(pre.size), do_flip=pre.channels == 3), stats],
    )
    loaders = block.dataloaders(None, bs=32, num_workers=0)
    epochs = recipe.epochs or 1
    if start.pretrained:
        learner = fast.vision_learner(loaders, lambda **_: start.net, cut=-2, normalize=False, metrics=fast.accuracy)
        learner.fine_tune(epochs)
    else:
        learner = fast.Learner(loaders, start.net, metrics=fast.accuracy)
        learner.fit_one_cycle(epochs)
    said, truth = learner.get_preds(dl=loaders.test_dl([p for p, _ in parts["test"]], with_labels=True))
    return int((said.argmax(1) == truth).sum()), len(truth)


if __name__ == "__main__":
    main()
