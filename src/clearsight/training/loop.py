"""The training loop: pictures and a recipe in, a model folder out, one Epoch at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clearsight.core import rng
from clearsight.core.classifier import Classifier
from clearsight.core.progress import Progress
from clearsight.data.datasets import ALL, Pictures, open_data
from clearsight.data.duplicates import Likeness, likenesses
from clearsight.errors import NotFinite, Refused
from clearsight.internals.scores import scores
from clearsight.models.loading import device_of
from clearsight.runner.augment import read, resizes
from clearsight.training.arithmetic import current_arithmetic, record_resume, slow_precision
from clearsight.training.batches import Batches, Guidance, Store, order, step_seed
from clearsight.training.checkpoints import delete_state, has_state, load_state
from clearsight.training.fine_tuning import (
    TrainableNetwork,
    count_parameters,
    trained,
    unfreeze,
)
from clearsight.training.first_head import Head, first_head, put_head, resolve_first_head, unchanged
from clearsight.training.group_accuracy import worst_group
from clearsight.training.guidance import stores
from clearsight.training.history import Epoch, is_best
from clearsight.training.losses import class_weights_of, training_loss
from clearsight.training.objective import objective, rebalanced_loss, step_loss
from clearsight.training.optimisers import range_test
from clearsight.training.preparation import build_start, prepare_data
from clearsight.training.rebalance import fitted_last_layer, has_fitted_val, rebalanced, rebalancing, stage
from clearsight.training.recipe import Recipe, keeps_last
from clearsight.training.robust_val import collapsed, robust_right, robust_rows
from clearsight.training.run import Run, build_run, epochs_of, optimiser_of, restore, save_run
from clearsight.training.run_folder import (
    begin_folder,
    draw_rates,
    finish_folder,
    first,
    place,
)
from clearsight.training.run_record import training_command
from clearsight.training.temperature_scaling import Scaled, divide, nll, temperature
from clearsight.training.training_data import TrainingData
from clearsight.training.trial_guide import try_guide
from clearsight.training.validate_recipe import validate

KEEP = 120.0  # seconds after which the state of a run is saved within an epoch


def train(
    data: str | Path | Pictures,
    recipe: Recipe | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    alike: Likeness | None = None,
    command_line: str = "",
    device: str = "auto",
    workers: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
    save_first: bool = True,
) -> Iterator[Epoch]:
    """Train a classifier on pictures and write it to a folder that `load` reads; yields each epoch as it ends.

    Pretrained weights get a head fitted to their features first (``first_head``): epoch 0, whose model the folder then
    holds while training goes on.  The epoch with the least loss on val is kept, and that may be this one.  Training
    against an attack keeps the epoch that is right most often under attack, guided training the last one.  Where the
    recipe names groups it is the one that is right most often in the worst group of val.

    Args:
        data: pictures from `folder`, or a path for it; every split is used.
        recipe: how the classifier is trained; None for Recipe().
        out: folder of the run; None for the next clearsight-runs/train-N.
        resume: go on with the run in out.  On a CPU it ends bit for bit as if it had never been stopped, given as many
            threads as before; a Notice says if the threads, the device or PyTorch are others.
        alike: the duplicates among data.pictures, if they are known; None finds them.
        command_line: command that the folder records, if it is not that of this call alone.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest that is available.
        workers: number of processes that read pictures, which does not change the result; 0 reads them in this process.
        progress: called with the name of the step, the number of pictures done and the total.
        say: called with each sentence on what was chosen, and why.
        save_first: write the first model as a whole folder, judged on test, as soon as there is one.

    Refused: data or a recipe that cannot be trained, a folder that holds another run, and a loss that is not finite.
    """
    began = time.monotonic()
    tell: Progress = progress or (lambda what, done, total: None)
    requested = recipe or Recipe()
    split = None if str(data) == "demo" else ALL
    pictures = data if isinstance(data, Pictures) else open_data(data, split=split)
    folder = place(out, resume)
    try:
        validate(requested, device)
        training_data, recipe, why = prepare_data(
            folder, pictures, requested, alike or likenesses(pictures.pictures, progress=tell), resume
        )
        for line in (*training_data.notes, *why, *slow_precision(recipe.precision, device_of(device))):
            say(line)
        start = build_start(training_data, recipe, say)
        training_data = rebalanced(training_data, recipe, start, device, tell)
        eval_store = Store(training_data.pictures, start.preprocess, False)
        head = None
        if not resume:
            recipe, reasons = resolve_first_head(recipe, start, training_data)
            if recipe.lr == "find":
                head = _fit_head(unchanged(start, training_data), start, training_data, recipe, eval_store, tell)
                recipe, found = _resolve_rate(folder, recipe, training_data, head)
                reasons.append(found)
            for line in reasons:
                say(line)
            why = [*why, *reasons]
        run = build_run(training_data, recipe, start, device)
        if not resume:
            try_guide(run)
    except Refused:
        with suppress(OSError):  # it is empty, or it stays
            folder.rmdir()
        raise
    if resume and has_state(folder):
        restore(run, load_state(folder))
    arithmetic = current_arithmetic(run.accelerator.device, run.epoch, run.batch)
    if resume and first():
        record_resume(folder, arithmetic)
    elif first():
        begin_folder(
            folder,
            training_data,
            recipe,
            why,
            requested,
            command_line or training_command(pictures, requested, folder),
            arithmetic,
        )
    if not run.history:
        head = head or _fit_head(run.classifier(), run.start, run.data, recipe, eval_store, tell)
        if head is not None:
            yield _first_epoch(run, head, eval_store, folder, began, save_first, tell)
    yield from _epochs(run, eval_store, folder, workers, tell)
    run.shadow.load_state_dict(run.best)
    if first():
        _write_model(run, eval_store, folder, tell)
        delete_state(folder)


def _fit_head(
    model: Classifier, start: TrainableNetwork, data: TrainingData, recipe: Recipe, eval_store: Store, tell: Progress
) -> Head | None:
    """The head that is fitted before training, or in its place; None where the recipe has none."""
    if stage(recipe) == "features":
        return fitted_last_layer(model, start.head, data, recipe, eval_store, tell)
    if not recipe.first_head:
        return None
    return first_head(model, start.head, data, eval_store, class_weights_of(data, recipe), recipe.smoothing, tell)


def _first_epoch(
    run: Run, head: Head, eval_store: Store, folder: Path, began: float, save_first: bool, tell: Progress
) -> Epoch:
    """Training begins from the fitted head, which is epoch 0; its model is written before training goes on."""
    put_head(run.start.net, head)
    with torch.no_grad():
        for name, p in run.start.net.named_parameters():
            if name in run.start.head:
                p.copy_(_of_first_process(p, run.accelerator))
    run.shadow.load_state_dict(run.start.net.state_dict())
    n = head.weight.numel() + head.bias.numel()
    epoch = _judge_epoch(run, head.val_logits, eval_store, 0, head.loss, 0.0, n, time.monotonic() - began)
    run.history.append(epoch)
    save_run(run, folder, 0.0)
    if first() and save_first and not run.finished:
        _write_model(run, eval_store, folder, tell, head.val_logits)
        run.shadow.load_state_dict(run.best)  # calibration has divided its head
    run.history[0] = replace(epoch, seconds=time.monotonic() - began)
    return run.history[0]


def _write_model(run: Run, eval_store: Store, folder: Path, tell: Progress, val_logits: Tensor | None = None) -> None:
    """Calibrate the network that is kept, and write it with its report, metrics and card."""
    scaled = _calibrate(run, eval_store, val_logits)
    finish_folder(folder, run.classifier(), run.start, run.data, run.recipe, run.history, scaled, run.finished, tell)


def _epochs(run: Run, eval_store: Store, folder: Path, workers: int, tell: Progress) -> Iterator[Epoch]:
    """Train the epochs that are left; yields each as it ends."""
    store, guides = stores(run.data, run.start.preprocess, run.recipe)
    while not run.finished:
        try:
            with torch.random.fork_rng(devices=rng.gpus()), rng.held():
                epoch = _train_epoch(run, store, guides, eval_store, folder, workers, tell)
        except NotFinite as e:
            raise Refused(*_divergence(run, folder, f"{e.what} after step {run.batch} of epoch {run.epoch + 1}")) from e
        yield epoch


def _train_epoch(
    run: Run,
    store: Store,
    guides: Guidance | None,
    eval_store: Store,
    folder: Path,
    workers: int,
    tell: Progress,
) -> Epoch:
    """Train one epoch, or the rest of one that was stopped, and evaluate it on val."""
    r, acc = run.recipe, run.accelerator
    names = trained(run.start.net, run.start.head, r.strategy, run.epoch / epochs_of(r))
    unfreeze(run.start.net, names, pretrained=bool(run.start.pretrained))
    seed = step_seed(r.seed, run.epoch)
    rows = run.data.epoch_rows(seed)
    batches = Batches(store, run.data.y, order(rows, r.batch, seed), read(r.augment), seed, guides)
    weights, asked, sees_groups = class_weights_of(run.data, r).to(acc.device), objective(r), stage(r) == "step"
    began = saved = time.monotonic()
    seen = sum(map(len, batches.rows[: run.batch]))
    loader = DataLoader(batches, batch_size=None, sampler=range(run.batch, len(batches)), num_workers=workers)
    for x, y, inside in loader:
        rng.seed_all(step_seed(r.seed, run.epoch, run.batch))  # dropout
        run.pace.step(run.epoch * len(batches) + run.batch)
        x, y = _process_share(x, acc), _process_share(y, acc)
        inside = None if inside is None else _process_share(inside, acc)
        for replay in range(asked.replays):
            if sees_groups:
                loss = _rebalanced_loss(run, x, y, batches.rows[run.batch], weights)
            else:
                loss = step_loss(
                    run, asked, x, y, inside, weights, step_seed(r.seed, run.epoch, run.batch, replay), replay
                )
            _take_step(run, loss, folder)
        n = len(batches.rows[run.batch])
        run.batch, seen = run.batch + 1, seen + n
        run.total += float(acc.reduce(loss.detach(), "mean")) * n
        tell("training", run.epoch * len(rows) + seen, epochs_of(r) * len(rows))
        if time.monotonic() - saved > KEEP and run.batch < len(batches):
            saved = time.monotonic()
            save_run(run, folder, saved - began)
    epoch = evaluate_epoch(
        run, eval_store, len(rows), count_parameters(run.start.net, names), run.spent + time.monotonic() - began
    )
    run.history.append(epoch)
    run.epoch, run.batch, run.total, run.spent = run.epoch + 1, 0, 0.0, 0.0
    save_run(run, folder, 0.0)
    return epoch


def _rebalanced_loss(run: Run, x: Tensor, y: Tensor, rows: Sequence[int], weights: Tensor) -> Tensor:
    """The loss of a step in which the recipe's rebalancing sees the groups of these pictures."""
    call, grouping = rebalancing(run.recipe), run.data.grouping
    assert call is not None
    assert grouping is not None
    return rebalanced_loss(run, call, x, y, grouping.of[list(rows)].to(x.device), len(grouping.names), weights)


def _take_step(run: Run, loss: Tensor, folder: Path) -> None:
    """One step of the optimiser down this loss.  Refused: a loss that is not finite."""
    if not bool(torch.isfinite(loss)):
        where = f"in epoch {run.epoch + 1}, step {run.batch + 1}"
        raise Refused(*_divergence(run, folder, f"the loss is not finite {where}"))
    run.opt.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if run.recipe.clip:
        nn.utils.clip_grad_norm_(run.net.parameters(), run.recipe.clip)
    run.opt.step()
    if run.average is not None:
        run.average.update(run.start.net)


def evaluate_epoch(run: Run, eval_store: Store, n: int, parameters: int, seconds: float) -> Epoch:
    """Evaluate the weights of this epoch on val; they are kept if no earlier ones had a lower loss.

    With labels drawn at random val says nothing about learning, so the last epoch is kept, which has learnt them best.
    """
    if run.average is None:
        run.shadow.load_state_dict(run.start.net.state_dict())
    logits = logits_of(run.classifier(), eval_store, run.data.rows("val"))
    rate = max(g["lr"] for g in run.opt.param_groups)
    epoch = _judge_epoch(run, logits, eval_store, run.epoch + 1, run.total / n, rate, parameters, seconds)
    run.pace.epoch(epoch.val_loss)
    return epoch


def _judge_epoch(
    run: Run,
    logits: Tensor,
    eval_store: Store,
    number: int,
    train_loss: float,
    rate: float,
    parameters: int,
    seconds: float,
) -> Epoch:
    """The epoch of the weights that gave these logits of val; they are kept if no earlier ones were better.

    Some recipes keep the last epoch (``keeps_last``).  Better is a lower loss; where training is against an attack,
    more pictures that are right under attack, and of equal ones the lower loss.
    """
    y = run.data.y[run.data.rows("val")]
    loss = float(_of_first_process(torch.tensor(nll(logits, y), dtype=torch.float64), run.accelerator))
    right = int((y.gather(1, logits.argmax(1, keepdim=True)) > 0).sum())
    of = 0 if stage(run.recipe) == "features" else epochs_of(run.recipe)
    epoch = Epoch(number, of, train_loss, loss, right, len(y), rate, parameters, seconds, best=False)
    if run.data.grouping is not None:
        epoch = worst_group(epoch, run.data.grouping, run.data, logits)
    if run.recipe.perturb:
        epoch = _under_attack(run, epoch, eval_store)
    best = keeps_last(run.recipe) or is_best(epoch, run.history)
    if best:
        run.best = {k: v.detach().cpu().clone() for k, v in run.shadow.state_dict().items()}
    return replace(epoch, best=best)


def _under_attack(run: Run, epoch: Epoch, eval_store: Store) -> Epoch:
    """The epoch with what the network does on val under attack."""
    asked, rows = objective(run.recipe), robust_rows(run.data, run.recipe.seed)
    right = robust_right(run.classifier(), eval_store, run.data, rows, asked.eps, asked.norm)
    right = int(_of_first_process(torch.tensor(right), run.accelerator))
    return replace(epoch, robust_right=right, robust_n=len(rows), collapsed=collapsed(right, len(rows), run.history))


def _calibrate(run: Run, eval_store: Store, logits: Tensor | None) -> Scaled:
    """Fit a temperature on val and divide the logits of the kept network by it, where that is possible.

    logits: those of val, where they are known.
    """
    model, rows = run.classifier(), run.data.rows("val")
    logits = logits_of(model, eval_store, rows) if logits is None else logits
    y = run.data.y[rows]
    if has_fitted_val(run.recipe):
        return Scaled(1.0, nll(logits, y), nll(logits, y), len(rows), done=False)
    t = temperature(logits, y)
    x = model.normalised(eval_store.pixels(rows[:8]).to(model.device))
    divided = divide(model.net.eval(), run.start.head, x, t)
    return Scaled(t, nll(logits, y), nll(logits / t, y), len(rows), divided)


def logits_of(model: Classifier, store: Store, rows: Sequence[int], batch: int = 32) -> Tensor:
    """The logits of these pictures of the store: (N, K), on the CPU."""
    parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    with model.undisturbed():
        return torch.cat([scores(model, store.pixels(part).to(model.device)) for part in parts])


def _resolve_rate(folder: Path, recipe: Recipe, data: TrainingData, head: Head | None) -> tuple[Recipe, str]:
    """The recipe with the learning rate of a range test, whose chart is drawn, and a sentence on it."""
    rate, curve = find_rate(recipe, data, head)
    if first():
        draw_rates(folder, curve, rate)
    return replace(recipe, lr=f"{rate:.2g}"), f"lr {rate:.2g}: chosen by a range test, figures/rates.svg"


def find_rate(recipe: Recipe, data: TrainingData, head: Head | None) -> tuple[float, list[tuple[float, float]]]:
    """The learning rate of ``range_test`` for a recipe whose lr is "find", and the curve behind it.

    head: the one that training begins from, where it is fitted first.
    """
    run = build_run(data, replace(recipe, lr="1"), build_start(data, recipe, lambda line: None), "cpu")
    if head is not None:
        put_head(run.start.net, head)
    epoch_seed = step_seed(recipe.seed, 0)
    rows = data.epoch_rows(epoch_seed)
    store = Store(data.pictures, run.start.preprocess, any(map(resizes, read(recipe.augment))))
    batches = Batches(store, data.y, order(rows, recipe.batch, epoch_seed), read(recipe.augment), epoch_seed)
    names = trained(run.start.net, run.start.head, recipe.strategy, 0.0)
    unfreeze(run.start.net, names, pretrained=bool(run.start.pretrained))
    weights = class_weights_of(data, recipe)

    def loss(net: nn.Module, n: int) -> Tensor:
        x, y, _ = batches[n % len(batches)]
        return training_loss(net, run.start, x, y, weights, recipe.smoothing)

    with torch.random.fork_rng(devices=rng.gpus()):
        rng.seed_torch(epoch_seed)
        return range_test(run.start.net, loss, lambda net, lr: optimiser_of(recipe, run.start, net, lr))


def _of_first_process(t: Tensor, acc: Any) -> Tensor:
    """The numbers of the first process, so that all go on from the same weights and stop at the same epoch."""
    if acc.num_processes == 1:
        return t
    from accelerate.utils import broadcast

    return broadcast(t.to(acc.device)).to(t.device)  # type: ignore[no-any-return]


def _process_share(t: Tensor, acc: Any) -> Tensor:
    """This process's part of a batch: of n processes each takes every n-th picture."""
    return t[acc.process_index :: acc.num_processes].to(acc.device)


def _divergence(run: Run, folder: Path, what: str) -> tuple[str, str]:
    """What was seen to be not finite, with the learning rate, and what to do about it."""
    rate = max(g["lr"] for g in run.opt.param_groups)
    return (
        f"{what}, at a learning rate of {rate:.2g}",
        f"start in a new folder with a smaller one, --lr {rate / 10:.1g}, or --lr find ({folder} keeps the last state)",
    )
