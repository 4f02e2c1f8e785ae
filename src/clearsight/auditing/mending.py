"""The command that would mend what a check found."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from clearsight.auditing.commands import Commands, columns_of
from clearsight.auditing.marked_places import pictures_of_run
from clearsight.core.catalogue import Call, write_value
from clearsight.core.norms import norm_of
from clearsight.data.annotation_formats.sheets import named
from clearsight.data.annotations import read_boxes
from clearsight.errors import Refused
from clearsight.models.model_folder import RECIPE
from clearsight.models.model_words import LIBRARIES, is_run
from clearsight.reporting.report import MARKS

BY_PGD = "--perturb 'pgd(eps={eps}, steps=7, random_start=true)'"
_OPTIONS = ("--boxes", "--masks")
_GIVEN = "{marks}"  # in the words of a check, the annotations that the audit was given


def mending_command(commands: Commands, call: Call, found: str = "") -> str:
    """The training that mends what a check fails for; "" where none is known, or the model's words name no network.

    It continues from the model where that is a run folder, on the pictures that trained it, and begins from the same
    architecture where the model is one of a library.  What the report cannot know stands there in capitals: DATA,
    MARKS, and the options of the check that are empty.

    >>> from clearsight.core.catalogue import parse
    >>> mending_command(Commands("timm:resnet18", "photos"), parse("robustness(eps=2/255)", "checks"))
    "clearsight train DATA --arch timm:resnet18 --perturb 'pgd(eps=2/255, steps=7, random_start=true)'"
    """
    template = found or call.method.mend
    if not template:
        return ""
    begin = _from_run(Path(commands.model)) if is_run(Path(commands.model)) else _anew(commands.model)
    if not begin:
        return ""
    options = {name: p.default for name, p in call.method.options.items()} | call.options
    written = {n: v if isinstance(v, str) else write_value(v) for n, v in options.items()}
    values = {n: text or n.upper() for n, text in written.items()} | {"marks": _marks(commands)}
    words = [word.format(**values) for word in shlex.split(template)]
    return shlex.join(["clearsight", "train", *begin, *words])


def mending(commands: Commands, call: Call, found: str = "") -> tuple[str, tuple[str, ...]]:
    """The command that mends what a check fails for, and a sentence where the annotations of the audit cannot do it."""
    if why := _why_not_guided(commands, found or call.method.mend):
        return "", (why,)
    return mending_command(commands, call, found), ()


def _why_not_guided(commands: Commands, template: str) -> str:
    """Why the annotations that the audit was given cannot guide a training that continues its run; "" where they can.

    Only what stands in training pictures guides.
    """
    path = _marks(commands)
    if _GIVEN not in template or path == MARKS or not is_run(Path(commands.model)):
        return ""
    run = pictures_of_run(commands.model)
    if run is None or not run.trained:
        return f"What trained {commands.model} is not known, so no training is quoted that {path} would guide."
    whose = f"training pictures of {commands.model}"
    try:
        read = read_boxes(path, run.files)
    except Refused:
        marked = 0
    else:
        if broken := read.left_out or read.cut_off:
            return f"{path} can guide no training before what is wrong with it is mended: {named(broken)}."
        marked = sum(bool(read.regions.get(name)) for name in run.trained)
    if marked:
        return ""
    return (
        f"{path} marks none of the {whose}, which alone can guide a training: mark the object in some of them, a tenth "
        "or more, and train with --guide FILE."
    )


def mend_by_marks(are_texts: bool) -> str:
    """How a check that fails for its reasons is mended on texts: by their own marks; on pictures as the check says."""
    return "--guide marks" if are_texts else ""


def mend_by_groups(column: str) -> str:
    """How a model that is worse for groups of this column is mended: by the worst of them.

    >>> mend_by_groups("ward {2}")
    "--groups 'ward {{2}}' --rebalance group-dro"
    """
    return f"--groups {shlex.quote(column.replace('{', '{{').replace('}', '}}'))} --rebalance group-dro"


def mend_by_attacks(attack: Call, eps: float) -> str:
    """How a model that this attack fools within eps is mended: by pgd in the same budget; "" where it keeps none.

    >>> from clearsight.core.catalogue import parse
    >>> mend_by_attacks(parse("fgsm", "attacks"), 8 / 255)
    "--perturb 'pgd(eps=8/255, steps=7, random_start=true)'"
    """
    if "unbounded" in attack.method.claims or norm_of(attack) == "characters":
        return ""
    words = BY_PGD.format(eps=write_value(eps))
    return words.replace("true)", "true, norm=l2)") if norm_of(attack) == "l2" else words


def _from_run(folder: Path) -> list[str]:
    """The words that continue a run on its own pictures, which its record names."""
    try:
        command = shlex.split(json.loads((folder / RECIPE).read_text(encoding="utf-8"))["command"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        command = []
    named = command[:2] == ["clearsight", "train"] and len(command) > 2
    return [command[2] if named else "DATA", *columns_of(command), "--from", str(folder)]


def _anew(words: str) -> list[str]:
    """The words that train the same architecture on pictures of the user's; none where it is unknown."""
    return ["DATA", "--arch", words] if words == "demo" or words.startswith(LIBRARIES) else []


def _marks(commands: Commands) -> str:
    """The annotations that the audit was given; MARKS where the command line named none."""
    words = commands.data_words
    return next((words[i + 1] for i, word in enumerate(words[:-1]) if word in _OPTIONS), MARKS)
