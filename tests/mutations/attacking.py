"""How the attack command, its report and the check masking are broken: (file, old text, new text, pytest's -k)."""

METHODS = {
    "checks/masking.py": [
        ('"fail" if failed else "warn" if flagged or n < FEWEST else "pass"', '"pass"'),
        ("value=len(missed) / n,", "value=0.0,"),
    ],
}

CORE = [
    ("budgets.py", "raw = torch.where(length > limit,", "raw = torch.where(length < limit,", "stays_within_its_budget"),
    ("budgets.py", "    return raw.clamp(0, 1)", "    return raw", "greedy or stays_within or border"),
    ("best.py", "less = torch.where(met, far < self.distance[rows], less)", "pass", "smallest_change or deepfool"),
    ("best.py", "(met & ~self.met[rows]) | ", "", "prefers_a_met_goal"),
    (
        "targets.py",
        "return _top(outputs, right) - _top(outputs, ~right)",
        "return _top(outputs, ~right)",
        "apgd or square",
    ),
    (
        "eightbits.py",
        "torch.where(low <= high, torch.maximum(torch.minimum(near, high), low), near)",
        "near",
        "rounding",
    ),
    ("eightbits.py", "near = torch.where(far.view", "near = torch.where(~far.view", "rounding"),
    ("eightbits.py", "a[..., 0] if a.shape[-1] == 1 else a", "a[..., 0]", "png_holds"),
    ("striking.py", "right[blank] = own[blank]", "pass", "without_labels_stand"),
    ("striking.py", "reach = float(got.distance[k]) if minimal else eps", "reach = eps", "looked_for_once"),
    ("striking.py", "> eps * (1 + 1e-6)]", "> 0]", "the_curve_falls"),
    (
        "striking.py",
        "return list(rows[:half]), list(rows[half:])",
        "return list(rows[:half]), list(rows)",
        "universal_attack_learns",
    ),
    (
        "striking.py",
        "opened = bool(goal.met(_logits(model, to_pixels(open_picture(file), model.preprocess))[None])[0])",
        "opened = not bits",
        "what_is_counted",
    ),
    ("attacking.py", "stay = sum(i in left for i in mine)", "stay = len(mine)", "what_is_counted"),
    (
        "attacking.py",
        "k, of, quantity = before - len(found.standing(want.eps)), before,",
        "k, of, quantity = before, before + 1,",
        "attackers_choice",
    ),
    ("attacking.py", "sum(0 < f <= queries for f", "sum(f <= queries for f", "against_queries"),
    ("attacking.py", "replace(p, name=str(p.path)) for p", "p for p", "one_name_are_kept_apart"),
    ("transferring.py", "[:, 0] & source.right[at]", "[:, 0]", "transfer_matrix_counts"),
    ("transferring.py", "wrong = right & ~truth", "wrong = ~truth", "transfer_matrix_counts"),
    ("transferring.py", "return (moved * 255).round() / 255", "return moved", "carried_to_another_size"),
    ("masks/attacks.py", "sorted(found.fooled(name) - pgd)", "sorted(pgd)", "masking"),
    ("masks/attacks.py", '"fail" if len(still) > chance else "pass"', '"pass"', "quantised_input"),
    ("masks/gradients.py", "elif not bool(naive[k].any()):", "elif False:", "ten_thousand or quantised"),
    ("masks/gradients.py", "if moves[k]:", "if False:", "quantised_input"),
    ("masks/gradients.py", "elif not falls[k]:", "elif falls[k]:", "honest_network"),
    ("masks/outputs.py", "if v == 1.0)", "if v == 2.0)", "ten_thousand"),
    (
        "masks/outputs.py",
        "far = (one - two).abs().amax(1) > 1e-4",
        "far = (one - two).abs().amax(1) > 1e9",
        "every_time_is_flagged",
    ),
    (
        "masks/outputs.py",
        "room = torch.where((own[:, None] * w) > 0,",
        "room = torch.where((own[:, None] * w) < 0,",
        "honest or twin_is_broken",
    ),
    (
        "masks/outputs.py",
        "worst = own * score - (room * w.abs()).sum(1)",
        "worst = own * score",
        "honest or twin_is_broken",
    ),
]
