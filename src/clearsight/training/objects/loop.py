"""The training loop of detectors and segmenters: pictures and a recipe in, a model folder out, one epoch at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clearsight.core import rng
from clearsight.core.preprocess import Preprocess, normalised
from clearsight.core.progress import Progress
from clearsight.data.duplicates import Likeness
from clearsight.data.records import Pictures
from clearsight.errors import Refused
from clearsight.models.loading import device_of
from clearsight.models.model_folder import RECIPE
from clearsight.training.arithmetic import current_arithmetic, record_resume
from clearsight.training.batches import Store, order, step_seed
from clearsight.training.checkpoints import delete_state, has_state, load_state
from clearsight.training.objects.batches import BoxTruths, MapTruths, ObjectBatches, Truths, colour_calls
from clearsight.training.objects.folder import begin_folder, finish_folder, same_data, same_recipe
from clearsight.training.objects.history import ObjectEpoch, is_best
from clearsight.training.objects.learning import MEASURES, detector_loss, score, segmenter_loss
from clearsight.training.objects.network import build_network
from clearsight.training.objects.prepared import ObjectData, kind_of_truth, prepare
from clearsight.training.objects.recipe import ObjectRecipe, read_object_recipe, refuse_other_kinds
from clearsight.training.objects.run import ObjectRun, build_run, restore, save_run
from clearsight.training.objects.settings import about_size, input_size, resolve, spelled
from clearsight.training.run_folder import place

KEEP = 120.0  # seconds after which the state of a run is saved within an epoch


def train_objects(
    data: Pictures,
    recipe: ObjectRecipe | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    alike: Likeness | None = None,
    command_line: str = "",
    device: str = "auto",
    workers: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[ObjectEpoch]:
    """Train a detector or a segmenter and write it to a folder that `load` reads; yields each epoch as it ends.

    Pictures with boxes train a detector, judged by AP50 on val, pictures with class maps a segmenter, judged by mean
    IoU; both in pixels of the pictures themselves.  The best epoch is kept, and judged at the end on test.

    Args:
        data: pictures of every split from `open_boxes` or `open_masks`.
        recipe: how it is trained; None for ObjectRecipe().
        out: folder of the run; None for the next clearsight-runs/train-N.
        resume: go on with the run in out.  On a CPU it ends bit for bit as if it had never been stopped, given as many
            threads as before; a Notice says if the threads, the device or PyTorch are others.
        alike: the duplicates among data.pictures, if they are known; None finds them.
        command_line: command that the folder records, if it is not that of this call alone.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest that is available.
        workers: number of processes that read pictures, which does not change the result; 0 reads them in this process.
        progress: called with the name of the step, the number of pictures done and the total.
        say: called with each sentence on what was chosen, and why.

    Refused: data or a recipe that cannot be trained, a folder that holds another run, several processes, and a loss
    that is not finite.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise Refused("detectors and segmenters are trained in one process: start it without accelerate launch")
    requested = recipe or ObjectRecipe()
    folder = place(out, resume)
    try:
        run, why = _begin(data, requested, folder, resume, alike, device, progress, say)
    except Refused:
        with suppress(OSError):  # it is empty, or it stays
            folder.rmdir()
        raise
    if resume and has_state(folder):
        restore(run, load_state(folder))
    arithmetic = current_arithmetic(run.device, run.epoch, run.batch)
    if resume:
        record_resume(folder, arithmetic)
    else:
        begin_folder(folder, run, why, requested, command_line, arithmetic)
    stores = stores_of(run.data, run.start.preprocess, run.recipe)
    while not run.finished:
        with torch.random.fork_rng(devices=rng.gpus()), rng.held():
            epoch = _train_epoch(run, stores, folder, workers, progress or _silent)
        yield epoch
    run.shadow.load_state_dict(run.best)
    finish_folder(folder, run, stores.pictures, progress or _silent)
    delete_state(folder)


def _silent(what: str, done: int, total: int) -> None:
    pass


def _begin(
    pictures: Pictures,
    requested: ObjectRecipe,
    folder: Path,
    resume: bool,
    alike: Likeness | None,
    device: str,
    progress: Progress | None,
    say: Callable[[str], None],
) -> tuple[ObjectRun, list[str]]:
    """The run before its first step, and a sentence on each value that was chosen."""
    where = device_of(device)
    kind = kind_of_truth(pictures)
    refuse_other_kinds(requested, kind)
    recipe, why = requested, list[str]()
    if resume:
        same_recipe(folder, requested)
        recipe, why, _ = read_object_recipe(folder / RECIPE)
    spelled(recipe.arch, kind)
    if recipe.augment != "auto":
        colour_calls(recipe.augment)
    data = prepare(pictures, recipe, alike, progress)
    if resume:
        same_data(folder, data)
    else:
        recipe, why = resolve(recipe, data)
    for line in (*data.notes, *why):
        say(line)
    start = build_network(recipe, len(data.labels), input_size(recipe, data), say)
    for line in about_size(data, start.preprocess):
        say(line)
        why = [*why, line] if line not in why else why
    return build_run(data, recipe, start, where), why


@dataclass(frozen=True, eq=False)
class Stores:
    """The pictures and the truth in the network's input."""

    pictures: Store
    truths: Truths


def stores_of(data: ObjectData, preprocess: Preprocess, recipe: ObjectRecipe) -> Stores:
    """The stores of all pictures, which are read when they are first asked for."""
    store = Store(data.pictures, preprocess, False)
    if data.kind == "detector":
        return Stores(store, BoxTruths(data.pictures, preprocess, recipe.least))
    return Stores(store, MapTruths(data.pictures, preprocess))


def _train_epoch(run: ObjectRun, stores: Stores, folder: Path, workers: int, tell: Progress) -> ObjectEpoch:
    """Train one epoch, or the rest of one that was stopped, and judge it on val."""
    r = run.recipe
    seed = step_seed(r.seed, run.epoch)
    rows = run.data.rows("train")
    batches = ObjectBatches(
        stores.pictures, stores.truths, order(rows, r.batch, seed), colour_calls(r.augment), r.flips, r.scale, seed
    )
    run.start.train()
    began = saved = time.monotonic()
    processor = time.process_time()
    loader = DataLoader(batches, batch_size=None, sampler=range(run.batch, len(batches)), num_workers=workers)
    for x, truths in loader:
        rng.seed_all(step_seed(r.seed, run.epoch, run.batch))  # dropout, and the samples of two-stage detectors
        run.pace.step(run.epoch * len(batches) + run.batch)
        loss = take_step(run, x, truths)
        run.batch += 1
        run.total += loss * len(batches.rows[run.batch - 1])
        done = run.epoch * len(rows) + sum(map(len, batches.rows[: run.batch]))
        tell("training", done, run.epochs * len(rows))
        if time.monotonic() - saved > KEEP and run.batch < len(batches):
            saved = time.monotonic()
            save_run(run, folder, saved - began, time.process_time() - processor)
    return _judge(run, stores, folder, began, processor)


def take_step(run: ObjectRun, x: Tensor, truths: list[Any]) -> float:
    """One step of the optimiser.  Refused: a loss that is not finite."""
    net = run.start.net
    z = normalised(run.start.preprocess, x.to(run.device))
    if run.data.kind == "detector":
        loss = detector_loss(net, z, truths)
    else:
        loss = segmenter_loss(net, z, truths, run.recipe.loss)
    value = float(loss.detach())
    if not torch.isfinite(loss.detach()):
        raise Refused(
            f"the loss is not finite in epoch {run.epoch + 1}, step {run.batch + 1}",
            f"give a lower learning rate than {run.recipe.lr} (--lr), in a new folder",
        )
    run.opt.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if run.recipe.clip:
        torch.nn.utils.clip_grad_norm_(net.parameters(), run.recipe.clip)
    run.opt.step()
    run.update_average()
    return value


def _judge(run: ObjectRun, stores: Stores, folder: Path, began: float, processor: float) -> ObjectEpoch:
    """The epoch that has ended, judged on val; its weights are kept if it is the best so far."""
    if run.average is None:
        run.shadow.load_state_dict(run.start.net.state_dict())
    val = run.data.rows("val")
    value = score(run.model(), stores.pictures, run.data.pictures, val, run.recipe.batch)
    loss = run.total / len(run.data.rows("train"))
    best = is_best(value, loss, run.history)
    if best:
        run.best = {k: v.detach().cpu().clone() for k, v in run.shadow.state_dict().items()}
    epoch = ObjectEpoch(
        number=run.epoch + 1,
        of=run.epochs,
        loss=loss,
        measure=MEASURES[run.data.kind],
        score=value,
        val_n=len(val),
        rate=max(g["lr"] for g in run.opt.param_groups),
        seconds=run.spent + time.monotonic() - began,
        processor=run.processor + time.process_time() - processor,
        best=best,
    )
    run.history.append(epoch)
    run.epoch, run.batch, run.total, run.spent, run.processor = run.epoch + 1, 0, 0.0, 0.0, 0.0
    save_run(run, folder, 0.0, 0.0)
    return epoch
