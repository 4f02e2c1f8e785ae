"""The command line.  Everything heavy is imported inside the commands, so that --help answers at once."""

from __future__ import annotations

import contextlib
import inspect as inspection
import io
import itertools
import json
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from clearsight.errors import Notice, Refused
from clearsight.training.recipe import Recipe, options

app = typer.Typer(
    name="clearsight",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_MODEL = "demo, timm:NAME, torchvision:NAME, clearsight:NAME, a run folder, or package.module:factory"
_DATA = "demo, a folder of pictures (class/x.jpg or split/class/x.jpg), a CSV, or a picture"

Model = Annotated[str, typer.Argument(metavar="[MODEL]", help=_MODEL, show_default=True)]
Data = Annotated[str, typer.Argument(metavar="[DATA]", help=_DATA, show_default=True)]
Words = Annotated[list[str], typer.Argument(metavar="[MODEL] PICTURE...", help=f"MODEL: {_MODEL}. Then pictures.")]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the results.", show_default=False)]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="All randomness follows from it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no sheet; only where the result is.")]
Weights = Annotated[
    str | None, typer.Option(help="FILE with weights for timm:, torchvision: and clearsight:, or none.")
]
Labels = Annotated[Path | None, typer.Option(help="Class names of the model: one per line, or a JSON list.")]
Output = Annotated[str | None, typer.Option(help="Which part of a tuple or dict output holds the scores.")]
Scores = Annotated[
    str | None, typer.Option(help="What it gives: logits, probabilities, one-logit, multi-label, values.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Let a run folder name code that is run to build its network.")]
Boxes = Annotated[
    Path | None,
    typer.Option(
        help="Boxes or outlines: COCO, Label Studio or LabelMe JSON, Pascal VOC, YOLO, CSV; a file or a folder."
    ),
]
VocBase = Annotated[
    int | None,
    typer.Option(min=0, max=1, help="What Pascal VOC calls the first pixel; decided from all its files by default."),
]
Masks = Annotated[Path | None, typer.Option(help="Folder of masks: a PNG for each picture, not 0 on the object.")]
Split = Annotated[str | None, typer.Option(help="Which split of the data: train, val, test.")]
LabelColumn = Annotated[str | None, typer.Option(help="The column of the table that holds the class.")]
Classes = Annotated[
    Path | None, typer.Option(help='JSON: the data\'s class words -> the model\'s, {"cat": ["tabby"]}.')
]


def _version(wanted: bool) -> None:
    if wanted:
        from clearsight._version import __version__

        print(f"clearsight {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Can I trust this image classifier, and why does it decide so?"""


def verbs() -> list[tuple[str, ...]]:
    """Every command as its words: ("audit",), ("data", "check"), ..."""
    found: list[tuple[str, ...]] = [(c.name or c.callback.__name__,) for c in app.registered_commands if c.callback]
    for group in app.registered_groups:
        inner = group.typer_instance.registered_commands if group.typer_instance else []
        found += [(str(group.name), c.name or c.callback.__name__) for c in inner if c.callback]
    return found


def main() -> None:
    """Run the command line.  Exit status: 0 done, 1 a bar of the gate failed, 2 it could not be done."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold anything
            stream.reconfigure(errors="backslashreplace")
    _notices()
    try:
        status = typer.main.get_command(app).main(prog_name="clearsight", standalone_mode=False)
    except Refused as e:
        _fail(str(e))
    except KeyboardInterrupt:
        _fail("stopped")
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(2)
    except Exception as e:
        usage = getattr(e, "format_message", None)
        if usage is not None:
            if not usage():  # no command at all: the help has been shown
                sys.exit(2)
            _fail(f"{usage()} (see clearsight --help)")
        _fail(f"{type(e).__name__}: {e} (this is a defect of Clearsight: please report the command and this line)")
    sys.exit(status if isinstance(status, int) else 0)


def _notices() -> None:
    """Of all warnings only ours are shown, each once, as plain lines: libraries' are not the user's business."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", Notice)
    said: set[str] = set()  # the filter "once" forgets whenever a library touches the filters

    def show(message: Warning | str, *about: Any, **more: Any) -> None:
        line = _printable(str(message))
        if isinstance(message, Notice) and line not in said:
            said.add(line)
            print(line, file=sys.stderr)

    warnings.showwarning = show


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _fail(sentence: str) -> None:
    print(f"clearsight: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(2)


@app.command()
def audit(
    model: Model = "demo",
    data: Data = "demo",
    out: Out = None,
    only: Annotated[str | None, typer.Option(help='Checks to run: "accuracy, robustness(steps=40)".')] = None,
    method: Annotated[str, typer.Option("-m", "--method", help="The explainer that the checks use.")] = "auto",
    gate: Annotated[Path | None, typer.Option(help="Bars that must hold (TOML or JSON); exit status 1 if not.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for the checks, shared among them: 60s, 5m.")] = None,
    boxes: Boxes = None,
    voc_base: VocBase = None,
    masks: Masks = None,
    split: Split = None,
    label_column: LabelColumn = None,
    classes: Classes = None,
    weights: Weights = None,
    labels: Labels = None,
    output: Output = None,
    scores: Scores = None,
    trust: Trust = False,
    seed: Seed = 0,
    device: Device = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run every check on a model and pictures, and write report.html and report.json.

    Without arguments the embedded EfficientNet-Lite0 is audited on ten real photos. Given the folder of an audit that
    was stopped (-o DIR), it goes on where that ended.
    """
    from clearsight.auditing.assemble import make
    from clearsight.auditing.audit import chosen, noted, run_checks
    from clearsight.auditing.case import Case
    from clearsight.auditing.gate import hold, read_gate
    from clearsight.cli.progress import progress, seconds
    from clearsight.core.run_names import new_run
    from clearsight.reporting.findings import Finding
    from clearsight.reporting.report import Report

    calls = chosen(only)
    bars = read_gate(gate) if gate else ()
    missing = [b.check for b in bars if b.check not in {c.method.name for c in calls}]
    if missing:
        raise Refused(f"the gate has a bar for {', '.join(missing)}, which --only leaves out: add it there")
    limit = seconds(budget)
    classifier = _load(model, weights, labels, output, scores, trust, device, quiet or json_)
    pictures = _open(data, boxes, masks, split, label_column, classes, voc_base)
    command = _command()
    with progress(quiet or json_) as tell:
        pictures = noted(pictures, classifier)
        case = Case(
            classifier,
            pictures,
            seed=seed,
            budget=limit,
            method=method,
            progress=tell,
            model_words=_given(weights=weights, labels=labels, output=output, scores=scores, trust=trust),
            data_words=_given(
                boxes=boxes, voc_base=voc_base, masks=masks, split=split, label_column=label_column, classes=classes
            ),
        )
        for note in pictures.notes:
            _say(quiet or json_)(note)
        folder = new_run("audit", out, holds="report.json")
        done, before = _earlier(folder, case)
        findings: list[Finding] = []

        def report(complete: bool) -> Report:
            held = hold(bars, findings) if bars else None
            spent = before + sum(f.seconds for f in findings if f.check not in done)
            return make(case, findings, seconds=spent, command=command, gate=held, complete=complete)

        try:
            for found in run_checks(case, calls, done):
                findings.append(found)
                if len(findings) < len(calls):
                    report(complete=False).save(folder, html=False)
        except KeyboardInterrupt:
            raise Refused(
                f"stopped after {len(findings)} of {len(calls)} checks; the same command with -o {folder} goes on"
            ) from None
        except Refused:
            if not any(folder.iterdir()):
                folder.rmdir()
            raise
        whole = report(complete=True)
        whole.save(folder)
    _end(whole, folder, json_, quiet)


def _end(report: Any, folder: Path, json_: bool, quiet: bool) -> None:
    """Show a report that was saved in a folder, and end with its status."""
    if json_:
        print(report.json(), end="")
    elif quiet:
        print(folder / "report.html")
    else:
        from rich.console import Console

        from clearsight.reporting.terminal import print_sheet

        print_sheet(report, Console(), folder)
    raise typer.Exit(report.status)


def _earlier(folder: Path, case: Any) -> tuple[dict[str, Any], float]:
    """The findings that an audit of the same case, stopped before its end, left in this folder."""
    from clearsight.checks.believe import doubt
    from clearsight.core.catalogue import parse
    from clearsight.reporting.report import Report

    if not (folder / "report.json").exists():
        return {}, 0.0
    old = Report.read(folder)
    if old.facts["complete"]:
        raise Refused(f"{folder} holds a finished audit: name a new folder with -o")
    same = {
        "model": old.facts["model"]["fingerprint"] == case.model.fingerprint(),
        "data": old.facts["data"]["digest"] == case.digest,
        "seed": old.facts["seed"] == case.seed,
        "budget": old.facts["budget"] == case.budget,
        "method": old.facts["asked"] == case.wished,
    }
    if not all(same.values()) or old.facts["case"] != case.key:
        other = ", ".join(k for k, v in same.items() if not v) or "set of options, or by another version"
        raise Refused(f"{folder} holds a stopped audit of another {other}: name a new folder with -o")
    if case.asked == "auto" and old.facts["method"]:
        case.use(parse(old.facts["method"], "explainers"))  # what that audit chose
    case.doubted = next((doubt(case, f) for f in old.findings if f.name == "believe"), "")
    return {f.check: f for f in old.findings if f.verdict != "error"}, float(old.facts["seconds"])


@app.command()
def explain(
    words: Words,
    method: Annotated[list[str] | None, typer.Option("-m", "--method", help="An explainer; may be repeated.")] = None,
    target: Annotated[
        str, typer.Option(help='A class (name or number), top1, top3, ..., or "a rather than b".')
    ] = "top1",
    out: Out = None,
    boxes: Boxes = None,
    voc_base: VocBase = None,
    masks: Masks = None,
    split: Split = None,
    label_column: LabelColumn = None,
    weights: Weights = None,
    labels: Labels = None,
    output: Output = None,
    scores: Scores = None,
    trust: Trust = False,
    no_tests: Annotated[bool, typer.Option("--no-tests", help="Only draw the maps, which is quicker.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw heatmaps side by side for pictures, test each, and save the raw maps as .npz.

    A map that fails a test on its picture is drawn in grey: it must beat maps that know nothing of the model, change
    with the network's parameters and, where it should, be complete. For that every explainer is run again, on a network
    with random parameters: slow ones take twice as long, up to six times where that map is alike.
    """
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.data.datasets import open_each
    from clearsight.explaining.explain_pictures import explain_pictures

    name, places = _split(words)
    classifier = _load(name, weights, labels, output, scores, trust, device, quiet or json_)
    data = open_each(places, boxes=boxes, masks=masks, voc_base=voc_base, split=split, label_column=label_column)
    with progress(quiet or json_) as tell:
        rows = explain_pictures(
            classifier,
            data,
            method or [],
            target,
            lambda: new_run("explain", out),
            seed=seed,
            tests=not no_tests,
            progress=tell,
        )
    _tell(rows, json_, quiet)


@app.command()
def features(
    model: Model = "demo",
    data: Data = "demo",
    layer: Annotated[list[str] | None, typer.Option(help="A layer; may be repeated. auto: the last maps.")] = None,
    unit: Annotated[list[int] | None, typer.Option(help="A unit of the layer; may be repeated.")] = None,
    method: Annotated[list[str] | None, typer.Option("-m", "--method", help="A feature; may be repeated.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="A class to visualise; may be repeated.")] = None,
    out: Out = None,
    budget: Annotated[str | None, typer.Option(help="Time, shared among the methods: 60s, 5m.")] = None,
    boxes: Boxes = None,
    voc_base: VocBase = None,
    masks: Masks = None,
    split: Split = None,
    label_column: LabelColumn = None,
    classes: Classes = None,
    weights: Weights = None,
    labels: Labels = None,
    output: Output = None,
    scores: Scores = None,
    trust: Trust = False,
    seed: Seed = 0,
    device: Device = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """See inside a network: what its layers and units respond to, as pages that open from disk.

    Without -m every method that applies is run: activations, patches, visualise, neighbours, embedding, factors and,
    where there are masks or boxes, dissection.
    """
    from clearsight.cli.progress import progress, seconds
    from clearsight.core.run_names import new_run
    from clearsight.feature_report.report import features as see

    limit = seconds(budget)
    classifier = _load(model, weights, labels, output, scores, trust, device, quiet or json_)
    pictures = _open(data, boxes, masks, split, label_column, classes, voc_base)
    folder = new_run("features", out, holds="index.html")
    with progress(quiet or json_) as tell:
        try:
            atlas = see(
                classifier,
                pictures,
                layer=layer or "auto",
                units=unit or (),
                methods=method or (),
                target=target or (),
                seed=seed,
                budget=limit,
                progress=tell,
                model_words=_given(weights=weights, labels=labels, output=output, scores=scores, trust=trust),
                data_words=_given(
                    boxes=boxes, voc_base=voc_base, masks=masks, split=split, label_column=label_column, classes=classes
                ),
            )
        except Refused:
            if not any(folder.iterdir()):
                folder.rmdir()
            raise
        index = atlas.save(folder)
    told = atlas.as_dict()
    left = [f"left out {m}: {why}" for m, why in atlas.left_out]
    left += [f"left out {b['file']}: {b['reason']}" for b in told["broken"]]
    lines = [f"{p.title or 'index'}: {p.address}" for p in atlas.pages]
    _tell({**told, "folder": str(folder), "lines": [*left, *lines, str(index)]}, json_, quiet)


@app.command()
def attack(
    words: Annotated[list[str], typer.Argument(metavar="[MODEL]... DATA...", help=f"MODEL: {_MODEL}. DATA: {_DATA}.")],
    method: Annotated[str, typer.Option("-a", "--attack", help='The attack: fgsm, "pgd(steps=40)".')] = "pgd",
    eps: Annotated[str | None, typer.Option(help="The budget in pixels in [0, 1]: 8/255, and 0.5 for L2.")] = None,
    target: Annotated[str | None, typer.Option(help="The class to become; without it any wrong one will do.")] = None,
    curve: Annotated[str | None, typer.Option(help="Budgets to try besides: 1/255,2/255.")] = None,
    access: Annotated[
        str, typer.Option(help="What a black box answers with: logits, probs, top-5, ..., or label.")
    ] = "logits",
    digits: Annotated[int | None, typer.Option(min=1, help="Decimals of a black box's probabilities.")] = None,
    other: Annotated[str | None, typer.Option(help="The model that transfer attacks instead.")] = None,
    floor: Annotated[float, typer.Option(min=0, max=1, help="The share that should stay right.")] = 0.3,
    pictures: Annotated[int, typer.Option(min=0, help="At most so many, a seeded draw; 0: all.")] = 0,
    explainer: Annotated[str, typer.Option("-m", "--method", help="The explainer of the maps shown.")] = "auto",
    out: Out = None,
    split: Split = None,
    label_column: LabelColumn = None,
    classes: Classes = None,
    weights: Weights = None,
    labels: Labels = None,
    output: Output = None,
    scores: Scores = None,
    trust: Trust = False,
    budget: Annotated[str | None, typer.Option(help="Time, after which no more pictures are begun: 60s, 5m.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Attack pictures: how many stay right, the curve over budgets, and each picture before and after.

    The attacked pictures are written as PNG, and judged again from there. Several models give the transfer matrix: on
    which one was attacked, and which others are fooled by that.
    """
    from clearsight.attacking.report import asked, attack_pictures
    from clearsight.attacking.transfer_matrix import transfer_matrix
    from clearsight.cli.progress import progress, seconds
    from clearsight.core.run_names import new_run
    from clearsight.data.datasets import joined, open_each

    names, places = _models_first(words)
    alone = {"--curve": curve, "--budget": budget, "--method": explainer if explainer != "auto" else None}
    if len(names) > 1 and (extra := [option for option, value in alone.items() if value is not None]):
        raise Refused(f"{', '.join(extra)}: not of a transfer matrix; leave it out, or name one model")
    how = (weights, labels, output, scores, trust, device, quiet or json_)
    models = [_load(name, *how) for name in names]
    second = None if other is None else _load(other, *how)
    want = asked(
        models[0],
        method,
        eps=None if eps is None else _numbers(eps, "--eps")[0],
        curve=None if curve is None else _numbers(curve, "--curve"),
        target=target,
        other=second,
        access=access,
        digits=digits,
    )
    data = joined(open_each(places, split=split, label_column=label_column, classes=classes))
    limit, command = seconds(budget), _command()
    given = _given(weights=weights, labels=labels, output=output, scores=scores, trust=trust)
    folder = new_run("attack", out, holds="report.json")
    common: dict[str, Any] = {"floor": floor, "pictures": pictures, "seed": seed, "command": command}
    try:
        with progress(quiet or json_) as tell:
            if len(models) > 1:
                report = transfer_matrix(models, data, want, folder, **common, model_words=given, progress=tell)
            else:
                report = attack_pictures(
                    models[0],
                    data,
                    want,
                    folder,
                    **common,
                    explainer=explainer,
                    budget=limit,
                    model_words=given,
                    data_words=_given(split=split, label_column=label_column, classes=classes),
                    progress=tell,
                )
    except Refused:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    report.save(folder)
    _end(report, folder, json_, quiet)


def _numbers(text: str, option: str) -> list[float]:
    """Numbers with commas between them, as they are written: 8/255."""
    from clearsight.core.catalogue import number

    try:
        return [number(word.strip()) for word in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise Refused(f"{option} {text!r}: write a number such as 8/255 or 0.03") from None


@app.command()
def inspect(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]... [DATA]", help=f"MODEL: {_MODEL}. Then, perhaps, {_DATA}.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every layer by itself, however many there are.")] = False,
    out: Out = None,
    weights: Weights = None,
    labels: Labels = None,
    output: Output = None,
    scores: Scores = None,
    trust: Trust = False,
    split: Split = None,
    label_column: LabelColumn = None,
    classes: Classes = None,
    device: Device = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a model is, layer by layer, what will not work with it, and the line that mends that.

    Several models stand side by side, with size, speed and, where pictures are given, accuracy. With -o the layers are
    drawn too. --weights goes to the networks that are named by a library.
    """
    from clearsight.auditing.diagnosis import inspect as look
    from clearsight.cli.progress import progress
    from clearsight.core.output import write_whole
    from clearsight.core.run_names import new_run
    from clearsight.inspecting.compare_models import compare_models
    from clearsight.inspecting.layer_drawing import layer_drawing
    from clearsight.inspecting.layer_table import layer_table
    from clearsight.models.architectures import LIBRARIES

    names, data = _models_and_data(words or ["demo"])
    silent = quiet or json_
    models = [
        _load(
            n,
            weights if n.startswith(LIBRARIES) or len(names) == 1 else None,
            labels,
            output,
            scores,
            trust,
            device,
            silent,
        )
        for n in names
    ]
    pictures = _open(data, None, None, split, label_column, classes) if data else None
    tables, names, notes = [], [], []
    for m in models:
        try:
            tables.append(layer_table(m))
            names.append(m.source)
        except Refused as e:
            notes.append(f"no table of the layers of {m.source}: {e}")
    told: dict[str, Any] = {"layers": [t.as_dict() for t in tables]}
    if len(models) == 1:
        found = look(models[0], pictures)
        told |= found.as_dict()
        lines = [*(line for t in tables for line in (*t.lines(all=every), "")), *found.lines()]
    else:
        with progress(silent) as tell:
            beside = compare_models(models, pictures, progress=tell)
        told |= beside.as_dict()
        lines = beside.lines()
    if out and tables:
        folder = new_run("inspect", out, holds="layers-1.svg")
        drawn = [
            write_whole(folder / f"layers-{i}.svg", layer_drawing(table, title=name))
            for i, (table, name) in enumerate(zip(tables, names, strict=True), 1)
        ]
        told["drawings"] = [str(path) for path in drawn]
        lines += ["", *map(str, drawn)]
    _tell({**told, "lines": [*lines, *notes]}, json_, quiet=False)


def _recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every field of a Recipe, of its type and with its help; it gets them as words."""
    own = inspection.signature(command, eval_str=True).parameters
    added = [
        inspection.Parameter(
            name,
            inspection.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, typer.Option(help=about, show_default=default is not None)],
        )
        for name, (kind, default, about) in options().items()
    ]
    plain = [p for p in own.values() if p.kind is not inspection.Parameter.VAR_KEYWORD]
    command.__signature__ = inspection.Signature([*plain, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in (*plain, *added)}
    return command


def _typed(context: typer.Context, name: str) -> bool:
    """Whether an option was given, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
@_recipe_options
def train(
    context: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder of pictures (class/x.jpg), or a CSV.")],
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in -o DIR.")] = False,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Cross-validate: so many models, each judged on a part.")
    ] = None,
    repeat: Annotated[
        int | None, typer.Option(min=2, help="The same recipe and split so many times, from other seeds.")
    ] = None,
    label_column: LabelColumn = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures; 0: none but this one.")] = 0,
    device: Device = "auto",
    json_: Json = False,
    quiet: Quiet = False,
    **recipe: Any,
) -> None:
    """Train a classifier on a folder of pictures: a model folder that every other command takes.

    Without options a pretrained network is fine-tuned, or a small one is trained where the pictures are small; what is
    chosen is said, with the reason. A run that was stopped goes on with --resume, on a CPU with as many threads as
    before to the same weights bit for bit; folds and repeats go on by themselves.
    """
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.data.datasets import ALL
    from clearsight.training import cross_validation, repeats
    from clearsight.training.loop import train as run
    from clearsight.training.run_folder import METRICS, first, place, same_recipe

    asked = Recipe(**recipe)
    if repeat and (folds or resume):
        why = "folds are other pictures, repeats the same" if folds else "the same command goes on by itself"
        raise Refused(f"--repeat with {'--folds' if folds else '--resume'}: {why}; leave one of them out")
    pictures = _open(data, None, None, None if data == "demo" else ALL, label_column, None)
    several = "folds" if folds else "repeat" if repeat else ""
    folder = new_run(several, out, holds="fold-1" if folds else "run-1") if several else place(out, resume)
    if resume and not several:
        same_recipe(folder, {name: value for name, value in recipe.items() if _typed(context, name)})
    silent = quiet or json_ or not first()
    say = _say(silent)
    with progress(silent) as tell:
        how: dict[str, Any] = {"device": device, "workers": workers, "progress": tell, "say": say}
        try:
            if folds:
                for _, epoch in cross_validation.cross_validate(pictures, asked, folds, folder, **how):
                    say(epoch.line())
            elif repeat:
                for _, epoch in repeats.repeat(pictures, asked, repeat, folder, **how):
                    say(epoch.line())
            else:
                for epoch in run(pictures, asked, folder, resume=resume, **how):
                    say(epoch.line())
        except Refused:
            with contextlib.suppress(OSError):  # it is empty, or it stays
                folder.rmdir()
            raise
        except KeyboardInterrupt:
            on = f"-o {folder}{'' if several else ' --resume'}"
            raise Refused(f"stopped; the same command with {on} goes on") from None
    if not first():
        return
    if folds:
        told = cross_validation.summary(folder, folds)
        _tell({**told, "lines": cross_validation.lines(told, folder)}, json_, quiet)
    elif repeat:
        told = repeats.summary(folder, repeat)
        _tell({**told, "lines": repeats.lines(told, folder)}, json_, quiet)
    elif json_:
        print((folder / METRICS).read_text(encoding="utf-8"), end="")
    elif quiet:
        print(folder)
    else:
        from rich.console import Console

        from clearsight.reporting.report import Report
        from clearsight.reporting.terminal import print_sheet

        print_sheet(Report.read(folder), Console(), folder)


@app.command()
def compare(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Folders of models, of audits, or of train --repeat; or a MODEL."),
    ],
    data: Annotated[
        str | None, typer.Option(help=f"{_DATA}; by default the test pictures of the models' own split.csv.")
    ] = None,
    out: Out = None,
    only: Annotated[str | None, typer.Option(help='Checks to run: "accuracy, robustness(steps=40)".')] = None,
    method: Annotated[str, typer.Option("-m", "--method", help="The explainer that the checks use.")] = "auto",
    boxes: Boxes = None,
    voc_base: VocBase = None,
    masks: Masks = None,
    split: Split = None,
    label_column: LabelColumn = None,
    classes: Classes = None,
    trust: Trust = False,
    seed: Seed = 0,
    device: Device = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what equal accuracy hides: how accuracy and reasons of several runs lie, and how alike their maps are.

    Models are audited by accuracy and trustworthiness, audits are taken as they are. Trust needs --boxes or --masks;
    how alike the maps of two runs are does not.
    """
    from clearsight.cli.progress import progress
    from clearsight.comparing.compare import compare as run
    from clearsight.core.run_names import new_run

    folder = new_run("compare", out)
    with progress(quiet or json_) as tell:
        try:
            report = run(
                words,
                data,
                boxes=boxes,
                voc_base=voc_base,
                masks=masks,
                split=split,
                label_column=label_column,
                classes=classes,
                only=only,
                method=method,
                seed=seed,
                device=device,
                trust=trust,
                command=_command(),
                progress=tell,
            )
        except Refused:
            with contextlib.suppress(OSError):
                folder.rmdir()
            raise
    report.save(folder)
    _end(report, folder, json_, quiet)


@app.command()
@_recipe_options
def tune(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder of pictures (class/x.jpg), or a CSV.")],
    space: Annotated[
        str | None, typer.Option(help='What is tried: "lr=log(1e-4, 1e-2); batch=16|32; decay=uniform(0, 0.1)".')
    ] = None,
    search: Annotated[str, typer.Option(help="random, grid, or asha, which ends bad trials early.")] = "asha",
    trials: Annotated[int, typer.Option(min=1, help="At most so many.")] = 12,
    at_once: Annotated[int, typer.Option(min=1, help="Trials side by side.")] = 1,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in -o DIR.")] = False,
    label_column: LabelColumn = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures; 0: none but this one.")] = 0,
    device: Device = "auto",
    json_: Json = False,
    quiet: Quiet = False,
    **recipe: Any,
) -> None:
    """Search for good settings of train with Ray Tune (extra ray), and train the best to its end.

    Trials are compared on val; test is left for the best one. All options of train are what the trials share. On one
    machine Ray runs by itself; where RAY_ADDRESS names a cluster, there.
    """
    from clearsight.cli.progress import progress
    from clearsight.data.datasets import ALL
    from clearsight.training.search_space import DEFAULT
    from clearsight.training.tune import tune as run

    asked = Recipe(**recipe)
    pictures = _open(data, None, None, None if data == "demo" else ALL, label_column, None)
    silent = quiet or json_
    with progress(silent) as tell:
        try:
            found = run(
                pictures,
                asked,
                space or DEFAULT,
                out,
                search=search,  # type: ignore[arg-type]
                trials=trials,
                at_once=at_once,
                resume=resume,
                device=device,
                workers=workers,
                progress=tell,
                say=_say(silent),
            )
        except KeyboardInterrupt:
            where = f"-o {out}" if out else "-o and its folder"
            raise Refused(f"stopped; the same command with {where} --resume goes on") from None
    _tell({**found.as_dict(), "lines": found.lines()}, json_, quiet)


data_app = typer.Typer(no_args_is_help=True, help="Pictures before a model is trained: check, augment, collect.")
app.add_typer(data_app, name="data")


@data_app.command("check")
def data_check(
    data: Annotated[str, typer.Argument(metavar="DATA", help=_DATA)],
    model: Annotated[
        str | None, typer.Option(help=f"Also look for label errors, by what this model says: {_MODEL}.")
    ] = None,
    out: Out = None,
    label_column: LabelColumn = None,
    classes: Classes = None,
    weights: Weights = None,
    labels: Labels = None,
    output: Output = None,
    scores: Scores = None,
    trust: Trust = False,
    seed: Seed = 0,
    device: Device = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is wrong with pictures: broken, double, odd, unbalanced, leaking from split to split, mislabelled.

    Every split is looked at. Nothing is moved or changed.
    """
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.curation.quality.check import check_data
    from clearsight.data.datasets import ALL

    silent = quiet or json_
    judge = _load(model, weights, labels, output, scores, trust, device, silent) if model else None
    pictures = _open(data, None, None, None if data.partition(":")[0] == "demo" else ALL, label_column, classes)
    with progress(silent) as tell:
        found = check_data(pictures, model=judge, seed=seed, progress=tell)
        page = found.save(new_run("check", out, holds="check.json"))
    _tell({**found.as_dict(), "folder": str(page.parent), "lines": [*found.lines(), str(page)]}, json_, quiet)


@data_app.command("augment")
def data_augment(
    data: Annotated[list[str], typer.Argument(metavar="PICTURE...", help=_DATA)],
    augment: Annotated[
        list[str] | None, typer.Option("-a", "--augment", help='As in train: "crop, flip"; may be repeated.')
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Random versions of each.")] = 5,
    side: Annotated[int, typer.Option("--size", min=8, help="Side of the versions in pixels.")] = 224,
    out: Out = None,
    label_column: LabelColumn = None,
    seed: Seed = 0,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw what augmentations make of pictures; without -a, all of them."""
    from clearsight.core.classifier import Preprocess
    from clearsight.core.run_names import new_run
    from clearsight.data.datasets import joined, open_each
    from clearsight.runner.augment import augment_pictures

    pictures = joined(open_each(data, label_column=label_column))
    pre = Preprocess((side, side), (0.5,) * 3, (0.5,) * 3, resize=side)
    rows = augment_pictures(pictures, augment or [], pre, lambda: new_run("augment", out), samples=samples, seed=seed)
    _tell(rows, json_, quiet)


@data_app.command("collect")
def data_collect(
    query: Annotated[str, typer.Argument(metavar="QUERY", help='What is searched for: "red apple".')],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the data; each query adds a class.")],
    count: Annotated[int, typer.Option(min=1, help="Pictures of this class.")] = 100,
    label: Annotated[str | None, typer.Option(help="The class, where it is not the query.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="openverse, wikimedia; may be repeated.")] = None,
    licence: Annotated[list[str] | None, typer.Option(help="Such as cc0, by, by-sa; may be repeated.")] = None,
    side: Annotated[int, typer.Option("--size", help="Longest side wished for, in pixels.")] = 1024,
    contact: Annotated[str, typer.Option(help="Your address, for the sources, which want one.")] = "",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch pictures that everybody may use, with their licences, from Openverse and Wikimedia Commons.

    The query goes to these; the same command again goes on where it ended. ATTRIBUTION.csv says whose they are.
    """
    from clearsight.cli.progress import progress
    from clearsight.curation.collection.collect import collect
    from clearsight.curation.collection.sources import FREE, known

    with progress(quiet or json_) as tell:
        found = collect(
            query,
            out,
            count=count,
            label=label,
            sources=source or list(known()),
            licences=licence or FREE,
            size=side,
            contact=contact,
            progress=tell,
            say=_say(quiet or json_),
        )
    _tell({**found.as_dict(), "lines": found.lines()}, json_, quiet)


@app.command()
def demo(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="shortcut: a model that is right for the wrong reason.")],
    out: Out = None,
    seed: Seed = 0,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show on digits that come with scikit-learn what an audit finds: shortcut.

    One recipe is trained on digits with a mark that gives the class away, and on the same digits without it. Both
    models are right on nearly all test pictures of their kind; the audits say which of them looks at the mark.
    """
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.demos.shortcut import shortcut
    from clearsight.errors import nearest

    if what != "shortcut":
        raise Refused(f"demo {what!r}: {nearest(what, ['shortcut'])}")
    folder = new_run("demo", out, holds="audit-marked")
    with progress(quiet or json_) as tell:
        told = shortcut(folder, seed=seed, progress=tell, say=_say(quiet or json_))
    _tell(told, json_, quiet)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="One of them, in full.")] = None,
    json_: Json = False,
) -> None:
    """List every explainer, attack, metric, check, feature, augmentation and network, with its options and paper."""
    from clearsight.reporting.method_pages import listing, one

    if json_:
        print(json.dumps(listing(name), indent=1, ensure_ascii=False))
    elif name:
        print(one(name))
    else:
        from rich.console import Console

        from clearsight.reporting.method_pages import print_listing

        print_listing(Console())


def _given(**options: object) -> list[str]:
    """The options that were given, as they are typed."""
    words: list[str] = []
    for name, value in options.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def _load(
    words: str,
    weights: str | None,
    labels: Path | None,
    output: str | None,
    scores: Any,
    trust: bool,
    device: str,
    quiet: bool,
) -> Any:
    from clearsight.models.loading import load

    part = int(output) if output is not None and output.lstrip("-").isdigit() else output
    with contextlib.redirect_stdout(sys.stderr):  # what a model prints is no part of the result
        return load(
            words,
            weights=weights,
            labels=labels,
            output=part,
            scores=scores or "logits",
            trust=trust,
            device=device,
            say=_say(quiet),
        )


def _say(quiet: bool) -> Callable[[str], None]:
    """How a sentence reaches whoever waits."""

    def say(line: str) -> None:
        if not quiet:
            print(_printable(line), file=sys.stderr, flush=True)

    return say


def _open(
    data: str,
    boxes: Path | None,
    masks: Path | None,
    split: str | None,
    column: str | None,
    classes: Path | None,
    voc_base: int | None = None,
) -> Any:
    from clearsight.data.datasets import open_data

    return open_data(
        data, boxes=boxes, masks=masks, split=split, label_column=column, classes=classes, voc_base=voc_base
    )


def _models_and_data(words: list[str]) -> tuple[list[str], str | None]:
    """Models first; the last of several words is data where it is demo, or a path that is no run folder and no code."""
    last = words[-1]
    there = Path(last).exists() and not (Path(last) / "config.json").exists() and Path(last).suffix != ".py"
    if len(words) > 1 and (last == "demo" or last.startswith("demo:") or there):
        return words[:-1], last
    return words, None


def _split(words: list[str]) -> tuple[str, list[str]]:
    """One MODEL, then pictures."""
    models, places = _models_first(words)
    if len(models) > 1:
        raise Refused(f"{', '.join(models)} are several models, where one is wanted")
    return models[0], places


def _models_first(words: list[str]) -> tuple[list[str], list[str]]:
    """MODEL comes first, one or several; where the first word can only be a picture, the model is the demo."""
    models = list(itertools.takewhile(_is_model, words))
    places = words[len(models) :]
    if not models and len(words) > 1 and not Path(words[0]).exists() and not words[0].startswith("demo:"):
        return words[:1], words[1:]  # neither a picture nor a model: the loader says what a model is
    if not models:
        return ["demo"], places
    if not places and models[-1] == "demo":  # the word is that of a model and of pictures
        return models[:-1] or ["demo"], ["demo"]
    if not places:
        raise Refused(f"no picture is named after the model {models[-1]}: give a file, a folder, or demo:coffee")
    return models, places


def _is_model(word: str) -> bool:
    from clearsight.models.architectures import LIBRARIES
    from clearsight.models.loading import DEMOS

    named = word in DEMOS or word.startswith(LIBRARIES) or (Path(word) / "config.json").exists()
    factory = ":" in word and not word.startswith("demo:") and not Path(word).exists()
    return named or factory


def _tell(rows: dict[str, Any], json_: bool, quiet: bool) -> None:
    if json_:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for line in rows["lines"][-1:] if quiet else rows["lines"]:
        print(_printable(line))


def _command() -> str:
    """The command as it was given, to be shown in the report."""
    import shlex

    return shlex.join(["clearsight", *sys.argv[1:]])
