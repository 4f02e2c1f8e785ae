"""The training loop: pictures and a recipe in, a model folder out, one Epoch at a time."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from clearsight.core import rng
from clearsight.core.classifier import Classifier, normalised
from clearsight.core.copying import copied
from clearsight.core.progress import Progress
from clearsight.data.datasets import ALL, Pictures, open_data
from clearsight.data.duplicates import Likeness, likenesses
from clearsight.data.text_inputs import without_too_long
from clearsight.errors import Refused
from clearsight.internals.scores import scores
from clearsight.models.loading import device_of
from clearsight.models.model_folder import RECIPE
from clearsight.runner.augment import read, resizes
from clearsight.training.arithmetic import current_arithmetic, record_resume
from clearsight.training.auto_settings import resolve_auto
from clearsight.training.batches import Batches, Store, order
from clearsight.training.checkpoints import delete_state, has_state, load_state, save_state
from clearsight.training.fine_tuning import (
    TrainableNetwork,
    build_for_training,
    count_parameters,
    groups,
    trained,
    unfreeze,
)
from clearsight.training.first_head import Head, first_head, put_head, resolve_first_head, unchanged
from clearsight.training.history import Epoch, since_best
from clearsight.training.optimisers import Pace, optimiser, pace, range_test
from clearsight.training.recipe import Recipe, non_default, read_recipe
from clearsight.training.run_folder import (
    begin_folder,
    draw_rates,
    finish_folder,
    first,
    place,
    same_data,
    same_recipe,
    training_command,
)
from clearsight.training.temperature_scaling import Scaled, divide, nll, temperature
from clearsight.training.training_data import TrainingData, at_random, portions
from clearsight.training.validate_recipe import validate

KEEP = 120.0  # seconds after which the state of a run is saved within an epoch


@dataclass(eq=False)
class Run:
    """A training run between two steps: everything that a later step depends on.

    shadow: the network that is evaluated and kept, the average over steps where there is one.  epoch, batch: the next
    ones; total: the summed loss of the epoch so far; spent: its seconds; best: the weights of the epoch that is kept.
    """

    recipe: Recipe
    data: TrainingData
    start: TrainableNetwork
    accelerator: Any
    net: nn.Module
    opt: Any
    pace: Pace
    shadow: nn.Module
    average: Any
    epoch: int = 0
    batch: int = 0
    total: float = 0.0
    spent: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or none was better than those before for long enough."""
        patience = self.recipe.patience or 0
        return self.epoch >= _epochs(self.recipe) or 0 < patience <= since_best(self.history)

    def classifier(self) -> Classifier:
        """The network that is evaluated, as a Classifier."""
        return Classifier(self.shadow, self.start.preprocess, self.data.labels, channels_last=self.start.channels_last)


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
    holds while training goes on.  The epoch with the least loss on val is kept, and that may be this one.

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
        training_data, recipe, why = _prepare_data(
            folder, pictures, requested, alike or likenesses(pictures.pictures, progress=tell), resume
        )
        for line in (*training_data.notes, *why):
            say(line)
        start = _build_start(training_data, recipe, say)
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
        run = _build_run(training_data, recipe, start, device)
    except Refused:
        with suppress(OSError):  # it is empty, or it stays
            folder.rmdir()
        raise
    if resume and has_state(folder):
        _restore(run, load_state(folder))
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
    store = Store(training_data.pictures, run.start.preprocess, any(map(resizes, read(recipe.augment))))
    while not run.finished:
        with torch.random.fork_rng(devices=rng.gpus()):
            epoch = _train_epoch(run, store, eval_store, folder, workers, tell)
        yield epoch
    run.shadow.load_state_dict(run.best)
    if first():
        _write_model(run, eval_store, folder, tell)
        delete_state(folder)


def _fit_head(
    model: Classifier, start: TrainableNetwork, data: TrainingData, recipe: Recipe, eval_store: Store, tell: Progress
) -> Head | None:
    """The head that is fitted before training; None where the recipe has none."""
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
    epoch = _judge_epoch(run, head.val_logits, 0, head.loss, 0.0, n, time.monotonic() - began)
    run.history.append(epoch)
    _save_run(run, folder, 0.0)
    if first() and save_first:
        _write_model(run, eval_store, folder, tell, head.val_logits)
        run.shadow.load_state_dict(run.best)  # calibration has divided its head
    run.history[0] = replace(epoch, seconds=time.monotonic() - began)
    return run.history[0]


def _write_model(run: Run, eval_store: Store, folder: Path, tell: Progress, val_logits: Tensor | None = None) -> None:
    """Calibrate the network that is kept, and write it with its report, metrics and card."""
    scaled = _calibrate(run, eval_store, val_logits)
    finish_folder(folder, run.classifier(), run.start, run.data, run.recipe, run.history, scaled, run.finished, tell)


def _train_epoch(run: Run, store: Store, eval_store: Store, folder: Path, workers: int, tell: Progress) -> Epoch:
    """Train one epoch, or the rest of one that was stopped, and evaluate it on val."""
    r, acc = run.recipe, run.accelerator
    rows = run.data.rows("train")
    names = trained(run.start.net, run.start.head, r.strategy, run.epoch / _epochs(r))
    unfreeze(run.start.net, names, pretrained=bool(run.start.pretrained))
    batches = Batches(
        store, run.data.y, order(rows, r.batch, _seed(r.seed, run.epoch)), read(r.augment), _seed(r.seed, run.epoch)
    )
    weights = class_weights_of(run.data, r).to(acc.device)
    began = saved = time.monotonic()
    loader = DataLoader(batches, batch_size=None, sampler=range(run.batch, len(batches)), num_workers=workers)
    for x, y in loader:
        rng.seed_torch(_seed(r.seed, run.epoch, run.batch))  # dropout
        run.pace.step(run.epoch * len(batches) + run.batch)
        x, y = _process_share(x, acc), _process_share(y, acc)
        loss = training_loss(run.net, run.start, x, y, weights, r.smoothing)
        if not bool(torch.isfinite(loss)):
            raise Refused(_divergence_message(run, folder))
        run.opt.zero_grad()
        acc.backward(loss)
        if r.clip:
            acc.clip_grad_norm_(run.net.parameters(), r.clip)
        run.opt.step()
        if run.average is not None:
            run.average.update(run.start.net)
        run.batch += 1
        run.total += float(acc.reduce(loss.detach(), "mean")) * len(batches.rows[run.batch - 1])
        done = run.epoch * len(rows) + sum(map(len, batches.rows[: run.batch]))
        tell("training", done, _epochs(r) * len(rows))
        if time.monotonic() - saved > KEEP and run.batch < len(batches):
            saved = time.monotonic()
            _save_run(run, folder, saved - began)
    epoch = evaluate_epoch(
        run, eval_store, len(rows), count_parameters(run.start.net, names), run.spent + time.monotonic() - began
    )
    run.history.append(epoch)
    run.epoch, run.batch, run.total, run.spent = run.epoch + 1, 0, 0.0, 0.0
    _save_run(run, folder, 0.0)
    return epoch


def evaluate_epoch(run: Run, eval_store: Store, n: int, parameters: int, seconds: float) -> Epoch:
    """Evaluate the weights of this epoch on val; they are kept if no earlier ones had a lower loss.

    With labels drawn at random val says nothing about learning, so the last epoch is kept, which has learnt them best.
    """
    if run.average is None:
        run.shadow.load_state_dict(run.start.net.state_dict())
    logits = logits_of(run.classifier(), eval_store, run.data.rows("val"))
    rate = max(g["lr"] for g in run.opt.param_groups)
    epoch = _judge_epoch(run, logits, run.epoch + 1, run.total / n, rate, parameters, seconds)
    run.pace.epoch(epoch.val_loss)
    return epoch


def _judge_epoch(
    run: Run, logits: Tensor, number: int, train_loss: float, rate: float, parameters: int, seconds: float
) -> Epoch:
    """The epoch of the weights that gave these logits of val; they are kept if no earlier ones had a lower loss."""
    y = run.data.y[run.data.rows("val")]
    loss = float(_of_first_process(torch.tensor(nll(logits, y), dtype=torch.float64), run.accelerator))
    right = int((y.gather(1, logits.argmax(1, keepdim=True)) > 0).sum())
    best = run.recipe.random_labels or not run.history or loss < min(e.val_loss for e in run.history)
    if best:
        run.best = {k: v.detach().cpu().clone() for k, v in run.shadow.state_dict().items()}
    return Epoch(number, _epochs(run.recipe), train_loss, loss, right, len(y), rate, parameters, seconds, best)


def _calibrate(run: Run, eval_store: Store, logits: Tensor | None) -> Scaled:
    """Fit a temperature on val and divide the logits of the kept network by it, where that is possible.

    logits: those of val, where they are known.
    """
    model, rows = run.classifier(), run.data.rows("val")
    logits = logits_of(model, eval_store, rows) if logits is None else logits
    y = run.data.y[rows]
    t = temperature(logits, y)
    x = model.normalised(eval_store.pixels(rows[:8]).to(model.device))
    divided = divide(model.net.eval(), run.start.head, x, t)
    return Scaled(t, nll(logits, y), nll(logits / t, y), len(rows), divided)


def logits_of(model: Classifier, store: Store, rows: Sequence[int], batch: int = 32) -> Tensor:
    """The logits of these pictures of the store: (N, K), on the CPU."""
    parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    with model.undisturbed():
        return torch.cat([scores(model, store.pixels(part).to(model.device)) for part in parts])


def training_loss(
    net: nn.Module, start: TrainableNetwork, x: Tensor, y: Tensor, weights: Tensor, smoothing: float
) -> Tensor:
    """The mean cross entropy; a network with auxiliary outputs in training (a tuple) adds theirs at a weight of 0.3,
    as GoogLeNet does (Szegedy et al. 2015, arXiv:1409.4842)."""
    z = normalised(start.preprocess, x)
    out = net(z.contiguous(memory_format=torch.channels_last) if start.channels_last else z)
    parts = list(out) if isinstance(out, tuple | list) else [out]
    losses = [cross_entropy(part, y, weights, label_smoothing=smoothing) for part in parts]
    return losses[0] + 0.3 * sum(losses[1:], losses[0].new_zeros(()))


def class_weights_of(data: TrainingData, recipe: Recipe) -> Tensor:
    """(K,) ones, or the inverse frequency of each class in train, 1 on average over the pictures."""
    shares = data.y[data.rows("train")].sum(0)
    if not recipe.class_weights:
        return torch.ones_like(shares)
    return shares.sum() / (shares.clamp_min(1) * (shares > 0).sum())


def _prepare_data(
    folder: Path, pictures: Pictures, recipe: Recipe, alike: Likeness, resume: bool
) -> tuple[TrainingData, Recipe, list[str]]:
    """The divided pictures, and the recipe without automatic values: that of the run in the folder if it resumes."""
    run_recipe, why = recipe, list[str]()
    if resume:
        same_recipe(folder, non_default(recipe))
        run_recipe, why, _ = read_recipe(folder / RECIPE)
    if pictures.are_texts:
        pictures = without_too_long(pictures, run_recipe.size)
        alike = likenesses(pictures.pictures)
    data = portions(pictures, alike, run_recipe.parts(), run_recipe.divides())
    data = at_random(data, run_recipe.divides()) if run_recipe.random_labels else data
    if resume:
        same_data(folder, data)
        return data, run_recipe, why
    seen = data.seen if pictures.are_texts else [data.seen[i] for i in data.rows("train")]  # all texts must fit
    settled, why = resolve_auto(recipe, seen, data.counts("train"))
    return data, settled, why


def _build_start(data: TrainingData, recipe: Recipe, say: Callable[[str], None]) -> TrainableNetwork:
    """The network of a recipe, before training."""
    r = recipe
    return build_for_training(
        r.arch, r.weights, len(data.labels), size=r.size, grey=bool(r.grey), dropout=r.dropout, seed=r.seed, say=say
    )


def _build_run(data: TrainingData, recipe: Recipe, start: TrainableNetwork, device: str) -> Run:
    """A run from this network, with its optimiser, schedule and average, before the first step."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from timm.utils import ModelEmaV3

    r = recipe
    where = device_of(device)
    if where.type == "cuda" and where.index:
        torch.cuda.set_device(where)
    AcceleratorState._reset_state(reset_partial_state=os.environ.get("WORLD_SIZE", "1") == "1")  # of a run before it
    acc: Any = Accelerator(cpu=where.type == "cpu", mixed_precision="bf16" if r.precision == "bf16" else "no")
    start.net.to(acc.device)
    average = ModelEmaV3(start.net, decay=r.ema) if r.ema else None
    shadow: nn.Module = average.module if average is not None else copied(start.net)
    opt = _optimiser(r, start, start.net, float(r.lr))
    per_epoch = len(order(data.rows("train"), r.batch, 0))
    rhythm = pace(r.schedule, opt, steps=_epochs(r) * per_epoch, per_epoch=per_epoch, warmup=r.warmup)
    return Run(r, data, start, acc, acc.prepare_model(start.net), acc.prepare_optimizer(opt), rhythm, shadow, average)


def _optimiser(r: Recipe, start: TrainableNetwork, net: nn.Module, lr: float) -> torch.optim.Optimizer:
    parameter_groups = groups(net, start.head, lr=lr, body=r.body, decay=r.decay, pretrained=bool(start.pretrained))
    return optimiser(r.optimiser, parameter_groups, lr=lr, momentum=r.momentum)


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
    run = _build_run(data, replace(recipe, lr="1"), _build_start(data, recipe, lambda line: None), "cpu")
    if head is not None:
        put_head(run.start.net, head)
    rows, epoch_seed = data.rows("train"), _seed(recipe.seed, 0)
    store = Store(data.pictures, run.start.preprocess, any(map(resizes, read(recipe.augment))))
    batches = Batches(store, data.y, order(rows, recipe.batch, epoch_seed), read(recipe.augment), epoch_seed)
    names = trained(run.start.net, run.start.head, recipe.strategy, 0.0)
    unfreeze(run.start.net, names, pretrained=bool(run.start.pretrained))
    weights = class_weights_of(data, recipe)

    def loss(net: nn.Module, n: int) -> Tensor:
        x, y = batches[n % len(batches)]
        return training_loss(net, run.start, x, y, weights, recipe.smoothing)

    with torch.random.fork_rng(devices=rng.gpus()):
        rng.seed_torch(epoch_seed)
        return range_test(run.start.net, loss, lambda net, lr: _optimiser(recipe, run.start, net, lr))


def _save_run(run: Run, folder: Path, spent: float) -> None:
    """Save the state of the run, in the first process only."""
    if first():
        save_state(folder, _state(run, spent))


def _state(run: Run, spent: float) -> dict[str, Any]:
    """All that a later step depends on, as tensors, numbers and words."""
    return {
        "net": run.start.net.state_dict(),
        "opt": run.opt.state_dict(),
        "plateau": run.pace.plateau.state_dict() if run.pace.plateau else None,
        "average": run.average.module.state_dict() if run.average is not None else None,
        "best": run.best,
        "epoch": run.epoch,
        "batch": run.batch,
        "total": run.total,
        "spent": run.spent + spent,
        "history": [asdict(e) for e in run.history],
    }


def _restore(run: Run, state: dict[str, Any]) -> None:
    """Restore a run from its saved state."""
    run.start.net.load_state_dict(state["net"])
    run.opt.load_state_dict(state["opt"])
    if run.pace.plateau:
        run.pace.plateau.load_state_dict(state["plateau"])
    if run.average is not None:
        run.average.module.load_state_dict(state["average"])
    run.best, run.epoch, run.batch, run.total, run.spent = (
        state[k] for k in ("best", "epoch", "batch", "total", "spent")
    )
    run.history = [Epoch(**e) for e in state["history"]]


def _of_first_process(t: Tensor, acc: Any) -> Tensor:
    """The numbers of the first process, so that all go on from the same weights and stop at the same epoch."""
    if acc.num_processes == 1:
        return t
    from accelerate.utils import broadcast

    return broadcast(t.to(acc.device)).to(t.device)  # type: ignore[no-any-return]


def _process_share(t: Tensor, acc: Any) -> Tensor:
    """This process's part of a batch: of n processes each takes every n-th picture."""
    return t[acc.process_index :: acc.num_processes].to(acc.device)


def _seed(seed: int, *numbers: int) -> int:
    """A seed of its own for an epoch, or for a step of it."""
    key = hashlib.blake2b(repr((seed, *numbers)).encode(), digest_size=7).digest()
    return int.from_bytes(key, "big")


def _epochs(recipe: Recipe) -> int:
    assert recipe.epochs is not None
    return recipe.epochs


def _divergence_message(run: Run, folder: Path) -> str:
    rate = max(g["lr"] for g in run.opt.param_groups)
    return (
        f"the loss is not finite in epoch {run.epoch + 1}, step {run.batch + 1}, at a learning rate of {rate:.2g}: "
        f"start in a new folder with a smaller one, --lr {rate / 10:.1g}, or --lr find ({folder} keeps the last state)"
    )
