"""How the pairing of detectors and segmenters is broken: (file, old text, new text, pytest's -k)."""

_OBJECTS = "became_of_every_object"

CORE = [
    ("evaluation/gains.py", "differences = after - before", "differences = before - after", "bias_of_the_draws"),
    ("evaluation/gains.py", "+ differences[0] - drawn.mean()", "", "bias_of_the_draws"),
    ("evaluation/gains.py", "~np.isnan(differences[1:])", "differences[1:] != 0", "beside_itself"),
    (
        "evaluation/paired_boxes.py",
        "[drawn_precision(boxes, drawn, most) for boxes in (before, after)]",
        "[drawn_precision(b, d, most) for b, d in ((before, drawn), (after, np.roll(drawn, 1, 1)))]",
        "same_pictures_are_drawn",
    ),
    ("evaluation/paired_boxes.py", "_AT_50, _AT_75 = slice(0, 1)", "_AT_50, _AT_75 = slice(1, 2)", "of_the_two_scores"),
    ("evaluation/paired_boxes.py", "not all(np.array_equal(a", "not any(np.array_equal(a", "boxes_of_other_truth"),
    ("evaluation/paired_pixels.py", "truth + said - both", "truth + said", "segmenters_by_hand"),
    ("evaluation/paired_pixels.py", "np.ones((1, n))", "np.zeros((1, n))", "segmenters_by_hand"),
    ("comparing/object_fates.py", "judged & ~was & is_now", "judged & is_now", _OBJECTS),
    ("comparing/object_fates.py", "was & ~is_now, judged", "~was & is_now, judged", _OBJECTS),
    ("comparing/object_fates.py", "before + change, objects", "before - change, objects", _OBJECTS),
    ("comparing/paired_detectors.py", "key=lambda i: (-broken[i]", "key=lambda i: (broken[i]", "how_they_are_drawn"),
    ("comparing/box_evidence.py", "if mended[i] > broken[i]", "if mended[i]", "how_they_are_drawn"),
    ("evaluation/pixels.py", 'MEANS.index("mean_iou")', 'MEANS.index("mean_dice")', "two_segmenters_by_hand"),
    ("comparing/paired_segmenters.py", "change = values[1] - values[0]", "change = values[0] - values[1]", "by_hand"),
    ("comparing/class_map_evidence.py", "(-change[i], names[i])", "(change[i], names[i])", "segmenters_by_hand"),
    ("comparing/paired_audits.py", "first.check != second.check", "False", "by_what_they_keep"),
    ("comparing/places.py", 'options[0].get("score", SCORE)', "SCORE", "says_what_counts"),
    ("comparing/place_runs.py", "if ours == theirs:", "if sorted(ours) == sorted(theirs):", "refused_by_name"),
    (
        "comparing/place_runs.py",
        "first.report.facts.data.digest == run.report.facts.data.digest",
        "True",
        "refused_by_name",
    ),
    ("comparing/place_pictures.py", "if os.path.realpath(p.path) in part.files", "", "kept_from_themselves"),
    ("comparing/sources.py", "if kind != kinds[first]", "if False", "refused_by_name"),
]  # fmt: skip
