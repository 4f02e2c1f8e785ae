"""How APGD, FAB, Square and AutoAttack are broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "attacks/apgd_ce.py": [
        ("goal.loss(out)", "-goal.loss(out)"),
        ("early_stop=early_stop", "early_stop=True"),
        ("restarts=restarts", "restarts=1"),
    ],
    "attacks/apgd_dlr.py": [
        ("dlr(goal, out)", "-dlr(goal, out)"),
        ("dlr(goal, out)", "goal.loss(out)"),
        ("norm=norm", 'norm="linf"'),
    ],
    "attacks/fab.py": [
        ("targeted=targeted", "targeted=False"),
        ("classes=classes", "classes=1"),
        ("restarts=restarts", "restarts=1"),
    ],
    "attacks/square.py": [
        ("(loss < low[rows]) | meets", "(loss > low[rows]) | meets"),
        ("(loss < low[rows]) | meets", "(loss < torch.inf) | meets"),
        ("rows = rows[~met[rows]]", "rows = rows"),
        ("queries if rescale else 10000", "10000"),
        ("sum(used > k for k in HALVED)", "sum(used >= k for k in HALVED)"),
        ("n - side + 1", "n - side"),
        ("+ _beside(_over(stood), axes) * stood", ""),
        ("move / flat * eps", "move / flat * eps / 2"),
        ("dim=axis", "dim=0"),
        ("-_pyramid(rest)", "_pyramid(rest)"),
        ("x + eps * colour", "x + eps * colour * 0.5"),
    ],
    "attacks/auto_attack.py": [
        ("rows = (~best.met).nonzero()[:, 0]", "rows = torch.arange(len(x), device=x.device)"),
        ("torch.full((len(rows),), number)", "None"),
        ('"apgd-t", "fab-t", "square")', '"apgd-t", "fab-t")'),
        ("x[rows], mine, eps", "x[rows], mine, 0.5 * eps"),
        ("queries=queries, rescale=False", "queries=1, rescale=False"),
        ('if part != "all":', "if True:"),
        ('if part != "all":', "if False:"),
    ],
}

# (file, old text, new text, the tests that must notice)
CORE = [
    ("attacks/common/apgd.py", old, new, "autoattack and (apgd or dlr or checkpoints or restarts)")
    for old, new in (
        ("MOMENTUM = 0.75", "MOMENTUM = 1.0"),
        ("worn = (falls <= rho * ends[i]) | (~halved & (low >= mark))", "worn = torch.zeros_like(halved)"),
        ("falls <= rho", "falls < rho"),
        ("x_adv, g = where(worn, x_best, x_adv), where(worn, slope, g)", "pass"),
        ("x.new_full((len(rows),), 2 * eps)", "x.new_full((len(rows),), eps)"),
        ("falls = falls + (f < last)", "falls = falls + (f > last)"),
        ("max(period - shorter, least)", "period"),
        ("/ per_picture(perturbation_norm(way, norm).clamp_min(1e-12), x)", ""),
        ("first - (second + third) / 2", "first - third"),
        ("first - (third + fourth) / 2", "first - third"),
        ("right.scatter(1, highest, False)", "right & ~right"),
        ("for column in to.T", "for column in to.T[:1]"),
    )
] + [
    ("attacks/common/fab.py", old, new, "autoattack and (fab or projection or box or left)")
    for old, new in (
        ("BACK = 0.9", "BACK = 1.0"),
        ("OVER = 1.05", "OVER = 0.9"),
        ("    _search(model, x, goal, best, enough)", "    pass"),
        ("g.flatten(1).norm(dim=1) if norm", "g.flatten(1).abs().sum(1) if norm"),
        ("pace = w.abs() if", "pace = torch.ones_like(w) if"),
        ("- before.gather(1, first)) /", ") /"),
        ("torch.minimum(t * pace, room)", "t.clamp_max(9) * pace"),
        ("closer = (far < nearest)", "closer = (far > nearest)"),
        ("on = reached_distance(best)[rows] > enough", "on = reached_distance(best)[rows] > -1"),
        ("torch.where(best.met, best.distance, torch.inf)", "best.distance"),
    )
]
CORE += [
    ("attacks/common/rival_classes.py", ".masked_fill(shut.gather(1, ranked), NONE)", "", "autoattack and rivals"),
    (
        "attacks/common/rival_classes.py",
        "best - outputs.gather",
        "outputs.amax(1) - outputs.gather",
        "autoattack and rivals",
    ),
]
