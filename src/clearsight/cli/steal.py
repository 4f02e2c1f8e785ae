"""clearsight steal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clearsight.cli.inputs import load_classifier, look_first, open_pictures, seconds, typed
from clearsight.cli.options import MODEL, ModelOptions, NamedData, Out, RunOptions, grouped
from clearsight.cli.output import end, typed_command
from clearsight.core.catalogue import split_calls
from clearsight.errors import Refused

if TYPE_CHECKING:
    from clearsight.stealing.victim import Victim

_DEFEND = 'A defence to judge: "reverse-sigmoid", "rounding(digits=1), query-budget"; may be repeated.'


@grouped
def steal(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help=f"The model: {MODEL}; or the address of one served here, http://127.0.0.1:PORT."
        ),
    ],
    pool: Annotated[str, typer.Option(help="Pictures that the thief asks about: DATA, as for audit.")],
    budget: Annotated[int, typer.Option(min=1, help="Answers that the thief gets in all.")] = 1000,
    test: Annotated[
        str | None, typer.Option(help="Pictures that judge clones; without it a fifth of the pool is kept for that.")
    ] = None,
    thief: Annotated[
        str, typer.Option(help='How pictures are chosen: knockoff, "active(by=entropy)", "jbda(step=0.1)".')
    ] = "knockoff",
    access: Annotated[str, typer.Option(help="What an answer tells: probs, labels, top-5.")] = "probs",
    digits: Annotated[int | None, typer.Option(min=1, help="Decimals of the probabilities that are told.")] = None,
    defend: Annotated[list[str] | None, typer.Option(help=_DEFEND)] = None,
    member: Annotated[
        list[str] | None, typer.Option(help="Another network of the same classes, for the defence ensemble.")
    ] = None,
    maps: Annotated[
        str | None, typer.Option(help='Explainer whose maps are told too: grad-cam, "saliency(absolute=false)".')
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of questions, each with twice the answers.")] = 4,
    arch: Annotated[str, typer.Option(help="Network of the clone: auto, clearsight:lenet5, timm:resnet18.")] = "auto",
    steps: Annotated[int, typer.Option(min=1, help="Fewest steps of training of a clone.")] = 200,
    attack: Annotated[str, typer.Option("-a", "--attack", help="Attack on the clone, shown to the model.")] = "pgd",
    eps: Annotated[str | None, typer.Option(help="Its budget in pixels in [0, 1]: 8/255.")] = None,
    ceiling: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of pictures on which a clone may agree.")
    ] = 0.8,
    time: Annotated[str | None, typer.Option(help="Time after which no further defence is judged: 60s, 5m.")] = None,
    size: Annotated[
        int, typer.Option(min=8, help="Side in pixels of the pictures that are sent to a served model.")
    ] = 64,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys of a served model, one per line; each is an account.")
    ] = None,
    out: Out = None,
    *,
    about_data: NamedData,
    about_model: ModelOptions,
    run: RunOptions,
) -> None:
    """Clone a model of yours through its answers: how much a thief gets, and what defences leave and cost.

    A thief asks about pictures of a pool, and trains a clone on the answers. Each defence is judged against thieves
    that adapt. Attacks on the clone are shown to the model. A served model is asked on this machine alone.
    """
    served = target.startswith(("http://", "https://"))
    members, defences = list(member or ()), list(defend or ())
    look_first(
        [*([] if served else [target]), *members],
        [pool, *([] if test is None else [test])],
        thieves=[thief],
        answer_defences=[word for words in defences for word in split_calls(words)],
        attacks=[attack],
        explainers=[] if maps is None else [maps],
    )
    limit = seconds(time)
    from clearsight.cli.inputs import numbers
    from clearsight.cli.progress import progress
    from clearsight.core.run_names import new_run
    from clearsight.stealing.report import steal_pictures, steal_request

    request = steal_request(
        thief,
        budget=budget,
        rounds=rounds,
        access=access,
        digits=digits,
        defences=defences,
        attack=attack,
        eps=None if eps is None else numbers(eps, "--eps")[0],
        maps=maps,
        arch=arch,
        steps=steps,
        ceiling=ceiling,
    )
    if served and (members or maps):
        raise Refused("a served model is asked as it is", "leave out --member and --maps, or give the model itself")
    victim = _served(target, size, keys, about_model) if served else _loaded(target, members, about_model, run)
    pictures = open_pictures(pool, about_data)
    judging = None if test is None else open_pictures(test, about_data)
    with new_run("steal", out, holds="report.json") as folder, progress(run.silent) as report_progress:
        report = steal_pictures(
            victim,
            pictures,
            judging,
            request,
            seed=run.seed,
            seconds=limit,
            command=typed_command(),
            model_words=typed(about_model),
            data_words=typed(about_data),
            progress=report_progress,
        )
        report.save(folder)
    end(report, folder, run)


def _loaded(target: str, members: list[str], about: ModelOptions, run: RunOptions) -> Victim:
    from clearsight.stealing.victim import of_classifier

    shown = [load_classifier(words, about, run, "steal") for words in members]
    return of_classifier(load_classifier(target, about, run, "steal"), shown)


def _served(target: str, size: int, keys: Path | None, about: ModelOptions) -> Victim:
    from clearsight.models.loading import read_labels
    from clearsight.stealing.served import check_address, of_address

    check_address(target)
    try:
        known = [] if keys is None else keys.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as e:
        raise Refused(f"{keys} cannot be read: {e}", "it holds API keys, one per line") from None
    return of_address(target, size, None if about.labels is None else read_labels(about.labels), known)
