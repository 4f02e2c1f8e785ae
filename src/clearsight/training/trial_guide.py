"""A guided step of a run before its first one, which shows wrong options, and whether a step fits into memory."""

from __future__ import annotations

from dataclasses import replace

from clearsight.runner.augment import fits_regions, read
from clearsight.training.batches import Batches
from clearsight.training.fine_tuning import trained, unfreeze
from clearsight.training.guidance import stores
from clearsight.training.guided_memory import must_fit
from clearsight.training.losses import class_weights_of
from clearsight.training.objective import objective, training_step
from clearsight.training.run import Run


def try_guide(run: Run) -> None:
    """Run the guide of a run on pictures that it guides, and change nothing.

    Refused: what the guide refuses, augmentations that do not go with annotations, and a batch whose guided step needs
    more memory than is free.
    """
    r, asked, calls = run.recipe, objective(run.recipe), read(run.recipe.augment)
    store, guides = stores(run.data, run.start.preprocess, r)
    if asked.guide is None or guides is None:
        return
    fits_regions(calls)
    others = [i for i in run.data.rows("train") if i not in guides.rows]
    rows = [*sorted(guides.rows), *others][: r.batch]
    x, y, inside = Batches(store, run.data.y, [rows], calls, r.seed, guides)[0]
    assert inside is not None
    device = run.accelerator.device
    names = trained(run.start.net, run.start.head, r.strategy, 0.0)
    unfreeze(run.start.net, names, pretrained=bool(run.start.pretrained))
    step = training_step(run, asked, class_weights_of(run.data, r).to(device), r.seed)
    must_fit(asked.guide, replace(step, memory={}), x.to(device), y.to(device), inside.to(device))
