"""A search over training settings with Ray Tune, on one machine or on a cluster, that can be stopped and resumed.

Each trial is ``train`` itself in a folder of its own, and its results are there, in trial.json.  Ray places the
trials and ASHA stops the bad ones; nothing that Ray writes is kept.  ``Tuner.restore`` is not used: it begins a trial
again that has no checkpoint in Ray's own form, where train's own state goes on bit for bit, and it runs trials again
whose end it had not yet written down.  A search that goes on tells Ray again what each trial reported before, so that
ASHA compares as it would have.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from clearsight.auditing.evidence import share, span
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.core.run_names import new_folder
from clearsight.core.statistics import wilson
from clearsight.core.text import counted
from clearsight.data.datasets import ALL, Pictures, open_data
from clearsight.data.duplicates import Likeness, likenesses
from clearsight.errors import Refused, nearest
from clearsight.models.model_folder import RECIPE, SPLIT
from clearsight.sharding.ray_cluster import ray_cluster, ray_module, require_ray
from clearsight.training.auto_settings import resolve_auto
from clearsight.training.checkpoints import has_state, load_state
from clearsight.training.history import Epoch, since_best
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe, as_begun, completed, read_recipe
from clearsight.training.run_folder import METRICS
from clearsight.training.search_space import DEFAULT, Settings, Space, Value, drawn, grid, read_space
from clearsight.training.training_data import portions
from clearsight.training.validate_recipe import validate

Search = Literal["random", "grid", "asha"]

PLAN, TABLE, BEST, TRIAL = "search.json", "tune", "best.json", "trial.json"
REDUCTION = 3  # ASHA goes on with one of so many trials at each rung
RUNGS = 9  # the first rung is at this part of the epochs
_EARLY = "stopped early by ASHA"


@dataclass(frozen=True)
class Trial:
    """One run of the search: its settings, the epochs that it trained, and why it ended ("": it has not)."""

    number: int
    settings: Settings
    epochs: tuple[Epoch, ...] = ()
    ended: str = ""
    failed: bool = False

    @property
    def best(self) -> Epoch | None:
        """The epoch with the least loss on val, whose weights are kept."""
        return min((e for e in self.epochs if math.isfinite(e.val_loss)), key=lambda e: e.val_loss, default=None)

    @property
    def seconds(self) -> float:
        return sum(e.seconds for e in self.epochs)

    @property
    def trained(self) -> int:
        """How many epochs were trained; the first model is none of them."""
        return self.epochs[-1].number if self.epochs else 0

    def row(self) -> dict[str, Any]:
        """The trial as a line of the table."""
        e = self.best
        low, high = wilson(e.val_right, e.val_n) if e else (None, None)
        return {
            "trial": self.number,
            **self.settings,
            "epochs": self.trained,
            "val loss": e.val_loss if e else None,
            "val accuracy": e.val_right / e.val_n if e else None,
            "from (95 %)": low,
            "to (95 %)": high,
            "n": e.val_n if e else None,
            "seconds": round(self.seconds, 1),
            "failed": self.failed,
            "ended": self.ended,
        }


@dataclass(frozen=True)
class Tuned:
    """The result of a search.  best: the folder of the best trial, trained to its end; judged_on: test, or val."""

    folder: Path
    best: Path
    search: Search
    space: Space
    trials: tuple[Trial, ...]
    judged_on: str

    @property
    def winner(self) -> Trial:
        return next(t for t in self.trials if _folder(self.folder, t.number) == self.best)

    def warning(self) -> str:
        """That the best number is optimistic, and how to judge the model instead."""
        n = sum(t.best is not None for t in self.trials)
        judge = f"clearsight audit {self.best} {self.best / SPLIT} --split {self.judged_on}"
        if self.judged_on == "test":
            return f"best of {n} on val, so optimistic: judge it on test, which the search never used: {judge}"
        return f"best of {n} on val, so optimistic, and there is no test: judge it on other pictures"

    def lines(self) -> list[str]:
        """For the terminal: the trials with the best first, then what to do with it."""
        lines = [_line(t) for t in sorted(self.trials, key=trial_rank)]
        return [*lines, f"best: trial {self.winner.number}, {_spell(self.winner.settings)}", self.warning(),
                str(self.best)]  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "search": self.search,
            "space": str(self.space),
            "compared": sum(t.best is not None for t in self.trials),
            "compared_on": "val",
            "best": {"folder": self.best.name, **self.winner.row(), "settings": self.winner.settings},
            "warning": self.warning(),
            "trials": [t.row() for t in self.trials],
        }


@dataclass(frozen=True)
class _Job:
    """What all trials share."""

    data: Pictures
    alike: Likeness
    recipe: Recipe
    settings: tuple[Settings, ...]
    out: Path
    cwd: Path
    device: str = "auto"
    workers: int = 0


def tune(
    data: Pictures | str | Path,
    recipe: Recipe,
    space: str | Space = DEFAULT,
    out: str | Path | None = None,
    *,
    search: Search = "asha",
    trials: int = 12,
    at_once: int = 1,
    resume: bool = False,
    device: str = "auto",
    workers: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Tuned:
    """Train with several settings, and then the best of them, by its loss on val, to its end.

    Trials are compared on val alone; nothing but the best trial is ever judged on test.  The others keep their state,
    and `train(resume=True)` goes on with each.  A trial that is Refused, as one whose loss is not finite, stands in the
    table as failed.

    Where RAY_ADDRESS names a cluster the trials run there, and data and out must be on storage that all of its machines
    share.  Otherwise Ray runs here, listens on this machine alone, and is ended at the end.

    Args:
        data: pictures from `folder`, or a path for it; every split is used.
        recipe: what all trials share.  Its seed also draws the settings, so that trial 3 of a seed is the same whatever
            ran before and however many follow.
        space: settings to try, see `read_space`.
        out: folder of the search; None for the next clearsight-runs/tune-N.
        search: "random", "grid" (ranges at both ends and in the middle), or "asha": random settings of which a trial
            ends early that is not among the best third at a ninth (at least one), a third, ... of the epochs, of those
            that came so far before it (Li et al. 2018, arXiv:1810.05934).
        trials: maximum number of trials, at least 1.
        at_once: number of trials side by side, at least 1, which share the processors and GPUs alike.  With one at a
            time the search is repeatable; with more, what ASHA compares depends on which trial is first.
        resume: go on with the search in out.  Trials that ended are not run again, also those that failed, and trials
            may be more than before.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest that is available.
        workers: number of processes that read pictures, for each trial.
        progress: called with the name of the step, the number of pictures done and the total.
        say: called with each sentence on what the search does.

    Refused: a missing Ray, a space that the recipe does not allow, a grid of more trials than trials, a folder that
    holds another search, and a search in which every trial fails.
    """
    tell: Progress = progress or (lambda what, done, total: None)
    chosen_space = _check_search(read_space(space), recipe, search, trials, at_once)
    if resume and out is not None:
        recipe = as_begun(recipe, Path(out) / PLAN)
    settings = grid(chosen_space) if search == "grid" else drawn(chosen_space, trials, recipe.seed)
    for values in settings:
        validate(apply_settings(recipe, values))
    require_ray("tune")
    split = None if str(data) == "demo" else ALL
    pictures = data if isinstance(data, Pictures) else open_data(data, split=split)
    pictures = replace(pictures, pictures=tuple(replace(p, path=p.path.absolute()) for p in pictures.pictures))
    alike = likenesses(pictures.pictures, progress=tell)
    training_data = portions(pictures, alike, recipe.parts(), recipe.divides())
    seen, classes = [training_data.seen[i] for i in training_data.rows("train")], training_data.counts("train")
    epochs = max(resolve_auto(apply_settings(recipe, values), seen, classes)[0].epochs or 1 for values in settings)
    plan = {
        "schema": 1, "search": search, "space": str(chosen_space), "recipe": recipe.as_dict(),
        "data": training_data.digest,
    }  # fmt: skip
    folder = _search_folder(None if out is None else Path(out), plan, resume).resolve()
    job = _Job(pictures, alike, recipe, tuple(settings), folder, Path.cwd(), device, workers)
    say(f"{counted(len(settings), 'trial')}: {chosen_space}")
    errors: dict[int, str] = {}
    if any(not _read(folder, n, values).ended for n, values in enumerate(settings, 1)):
        with ray_cluster(at_once) as ray:
            errors = _run_ray(ray, job, search, epochs, at_once, say)
    done = tuple(_final_trial(_read(folder, n, values), errors.get(n)) for n, values in enumerate(settings, 1))
    for t in done:
        if t.number not in errors:  # what broke is run again by a search that goes on
            _write(folder, t)
    return _write_results(job, done, search, chosen_space, "test" if training_data.rows("test") else "val", tell, say)


def _check_search(space: Space, recipe: Recipe, search: str, trials: int, at_once: int) -> Space:
    """The space, if this search can be made in it; Refused otherwise."""
    if search not in get_args(Search):
        raise Refused(f"search {search!r}: {nearest(search, get_args(Search))}")
    for name, value in (("trials", trials), ("at-once", at_once)):
        if value < 1:
            raise Refused(f"--{name} {value}: give a whole number of at least 1")
    if search == "grid" and (n := len(grid(space))) > trials:
        raise Refused(
            f"the grid of this space has {n} trials, more than {trials}: give --trials {n}, or --search random"
        )
    default = Recipe()
    for d in space.dimensions:
        if getattr(recipe, d.name) != getattr(default, d.name):
            raise Refused(f"{d.name} is given as a setting and in the space as well: leave one of them out")
    return space


def apply_settings(recipe: Recipe, settings: Settings) -> Recipe:
    changed: dict[str, Any] = dict(settings)
    return replace(recipe, **changed)


def _search_folder(out: Path | None, plan: dict[str, Any], resume: bool) -> Path:
    """The folder of a search: a new one, or that of the search to resume, which must have the same plan."""
    begun = out is not None and (out / PLAN).is_file()
    if resume and not begun:
        if out is None:
            raise Refused("--resume needs the folder of a search: name it with -o DIR")
        raise Refused(f"{out} holds no search to resume: name the folder of one with -o DIR")
    if begun and not resume:
        raise Refused(f"{out} holds a search: --resume goes on with it; name a new folder with -o for another one")
    folder = new_folder("tune", out, holds=PLAN)
    if begun:
        try:
            before = json.loads((folder / PLAN).read_text(encoding="utf-8"))
            before["recipe"] = completed(before["recipe"])
            other = [k for k in plan if before[k] != plan[k]]
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise Refused(f"{folder / PLAN} is no plan of a search: start in a new folder") from e
        if other:
            raise Refused(
                f"{folder} was started with another {', '.join(other)}: give the same, or start in a new folder"
            )
    else:
        write_whole(folder / PLAN, json.dumps(plan, indent=1) + "\n")
    return folder


# Inside a trial -------------------------------------------------------------------------------------------------------


def _trial(config: dict[str, Any], *, job: _Job) -> None:
    """Train one trial and report each epoch to Ray; it is written to disk first, as Ray may end the trial there."""
    ray_tune = ray_module("ray.tune")
    t = _read(job.out, config["number"], job.settings[config["number"] - 1])

    def report_epoch(e: Epoch, new: bool) -> None:
        shown = {"number": t.number, "new": new, "line": e.line()}
        ray_tune.report({"val_loss": e.val_loss, "accuracy": e.val_right / e.val_n, "epoch": e.number, **shown})

    for e in t.epochs:
        report_epoch(e, False)
    if t.ended:
        return
    with contextlib.chdir(job.cwd if job.cwd.is_dir() else Path.cwd()):
        for latest in _train_trial(job, t):
            if len(latest.epochs) > len(t.epochs) and not latest.failed:
                report_epoch(latest.epochs[-1], True)


def _train_trial(job: _Job, t: Trial) -> Iterator[Trial]:
    """Train a trial from its last state to its last epoch; yields it after each epoch, written to disk.

    It ends before ``train`` judges the model: test pictures are for the best trial alone.
    """
    folder = _folder(job.out, t.number)
    recipe = apply_settings(job.recipe, t.settings)
    resume = has_state(folder)
    if folder.is_dir() and not resume:
        shutil.rmtree(folder)  # stopped before its first state: there is nothing to go on with
        t = replace(t, epochs=())
    if why := _why_over(t.epochs, folder):
        yield _write(job.out, replace(t, ended=why))
        return
    try:
        for epoch in train(
            job.data, None if resume else recipe, folder, resume=resume,
            alike=job.alike, device=job.device, workers=job.workers, save_first=False,
        ):  # fmt: skip
            t = replace(t, epochs=(*t.epochs, epoch))
            t = replace(t, ended=_why_over(t.epochs, folder))
            yield _write(job.out, t)
            if t.ended:
                return
    except Refused as e:
        yield _write(job.out, replace(t, ended=str(e), failed=True))


def _why_over(epochs: Sequence[Epoch], folder: Path) -> str:
    """Why the run in this folder has no further epoch; "" where it has one."""
    if not epochs:
        return ""
    if epochs[-1].number == epochs[-1].of:
        return "its last epoch"
    patience, late = read_recipe(folder / RECIPE)[0].patience or 0, since_best(epochs)
    return f"no better val loss for {counted(late, 'epoch')}" if 0 < patience <= late else ""


def _folder(out: Path, number: int) -> Path:
    return out / f"trial-{number:03d}"


def _read(out: Path, number: int, settings: Settings) -> Trial:
    """The trial as its folder records it."""
    folder = _folder(out, number)
    try:
        record = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
        trial = Trial(number, settings, tuple(Epoch(**e) for e in record["epochs"]), record["ended"], record["failed"])
    except FileNotFoundError:
        trial = Trial(number, settings)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise Refused(f"{folder / TRIAL} cannot be read ({type(e).__name__}): remove {folder} to run it again") from e
    if not trial.ended and has_state(folder):  # it may be an epoch ahead of what was written down
        trial = replace(trial, epochs=tuple(Epoch(**e) for e in load_state(folder)["history"]))
    return trial


def _write(out: Path, t: Trial) -> Trial:
    record = {"epochs": [asdict(e) for e in t.epochs], "ended": t.ended, "failed": t.failed}
    write_whole(_folder(out, t.number) / TRIAL, json.dumps({"schema": 1, "settings": t.settings, **record}) + "\n")
    return t


# Ray ------------------------------------------------------------------------------------------------------------------


def _run_ray(
    ray: Any, job: _Job, search: Search, epochs: int, at_once: int, say: Callable[[str], None]
) -> dict[int, str]:
    """Run all trials until the search ends them; returns the errors by the number of the trial."""
    ray_tune, schedulers = ray_module("ray.tune"), ray_module("ray.tune.schedulers")

    announced: set[tuple[Any, Any]] = set()

    def announce(_: str, result: dict[str, Any]) -> bool:
        """Announce an epoch; Ray calls this after each to ask whether to end the trial, and the answer is no."""
        at = (result.get("number"), result.get("epoch"))
        if result.get("new") and at not in announced:  # Ray repeats the last one
            announced.add(at)
            say(f"trial {result['number']}: {result['line']}")
        return False

    first = max(1, epochs // RUNGS)
    asha = schedulers.ASHAScheduler(
        time_attr="epoch", max_t=epochs, grace_period=first, reduction_factor=REDUCTION, stop_last_trials=False
    )
    store = Path(tempfile.mkdtemp(prefix=".ray-", dir=job.out))
    try:
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(ray_tune.with_parameters(_trial, job=job), _resources(ray, at_once, job.device)),
            param_space={"number": ray_tune.grid_search(list(range(1, len(job.settings) + 1)))},
            tune_config=ray_tune.TuneConfig(
                metric="val_loss", mode="min", scheduler=asha if search == "asha" else schedulers.FIFOScheduler(),
                max_concurrent_trials=at_once, reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(name="tune", storage_path=str(store), stop=announce, verbose=0),
        )  # fmt: skip
        results = list(tuner.fit())
    finally:
        shutil.rmtree(store, ignore_errors=True)
    return {
        int((r.config or {})["number"]): str(r.error).strip().splitlines()[-1] for r in results if r.error is not None
    }


def _resources(ray: Any, at_once: int, device: str) -> dict[str, float]:
    """The resources of one trial: an equal share, and no more processors than one machine has."""
    all_ = ray.cluster_resources()
    most = max(n["Resources"].get("CPU", 0) for n in ray.nodes() if n["Alive"])
    part = {"cpu": max(1.0, min(all_.get("CPU", 1) // at_once, most))}
    if device != "cpu" and (gpus := all_.get("GPU", 0)):
        part["gpu"] = 1.0 if gpus >= at_once else gpus / at_once
    return part


# The end --------------------------------------------------------------------------------------------------------------


def _final_trial(t: Trial, error: str | None) -> Trial:
    """A trial after the search: one that did not end by itself was stopped by ASHA, or failed."""
    if error is not None:
        return replace(t, ended=f"failed: {error}", failed=True)
    of = t.epochs[-1].of if t.epochs else 0
    return t if t.ended else replace(t, ended=f"{_EARLY} after epoch {t.trained} of {of}")


def trial_rank(t: Trial) -> tuple[bool, float, int]:
    """Failed trials last, then by the least loss on val, then by number."""
    return t.failed or t.best is None, t.best.val_loss if t.best else math.inf, t.number


def _write_results(
    job: _Job,
    trials: tuple[Trial, ...],
    search: Search,
    space: Space,
    judged_on: str,
    tell: Progress,
    say: Callable[[str], None],
) -> Tuned:
    """Train the best trial to its end and write the results; if it fails there, the next best takes its place."""
    while True:
        best = min(trials, key=trial_rank)
        if best.failed or best.best is None:
            raise Refused(
                f"none of {counted(len(trials), 'trial')} succeeded; the first failed with: {trials[0].ended}"
            )
        last = _finish_best(job, best, tell, say)
        trials = tuple(last if t.number == last.number else t for t in trials)
        if not last.failed:
            break
    tuned = Tuned(job.out, _folder(job.out, best.number), search, space, trials, judged_on)
    rows = io.StringIO()
    table = csv.DictWriter(rows, list(trials[0].row()), lineterminator="\n")
    table.writeheader()
    table.writerows(t.row() for t in trials)
    result = tuned.as_dict()
    recipe = json.loads((tuned.best / RECIPE).read_text(encoding="utf-8"))["recipe"]
    write_whole(job.out / f"{TABLE}.csv", rows.getvalue())
    write_whole(job.out / f"{TABLE}.json", json.dumps(result, indent=1) + "\n")
    best_fields = {k: result[k] for k in ("schema", "best", "compared", "compared_on", "warning")}
    write_whole(job.out / BEST, json.dumps({**best_fields, "recipe": recipe}, indent=1) + "\n")
    return tuned


def _finish_best(job: _Job, t: Trial, tell: Progress, say: Callable[[str], None]) -> Trial:
    """The best trial, resumed where it was ended early, calibrated, and evaluated."""
    folder = _folder(job.out, t.number)
    how: dict[str, Any] = {"alike": job.alike, "device": job.device, "workers": job.workers, "progress": tell}
    if has_state(folder):
        try:
            for epoch in train(job.data, None, folder, resume=True, **how):
                say(f"trial {t.number}, the best, goes on: {epoch.line()}")
        except Refused as e:
            return _write(job.out, replace(t, ended=str(e), failed=True))
    epochs = tuple(Epoch(**e) for e in json.loads((folder / METRICS).read_text(encoding="utf-8"))["epochs"])
    if len(epochs) > len(t.epochs):
        t = replace(t, epochs=epochs, ended=f"{t.ended}; as the best, trained on: {_why_over(epochs, folder)}")
    return _write(job.out, t)


def _line(t: Trial) -> str:
    e = t.best
    prefix = f"trial {t.number}, {_spell(t.settings)}: "
    if t.failed or e is None:
        return f"{prefix}failed: {t.ended}"
    right = f"{share(e.val_right / e.val_n)} right ({span(wilson(e.val_right, e.val_n), e.val_n)})"
    return f"{prefix}val loss {e.val_loss:.3f}, {right}, {counted(t.trained, 'epoch')}, {t.seconds:.0f} s, {t.ended}"


def _spell(settings: dict[str, Value]) -> str:
    return ", ".join(f"{k}={v}" for k, v in settings.items())
