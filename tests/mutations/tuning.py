"""How the search is broken: (file, old text, new text, pytest's -k)."""

CORE = [
    ("learning/spaces.py", "low * (high / low) ** u if", "low + u * (high - low) if", "lie_where or grid_is_every"),
    ("learning/spaces.py", "min(max(float(", "max(min(float(", "lie_where"),
    ("learning/spaces.py", "repr((seed, draw, name))", "repr((seed, draw))", "drawn_twice"),
    (
        "learning/spaces.py",
        "found.setdefault(repr(sorted(one.items())), one)",
        "found[repr(draw)] = one",
        "drawn_twice",
    ),
    ("learning/spaces.py", "        if name in FIXED:\n", "        if False:\n", "no_recipe_takes"),
    ("learning/spaces.py", "        vet(Recipe(**settings), ", "        dict(settings, ", "no_recipe_takes"),
    (
        "learning/tuning.py",
        "settings = grid(asked) if search",
        "settings = drawn(asked, trials, 0) if search",
        "grid_is_run",
    ),
    (
        "learning/tuning.py",
        "t.failed or t.best is None, t.best",
        "t.failed or t.best is None, -t.best",
        "least_val_loss",
    ),
    ("learning/tuning.py", "other = [k for k in plan if before[k] != plan[k]]", "other = []", "not_run_again"),
    ("learning/tuning.py", "            if t.ended:\n                return\n", "", "judged_on_test"),
]
