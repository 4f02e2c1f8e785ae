"""How every check is broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "checks/accuracy.py": [
        ("topk(5, 1)", "topk(4, 1)"),
        ("(-float(p[i].max()), case.pictures[i].name)", "(float(p[i].max()), case.pictures[i].name)"),
        ("int(case.right[rows].sum())", "int((case.logits[rows].argmax(1) == case.truth[rows].int().argmax(1)).sum())"),
    ],
    "checks/calibration.py": [
        ('"fail" if value > allowed', '"fail" if value > ceiling'),
    ],
    "checks/localisation.py": [
        ("s.right is not False and not math.isnan(s.mass)]", "not math.isnan(s.mass)]"),
        ("return self.mass - self.area", "return self.area - self.mass"),
        ("gain[1] <= 0", "gain[1] <= -1"),
        ("x[[part.index(i) for i in in_view]]", "x[: len(in_view)]"),
        ("in (maps, torch.ones_like(maps))", "in (maps, maps)"),
        ("bool(s.right) and s.box >= _FITS", "s.box >= _FITS"),
    ],
    "checks/faithfulness.py": [
        ("(insertion - deletion) - (control_insertion - control_deletion)", "insertion - deletion"),
        ("interval[0] > 0", "interval[0] >= 0"),
        ('explain(case.model, x, "random"', 'explain(case.model, x, "saliency"'),
    ],
    "checks/sanity.py": [
        ("randomised.draw(randomised.layers[last:cut])", "randomised.draw([])"),
        ("empty[stage] += constant(m)", "pass"),
        ("if not constant(before[i])]", "]"),
        ("judge(interval, ceiling=ceiling)", "judge(interval, floor=ceiling)"),
    ],
    "checks/explainer_ranking.py": [("    n = len(tournament.rows)\n", "    n = len(case.pictures) + 1\n")],
    "checks/groups.py": [("n = worst.n + worst.rest_n", "n = worst.n")],
    "checks/trustworthiness.py": [('wilson(counts["acceptable"], n)', 'wilson(counts["rejectable"], n)')],
    "checks/robustness.py": [
        ("> eps for i in right)\n    value", "< eps for i in right)\n    value"),
        ("right = [i for i in rows if case.right[i]]", "right = rows"),
        ("Misclassify(case.truth[todo])", "Misclassify(case.predicted[todo])"),
    ],
}

CORE = [
    (
        "core/calibration_error.py",
        "confidence - right, bins)).sum()",
        "confidence, bins)).sum()",
        "test_checks or calibration",
    ),
    (
        "core/calibration_error.py",
        "np.ceil(confidence * bins).astype(np.int64) - 1",
        "np.floor(confidence * bins).astype(np.int64)",
        "test_checks or calibration",
    ),
]
