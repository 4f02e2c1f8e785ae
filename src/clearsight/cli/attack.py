"""clearsight attack."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from clearsight.cli.inputs import (
    hired,
    load_classifier,
    load_model,
    look_first,
    models_and_places,
    numbers,
    open_places,
    seconds,
    typed,
)
from clearsight.cli.options import DATA, MODEL, DataOptions, ModelOptions, Out, RunOptions, Take, WorkerOptions, grouped
from clearsight.cli.output import end, sayer, typed_command
from clearsight.cli.scenes import SceneOptions, attack_scenes_of, given_of, refuse_options, unless
from clearsight.cli.texts import attack_texts_of
from clearsight.errors import Refused
from clearsight.models.model_words import reads_texts


@grouped
def attack(
    words: Annotated[list[str], typer.Argument(metavar="[MODEL]... DATA...", help=f"MODEL: {MODEL}. DATA: {DATA}.")],
    method: Annotated[
        str | None,
        typer.Option(
            "-a",
            "--attack",
            help='The attack: fgsm, "pgd(steps=40)"; by default pgd, and square for a model that gives no gradients.',
        ),
    ] = None,
    eps: Annotated[str | None, typer.Option(help="The budget in pixels in [0, 1]: 8/255, and 0.5 for L2.")] = None,
    target: Annotated[
        str | None, typer.Option(help="Class that the attack aims at; without it any wrong class counts.")
    ] = None,
    curve: Annotated[str | None, typer.Option(help="Further budgets of the curve: 1/255,2/255.")] = None,
    access: Annotated[
        str, typer.Option(help="What a black-box attack learns of the scores: logits, probs, top-5, ..., or label.")
    ] = "logits",
    digits: Annotated[
        int | None, typer.Option(min=1, help="Decimals of the probabilities that a black-box attack gets.")
    ] = None,
    other: Annotated[str | None, typer.Option(help="Second model, which the attack transfer attacks instead.")] = None,
    floor: Annotated[float, typer.Option(min=0, max=1, help="Smallest share of right answers that passes.")] = 0.3,
    pictures: Annotated[int, typer.Option(min=0, help="Maximum number of pictures, drawn by seed; 0 takes all.")] = 0,
    explainer: Annotated[
        str, typer.Option("-m", "--method", help="Explainer of the maps that the report shows.")
    ] = "auto",
    out: Out = None,
    *,
    about_data: Annotated[
        DataOptions,
        Take("boxes", "voc_base", "masks", "split", "label_column", "text_column", "marks_column", "classes"),
    ],
    about_scenes: SceneOptions,
    about_model: ModelOptions,
    budget: Annotated[
        str | None, typer.Option(help="Time after which no further picture is attacked: 60s, 5m.")
    ] = None,
    sharing: WorkerOptions,
    run: RunOptions,
) -> None:
    """Attack pictures: how many stay right, the curve over budgets, and each picture before and after.

    The attacked pictures are saved as PNG and judged again from these files. Several models give the transfer matrix:
    which models are fooled by pictures that attack another one.  Of a detector or a segmenter the report says what it
    still finds; --boxes or --masks say what is there, else what it finds in the clean pictures counts as right.
    """
    names, places = models_and_places(words)
    if any(map(reads_texts, names)):
        if len(names) > 1:
            raise Refused(f"{', '.join(names)}: models of texts are attacked one by one: name one")
        options = {"target": target, "curve": curve, "digits": digits, "other": other, **asdict(about_scenes)}
        options |= {"access": unless(access, "logits"), "method": unless(explainer, "auto")}
        refuse_options(options, "is of pictures, and the model takes texts")
        limit = None if eps is None else numbers(eps, "--eps")[0]
        chosen = method or "character-substitution"
        attack_texts_of(
            names[0], places, chosen, limit, floor, pictures, budget, out, about_data, about_model, sharing, run
        )
    explainers = [] if explainer == "auto" else [explainer]
    look_first([*names, *filter(None, [other])], places, attacks=[*filter(None, [method])], explainers=explainers)
    from clearsight.attacking.report import attack_pictures, attack_request
    from clearsight.attacking.transfer_matrix import transfer_matrix
    from clearsight.cli.progress import progress
    from clearsight.core.classifier import classifier_of
    from clearsight.core.run_names import new_run
    from clearsight.data.datasets import joined

    if len(names) > 1:
        options = {"curve": curve, "budget": budget, "method": unless(explainer, "auto")}
        refuse_options(options, "does not apply to several models (transfer matrix)", "leave it out, or name one model")
    loaded = [load_model(name, about_model, run) for name in names]
    if len(loaded) == 1 and loaded[0].kind != "classifier":
        options = {"digits": digits, "other": other, "method": unless(explainer, "auto")}
        options |= given_of(about_data, "label_column", "classes")
        refuse_options(options, f"is for classifiers, and {names[0]} is a {loaded[0].kind}")
        attack_scenes_of(
            loaded[0], places, method, target, eps, curve, access, floor, pictures, budget, out, about_data,
            about_scenes, sharing, run,
        )  # fmt: skip
    models = [classifier_of(model, "clearsight attack with several models") for model in loaded]
    options = {**asdict(about_scenes), **given_of(about_data, "boxes", "voc_base", "masks")}
    refuse_options(options, f"is for detectors and segmenters, and {names[0]} is a classifier")
    chosen = method or _usual(models, names, run)
    request = attack_request(
        models[0],
        chosen,
        eps=None if eps is None else numbers(eps, "--eps")[0],
        curve=None if curve is None else numbers(curve, "--curve"),
        target=target,
        other=None if other is None else load_classifier(other, about_model, run, "attack"),
        access=access,
        digits=digits,
    )
    data = joined(open_places(places, about_data))
    time_limit, model_words = seconds(budget), typed(about_model)
    common: dict[str, Any] = {"floor": floor, "pictures": pictures, "seed": run.seed, "command": typed_command()}
    with new_run("attack", out, holds="report.json") as folder, progress(run.silent) as report_progress, hired(sharing):
        common |= {"model_words": model_words, "progress": report_progress}
        if len(models) > 1:
            report = transfer_matrix(models, data, request, folder, **common)
        else:
            common |= {"explainer": explainer, "budget": time_limit, "data_words": typed(about_data)}
            report = attack_pictures(models[0], data, request, folder, **common)
        report.save(folder)
    end(report, folder, run)


def _usual(models: list[Any], names: list[str], run: RunOptions) -> str:
    """The attack where none is named; told where it is another than usual."""
    from clearsight.attacking.report import USUAL, usual_attack

    chosen = usual_attack(models)
    if chosen != USUAL:
        sayer(run.silent)(
            f"{' or '.join(names)} gives scores and no gradients, so {chosen} attacks it, not {USUAL} (-a names others)"
        )
    return chosen
