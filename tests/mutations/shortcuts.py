"""How the search for shortcuts is broken: (file, old text, new text, pytest's -k)."""

METHODS = {
    "checks/shortcuts.py": [
        ('if perhaps:\n        status = "on the object" if _on_objects(case, t) else', "if perhaps:\n        status ="),
    ],
}

CORE = [
    ("clusters.py", "clamp_min(0)[:, None]", "abs()[:, None]", "pooling_counts"),
    ("clusters.py", "int(np.argmax(np.diff(values[: most + 1]))) + 1", "most", "three_clusters"),
    ("clusters.py", "(-len(m), m)", "(len(m), m)", "three_clusters"),
    ("clusters.py", "if n < 6:", "if n < 0:", "all_alike"),
    ("clusters.py", "strongest = np.argmax(", "strongest = np.argmin(", "hotspot_is_the_strongest"),
    (
        "clusters.py",
        "top, bottom = max(rows.min() - 1, 0)",
        "top, bottom = max(rows.min(), 0)",
        "corner_that_decides or hotspot",
    ),
    ("clusters.py", "columns.max() + 2", "columns.max() + 1", "hotspot_is_the_strongest"),
    ("clusters.py", "return min(drawn", "return max(drawn", "elsewhere_is"),
    ("clusters.py", "size[1] - width + 1", "size[1] - width + 9", "elsewhere_is"),
    ("clusters.py", '"top", "middle", "bottom"', '"bottom", "middle", "top"', "place_has_a_name"),
    ("recolouring.py", "slope * shape", "slope * mine", "colours_of_another"),
    ("recolouring.py", "(middle + slope", "(0 + slope", "colours_of_another"),
    ("recolouring.py", "clamp_min(1e-6)", "clamp_min(0)", "colours_of_another"),
    (
        "transplanting.py",
        "torch.where(mask[:, None], x, bare)",
        "torch.where(mask[:, None], bare, x)",
        "corner_that_decides",
    ),
    (
        "transplanting.py",
        "_odds(without, wanted) < _odds(control, wanted)",
        "_odds(without, wanted) > _odds(control, wanted)",
        "corner_that_decides",
    ),
    ("transplanting.py", "came == wanted, other", "came != wanted, other", "corner_that_decides"),
    ("transplanting.py", "other.argmax(1) == wanted)", "made.argmax(1) == wanted)", "corner_that_decides"),
    (
        "transplanting.py",
        "torch.where(objects, there, bare),",
        "torch.where(objects, bare, there),",
        "surroundings_that",
    ),
    ("transplanting.py", "case.regions(own), fill)", "~case.regions(own), fill)", "surroundings_that"),
    (
        "transplanting.py",
        "greyed(x), recoloured(x, alike), recoloured(there, x)",
        "greyed(x), recoloured(x, alike), recoloured(x, there)",
        "coloured_digits",
    ),
    ("transplanting.py", "(case.seed + 1) * 1_000_003 + row", "torch.seed()", "same_seed_finds"),
    ("transplanting.py", "if case.predicted[r] != case.predicted[i]])", "])", "corner_that_decides"),
    (
        "checks/shortcuts.py",
        "<= largest * size[0] * size[1]",
        "<= size[0] * size[1]",
        "plain or decoy_digits or demonstration",
    ),
    ("checks/shortcuts.py", 'if t.kind == "surroundings":', "if False:", "fair_surroundings"),
    ("checks/shortcuts.py", "sure &= wilson(t.felt, t.n)[0] > 0.5", "pass", "not_felt"),
    ("checks/shortcuts.py", '"pass" if found else "note"', '"pass"', "too_few_pictures"),
    ("checks/shortcuts.py", "if label == answer]", "if label != answer]", "demonstration_needs"),
    (
        "checks/shortcuts.py",
        'torch.where(inside(box, size), without(case.model, x, "blur"), x)',
        "x",
        "blurring_the_place",
    ),
    ("decoys.py", 'if mark == "own" else int(slots[i])', 'if mark != "own" else int(slots[i])', "demonstration_needs"),
]
