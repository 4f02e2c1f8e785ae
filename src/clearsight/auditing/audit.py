"""audit: a case in, findings out, one check at a time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from clearsight.auditing.assemble import evidence_command, make
from clearsight.auditing.case import Case
from clearsight.auditing.clock import GRACE, OF_THE_FIRST
from clearsight.auditing.detector_case import DetectorCase
from clearsight.auditing.diagnosis import inspect
from clearsight.auditing.engine_compared import compared_with_engine
from clearsight.auditing.evidence import not_of_texts
from clearsight.auditing.gate import Bar, bars_for, hold
from clearsight.auditing.mending import mending
from clearsight.auditing.resume import read_stopped_audit
from clearsight.auditing.segmenter_case import SegmenterCase
from clearsight.core import rng
from clearsight.core.catalogue import Call, parse, split_calls
from clearsight.core.check_kinds import checks_of, why_not
from clearsight.core.classifier import Classifier
from clearsight.core.deadline import OutOfTime, given_up_at
from clearsight.core.model import Model
from clearsight.core.progress import Progress
from clearsight.core.run_names import new_run
from clearsight.data.box_folders import open_boxes
from clearsight.data.datasets import Pictures, open_data
from clearsight.data.mask_folders import open_masks
from clearsight.engines.facts import facts_of
from clearsight.errors import Refused, nearest
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter
from clearsight.models.model_folder import AT_RANDOM, labels_at_random
from clearsight.reporting.findings import Figure, Finding
from clearsight.reporting.report import Report

AnyCase = Case | DetectorCase | SegmenterCase


class Stopped(KeyboardInterrupt):
    """The user stopped an audit that has a folder: ``done`` of its checks, ``of`` in all, are kept there."""

    def __init__(self, done: int, of: int, folder: Path) -> None:
        super().__init__(f"stopped after {done} of {of} checks; the same call with {folder} goes on")
        self.done, self.of, self.folder = done, of, folder


def with_model_notes(pictures: Pictures, model: Classifier) -> Pictures:
    """The pictures with a note for each problem that a dry run of the model found.

    Refused: probabilities that are taken for logits, or logits for probabilities; multi-label models and regressors.
    """
    if not model.one_of_many:
        raise Refused(
            f"an audit asks which one class a picture shows, and this model's outputs are {model.scores}: explain it "
            "picture by picture with clearsight explain"
        )
    random = model.source and labels_at_random(Path(model.source))
    notes = [f"The model was {AT_RANDOM}."] if random else []
    facts = facts_of(model.net)
    if facts is not None:
        notes.append(f"The model: {facts.sentence}.")
    for problem in inspect(model, apart=False).problems:
        if problem.code in ("probabilities-as-logits", "logits-as-probabilities"):
            raise Refused(problem.what, problem.mend)
        notes.append(f"The model: {problem.what}; {problem.mend}.")
    return dataclasses.replace(pictures, notes=(*pictures.notes, *notes))


def parse_checks(only: str | Sequence[str] | None, kind: str = "classifier") -> list[Call]:
    """The checks of a kind of model that words name, with their options.

    None: all in the catalogue's order, but those that claim "by-name" because they cost too much to come unasked.
    Refused: a check that cannot judge this kind of model.
    """
    known = checks_of(kind)
    if only is None:
        return [Call(m) for m in known.values() if "by-name" not in m.claims]
    names = split_calls(only) if isinstance(only, str) else [w for part in only for w in split_calls(part)]
    if not names:
        raise Refused(f"no check is named: {nearest('', known)}")
    calls = [parse(w, "checks") for w in names]
    for call in calls:
        if why := why_not(call.method, kind):
            raise Refused(f"{call.method.name} was not asked: {why}", f"checks of a {kind} are {', '.join(known)}")
    return calls


def run_checks(case: AnyCase, calls: Sequence[Call], done: Mapping[str, Finding] | None = None) -> Iterator[Finding]:
    """One finding for each check, as soon as it is there.  An exception inside a check is its finding.

    done: findings of an earlier run of the same case, by the check's spelling; they are given again as they are.
    Refused, before a picture is read: values of a check's options that cannot be.
    """
    done = done or {}
    for call in calls:
        _validate_call(case, call)
    case.clock.start()
    waiting = [c for c in calls if str(c) not in done]
    if waiting:
        case.clock.share(len(waiting) + 1)
        _ = case.pictures
    for call in calls:
        if str(call) in done:
            finding = done[str(call)]
        else:
            case.clock.share(len(waiting) - waiting.index(call))
            first = call is waiting[0]  # which always gets its first pictures
            if first or not case.clock.is_over:
                finding = _run_check(case, call, case.clock.last_moment(OF_THE_FIRST if first else GRACE))
            else:
                finding = _leave_out(case, call)
            number = 1 + [c.method.name for c in calls[: calls.index(call)]].count(call.method.name)
            finding = _with_numbered_figures(finding, number)
        _apply_to_case(case, finding)
        yield finding


def _run_check(case: AnyCase, call: Call, last_moment: float | None) -> Finding:
    """The finding of one check, with the words of its method, the command that makes it again and its time.

    last_moment: when it is given up, by the clock of the case.
    """
    case.doing, case.maps_used = call.method.name, False
    started = time.monotonic()
    try:
        with given_up_at(last_moment), rng.seeded(case.seed, torch.zeros(1, 1)):
            refused = _not_asked(case, call) if isinstance(case, Case) else None
            finding: Finding = refused or call.method(case, **call.options)
        if finding.chosen_explainer:
            parse(finding.chosen_explainer, "explainers")  # refused here, it is an error of this check
    except OutOfTime:
        finding = Finding("warn", f"It was stopped: the budget of {case.budget:g} s was used up before it was done.")
    except Exception as e:  # shown in the report and in the exit status, never swallowed
        message = str(e) if isinstance(e, Refused) else f"{type(e).__name__}: {e}"
        finding = Finding("error", message.partition("\n")[0])
    return _described(case, call, finding, time.monotonic() - started)


def _needs_pictures(case: AnyCase, call: Call) -> bool:
    return case.data.are_texts and "of-texts" not in call.method.claims


def _not_asked(case: Case, call: Call) -> Finding | None:
    """The finding of a check that cannot be asked of these inputs or of this model; None where it can."""
    claims = call.method.claims
    if _needs_pictures(case, call):
        return not_of_texts(call.method.name, "it works on pictures")
    if "of-weights" in claims and not case.has_weights:
        return Finding(
            "note",
            "The weights lie inside the exported file, where they cannot be drawn at random: ask the network that it "
            "was exported from.",
        )
    if "of-gradients" in claims and case.is_black_box:
        return Finding(
            "note", "The model gives scores and no gradients, and maps are moved along gradients: nothing was tried."
        )
    return None


def _leave_out(case: AnyCase, call: Call) -> Finding:
    """The finding of a check for which the budget left no time."""
    why = f"It was not run: the checks before it used up the budget of {case.budget:g} s."
    return _described(case, call, Finding("warn", why), 0.0)


def _described(case: AnyCase, call: Call, finding: Finding, seconds: float) -> Finding:
    mend, notes = mending(case.commands, call, finding.mend) if finding.verdict == "fail" else ("", ())
    return dataclasses.replace(
        finding,
        check=str(call),
        summary=call.method.summary,
        paper=call.method.paper,
        advice=call.method.advice,
        mend=mend,
        notes=(*finding.notes, *notes),
        command=finding.command or evidence_command(case, str(call)),
        seconds=round(seconds, 3),
    )


def _apply_to_case(case: AnyCase, finding: Finding) -> None:
    """Apply what a finding says of explainers to the case, for the checks after it."""
    if not isinstance(case, Case):
        return
    if finding.chosen_explainer and case.method_words == "auto":
        case.use(parse(finding.chosen_explainer, "explainers"))
    if finding.maps_unreliable is not None:
        case.maps_unreliable_by = finding.name if finding.maps_unreliable else ""


def _validate_call(case: AnyCase, call: Call) -> None:
    """Refuse values of options that cannot be, without reading a picture."""
    options = {name: p.default for name, p in call.method.options.items()} | call.options
    if options.get("pictures", 1) < 1:
        raise Refused(f"{call}: pictures is how many are looked at, at least 1")
    if call.method.validate is not None and not _needs_pictures(case, call):
        call.method.validate(case, **options)


def _with_numbered_figures(finding: Finding, number: int) -> Finding:
    """The finding with other names for its figures, where the same check with other options was run before."""
    if number == 1:
        return finding

    def renamed(g: Figure) -> Figure:
        return dataclasses.replace(g, name=f"{number}-{g.name}")

    evidence = tuple(dataclasses.replace(e, figure=renamed(e.figure)) for e in finding.evidence)
    boxes = None if finding.boxes is None else dataclasses.replace(finding.boxes, name=f"{number}-{finding.boxes.name}")
    return dataclasses.replace(finding, figures=tuple(map(renamed, finding.figures)), evidence=evidence, boxes=boxes)


def audit(
    model: Model,
    data: Pictures | str | Path = "demo",
    *,
    only: str | Sequence[str] | None = None,
    method: str = "auto",
    seed: int = 0,
    budget: float | None = None,
    gate: str | Path | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Audit a model: run all checks of its kind, or those named, on pictures -> a Report.

    Args:
        model: a classifier, a detector or a segmenter.
        data: pictures from `folder`, or the words that the command line takes ("demo", "photos/").  For a detector
            pictures from `open_boxes`, for a segmenter from `open_masks`, or a folder that holds both.
        only: checks with their options, as in "accuracy, robustness(steps=40)", or a list of such; None for all but
            those that only run when named, because they cost much (certified-robustness, purification).
        method: name of the explainer that the checks use; "auto" for grad-cam if the network has feature maps for it,
            else integrated-gradients, or occlusion where no gradient comes back to the pixels, until the check
            explainer-ranking chooses one.
        seed: start of all randomness.
        budget: time for the whole audit in seconds, above 0; None without a limit.
        gate: TOML or JSON file of bars that must hold, see `read_gate`.  The Report then says which do, and its status
            is 1 if one does not.
        folder: new or empty folder for the report, as `Report.save` writes it.  After each check its report.json holds
            what was found so far.  An audit that was stopped goes on from it if it is called again with the same
            folder, model, pictures, method, seed and budget.
        progress: called with what is done, the number done and the total.

    Refused: unknown checks and explainers, checks that cannot judge this kind of model, options outside their ranges, a
    bar for a check that is not run, classifiers that are not one-of-many, probabilities taken for logits or logits for
    probabilities, pictures without the truth that the model is judged by, pictures of which none can be read, and a
    folder with anything else in it.
    """
    calls = parse_checks(only, model.kind)
    bars = bars_for(gate, calls, model.kind)
    pictures = data if isinstance(data, Pictures) else _open(model, data)
    run = partial(
        run_audit, model, pictures, calls, bars=bars, method=method, seed=seed, budget=budget, progress=progress
    )
    if folder is None:
        return run()
    with new_run("audit", Path(folder), holds="report.json") as run_folder:
        return run(folder=run_folder)


def _open(model: Model, words: str | Path) -> Pictures:
    """The pictures that words name, with the truth that this kind of model is judged by."""
    if model.kind == "classifier":
        return open_data(words)
    if str(words) == "demo":
        raise Refused(f"the demo has no truth for a {model.kind}: give a folder of pictures with annotations")
    return open_boxes(words) if model.kind == "detector" else open_masks(words)


def case_of(
    model: Model,
    pictures: Pictures,
    *,
    seed: int = 0,
    budget: float | None = None,
    method: str = "auto",
    progress: Progress | None = None,
    model_words: Sequence[str] = (),
    data_words: Sequence[str] = (),
) -> AnyCase:
    """The case of a kind of model.  The arguments are those of `Case`.

    Refused: an explainer for a detector or a segmenter, whose checks use none, and models of no known kind.
    """
    if isinstance(model, Classifier):
        return Case(
            model, pictures, seed=seed, budget=budget, method=method, progress=progress, model_words=model_words,
            data_words=data_words,
        )  # fmt: skip
    if method != "auto":
        raise Refused(f"no check of a {model.kind} uses an explainer, such as {method}: leave it out")
    if not isinstance(model, Detector | Segmenter):
        raise Refused(f"an audit of a {model.kind}", "give a classifier, a detector or a segmenter")
    if isinstance(model, Detector):
        return DetectorCase(
            model, pictures, seed=seed, budget=budget, progress=progress, model_words=model_words, data_words=data_words
        )
    return SegmenterCase(
        model, pictures, seed=seed, budget=budget, progress=progress, model_words=model_words, data_words=data_words
    )


def run_audit(
    model: Model,
    pictures: Pictures,
    calls: Sequence[Call],
    *,
    bars: Sequence[Bar] = (),
    folder: Path | None = None,
    method: str = "auto",
    seed: int = 0,
    budget: float | None = None,
    command: str = "",
    model_words: Sequence[str] = (),
    data_words: Sequence[str] = (),
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Run an audit whose arguments have been read: what ``audit`` and the command line both do.

    calls: what ``parse_checks`` gives; bars: what ``bars_for`` gives; folder: an existing folder for the report, or
    that of a stopped audit, which goes on.  command, model_words, data_words: what the report quotes.  say: called with
    each note on the pictures before any check.  Raises Stopped where the user interrupts the checks of an audit with a
    folder.
    """
    model, pictures = compared_with_engine(model, pictures)
    if isinstance(model, Classifier):
        pictures = with_model_notes(pictures, model)
    case = case_of(
        model, pictures, seed=seed, budget=budget, method=method, progress=progress, model_words=model_words,
        data_words=data_words,
    )  # fmt: skip
    if say:
        for note in pictures.notes:
            say(note)
    done, earlier_seconds = read_stopped_audit(folder, case) if folder else ({}, 0.0)
    findings: list[Finding] = []

    def report(complete: bool) -> Report:
        bar_results = hold(bars, findings) if bars else None
        seconds = earlier_seconds + sum(f.seconds for f in findings if f.check not in done)
        return make(case, findings, seconds=seconds, command=command, gate=bar_results, complete=complete)

    try:
        for finding in run_checks(case, calls, done):
            findings.append(finding)
            if folder and len(findings) < len(calls):
                report(complete=False).save(folder, html=False)
    except KeyboardInterrupt:
        if not folder:
            raise
        raise Stopped(len(findings), len(calls), folder) from None
    complete_report = report(complete=True)
    if folder:
        complete_report = complete_report.placed(folder)
        complete_report.save(folder)
    return complete_report
