"""How thresholds, equal maps and paired differences are broken: (file, old text, new text, pytest's -k)."""

CORE = [
    ("auditing/tournament.py", "rises.clamp_min(0).mean(0", "rises.mean(0", "every_explainer_gets"),
    (
        "auditing/tournament.py",
        "_with_threshold(m, thresholds.get(name))",
        "_with_threshold(m, None)",
        "every_explainer_gets",
    ),
    (
        "auditing/tournament.py",
        "self.oriented()[one, metric] - self",
        "self.oriented()[other, metric] - self",
        "paired",
    ),
    ("auditing/tournament.py", "torch.allclose(earlier, unscaled_maps, atol=1e-5)", "False", "equal_maps"),
    ("auditing/tournament.py", "torch.allclose(earlier, unscaled_maps, atol=1e-5)", "True", "equal_maps"),
    ("auditing/tournament.py", "other=other, seed", "other=None, seed", "random_labels_are_not"),
    (
        "checks/explainer_ranking.py",
        "(rows[calibrate:], rows[:calibrate]) if len(rows) > calibrate",
        "(rows, rows[:calibrate]) if len(rows) > calibrate",
        "thresholds_say",
    ),
    (
        "checks/explainer_ranking.py",
        "on_judged = bool({*tournament.calibrated_on} & {*tournament.rows})",
        "on_judged = False",
        "thresholds_say",
    ),
    ("checks/explainer_ranking.py", "model.labels != case.model.labels or", "", "random_labels_are_not"),
    ("checks/explainer_ranking.py", "max((float(np.nanmean", "min((float(np.nanmean", "random_labels_are_not"),
    (
        "metrics/common/masked_probability.py",
        "warnings.warn(FLATTERS, Notice, stacklevel=2)",
        "pass",
        "same_calibration",
    ),
    (
        "drawing/charts.py",
        "np.ma.masked_invalid(values), cmap=_BOTH",
        "values.missing, cmap=_BOTH",
        "agreement_is_drawn",
    ),
    ("core/remembered.py", "if key not in known:", "if True:", "worked_out_once"),
    (
        "core/remembered.py",
        "token = _memory.set(weakref.WeakKeyDictionary())",
        "token = _memory.set(None)",
        "worked_out_once",
    ),
    ("perturbation/removal_order.py", "digest(x)), lambda", "len(x)), lambda", "worked_out_once"),
    ("metrics/parameter_randomisation.py", 'if stages == 1 and order == "cascading":', "if False:", "worked_out_once"),
    ("perturbation/removal_order.py", "(steps, x if insert else nothing)", "(steps, nothing)", "insertion"),
    (
        "perturbation/removal_order.py",
        "if nothing is None else torch.arange(1, steps)",
        "if nothing is None else torch.arange(2, steps)",
        "deletion",
    ),
]
