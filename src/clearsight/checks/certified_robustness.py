"""Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918: randomised smoothing, section 3.2.2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, note_on_budget, note_on_sample, share, shown, span, table
from clearsight.auditing.goals import acceptable
from clearsight.core import rng
from clearsight.core.catalogue import Call, method
from clearsight.core.passes import counted as passes_counted
from clearsight.core.statistics import judge, wilson
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.drawing.heatmaps import photo, strip
from clearsight.errors import Refused
from clearsight.reporting.findings import Cell, Evidence, Figure, Finding
from clearsight.runner.certify import PURPOSE, certify, check_options, largest_radius

_STEP = 0.25  # of sigma, from one radius of the curve to the next


@dataclass(frozen=True)
class _Picture:
    """What was certified of one picture.  draws: how many of them gave the class."""

    row: int
    smoothed_class: int
    draws: int
    lower: float
    radius: float
    abstained: bool
    is_right: bool

    @property
    def outcome(self) -> str:
        if self.abstained:
            return "abstained"
        return "certified right" if self.is_right else "certified wrong"


def _validate(case: Case, *, sigma: float, n0: int, n: int, alpha: float, floor: float, **others: object) -> None:
    check_options(sigma=sigma, n0=n0, n=n, alpha=alpha)
    if not 0 <= floor <= 1:
        raise Refused(f"certified-robustness(floor={floor:g}): a share from 0 to 1")


@method(
    paper="arXiv:1902.02918",
    claims="by-name",
    order=8,
    validate=_validate,
    advice="train the network under noise of the same sigma before it is smoothed",
    mend="--defence 'gaussian-augmentation(sigma={sigma})'",
)
def certified_robustness(
    case: Case,
    *,
    sigma: float = 0.25,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 0.001,
    floor: float = 0.3,
    pictures: int = 20,
) -> Finding:
    """How many answers of the smoothed network are proven right, and within which distance?

    The smoothed network gives the class that the network gives most often under Gaussian noise.  Its answer on a
    picture cannot be changed by any change shorter than the picture's radius, whatever the attack.  Value: the share of
    pictures whose answer is right and certified at all (radius 0), 0 to 1, with the Wilson interval.  The curve gives
    the same share at larger radii, in L2 of all pixels in [0, 1].  Pictures on which the smoothed network abstains are
    not certified.  Where no picture has a label, the network's own answer without noise counts as right.

    It costs n0 + n passes for each picture, so it only runs when it is named.

    pass: the whole interval lies at or above floor.  fail: all of it lies below.  warn: else.

    Args:
        sigma: standard deviation of the noise, above 0, in units of pixels in [0, 1].  More noise certifies larger
            radii, and fewer right answers.
        n0: draws of noise that choose the class, at least 1.
        n: draws of noise that count how often it comes.  The paper takes 100000; no radius can be larger than the one
            that all n draws prove.
        alpha: probability with which the certificate of a picture may be wrong, between 0 and 1.
        floor: share of right and certified answers that is asked for, 0 to 1.
        pictures: maximum number of pictures, drawn by seed; at least 1.

    Refused: options outside their ranges, fewer draws than can certify anything, and networks whose scores depend on
    the neighbours in the batch.

    Source: Cohen et al. 2019, section 3.2.2, procedure CERTIFY.
    """
    options = {"sigma": sigma, "n0": n0, "n": n, "alpha": alpha}
    candidates = case.labelled or list(range(len(case.pictures)))
    rows = case.sample(candidates, pictures)
    outcomes: list[_Picture] = []
    with passes_counted(case.model.net) as passes:
        for part, x in case.batches(rows, size=1):  # whose draws fill the batches by themselves
            outcomes += _certify_pictures(case, part, x, sigma=sigma, n0=n0, n=n, alpha=alpha)
    done = len(outcomes)
    abstained = sum(p.abstained for p in outcomes)
    certified = [p.radius for p in outcomes if p.outcome == "certified right"]
    value, interval = len(certified) / done, wilson(len(certified), done)
    return Finding(
        judge(interval, floor=floor),
        f"Under noise of sigma {sigma:g} the smoothed network is certified right on {len(certified)} of "
        f"{counted(done, 'picture')}, {share(value)} ({span(interval, done)}), and abstains on "
        f"{share(abstained / done)}.",
        quantity="certified accuracy at radius 0",
        value=value,
        interval=interval,
        n=done,
        has_bar=True,
        notes=(
            f"Asked for: at least {share(floor)} certified right (option floor).",
            *_notes_on_certificates(options, abstained, done),
            _note_on_network(case, [p.row for p in outcomes]),
            f"It took {passes.forwards} passes forward, {passes.forwards / done:.0f} a picture.",
            *note_on_sample(case, len(rows), len(candidates)),
            *note_on_budget(case, done, len(rows)),
        ),
        tables=(
            *table("Certified right answers by radius", _radius_rows(certified, done, options)),
            *table("By picture, what is not certified first", _picture_rows(case, outcomes, n)),
        ),
        figures=(_figure(certified, done, options, floor),),
        evidence=_evidence(case, outcomes, options),
    )


def _certify_pictures(case: Case, rows: list[int], x: Tensor, **options: Any) -> list[_Picture]:
    """What is certified of pictures x (B, C, *S) of the rows."""
    found = certify(case.model, x, seed=case.seed, **options)
    right = acceptable(case, rows).gather(1, found.classes[:, None])[:, 0].tolist()
    columns = (found.classes, found.counts, found.lower, found.radii, found.abstained)
    of_pictures = zip(rows, *(c.tolist() for c in columns), right, strict=True)
    return [_Picture(*of_picture) for of_picture in of_pictures]


def _notes_on_certificates(options: dict[str, Any], abstained: int, done: int) -> tuple[str, ...]:
    """What the certificates hold for, and what they rest on."""
    sigma, n, alpha = options["sigma"], options["n"], options["alpha"]
    most = largest_radius(sigma, n, alpha)
    return (
        "A certificate holds for the smoothed network, which asks the network about many noisy copies of the picture, "
        "and not for the network itself.",
        f"The smoothed network abstains on {abstained} of {counted(done, 'picture')}: these count as not certified.",
        f"Each certificate is wrong with a probability of at most {alpha:g} (option alpha): of many pictures some "
        "may be.",
        "Radii are in L2 over all pixels in [0, 1] of what the network takes; the noise is added there and is not "
        "clipped to [0, 1], as in the paper.",
        f"No radius can be above {most:.3g} with {n} draws at this sigma (options n and sigma).",
    )


def _note_on_network(case: Case, rows: Sequence[int]) -> str:
    if not case.labelled:
        return "No picture has a label: the network's own answer without noise counts as right."
    right = sum(bool(case.right[i]) for i in rows)
    return f"Without noise the network itself is right on {right} of {counted(len(rows), 'picture')}."


def _radii(options: dict[str, Any]) -> list[float]:
    """The radii of the curve, from 0 to the last one below the largest that can be certified."""
    sigma = options["sigma"]
    most = largest_radius(sigma, options["n"], options["alpha"])
    return [k * _STEP * sigma for k in range(1 + int(most / (_STEP * sigma)))]


def _radius_rows(certified: Sequence[float], done: int, options: dict[str, Any]) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for radius in _radii(options):
        k = sum(r >= radius for r in certified)
        rows.append(
            {"radius (L2)": radius, "certified right": k, "n": done, "share": k / done, **bounds(wilson(k, done))}
        )
    return rows


def _picture_rows(case: Case, outcomes: Sequence[_Picture], n: int) -> list[dict[str, Cell]]:
    order = {"abstained": 0, "certified wrong": 1, "certified right": 2}
    ordered = sorted(outcomes, key=lambda p: (order[p.outcome], p.radius, p.row))
    return [
        {
            "picture": case.pictures[p.row].name,
            "said without noise": case.label(p.row),
            "smoothed": case.model.name(p.smoothed_class),
            "result": p.outcome,
            "draws of that class": f"{p.draws} of {n}",
            "probability at least": p.lower,
            "radius (L2)": None if p.abstained else p.radius,
        }
        for p in ordered
    ]


def _figure(certified: Sequence[float], done: int, options: dict[str, Any], floor: float) -> Figure:
    radii = _radii(options)
    counts = [sum(r >= radius for r in certified) for radius in radii]
    low, high = zip(*(wilson(k, done) for k in counts), strict=True)
    shares = [k / done for k in counts]
    data = charts.curves(
        radii,
        [charts.Line(f"smoothed with sigma {options['sigma']:g}", shares, low, high)],
        xlabel="radius, L2 of pixels in [0, 1]",
        ylabel="certified right",
        floor=floor,
    )
    words = ", ".join(f"{share(v)} at {r:.3g}" for v, r in zip(shares, radii, strict=True))
    caption = f"Answers certified right, by radius, {counted(done, 'picture')}, with 95 % intervals."
    return Figure("certified-robustness.svg", data, caption, f"The certified share falls with the radius: {words}.")


def _evidence(case: Case, outcomes: Sequence[_Picture], options: dict[str, Any]) -> tuple[Evidence, ...]:
    """The pictures with the smallest and the largest certified radius, each beside one of its noisy copies."""
    certified = sorted((p for p in outcomes if not p.abstained), key=lambda p: (p.radius, p.row))
    changed = {k: v for k, v in options.items() if v != certified_robustness.options[k].default}
    evidence = []
    for k, (word, p) in enumerate(zip(("smallest", "largest"), [*certified[:1], *certified[1:][-1:]], strict=False)):
        x = case.pixels([p.row])
        with rng.seeded(case.seed, x, PURPOSE):
            noisy = (x + options["sigma"] * rng.normal(x)).clamp(0, 1)  # clipped to be shown alone
        name = case.model.name(p.smoothed_class)
        facts: dict[str, Cell] = {
            "picture": case.pictures[p.row].name,
            "said without noise": case.label(p.row),
            "smoothed": name,
            "result": p.outcome,
            "draws of that class": f"{p.draws} of {options['n']}",
            "probability at least": p.lower,
            "radius (L2)": p.radius,
        }
        caption = (
            f"the {word} radius, {p.radius:.3g}: {p.draws} of {options['n']} noisy copies are {name} ({p.outcome}); "
            "right: one copy, clipped to be shown"
        )
        command = case.commands.of_picture(
            "audit", case.pictures[p.row], "--only", str(Call(certified_robustness, changed))
        )
        image = strip([photo(x[0]), photo(noisy[0])])
        evidence.append(shown(case, p.row, f"certified-robustness-{k + 1}", image, caption, facts, command))
    return tuple(evidence)
