"""Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599, section 2."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, share, span, table, unlabelled
from clearsight.core.catalogue import method
from clearsight.core.statistics import FEWEST, Interval, Judgement, bootstrap, tails, wilson
from clearsight.core.text import counted
from clearsight.drawing import charts
from clearsight.errors import Refused
from clearsight.reporting.findings import Cell, Figure, Finding

Numbers = npt.NDArray[np.float64]
_DRAWS = 1000


def _validate(case: Case, *, bins: int, **others: object) -> None:
    if bins < 1:
        raise Refused(f"calibration(bins={bins}): at least one bin")


@method(
    paper="arXiv:1706.04599",
    order=2,
    validate=_validate,
    advice="fit a temperature on held-out pictures before its probabilities are used",
)
def calibration(case: Case, *, bins: int = 15, ceiling: float = 0.1) -> Finding:
    """When the model says that it is 80 % sure, is it right 80 % of the time?

    Value: the expected calibration error (ECE), 0 to 1, which is the gap between the probability of the top class and
    how often it is right, averaged over bins of equal width and weighted by their pictures.  The interval is a
    bootstrap over pictures.  It is the basic bootstrap's, which turns the bias around, and is approximate.

    With few pictures the ECE is too large even for a perfect model.  So beside it stands, as chance, what a perfectly
    calibrated model with the same probabilities would show (simulated, mean and 95 % quantile).

    pass: the whole interval lies at or below ceiling.  fail: the value is beyond the 97.5 % quantile of what a model
    would show whose confidence is off by just ceiling.  warn: else, undecided with these pictures.

    Args:
        bins: number of bins of equal width, at least 1.
        ceiling: largest calibration error that is accepted, 0 to 1.

    Refused: fewer than one bin.

    Source: Guo et al. 2017.
    """
    rows = case.labelled
    if not rows:
        return unlabelled(case)
    p = case.logits[rows].double().softmax(1)
    sure, right = p.amax(1).numpy(), case.right[rows].numpy().astype(np.float64)
    n, value = len(rows), ece(sure, right, bins)
    interval = ece_interval(sure, right, bins, value, case.seed)
    perfect, most = _perfect(sure, bins, case.seed)
    verdict = verdict_of(value, interval, allowed_ece(sure, right, bins, ceiling, case.seed), ceiling)
    brier = (sure - right) ** 2
    acceptable = (p * case.truth[rows]).sum(1).clamp_min(1e-12).log().numpy()
    measures = [
        {"measure": "ECE", "value": value, **bounds(interval), "n": n},
        {"measure": "ECE of a perfectly calibrated model, mean", "value": perfect, **bounds(None), "n": n},
        {"measure": "ECE of a perfectly calibrated model, 95 % quantile", "value": most, **bounds(None), "n": n},
        _mean("mean confidence", sure, case.seed),
        {"measure": "accuracy", "value": float(right.mean()), **bounds(wilson(int(right.sum()), n)), "n": n},
        _mean("Brier score of the top class", brier, case.seed),
        _mean("negative log-likelihood of the acceptable classes (nats)", -acceptable, case.seed),
    ]
    said, was = share(float(sure.mean())), share(float(right.mean()))
    lean = "over" if sure.mean() > right.mean() else "under"
    if said == was:
        lean = "neither over- nor under"
    return Finding(
        verdict,
        f"Confidence and accuracy are {share(value)} apart on average (ECE, {counted(bins, 'bin')}; "
        f"{span(interval, n)}), where a perfectly calibrated model would show {share(perfect)} on as many: "
        f"{lean}-confident with a mean confidence of {said} at an accuracy of {was}.",
        quantity="calibration error (ECE)",
        value=value,
        interval=interval,
        n=n,
        chance=perfect,
        has_bar=True,
        notes=_notes(case, rows, ceiling, perfect, most, value),
        tables=(
            *table("Measures of calibration", measures),
            *table(f"The {bins} bins of equal width, those with pictures", _bins(sure, right, bins)),
        ),
        figures=(_figure(sure, right, bins, value),),
    )


def ece(sure: Numbers, right: Numbers, bins: int) -> float:
    """The expected calibration error: sure (n) in [0, 1], right (n) 0 or 1.  Bins are open below, closed above.

    Two answers with 0.9, one of them right, and one with 0.3 that is wrong: 2/3 of 0.4 and 1/3 of 0.3.

    >>> round(ece(np.array([0.9, 0.9, 0.3]), np.array([1.0, 0.0, 0.0]), 10), 4)
    0.3667
    """
    return float(np.abs(np.bincount(_bin(sure, bins), sure - right, bins)).sum() / len(sure))


def _bin(sure: Numbers, bins: int) -> npt.NDArray[np.int64]:
    return np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)


def ece_interval(sure: Numbers, right: Numbers, bins: int, value: float, seed: int) -> Interval | None:
    """The basic bootstrap: every draw is biased upwards as the value is, so the tails are turned around the value."""
    n, rng = len(sure), np.random.default_rng(seed)
    if n < FEWEST:
        return None
    found = []
    for _ in range(_DRAWS):
        i = rng.integers(0, n, n)
        found.append(ece(sure[i], right[i], bins))
    low, high = np.percentile(found, tails(n))
    return (min(max(0.0, 2 * value - float(high)), value), min(1.0, max(2 * value - float(low), value)))


def allowed_ece(sure: Numbers, right: Numbers, bins: int, ceiling: float, seed: int) -> float:
    """The 97.5 % quantile of the ECE of a model that is off by ``ceiling`` everywhere, to the side that this one is."""
    lean = ceiling if right.mean() > sure.mean() else -ceiling
    rng, chance = np.random.default_rng(seed), np.clip(sure + lean, 0, 1)
    found = [ece(sure, (rng.random(len(sure)) < chance).astype(np.float64), bins) for _ in range(_DRAWS)]
    return float(np.percentile(found, 97.5))


def verdict_of(value: float, interval: Interval | None, most: float, ceiling: float) -> Judgement:
    """Pass where the interval's upper bound is within the ceiling; fail where the ECE is above ``most``."""
    if interval is None:
        return "warn"
    if interval[1] <= ceiling:
        return "pass"
    return "fail" if value > most else "warn"


def _perfect(sure: Numbers, bins: int, seed: int) -> tuple[float, float]:
    """The ECE of a model that is right exactly as often as it says: mean and 95 % quantile of seeded draws."""
    rng = np.random.default_rng(seed)
    found = [ece(sure, (rng.random(len(sure)) < sure).astype(np.float64), bins) for _ in range(_DRAWS)]
    return float(np.mean(found)), float(np.percentile(found, 95))


def _mean(name: str, values: Numbers, seed: int) -> dict[str, Cell]:
    interval = bootstrap(values.tolist(), seed)
    return {"measure": name, "value": float(values.mean()), **bounds(interval), "n": len(values)}


def _bins(sure: Numbers, right: Numbers, bins: int) -> list[dict[str, Cell]]:
    where, rows = _bin(sure, bins), list[dict[str, Cell]]()
    for k in range(bins):
        inside = where == k
        m = int(inside.sum())
        if m:
            hits = int(right[inside].sum())
            told = {"from": k / bins, "to": (k + 1) / bins, "n": m, "mean confidence": float(sure[inside].mean())}
            rows.append({**told, "accuracy": hits / m, **bounds(wilson(hits, m))})
    return rows


def _notes(case: Case, rows: list[int], ceiling: float, perfect: float, most: float, value: float) -> tuple[str, ...]:
    beyond = "beyond" if value > most else "within"
    out = [
        f"Asked for: at most {share(ceiling)} (option ceiling).",
        f"ECE is biased upwards when pictures are few: of {len(rows)} pictures a perfectly calibrated model with these "
        f"probabilities would show {share(perfect)} on average and up to {share(most)} in 95 of 100 draws; "
        f"this model is {beyond} that.",
    ]
    several = int((case.truth[rows].sum(1) > 1).sum())
    if several:
        out.append(
            f"{counted(several, 'picture has', 'pictures have')} more than one acceptable class: there the top class "
            "may be right more often than its own probability says, which looks like under-confidence."
        )
    return tuple(out)


def _figure(sure: Numbers, right: Numbers, bins: int, value: float) -> Figure:
    where = _bin(sure, bins)
    counts = np.bincount(where, minlength=bins)
    full = np.maximum(counts, 1)
    hits = np.bincount(where, right, bins)
    data = charts.reliability(
        np.linspace(0, 1, bins + 1).tolist(),
        counts.tolist(),
        (np.bincount(where, sure, bins) / full).tolist(),
        (hits / full).tolist(),
        [wilson(int(h), int(m)) for h, m in zip(hits, counts, strict=True)],
    )
    caption = (
        f"Confidence against accuracy in {bins} bins of equal width, n pictures in each; lines are 95 % intervals."
    )
    alt = f"A reliability diagram of {counted(len(sure), 'picture')}: on average {share(value)} off the diagonal."
    return Figure("calibration-reliability.svg", data, caption, alt)
