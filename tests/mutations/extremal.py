"""How extremal-perturbation is broken."""

METHODS = {
    "explainers/extremal_perturbation.py": [
        ("SPREAD = 21 / 224", "SPREAD = 14 / 224"),
        ("BLUR = 20 / 224", "BLUR = 10 / 224"),
        ("REACH = 2.0", "REACH = 1.0"),
        ("SHARPNESS = 20.0", "SHARPNESS = 10.0"),
        ("RATE = 0.02", "RATE = 0.01"),
        ("WEIGHT = 1.0, 300.0", "WEIGHT = 1.0, 30.0"),
        ("_to_one(tried)", "_to_one(-tried)"),
        ("/ unit[index]", ""),
        ("1 - enlarge(mask, sides)", "enlarge(mask, sides)"),
        ("loss = loss - flowing(", "loss = loss + flowing("),
        ("kept[index, which] = target[rows](", "kept[index, which] = target[rows * 0]("),
        ('mode="replicate"', 'mode="reflect"'),
        ("places.clamp_(0, 1)", "pass"),
        ("(far - 0.5)", "far"),
        ("(values - low)", "values"),
        ("((below[ends] - below[ends - size]) / size)", "below[ends - size].diff(append=below[-1:])"),
        ("clamp(0, 1)\n", "round().clamp(0, 1)\n"),
        (".clamp_min(0)\n    return total", "\n    return total"),
        ("maps.flatten(1).mean(1))", "maps.flatten(1).amax(1))"),
        ("- blur) / (whole - blur))", ") / whole)"),
        ("(best > ended)", "(best > ended + 1e9)"),
    ],
}
