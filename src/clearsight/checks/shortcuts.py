"""Shortcuts without annotations, after Lapuschkin et al. 2019 (SpRAy), doi:10.1038/s41467-019-08987-4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from scipy.stats import norm
from torch import Tensor

from clearsight.auditing import interventions
from clearsight.auditing.case import Case
from clearsight.auditing.evidence import (
    draw_map,
    maps_of,
    not_of_texts,
    note_on_budget,
    note_on_sample,
    share,
    shown,
    span,
    table,
)
from clearsight.auditing.interventions import Intervention
from clearsight.auditing.marked_places import avoided
from clearsight.auditing.place_scan import carrying_places, covers_half
from clearsight.auditing.spray import Box, area, clusters, cores, hotspot, inside, overlap, place_words, pooled
from clearsight.core.catalogue import method
from clearsight.core.statistics import Interval, Judgement, apart, wilson
from clearsight.core.text import counted
from clearsight.data.images import open_picture, to_pixels
from clearsight.drawing.heatmaps import photo, strip
from clearsight.errors import Refused
from clearsight.internals.scores import scores
from clearsight.models.model_folder import train_pictures
from clearsight.perturbation.removal import Removal
from clearsight.reporting.findings import BoxTable, Cell, Evidence, Finding
from clearsight.reporting.report import MARKS

Status = Literal["yes", "open", "no", "on the object"]

_FEWEST_PICTURES = 6  # pictures of a class from which on they are clustered
_DONORS = 48  # pictures whose part is put on another, for each suspect
_TRAINING_PICTURES = 200  # training pictures that are looked through for each cluster shown
_EVIDENCE = 8


@dataclass(frozen=True, eq=False)
class Cluster:
    """Pictures of one answer whose maps are alike, and the box in which most of the maps comes together."""

    answer: int
    number: int
    rows: tuple[int, ...]
    of_answer: int  # pictures of that answer
    mean: Tensor  # (h, w) of the pooled maps
    box: Box
    mass: float
    right: int
    right_blurred: int
    right_erased: int
    labelled: int


@dataclass(frozen=True, eq=False)
class Place:
    """A box that is tried: where the maps of a cluster come together, or a core of it, where that is too large."""

    cluster: Cluster
    box: Box
    mass: float
    core: bool


@dataclass(frozen=True, eq=False)
class Suspect:
    """A suspect: the intervention that tried it, the places of clusters behind it, and whether it is a shortcut."""

    trial: Intervention
    places: tuple[Place, ...]
    follow: float  # share of answers that go with it: those that change without it (erased), else those carried along
    control: float
    interval: Interval
    status: Status
    erased: bool
    scanned: bool = False  # found without maps


def _validate(case: Case, *, largest: float, bar: float, background: float, places: int, **others: object) -> None:
    if not 0 < largest <= 0.5 or not 0 < bar < 1 or not 0 < background < 1 or places < 1:
        raise Refused(
            f"largest={largest:g}, bar={bar:g}, background={background:g}, places={places}: shares, largest at most "
            "0.5, and at least one place"
        )


@method(
    paper="doi:10.1038/s41467-019-08987-4",
    claims="of-texts",
    order=4,
    validate=_validate,
    advice="look at the pictures that were changed, and remove the shortcut from the training pictures",
)
def shortcuts(
    case: Case,
    *,
    largest: float = 0.05,
    bar: float = 0.5,
    background: float = 0.1,
    places: int = 12,
    fill: Removal = "inpaint",
    pictures: int = 300,
) -> Finding:
    """Does the model take a shortcut: a mark in a corner, a colour, the surroundings in the place of the object?

    The maps of each answer are clustered (SpRAy), which gives suspects.  If the maps of a cluster come together in a
    small box, that place is a suspect.  Else the box of the largest size that holds the most of them is one, and the
    box that does so off that place.  Colour is a suspect, too, and so are the surroundings of annotated objects.  A
    network can hide a place from its maps, so places all over the picture are put on others in short, too, and the
    three that most bring their answer along are suspects.  Each suspect is tried by what the model does.

    A place is a shortcut if both hold.  First, the answer's odds fall further when the place is erased than when as
    much is erased at a random place, on surely more than half of the pictures.  Second, erasing it, or putting it on
    pictures of other answers, moves surely more than bar of the answers.  Of a part of a larger place, and of a
    place that maps do not show, only putting it on others counts, because the object is missed where a part of it is
    erased.  Places that lie mostly on annotated
    objects are no shortcuts.

    Colours are a shortcut if they bring their answer along to surely more than bar of the pictures of other answers to
    which they are given, and surely more often than the colours of a picture's own answer do.  Surroundings are a
    shortcut if they bring it along surely more often than those of a picture's own answer, and by at least background
    more.

    Value: the largest of these shares, 0 to 1.  The interval allows for how many suspects were tried; parts of larger
    places are counted apart.  A whole object that is so small and always in one place looks the same: look at it, or
    give boxes.

    fail: there is a shortcut.  pass: there is none.  warn: there may be one.

    Args:
        largest: largest area of a place, as a share of the picture, above 0 and at most 0.5.
        bar: share of the answers that a shortcut moves at least, above 0 and below 1.
        background: how much more often surroundings bring their answer along than their control does, above 0 and below
            1.
        places: maximum number of places that are tried, at least 1.
        fill: what erased pixels become: "mean" (of the preprocessing), "black", "blur", or "inpaint" (solved from what
            is left).
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: options outside their ranges.
    """
    if case.data.are_texts:
        return not_of_texts(
            "shortcuts",
            "it looks for places, colours and surroundings that pictures of an answer share. Mark the characters that "
            "should decide (column marks): trustworthiness then erases them, and puts them on other texts",
        )
    rows = case.sample(range(len(case.pictures)), pictures)
    map_clusters, done = _cluster_maps(case, rows, fill)
    suspects, untried = _try_suspects(case, map_clusters, done, largest, (bar, background), places, fill)
    notes = (
        f"Maps: {case.method}, for the top class. Asked of a shortcut: that surely more than {share(bar)} of the "
        "answers go with it (option bar) and surely more than with its control; of surroundings, that surely more do "
        f"than with their control, by at least {share(background)} (option background).",
        f"Erased pixels are {'inpainted from what is left' if fill == 'inpaint' else f'filled with: {fill}'}.",
        *untried,
        *_note_on_large_places(case, map_clusters, largest),
        *note_on_sample(case, len(rows), len(case.pictures)),
        *note_on_budget(case, len(done), len(rows)),
    )
    tables = (
        *table("What was tried, shortcuts first", [_suspect_row(case, s) for s in suspects]),
        *table("Clusters of maps (SpRAy)", [_cluster_row(case, c) for c in map_clusters]),
    )
    evidence = _evidence(case, suspects, map_clusters)
    if not suspects:
        no_place = f"No cluster of maps comes together in {share(largest)} of the picture"
        too_few = f"No class is the answer to {_FEWEST_PICTURES} pictures, too few to cluster their maps"
        return Finding(
            "pass" if map_clusters else "note",
            f"{no_place if map_clusters else too_few}, and there are no colours or annotated objects to try.",
            n=len(done) if map_clusters else 0,
            notes=notes,
            tables=tables,
            evidence=evidence,
        )
    worst = suspects[0]
    verdict: Judgement = "warn" if any(s.status == "open" for s in suspects) else "pass"
    if worst.status == "yes":
        verdict = "fail"
    mend, boxes = _mended(case, suspects) if verdict == "fail" else ("", None)
    return Finding(
        verdict,
        _headline(case, suspects),
        quantity="answers moved by one suspect",
        value=worst.follow,
        interval=worst.interval,
        n=worst.trial.n,
        chance=worst.control,
        notes=notes,
        tables=tables,
        evidence=evidence,
        mend=mend,
        boxes=boxes,
    )


def _mended(case: Case, suspects: list[Suspect]) -> tuple[str, BoxTable | None]:
    """How the worst shortcut is trained away, and the boxes of all places that are shortcuts."""
    worst, *_ = sure = [s for s in suspects if s.status == "yes"]
    if worst.trial.kind == "surroundings":
        return "--guide {marks}", None
    if worst.trial.kind == "colour":
        return "--augment colour-jitter(hue=0.5)", None
    places = [(s.trial.box, [*s.trial.rows, *(i for p in s.places for i in p.cluster.rows)]) for s in sure]
    boxes = avoided(case, "shortcuts-boxes.csv", [(box, rows) for box, rows in places if box is not None])
    return (f"--avoid {MARKS}" if boxes else "", boxes)


# Where the model looks ------------------------------------------------------------------------------------------------


def _cluster_maps(case: Case, rows: list[int], fill: Removal) -> tuple[list[Cluster], list[int]]:
    """The clusters of each answer that enough pictures got, and the rows that the budget allowed."""
    done: list[int] = []
    maps: list[Tensor] = []
    for part, x in case.batches(rows):
        maps.append(pooled(case.maps(part, x)))
        done += part
    all_maps = torch.cat(maps)
    answers = case.predicted[done]
    map_clusters = []
    for answer in sorted({*answers.tolist()}):
        members = (answers == answer).nonzero()[:, 0].tolist()
        if len(members) < _FEWEST_PICTURES:
            continue
        numbers = clusters(all_maps[members], seed=case.seed)
        for k in range(max(numbers) + 1):
            in_cluster = [j for j, c in zip(members, numbers, strict=True) if c == k]
            of_cluster = [done[j] for j in in_cluster]
            map_clusters.append(
                _describe_cluster(case, answer, k, of_cluster, len(members), all_maps[in_cluster], fill)
            )
    return map_clusters, done


def _describe_cluster(
    case: Case, answer: int, number: int, rows: list[int], of_answer: int, maps: Tensor, fill: Removal
) -> Cluster:
    """The place where a cluster's maps come together, and how often its pictures are right without that place."""
    size = _picture_size(case)
    mean = maps.mean(0)
    box, mass = hotspot(mean, size)
    labelled = [i for i in rows if bool(case.truth[i].any())]
    right_by_fill = {"blur": 0, fill: 0}
    for start in range(0, len(labelled), 32):
        part = labelled[start : start + 32]
        x = case.pixels(part)
        for removal in right_by_fill:
            y = interventions.erased(case, x, inside(box, size).expand(len(x), *size), removal)
            with case.model.undisturbed():
                answers = scores(case.model, y.to(case.model.device)).argmax(1)
            right_by_fill[removal] += int(case.truth[part].gather(1, answers[:, None]).sum())
    right = int(case.right[labelled].sum())
    return Cluster(
        answer,
        number,
        tuple(rows),
        of_answer,
        mean,
        box,
        mass,
        right,
        right_by_fill["blur"],
        right_by_fill[fill],
        len(labelled),
    )


# What the model does --------------------------------------------------------------------------------------------------


def _try_suspects(
    case: Case,
    map_clusters: list[Cluster],
    done: list[int],
    largest: float,
    bars: tuple[float, float],
    places: int,
    fill: Removal,
) -> tuple[list[Suspect], list[str]]:
    """The suspects, confirmed ones first, and a sentence on places that were not tried."""
    size = _picture_size(case)
    candidates = [p for c in map_clusters for p in _places_to_try(c, size, largest)]
    groups = _group_places(candidates)
    untried = []
    if len(groups) > places:
        untried.append(f"Of {len(groups)} places the {places} with the most of the maps were tried.")
    reasons: dict[int, Tensor] = {}  # by row, where its maps come together
    nowhere = torch.zeros(size, dtype=torch.bool)
    for p in candidates:
        reasons |= {i: reasons.get(i, nowhere) | inside(p.box, size) for i in p.cluster.rows}
    trials: list[tuple[Intervention | None, tuple[Place, ...]]] = []
    for group in groups[:places]:
        donors = case.sample([i for p in group for i in p.cluster.rows], _DONORS)
        trials.append((interventions.place(case, donors, done, group[0].box, reasons, fill), group))
    if case.model.preprocess.channels == 3 and _has_colours(case, done):
        trials.append((interventions.colour(case, done[: 2 * _DONORS]), ()))
    annotated = case.in_view(case.sample(case.annotated, 2 * _DONORS))[0] if case.annotated else []
    if annotated:
        trials.append((interventions.surroundings(case, annotated, fill), ()))
    possible = [(t, group) for t, group in trials if t is not None]
    # cores are counted apart, so that they take nothing from the certainty of the others
    parts = sum(_is_core(group) for _, group in possible)
    z = {core: float(norm.isf(0.025 / max(m, 1))) for core, m in ((True, parts), (False, len(possible) - parts))}
    suspects = [judge_group(case, t, group, bars, z[_is_core(group)]) for t, group in possible]
    if map_clusters:  # else there are too few pictures
        suspects += _scan(case, done, [t.box for t, _ in possible if t.box is not None], reasons, largest, bars, fill)
    order = {"yes": 0, "open": 1, "no": 2, "on the object": 3}
    return sorted(
        suspects, key=lambda s: (order[s.status], s.control - s.follow, -s.trial.changed / s.trial.n)
    ), untried


def _scan(
    case: Case,
    done: list[int],
    known: list[Box],
    reasons: dict[int, Tensor],
    largest: float,
    bars: tuple[float, float],
    fill: Removal,
) -> list[Suspect]:
    """The suspects that no map shows: places that take their answer along, which a network may hide from gradients.

    known: places that were tried.  The certainty asked of them allows for all places that the scan looked at.
    """
    size = _picture_size(case)
    boxes, looked_at = carrying_places(case, done, largest)
    boxes = [box for box in boxes if not any(covers_half(box, other) for other in known)]
    nowhere = torch.zeros(size, dtype=torch.bool)
    everywhere = [inside(box, size) for box in boxes]
    emptied = {i: torch.stack([reasons.get(i, nowhere), *everywhere]).any(0) for i in done} if boxes else {}
    trials = [interventions.place(case, _felt_by(case, done, box, fill), done, box, emptied, fill) for box in boxes]
    z = float(norm.isf(0.025 / max(looked_at, 1)))
    return [judge_group(case, t, (), bars, z, scanned=True) for t in trials if t is not None]


def _felt_by(case: Case, rows: list[int], box: Box, fill: Removal) -> list[int]:
    """Donors for a place that no map shows: pictures of the answers whose odds fall on average where it is erased.

    A dark mark that is erased leaves a dark place, so that only the answer of the bright one can feel it.  All pictures
    where no answer does that is given to enough of them.
    """
    falls: dict[int, list[float]] = {}
    size = _picture_size(case)
    for part, x in case.batches(case.sample(rows, 2 * _DONORS)):
        answers = case.predicted[part]
        without = interventions.erased(case, x, inside(box, size).expand(len(x), *size), fill)
        with case.model.undisturbed():
            after = interventions.log_odds(scores(case.model, without.to(case.model.device)), answers)
        before = interventions.log_odds(case.logits[part], answers)
        for answer, fall in zip(answers.tolist(), (before - after.cpu()).tolist(), strict=True):
            falls.setdefault(answer, []).append(fall)
    felt = {a for a, each in falls.items() if len(each) >= _FEWEST_PICTURES and sum(each) > 0}
    return case.sample([i for i in rows if int(case.predicted[i]) in felt] or rows, _DONORS)


def _has_colours(case: Case, rows: list[int]) -> bool:
    """Whether any of the first pictures has colours."""
    x = case.pixels(rows[:_DONORS])
    return bool((x.amax(1) - x.amin(1)).max() > 2 / 255)


def _places_to_try(c: Cluster, size: tuple[int, int], largest: float) -> list[Place]:
    """The places that are tried for a cluster: its own, or the cores of one that is too large."""
    largest_area = largest * size[0] * size[1]
    if area(c.box) <= largest_area:
        return [Place(c, c.box, c.mass, core=False)]
    return [Place(c, box, mass, core=True) for box, mass in cores(c.mean, size, largest_area, c.box)]


def _group_places(candidates: list[Place]) -> list[tuple[Place, ...]]:
    """Places that are nearly the same, together; those with the most mass for their area first, cores last."""
    groups: list[list[Place]] = []
    for p in sorted(candidates, key=lambda p: (p.core, -p.mass * len(p.cluster.rows) / area(p.box))):
        group = next((g for g in groups if g[0].core == p.core and overlap(g[0].box, p.box) > 0.5), None)
        if group is None:
            groups.append([p])
        else:
            group.append(p)
    weight = {id(g): sum(p.mass * len(p.cluster.rows) for p in g) / area(g[0].box) for g in groups}
    return [tuple(g) for g in sorted(groups, key=lambda g: (g[0].core, -weight[id(g)]))]


def _note_on_large_places(case: Case, map_clusters: list[Cluster], largest: float) -> tuple[str, ...]:
    """A note on the clusters whose place was not tried."""
    height, width = _picture_size(case)
    shares = [s for c in map_clusters if (s := area(c.box) / (height * width)) > largest]
    if not shares:
        return ()
    return (
        f"The places of {len(shares)} of {counted(len(map_clusters), 'cluster')} are {share(min(shares))} of the "
        f"picture and more, and may be the object itself: what is densest there and off it in at most {share(largest)} "
        "was tried (option largest), and is called a shortcut only if it brings its answer along.",
    )


def _is_core(group: tuple[Place, ...]) -> bool:
    return bool(group) and group[0].core


def judge_group(
    case: Case, t: Intervention, group: tuple[Place, ...], bars: tuple[float, float], z: float, scanned: bool = False
) -> Suspect:
    """Whether an intervention on this group carries or changes answers more often than its control.

    scanned: the place was found without maps, as one of many, so that it counts only if it surely brings its answer
    along.
    """
    bar, background = bars
    carried, changed = (t.carried, t.carried_control), (t.changed, t.changed_control)
    whole = t.kind == "place" and not _is_core(group) and not scanned
    erased = whole and changed[0] - changed[1] > carried[0] - carried[1]
    k, control = changed if erased else carried
    interval = wilson(k, t.n, z)
    sure = apart((k, t.n), (control, t.n))[0] > 0
    if t.kind == "surroundings":
        perhaps = k - control >= background * t.n
    else:
        perhaps = interval[1] > bar if whole or t.kind == "colour" else k > bar * t.n
        sure &= interval[0] > bar
    if t.kind == "place":
        sure &= wilson(t.felt, t.n)[0] > 0.5
    if scanned:
        perhaps = wilson(k, t.n)[0] > bar
    perhaps &= k > control
    status: Status = "no"
    if perhaps:
        status = "yes" if sure else "open"
        if _is_on_objects(case, t):
            status = "on the object"
    return Suspect(t, group, k / t.n, control / t.n, interval, status, erased, scanned)


def _is_on_objects(case: Case, t: Intervention) -> bool:
    """Whether a place lies mostly on the annotated objects of the pictures that it was taken from."""
    if t.box is None:
        return False
    rows, regions, _ = case.in_view([i for i in t.rows if case.pictures[i].regions])
    if not rows:
        return False
    covered = torch.stack(regions)[:, inside(t.box, _picture_size(case))].float().mean()
    return bool(covered > 0.5)


# In words and pictures ------------------------------------------------------------------------------------------------


def _suspect_name(case: Case, s: Suspect) -> str:
    if s.trial.box is None:
        return "colour" if s.trial.kind == "colour" else "the surroundings of the object"
    size = _picture_size(case)
    return f"{place_words(s.trial.box, size)}, {share(area(s.trial.box) / (size[0] * size[1]))} of the picture"


def _headline(case: Case, suspects: list[Suspect]) -> str:
    s = suspects[0]
    t = s.trial
    numbers = f"{share(s.follow)} ({span(s.interval, t.n)})"
    control = share(s.control)
    if s.erased:
        effect = f"without it {numbers} of the answers change, without as much elsewhere {control}"
    else:
        effect = {
            "place": f"put on pictures of other answers it brings its answer along to {numbers}, as much from "
            f"elsewhere to {control}; without it {share(t.changed / t.n)} of the answers change",
            "colour": f"given to pictures of other answers, a picture's colours bring their answer along to {numbers}, "
            f"colours of their own answer to {control}",
            "surroundings": f"around objects of other answers they bring their answer along to {numbers}, surroundings "
            f"of their own answer to {control}",
        }[t.kind]
    if s.status == "yes":
        more = sum(o.status == "yes" for o in suspects) - 1
        others = f" {counted(more, 'more is', 'more are')} found." if more else ""
        return f"The model takes a shortcut, {_suspect_name(case, s)}: {effect}.{others}"
    if s.status == "open":
        return f"The model may take a shortcut, {_suspect_name(case, s)}: {effect}."
    return (
        f"No shortcut among {counted(len(suspects), 'suspect')}. The nearest to one is {_suspect_name(case, s)}: "
        f"{effect}."
    )


def _answers_in_words(case: Case, rows: Sequence[int]) -> str:
    names = list(dict.fromkeys(case.label(i) for i in sorted(rows, key=lambda i: int(case.predicted[i]))))
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _found_by(s: Suspect) -> str:
    if s.scanned:
        return "a scan of places"
    return "maps" if s.trial.kind == "place" else "its kind"


def _suspect_row(case: Case, s: Suspect) -> dict[str, Cell]:
    t = s.trial
    return {
        "suspect": _suspect_name(case, s),
        "found by": _found_by(s),
        "shortcut": s.status,
        "answers": _answers_in_words(case, t.rows),
        "n": t.n,
        "go with it": s.follow,
        "from": s.interval[0],
        "to": s.interval[1],
        "control": s.control,
        "changed without it": t.changed / t.n,
        "its control": t.changed_control / t.n,
        "odds fall further without it": t.felt / t.n,
        "carried along": t.carried / t.n,
        "control of that": t.carried_control / t.n,
    }


def _cluster_row(case: Case, c: Cluster) -> dict[str, Cell]:
    size = _picture_size(case)
    return {
        "answer": case.model.name(c.answer),
        "cluster": c.number + 1,
        "pictures": len(c.rows),
        "share of the answer": len(c.rows) / c.of_answer,
        "place": place_words(c.box, size),
        "area": area(c.box) / (size[0] * size[1]),
        "of the maps": c.mass,
        "right": c.right / c.labelled if c.labelled else None,
        "right with the place blurred": c.right_blurred / c.labelled if c.labelled else None,
        "right with it erased": c.right_erased / c.labelled if c.labelled else None,
    }


def _evidence(case: Case, suspects: list[Suspect], map_clusters: list[Cluster]) -> tuple[Evidence, ...]:
    """The suspects, confirmed ones first, each with the largest cluster behind it; then the other clusters."""
    evidence: list[Evidence] = []
    shown_clusters: set[int] = set()
    training = _training_pictures(case.model.source)
    for s in suspects[:_EVIDENCE]:
        c = max((p.cluster for p in s.places), key=lambda c: len(c.rows), default=None)
        if c is not None:
            shown_clusters.add(id(c))
        evidence.append(_suspect_evidence(case, s, c, training, len(evidence) + 1))
    for c in sorted(map_clusters, key=lambda c: area(c.box)):
        if len(evidence) >= _EVIDENCE:
            break
        if id(c) not in shown_clusters:
            evidence.append(_cluster_evidence(case, c, training, len(evidence) + 1))
    return tuple(evidence)


def _training_pictures(source: str) -> list[tuple[Path, str]]:
    """The pictures that trained the model; none where its table cannot be read, which the report's notes say."""
    try:
        return train_pictures(source)
    except Refused:
        return []


def _suspect_evidence(case: Case, s: Suspect, c: Cluster | None, training: list[tuple[Path, str]], k: int) -> Evidence:
    e, box = s.trial.example, s.trial.box
    mask = inside(box, _picture_size(case)) if box else None
    answer, answer_without, answer_made = map(
        case.model.name, (int(case.predicted[e.donor]), e.without_answer, e.made_answer)
    )
    donor, receiver = case.pixels([e.donor])[0], case.pixels([e.receiver])[0]
    nearest, names = nearest_training_pictures(case, e.donor, box, training) if c is not None else ([], [])
    pictures = [
        *([_mean_map(case, c, box)] if c is not None and box else []),
        draw_map(case, donor, case.maps([e.donor], donor[None])[0], mask),
        photo(e.without, mask),
        photo(receiver, mask),
        photo(e.made, mask),
        *(photo(x, mask) for x in nearest),
    ]
    erased = {"place": "with the place erased", "colour": "in grey", "surroundings": "without its surroundings"}
    gets = {"place": "with the place put on it", "colour": "in these colours", "surroundings": "in these surroundings"}
    facts: dict[str, Cell] = {
        "shortcut": s.status,
        "said": answer,
        erased[s.trial.kind]: answer_without,
        "another picture": case.label(e.receiver),
        gets[s.trial.kind]: answer_made,
        **({"nearest training pictures": ", ".join(names)} if names else {}),
    }
    first = "the cluster's mean map; " if c is not None else ""
    last = "; the training pictures most alike there" if names else ""
    caption = (
        f"{_suspect_name(case, s)}: {first}a picture said to be {answer}; {erased[s.trial.kind]}: {answer_without}; "
        f"one said to be {case.label(e.receiver)}; {gets[s.trial.kind]}: {answer_made}{last}"
    )
    return shown(case, e.donor, f"shortcuts-{k}", strip(pictures), caption, facts, maps=maps_of(case))


def _cluster_evidence(case: Case, c: Cluster, training: list[tuple[Path, str]], k: int) -> Evidence:
    row = _typical_row(case, c)
    mask = inside(c.box, _picture_size(case))
    x = case.pixels([row])[0]
    nearest, names = nearest_training_pictures(case, row, c.box, training)
    map_image = draw_map(case, x, case.maps([row], x[None])[0], mask)
    pictures = [_mean_map(case, c, c.box), map_image, *(photo(n, mask) for n in nearest)]
    cells = _cluster_row(case, c)
    facts: dict[str, Cell] = {
        "answer": cells["answer"],
        "cluster": cells["cluster"],
        "pictures": len(c.rows),
        **({"nearest training pictures": ", ".join(names)} if names else {}),
    }
    of_what = f"{cells['answer']}, cluster {cells['cluster']} of {counted(len(c.rows), 'picture')}"
    caption = f"{of_what}: mean map, one of them{', training pictures' if names else ''}"
    return shown(case, row, f"shortcuts-{k}", strip(pictures), caption, facts, maps=maps_of(case))


def _mean_map(case: Case, c: Cluster, box: Box) -> Image.Image:
    """The mean of a cluster's maps over the mean of its pictures."""
    size = _picture_size(case)
    whole = torch.nn.functional.interpolate(c.mean[None, None], size, mode="nearest")[0, 0]
    return draw_map(case, case.pixels(c.rows[:100]).mean(0), whole, inside(box, size))


def _typical_row(case: Case, c: Cluster) -> int:
    """The picture whose map is nearest to the cluster's mean."""
    rows = list(c.rows[:100])
    maps = pooled(case.maps(rows, case.pixels(rows)))
    return rows[int((maps - maps.mean(0)).square().sum((1, 2)).argmin())]


def nearest_training_pictures(
    case: Case, row: int, box: Box | None, training: list[tuple[Path, str]], count: int = 3
) -> tuple[list[Tensor], list[str]]:
    """The training pictures of a picture's answer that are most like it inside the box, and their names."""
    answer = case.model.labels[int(case.predicted[row])]
    files = [file for file, label in training if label == answer]
    own_file = case.pictures[row].path.resolve()
    files = [file for file in files if file.resolve() != own_file]
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(case.seed)).tolist()[:_TRAINING_PICTURES]
    pixels = case.pixels([row])[0]
    mask = inside(box, _picture_size(case)) if box else torch.ones(_picture_size(case), dtype=torch.bool)
    candidates: list[tuple[float, str, Tensor]] = []
    for i in order:
        try:
            x = to_pixels(open_picture(files[i]), case.model.preprocess)
        except Refused:
            continue
        candidates.append((float((x - pixels)[:, mask].square().mean()), f"{files[i].parent.name}/{files[i].name}", x))
    candidates = sorted(candidates, key=lambda n: n[:2])[:count]
    return [x for _, _, x in candidates], [name for _, name, _ in candidates]


def _picture_size(case: Case) -> tuple[int, int]:
    return case.model.preprocess.size[0], case.model.preprocess.size[1]
