"""How the search is broken: (file, old text, new text, pytest's -k)."""

CORE = [
    (
        "training/tune.py",
        "validate(apply_settings(recipe, values))",
        "apply_settings(recipe, values)",
        "no_trial_could",
    ),
    (
        "training/search_space.py",
        "low * (high / low) ** u if",
        "low + u * (high - low) if",
        "lie_where or grid_is_every",
    ),
    ("training/search_space.py", "min(max(float(", "max(min(float(", "lie_where"),
    ("training/search_space.py", "repr((seed, draw, name))", "repr((seed, draw))", "drawn_twice"),
    (
        "training/search_space.py",
        "distinct.setdefault(repr(sorted(settings.items())), settings)",
        "distinct[repr(draw)] = settings",
        "drawn_twice",
    ),
    ("training/search_space.py", "        if name in FIXED:\n", "        if False:\n", "no_recipe_takes"),
    ("training/search_space.py", "        validate(Recipe(**settings), ", "        dict(settings, ", "no_recipe_takes"),
    (
        "training/tune.py",
        "settings = grid(chosen_space) if search",
        "settings = drawn(chosen_space, trials, 0) if search",
        "test_tuning",
    ),
    (
        "training/tune.py",
        "t.failed or t.best is None, t.best",
        "t.failed or t.best is None, -t.best",
        "test_tuning",
    ),
    ("training/tune.py", "other = [k for k in plan if before[k] != plan[k]]", "other = []", "not_run_again"),
    ("training/tune.py", "            if t.ended:\n                return\n", "", "judged_on_test"),
    ("training/tune.py", 'before["recipe"] = completed(before["recipe"])', "pass", "over_is_not_run_again"),
]
