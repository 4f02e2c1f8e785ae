"""Carlini, Chien, Nasr, Song, Terzis & Tramèr 2022, arXiv:2112.03570: membership inference from first principles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, share, span, table
from clearsight.core.catalogue import method
from clearsight.core.classifier import Classifier
from clearsight.core.statistics import judge
from clearsight.core.text import counted
from clearsight.data.records import Picture
from clearsight.drawing.trade_off import Roc, log_roc
from clearsight.errors import Refused
from clearsight.models.model_folder import part_pictures, read_config
from clearsight.models.model_words import LIBRARIES, is_run
from clearsight.reporting.findings import Cell, Figure, Finding
from clearsight.stealing.clone import Lesson
from clearsight.stealing.membership import AtRate, Numbers, area, at_rate, roc
from clearsight.stealing.pool import read
from clearsight.stealing.shadows import Flags, membership_scores, train_shadows

RATES = (0.01, 0.001)
NAMES = {"loss": "loss (Yeom et al.)", "lira-offline": "LiRA, offline", "lira-online": "LiRA, online"}
_SMALL = 1_000_000  # weights up to which shadow networks are built as the model is
_SHOWN = 10


def _validate(case: Case, *, shadows: int, ceiling: float, arch: str, epochs: int, **others: object) -> None:
    if shadows < 2 or shadows % 2:
        raise Refused(f"membership-inference(shadows={shadows}): an even number from 2")
    if not 0 <= ceiling <= 1:
        raise Refused(f"membership-inference(ceiling={ceiling:g}): a share from 0 to 1")
    Lesson(arch=arch, epochs=epochs)


@method(
    paper="arXiv:2112.03570",
    claims="by-name",
    order=8,
    validate=_validate,
    advice="train with fewer epochs, more pictures or more augmentation, and answer with less than probabilities",
)
def membership_inference(
    case: Case,
    *,
    shadows: int = 8,
    pictures: int = 500,
    ceiling: float = 0.05,
    arch: str = "auto",
    epochs: int = 20,
) -> Finding:
    """Can somebody who asks the model tell which pictures trained it?

    The run folder's split.csv says which pictures trained the model (members) and which are its test pictures (others).
    Three attacks give each picture a score: its loss (Yeom et al. 2018), and the likelihood ratio of LiRA with few
    shadow networks, offline (networks that were not trained on the picture) and online (also those that were).  Shadow
    networks are trained here, each on half of the members and others.

    Value: the share of members that the best of the attacks finds while it takes at most 1 % of the others for members,
    0 to 1, with the exact interval (Clopper-Pearson).  The table gives the same at 0.1 %, where the others are enough
    for it, and the area under the ROC curve; the figure has logarithmic axes, because what matters lies at low rates.

    It trains networks, so it only runs when it is named.  The pictures of the audit are not used.

    pass: the whole interval lies at or below ceiling.  fail: all of it lies above.  warn: else.

    Args:
        shadows: number of shadow networks, even, from 2.  The paper has 256; with few of them LiRA is weaker.
        pictures: maximum number of members, and of others, drawn by seed; at least 1.
        ceiling: share of members that may be found at 1 % false alarms, 0 to 1.
        arch: network of the shadows, such as clearsight:lenet5; "auto" takes the model's own where that is small
            (a million weights), else a small convolutional one.
        epochs: passes of a shadow network over its pictures, at least 1.

    Refused: options outside their ranges.

    Source: Carlini et al. 2022, algorithm 1; Yeom et al. 2018, arXiv:1709.01604.
    """
    files = {part: part_pictures(case.model.source, part) for part in ("train", "test")}
    if not files["train"] or not files["test"]:
        return Finding(
            "note",
            "Nothing says which pictures trained the model and which did not: that is in split.csv of a run folder of "
            "clearsight train.",
        )
    if not case.model.one_of_many:
        return Finding("note", f"The model's outputs are {case.model.scores}: these attacks are on classes.")
    x, y, member, names, notes = _opened(case, files, pictures)
    lesson = Lesson(arch=_arch_of(case.model, arch), epochs=epochs, steps=1)
    trained = train_shadows(case.model, x, y, networks=shadows, lesson=lesson, seed=case.seed, progress=case.progress)
    scores = {str(k): v for k, v in membership_scores(case.model, x, y, trained).items()}
    found = {name: at_rate(v, member, RATES[0]) for name, v in scores.items()}
    best = max(found, key=lambda name: found[name].value)
    at = found[best]
    return Finding(
        judge(at.interval, ceiling=ceiling),
        f"{NAMES[best]} finds {at.hits} of {counted(at.members, 'member')}, {share(at.value)} "
        f"({span(at.interval, at.members)}), while it takes {at.alarms} of {counted(at.others, 'other')} for members, "
        f"at most {share(RATES[0])}; guessing would find {share(RATES[0])}.",
        quantity="members found at 1 % false alarms",
        value=at.value,
        interval=at.interval,
        n=at.members,
        chance=RATES[0],
        has_bar=True,
        notes=(
            f"Asked for: at most {share(ceiling)} of the members found (option ceiling), by each attack.",
            *_notes_on_rates(at.others),
            f"{counted(shadows, 'shadow network')} ({lesson.arch}), each trained on half of the {len(x)} pictures with "
            f"{counted(epochs, 'epoch')}. The model itself learned from {counted(len(files['train']), 'picture')}; the "
            "less the shadows are like it, the weaker LiRA is. An attack that fails proves nothing.",
            "The threshold is chosen on these very pictures, and the best of three attacks is shown: the value is a "
            "little optimistic for the attacker. The interval is for that threshold.",
            *notes,
        ),
        tables=(
            *table("By attack", _rows(scores, member)),
            *table("The most exposed members", _exposed(scores[best], member, names)),
        ),
        figures=(_figure(scores, member),),
    )


def _opened(
    case: Case, files: dict[str, list[tuple[Path, str]]], most: int
) -> tuple[Tensor, Tensor, Flags, list[str], list[str]]:
    """Pixels and classes of members and others, as many of both; which are members; their names; notes."""
    pixels, classes, names, notes, counts = [], [], [], [], []
    for part, chosen in files.items():
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(case.seed)).tolist()
        taken: list[tuple[str, int]] = []
        x: list[Tensor] = []
        missing = 0
        for i in order:
            if len(taken) >= most:
                break
            path, label = chosen[i]
            one, broken = read(case.model, [Picture(path, path.name)])
            missing += broken
            if not broken:
                taken.append((path.name, case.model.index(label)))
                x.append(one)
        if missing:
            notes.append(f"{counted(missing, 'picture')} of {part} cannot be read and are left out.")
        if not x:
            raise Refused(f"no picture of {part} in split.csv can be read", "keep the pictures where they were")
        pixels.append(torch.cat(x))
        classes += [k for _, k in taken]
        names += [name for name, _ in taken]
        counts.append(len(taken))
    member = np.arange(sum(counts)) < counts[0]
    return torch.cat(pixels), torch.tensor(classes), member, names, notes


def _arch_of(model: Classifier, arch: str) -> str:
    """The network of the shadows: the model's own where it is small and can be built by name."""
    if arch != "auto" or not is_run(Path(model.source)):
        return arch
    config = read_config(Path(model.source))
    small = sum(p.numel() for p in model.net.parameters()) <= _SMALL
    return config.architecture if small and not config.options and config.architecture.startswith(LIBRARIES) else "auto"


def _notes_on_rates(others: int) -> list[str]:
    return [
        f"{counted(others, 'other')} cannot resolve a false positive rate of {share(rate)}: there it means not one "
        f"false alarm, and {round(1 / rate)} of them would be needed."
        for rate in RATES
        if others * rate < 1
    ]


def _rows(scores: dict[str, Numbers], member: Flags) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for name, of_pictures in scores.items():
        value, interval = area(of_pictures, member)
        row: dict[str, Cell] = {"attack": NAMES[name], "area under ROC": value, **bounds(interval)}
        for rate in RATES:
            row[f"found at {share(rate)}"] = _in_words(at_rate(of_pictures, member, rate))
        rows.append(row)
    return rows


def _in_words(at: AtRate) -> str:
    low, high = at.interval
    unresolved = "" if at.resolved else ", without a false alarm"
    return f"{at.hits} of {at.members}, {share(at.value)} ({share(low)} to {share(high)}){unresolved}"


def _exposed(scores: Numbers, member: Flags, names: Sequence[str]) -> list[dict[str, Cell]]:
    order = [int(i) for i in np.argsort(-scores, kind="stable") if member[i]][:_SHOWN]
    above = [float((scores[~member] >= scores[i]).mean()) for i in order]
    return [
        {"picture": names[i], "score": float(scores[i]), "others with as much": share(p)}
        for i, p in zip(order, above, strict=True)
    ]


def _figure(scores: dict[str, Numbers], member: Flags) -> Figure:
    lines = [Roc(NAMES[name], *(v.tolist() for v in roc(of, member))) for name, of in scores.items()]
    data = log_roc(lines, least=max(1e-4, 0.5 / int((~member).sum())))
    words = "; ".join(f"{NAMES[n]}: {share(at_rate(v, member, RATES[0]).value)}" for n, v in scores.items())
    caption = "ROC of each attack, on logarithmic axes."
    return Figure("membership-roc.svg", data, caption, f"Members found at 1 % false alarms: {words}.")
