"""Guo, Pleiss, Sun & Weinberger 2017, arXiv:1706.04599, section 2."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clearsight.auditing.case import Case
from clearsight.auditing.evidence import bounds, share, span, table, unlabelled
from clearsight.core.calibration_error import bin_of, ece
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
    claims="of-texts",
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
    confidence, right = p.amax(1).numpy(), case.right[rows].numpy().astype(np.float64)
    n, value = len(rows), ece(confidence, right, bins)
    interval = ece_interval(confidence, right, bins, value, case.seed)
    perfect, quantile = _perfect_ece(confidence, bins, case.seed)
    verdict = verdict_of(value, interval, allowed_ece(confidence, right, bins, ceiling, case.seed), ceiling)
    brier = (confidence - right) ** 2
    acceptable = (p * case.truth[rows]).sum(1).clamp_min(1e-12).log().numpy()
    measures = [
        {"measure": "ECE", "value": value, **bounds(interval), "n": n},
        {"measure": "ECE of a perfectly calibrated model, mean", "value": perfect, **bounds(None), "n": n},
        {"measure": "ECE of a perfectly calibrated model, 95 % quantile", "value": quantile, **bounds(None), "n": n},
        _mean_row("mean confidence", confidence, case.seed),
        {"measure": "accuracy", "value": float(right.mean()), **bounds(wilson(int(right.sum()), n)), "n": n},
        _mean_row("Brier score of the top class", brier, case.seed),
        _mean_row("negative log-likelihood of the acceptable classes (nats)", -acceptable, case.seed),
    ]
    confidence_shown, accuracy_shown = share(float(confidence.mean())), share(float(right.mean()))
    side = "over" if confidence.mean() > right.mean() else "under"
    if confidence_shown == accuracy_shown:
        side = "neither over- nor under"
    return Finding(
        verdict,
        f"Confidence and accuracy are {share(value)} apart on average (ECE, {counted(bins, 'bin')}; "
        f"{span(interval, n)}), where a perfectly calibrated model would show {share(perfect)} on as many: "
        f"{side}-confident with a mean confidence of {confidence_shown} at an accuracy of {accuracy_shown}.",
        quantity="calibration error (ECE)",
        value=value,
        interval=interval,
        n=n,
        chance=perfect,
        has_bar=True,
        notes=_notes(case, rows, ceiling, perfect, quantile, value),
        tables=(
            *table("Measures of calibration", measures),
            *table(f"The {bins} bins of equal width, those with pictures", _bin_rows(confidence, right, bins)),
        ),
        figures=(_reliability_figure(confidence, right, bins, value),),
    )


def ece_interval(confidence: Numbers, right: Numbers, bins: int, value: float, seed: int) -> Interval | None:
    """The basic bootstrap: every draw is biased upwards as the value is, so the tails are turned around the value."""
    n, rng = len(confidence), np.random.default_rng(seed)
    if n < FEWEST:
        return None
    errors = []
    for _ in range(_DRAWS):
        i = rng.integers(0, n, n)
        errors.append(ece(confidence[i], right[i], bins))
    low, high = np.percentile(errors, tails(n))
    return (min(max(0.0, 2 * value - float(high)), value), min(1.0, max(2 * value - float(low), value)))


def allowed_ece(confidence: Numbers, right: Numbers, bins: int, ceiling: float, seed: int) -> float:
    """The 97.5 % quantile of the ECE of a model that is off by ``ceiling`` everywhere, to the side that this one is."""
    shift = ceiling if right.mean() > confidence.mean() else -ceiling
    rng, chance = np.random.default_rng(seed), np.clip(confidence + shift, 0, 1)
    errors = [ece(confidence, (rng.random(len(confidence)) < chance).astype(np.float64), bins) for _ in range(_DRAWS)]
    return float(np.percentile(errors, 97.5))


def verdict_of(value: float, interval: Interval | None, allowed: float, ceiling: float) -> Judgement:
    """Pass where the interval's upper bound is within the ceiling; fail where the ECE is above ``most``."""
    if interval is None:
        return "warn"
    if interval[1] <= ceiling:
        return "pass"
    return "fail" if value > allowed else "warn"


def _perfect_ece(confidence: Numbers, bins: int, seed: int) -> tuple[float, float]:
    """The ECE of a model that is right exactly as often as it says: mean and 95 % quantile of seeded draws."""
    rng = np.random.default_rng(seed)
    errors = [
        ece(confidence, (rng.random(len(confidence)) < confidence).astype(np.float64), bins) for _ in range(_DRAWS)
    ]
    return float(np.mean(errors)), float(np.percentile(errors, 95))


def _mean_row(name: str, values: Numbers, seed: int) -> dict[str, Cell]:
    interval = bootstrap(values.tolist(), seed)
    return {"measure": name, "value": float(values.mean()), **bounds(interval), "n": len(values)}


def _bin_rows(confidence: Numbers, right: Numbers, bins: int) -> list[dict[str, Cell]]:
    bins_of, rows = bin_of(confidence, bins), list[dict[str, Cell]]()
    for k in range(bins):
        inside = bins_of == k
        m = int(inside.sum())
        if m:
            hits = int(right[inside].sum())
            row = {"from": k / bins, "to": (k + 1) / bins, "n": m, "mean confidence": float(confidence[inside].mean())}
            rows.append({**row, "accuracy": hits / m, **bounds(wilson(hits, m))})
    return rows


def _notes(
    case: Case, rows: list[int], ceiling: float, perfect: float, quantile: float, value: float
) -> tuple[str, ...]:
    place = "beyond" if value > quantile else "within"
    notes = [
        f"Asked for: at most {share(ceiling)} (option ceiling).",
        f"ECE is biased upwards when pictures are few: of {len(rows)} pictures a perfectly calibrated model with these "
        f"probabilities would show {share(perfect)} on average and up to {share(quantile)} in 95 of 100 draws; "
        f"this model is {place} that.",
    ]
    several = int((case.truth[rows].sum(1) > 1).sum())
    if several:
        notes.append(
            f"{counted(several, 'picture has', 'pictures have')} more than one acceptable class: there the top class "
            "may be right more often than its own probability says, which looks like under-confidence."
        )
    return tuple(notes)


def _reliability_figure(confidence: Numbers, right: Numbers, bins: int, value: float) -> Figure:
    bins_of = bin_of(confidence, bins)
    counts = np.bincount(bins_of, minlength=bins)
    divisors = np.maximum(counts, 1)
    hits = np.bincount(bins_of, right, bins)
    data = charts.reliability(
        np.linspace(0, 1, bins + 1).tolist(),
        counts.tolist(),
        (np.bincount(bins_of, confidence, bins) / divisors).tolist(),
        (hits / divisors).tolist(),
        [wilson(int(h), int(m)) for h, m in zip(hits, counts, strict=True)],
    )
    caption = (
        f"Confidence against accuracy in {bins} bins of equal width, n pictures in each; lines are 95 % intervals."
    )
    alt = f"A reliability diagram of {counted(len(confidence), 'picture')}: on average {share(value)} off the diagonal."
    return Figure("calibration-reliability.svg", data, caption, alt)
