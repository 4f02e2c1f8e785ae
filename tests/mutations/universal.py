"""How what is learned from many pictures, and what moves maps, is broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "attacks/universal.py": [
        ("change - size * steepest", "change + size * steepest"),
        ("2.5 * eps / changes", "0.4 * eps / changes"),
        ("change * (eps / length) if float(length) > eps else change", "change.clamp(-eps, eps)"),
        ('if norm == "linf":', "if True:"),
        ("return project(x + change, x, eps, norm)", "return project(x + change * 0.9, x, eps, norm)"),
    ],
    "attacks/patch.py": [
        ("thing - step * (1 - done) * mean.sign()", "thing + step * (1 - done) * mean.sign()"),
        ("_chance(z, rows), rotation", "_chance(z, rows) * 0, rotation"),
        (
            "return pasted(x, learned_patch, of, _chance(x), rotation",
            "return pasted(x, learned_patch, of, _chance(x) * 0, rotation",
        ),
        ("round(cm / 2.54 * DPI)", "round(cm * DPI)"),
        ("dpi=(DPI, DPI)", "dpi=(72, 72)"),
        ("(away[:, None] ** 2 + away**2 <= 1)", "(away[:, None].abs() + away.abs() <= 1)"),
        ("torch.initial_seed())", "0)"),
    ],
    "checks/map_stability.py": [
        ("moved = [s for s in moved if not np.isnan(s.rank)]", "pass"),
        ("changed_answers = len(moved), compared - len(moved)", "changed_answers = compared, compared - len(moved)"),
        ("k: 1 - likeness(m[j], s[j])[0]", "k: likeness(m[j], s[j])[0]"),
        ("((a > c) + 0.5 * (a == c)).mean()", "(a > c).mean()"),
        ("judge(interval, floor=floor)", "judge(interval, ceiling=floor)"),
        ("(before + 2 * x + after) / 4", "(before + x + after) / 3"),
        ("np.mean([a > bar for a in attacked])", "np.mean([a >= bar for a in attacked])"),
        ("k = max(1, round(_TOP * a.size))", "k = max(1, round(2 * _TOP * a.size))"),
        ("if n < FEWEST:\n", "if n < 1:\n"),
        ("_MOVED: moved.after,\n    }\n    smooth", "_MOVED: moved.before,\n    }\n    smooth"),
    ],
}
CORE = [
    (
        "attacks/common/lessons.py",
        "pictures[order.to(pictures.device)], goal[order]",
        "pictures, goal",
        "lessons_does_not",
    ),
    ("attacks/common/lessons.py", "if worth > known:", "if True:", "a_later_change"),
    ("attacks/common/lessons.py", "(loss.clamp_min(0) / CLIP).log1p()", "0 * loss", "what_wins or counts"),
    (
        "attacks/common/lessons.py",
        "masked_fill(loss < -CLIP, torch.inf)",
        "masked_fill(loss < -99, torch.inf)",
        "lesson_counts",
    ),
    ("attacks/common/lessons.py", "total * (most - top).exp() + g, top", "g, top", "patch or universal or lessons"),
    (
        "attacks/common/lessons.py",
        "z = z + (z.clamp(0, 1) - z).detach()",
        "z = z.clamp(0, 1)",
        "border_can_move or universal",
    ),
    ("attacks/common/pasting.py", "right * cos + down * sin", "right * cos - down * sin", "turned_and_shrunk"),
    (
        "attacks/common/pasting.py",
        "half = of.half * (1 - scale * chance[:, 1])",
        "half = of.half + 0 * chance[:, 1]",
        "share",
    ),
    ("attacks/common/pasting.py", "math.sqrt(area / math.pi)", "math.sqrt(area) / 2", "covers_its_share"),
    (
        "attacks/common/pasting.py",
        "torch.where(inside[:, None], shown, x)",
        "0.99 * torch.where(inside[:, None], shown, x)",
        "share",
    ),
    ("attacks/common/pasting.py", "room / 2 + room * drawn", "side / 2 + side * drawn", "anywhere_and_inside"),
    ("runner/move_map.py", "z = project(z - length * way", "z = project(z + length * way", "map_stability"),
    ("runner/move_map.py", "out.argmax(1) == target.index.to(out.device))", "out.argmax(1) > -1)", "map_stability"),
    ("runner/move_map.py", "tight = lead(out) < _TIGHT * margin", "tight = lead(out) < lead(out)", "map_stability"),
    ("runner/move_map.py", "return dict.fromkeys(RELUS, rule)", "return {}", "map_stability"),
    ("runner/move_map.py", "soft - softplus((a - high) * b) / b if", "soft if", "map_stability"),
    ("runner/move_map.py", "beta / usual, a", "beta / usual.mean().expand_as(usual), a", "map_stability"),
    ("runner/move_map.py", "z = within(x, eps, norm)", "z = x + eps * torch.rand_like(x)", "map_stability"),
    ("runner/move_map.py", "even = flat / (flat.abs() + usual)", "even = flat", "way_down"),
    (
        "runner/move_map.py",
        "best.see(rows, x, torch.ones(len(x)), torch.ones(len(x), dtype=torch.bool))",
        "pass",
        "map_stability",
    ),
    ("runner/move_map.py", 'g * (p - call.options.get("reference", 0.0))', "g * p", "followed_are_the"),
]
