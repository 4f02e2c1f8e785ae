"""How unusual a picture is, and how far the pictures that come have moved: in closed form and against SciPy."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from clearsight.errors import Refused
from clearsight.serving.backend import Answers
from clearsight.serving.drift import Drift, kolmogorov_smirnov, population_stability_index
from clearsight.serving.outliers import outlier_scores, reference_of, shares_below

RNG = np.random.default_rng(0)


def answers(n: int, shift: float = 0.0, features: bool = True) -> Answers:
    logits = RNG.normal(size=(n, 4)).astype(np.float32)
    values = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = RNG.normal(size=(n, 6)) + (3 + shift) * np.eye(6)[0]
    return Answers(values, logits, None, found.astype(np.float32) if features else None)


def test_the_distance_is_that_to_the_tenth_nearest_of_length_1():
    known, new = answers(50), answers(7)
    a, b = (x.features / np.linalg.norm(x.features, axis=1, keepdims=True) for x in (new, known))
    right = np.sort(cdist(a, b), axis=1)[:, 9]
    np.testing.assert_allclose(outlier_scores(new, reference_of(known)), right, rtol=1e-5)


def test_a_reference_picture_is_compared_with_the_others_alone():
    known = answers(40)
    b = known.features / np.linalg.norm(known.features, axis=1, keepdims=True)
    right = np.sort(np.sort(cdist(b, b), axis=1)[:, 10])  # without itself
    np.testing.assert_allclose(reference_of(known).scores, right, rtol=1e-4)


def test_without_features_it_is_the_largest_logit():
    known, new = answers(30, features=False), answers(3, features=False)
    reference = reference_of(known)
    assert reference.method == "max-logit"
    assert outlier_scores(new, reference).tolist() == (-new.logits.max(1)).tolist()
    assert outlier_scores(answers(3), None).shape == (3,)
    below = shares_below(np.array([reference.scores[12]]), reference)
    assert below == [12 / 30]


def test_few_pictures_are_no_reference():
    with pytest.raises(Refused, match="at least 20"):
        reference_of(answers(19))


def test_the_stability_index_in_closed_form():
    """Ten bins of ten each; all of 90 new values lie in one: (q - p) log(q / p) with half a count added."""
    p, full, empty = 10.5 / 105, 90.5 / 95, 0.5 / 95
    right = (full - p) * np.log(full / p) + 9 * (empty - p) * np.log(empty / p)
    assert population_stability_index(np.arange(100.0), np.full(90, 1000.0)) == pytest.approx(right)


def test_the_distance_of_distributions_is_that_of_scipy():
    a, b = RNG.normal(size=80), RNG.normal(0.3, 1.2, size=55).round(1)
    assert kolmogorov_smirnov(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic)


def test_drift_is_seen_where_pictures_move_and_not_where_they_do_not():
    known = reference_of(answers(400))
    same, moved = Drift(known), Drift(known)
    assert np.isnan(same.measure("psi", "outlier"))
    for drift, shift in ((same, 0.0), (moved, -6.0)):
        new = answers(300, shift)
        drift.note(new.values.max(1), outlier_scores(new, known))
    assert same.measure("psi", "outlier") < 0.1 < 0.25 < moved.measure("psi", "outlier")
    assert same.measure("ks", "outlier") < 0.15 < 0.3 < moved.measure("ks", "outlier")
    assert abs(same.measure("psi", "confidence") - moved.measure("psi", "confidence")) < 0.1
