"""What a step of `train` on boxes costs beside a plain loop: ``python benchmarks/object_step.py DATA``.

DATA holds pictures with boxes, such as a folder of blood cells; writes object_step.md.  The same network, optimiser and
batch size, one step of each in turn, so that what else the machine does meets them alike.  The plain loop takes the
pictures as they are: loss, way back, clipping, AdamW.  `train` also mirrors, resizes, shifts and recolours each picture
with its boxes, and keeps the average of the weights.  Counted is the time of the processor in one thread: medians, and
the median of ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from clearsight.data.box_folders import open_boxes
from clearsight.data.images import of_bytes
from clearsight.training.batches import order
from clearsight.training.objects.batches import ObjectBatches, colour_calls
from clearsight.training.objects.loop import stores_of, take_step
from clearsight.training.objects.network import build_network
from clearsight.training.objects.prepared import prepare
from clearsight.training.objects.recipe import ObjectRecipe
from clearsight.training.objects.run import build_run
from clearsight.training.objects.settings import input_size, resolve


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = prepare(open_boxes(given.data, split="all"), ObjectRecipe(flips="both"))
    recipe, _ = resolve(ObjectRecipe(flips="both"), data)
    start = build_network(recipe, len(data.labels), input_size(recipe, data), print)
    run = build_run(data, recipe, start, torch.device("cpu"))
    stores = stores_of(data, start.preprocess, recipe)
    rows = [rows for rows in order(data.rows("train"), recipe.batch, 0) if len(rows) == recipe.batch]
    batches = ObjectBatches(
        stores.pictures, stores.truths, rows, colour_calls(recipe.augment), recipe.flips, recipe.scale, 0
    )
    plain = build_network(recipe, len(data.labels), input_size(recipe, data), print)
    opt = torch.optim.AdamW(plain.groups(recipe))
    start.train()
    plain.train()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (start.preprocess.mean, start.preprocess.std))

    def plain_step(n: int) -> None:
        z = (of_bytes(torch.stack([stores.pictures[i] for i in rows[n]])) - mean) / std
        boxes, labels = zip(*(stores.truths[i] for i in rows[n]), strict=True)
        loss = sum(plain.net.loss(z, list(boxes), list(labels)).values())  # type: ignore[operator]
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.net.parameters(), recipe.clip)
        opt.step()

    plain_times, batch_times, step_times = [], [], []
    for k in range(given.rounds + 2):
        n = k % len(rows)
        by_plain = seconds(lambda n=n: plain_step(n))  # type: ignore[misc]
        began = time.process_time()
        x, truths = batches[n]
        made = time.process_time()
        take_step(run, x, truths)
        if k >= 2:  # the pictures are read and the memory is there
            plain_times.append(by_plain)
            batch_times.append(made - began)
            step_times.append(time.process_time() - made)
    ratios = [s / p for s, p in zip(step_times, plain_times, strict=True)]
    whole = [(b + s) / p for b, s, p in zip(batch_times, step_times, plain_times, strict=True)]
    height, width = start.preprocess.size
    lines = [
        "# A training step on boxes",
        "",
        f"Made by `python benchmarks/object_step.py DATA`: {recipe.arch}, {recipe.batch} pictures of "
        f"{height} x {width}, {given.rounds} rounds,",
        "one thread; processor time, medians. The plain loop neither augments nor averages.",
        "",
        "| what | seconds | beside the plain loop, median of ratios |",
        "|---|---:|---:|",
        f"| plain loop | {statistics.median(plain_times):.3f} | 1 |",
        f"| `train`: step with the average of weights | {statistics.median(step_times):.3f} | "
        f"{statistics.median(ratios):.2f} |",
        f"| `train`: the same and its augmented batch | "
        f"{statistics.median(b + s for b, s in zip(batch_times, step_times, strict=True)):.3f} | "
        f"{statistics.median(whole):.2f} |",
    ]
    (Path(__file__).parent / "object_step.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
