"""How extremal-perturbation is broken."""

METHODS = {
    "explainers/extremal_perturbation.py": [
        ("SPREAD = 21 / 224", "SPREAD = 14 / 224"),
        ("BLUR = 20 / 224", "BLUR = 10 / 224"),
        ("REACH = 2.0", "REACH = 1.0"),
        ("SHARPNESS = 20.0", "SHARPNESS = 10.0"),
        ("RATE = 0.02", "RATE = 0.01"),
        ("WEIGHT = 1.0, 300.0", "WEIGHT = 1.0, 30.0"),
        ("enlarge(_to_one(tried)", "enlarge(_to_one(-tried)"),
        ("/ unit[here]", ""),
        ("1 - enlarge(part, sides)", "enlarge(part, sides)"),
        ("slopes[here] -= gradients", "slopes[here] += gradients"),
        ("blur_between(levels[here]", "blur_between(levels[rows]"),
        ("= smooth_max(rings, beyond, places)", "= smooth_max(rings_of(near, beyond), beyond, places)"),
        ("target[row.expand(len(which))]", "target[(row * 0).expand(len(which))]"),
        ('mode="replicate"', 'mode="reflect"'),
        ("places.clamp_(0, 1)", "pass"),
        ("(far - 0.5)", "far"),
        ("(values - low)", "values"),
        ("(left / ties.sum(1, keepdim=True))", "left"),
        ("clamp(0, 1)\n", "round().clamp(0, 1)\n"),
        ("maps.flatten(1).mean(1))", "maps.flatten(1).amax(1))"),
        ("- blur) / (whole - blur))", ") / whole)"),
        ("(best > ended)", "(best > ended + 1e9)"),
        ("2 * weight / flat.shape[1] *", "weight / flat.shape[1] *"),
        ("masks.shape[1])\n    lowest", "masks.shape[1] - 1)\n    lowest"),
    ],
}

CORE = [
    ("explainers/common/blur_levels.py", ".clamp_min_(0)", "", "extremal"),
    ("explainers/common/blur_levels.py", "clamp_(0, last - 1)", "clamp_(1, last - 1)", "extremal"),
    ("explainers/common/blur_levels.py", " - (g * below).sum(1))", ")", "extremal"),
    ("explainers/common/blur_levels.py", "row[size:].index_select", "row.index_select", "extremal"),
    ("explainers/common/blur_levels.py", " + pictures * (levels.shape[1] - 1)", "", "extremal"),
    ("explainers/common/smooth_maximum.py", "add_(1).mul_(reached", "mul_(reached", "extremal"),
    ("explainers/common/smooth_maximum.py", "above * out * -sharpness", "above * out * sharpness", "extremal"),
    ("explainers/common/smooth_maximum.py", "slice(o, o - 2 * b or None)", "slice(b, -b or None)", "extremal"),
]
