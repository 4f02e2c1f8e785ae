"""How the evaluation of pixels, segments, landmarks and class maps is broken on purpose."""

METHODS = {
    "metrics/box_iou.py": [("regions, threshold)", "regions, 2 * threshold)")],
    "metrics/gt_known_localisation.py": [
        ("found >= overlap", "found > overlap"),
        ('.masked_fill(found.isnan(), float("nan"))', ""),
    ],
    "metrics/top_1_localisation.py": [
        ("right & (found >= overlap)", "(found >= overlap)"),
        (".argmax(1)", ".argmin(1)"),
    ],
}

_SCORES = "test_pixel_scores"
_MAPS = "test_map_boxes"
_FIELDS = "test_pixel_fields"
CORE = [
    (
        "evaluation/pixels.py",
        "judged_truth * classes + judged_prediction",
        "judged_prediction * classes + judged_truth",
        _SCORES,
    ),
    ("evaluation/pixels.py", "kept = truth != NOT_JUDGED", "kept = truth == truth", _SCORES),
    ("evaluation/pixels.py", "mean_of_defined(iou),", "np.nan_to_num(iou).mean(-1),", _SCORES),
    ("evaluation/pixels.py", "(truth * np.nan_to_num(iou))", "(predicted * np.nan_to_num(iou))", _SCORES),
    ("evaluation/resampling.py", "rng.multinomial(n, ", "rng.multinomial(2 * n, ", _SCORES),
    ("evaluation/resampling.py", "draws[~np.isnan(draws)]", "np.nan_to_num(draws)", _SCORES),
    ("evaluation/resampling.py", "bounds + figure - defined.mean()", "bounds - figure + defined.mean()", _SCORES),
    ("evaluation/boundaries.py", "np.pad(mask, 1)", "np.pad(mask, 1, constant_values=True)", _SCORES),
    ("evaluation/boundaries.py", "inner <= width", "inner < width", _SCORES),
    ("evaluation/boundaries.py", ".masked_fill(~kept, NOT_JUDGED)", "", _SCORES),
    ("evaluation/panoptic.py", "if iou > MATCH", "if iou >= MATCH", _SCORES),
    ("evaluation/panoptic.py", " - shared.get((said, 0), 0))", ")", _SCORES),
    ("evaluation/panoptic.py", "<= areas_said[said] / 2", "< areas_said[said] / 2", _SCORES),
    ("evaluation/panoptic.py", " if truth.classes[c] == k)", ")", _SCORES),
    ("evaluation/panoptic.py", " - matched_true - truth.crowd", " - matched_true", _SCORES),
    ("evaluation/landmarks.py", "/ length.double()[:, None]", "", _SCORES),
    ("evaluation/landmarks.py", "errors <= share", "errors < share", _SCORES),
    ("core/map_boxes.py", "np.ones((3,) * inside.ndim)", "None", _MAPS),
    ("core/map_boxes.py", "np.argsort(-sizes", "np.argsort(sizes", _MAPS),
    ("core/map_boxes.py", " & (flat > 0)", "", _MAPS),
    ("core/map_boxes.py", ".clip(0).prod(-1)", ".prod(-1)", _MAPS),
    ("evaluation/class_map_boxes.py", 'kept = 1 if parts == "largest"', 'kept = 1 if parts == "all"', _MAPS),
    ("evaluation/class_map_boxes.py", "maps - maps.flatten(1).amin(1)[:, None, None]", "maps - maps.amin()", _MAPS),
    ("evaluation/class_map_boxes.py", "shares.max(1).tolist()", "fits.max(2).mean(0).tolist()", _MAPS),
    ("internals/pixel_fields.py", "g.abs().sum(1).mean(0)", "g.mean(0).abs().sum(0)", _FIELDS),
    ("internals/pixel_fields.py", "columns[-1] + 1, rows[-1] + 1", "columns[-1], rows[-1]", _FIELDS),
    ("internals/pixel_fields.py", "TAIL * field.max()", "0.5 * field.max()", _FIELDS),
]  # fmt: skip
