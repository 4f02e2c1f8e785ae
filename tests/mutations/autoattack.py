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
        ("((loss < before) & asked)", "((loss > before) & asked)"),
        ("((loss < before) & asked)", "asked"),
        ("left.index_fill_(0, of.masked_select(meets), 0)", "pass"),
        ("left.index_add_(0, of, count,", "left.index_add_(0, of, torch.ones_like(count),"),
        ("plans.at.index_add_(0, of, count)", "plans.at.index_add_(0, of, torch.ones_like(count))"),
        ("self.used[rows] += DRAWN", "self.used[rows] = 1"),
        ("used.flatten() - 1, self.schedule", "used.flatten(), self.schedule"),
        ("at).index_select(0, which) + nth", "at).index_select(0, which)"),
        ("queries if rescale else 10000", "10000"),
        ("used[:, None] > torch.tensor(HALVED", "used[:, None] >= torch.tensor(HALVED"),
        ("lengths - sides + 1", "lengths - sides"),
        ("+ _beside(_over(stood), axes) * stood", ""),
        ("move / flat * eps", "move / flat * eps / 2"),
        ("dim=axis", "dim=0"),
        ("-_pyramid(rest)", "_pyramid(rest)"),
        ("_nearest_within(x - eps, x, eps)], 2)", "_nearest_within(x - eps / 2, x, eps)], 2)"),
        ("((channel + lower) * places)", "(channel * places)"),
        ("[:, None] * len(channels) + channels", "[:, None] * len(channels) + 0 * channels"),
        ("start[:, None] + _one", "0 * start[:, None] + _one"),
        (".index_select(0, size - some)", "[:1].expand(len(of), -1)"),
        ("(stood != colour)", "(stood == colour)"),
        ("better.masked_select(~same).nonzero()", "better.nonzero()"),
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
        ("worn = (s.falls <= rho * period) | (~s.halved & (s.low >= s.mark))", "worn = torch.zeros_like(s.halved)"),
        ("s.falls <= rho", "s.falls < rho"),
        ("s.x_adv, g = where(worn, s.x_best, s.x_adv), where(worn, s.slope, g)", "pass"),
        ("x.new_full((len(rows),), 2 * eps)", "x.new_full((len(rows),), eps)"),
        ("s.falls + (f < s.last)", "s.falls + (f > s.last)"),
        ("max(period - shorter, least)", "period"),
        ("/ per_picture(perturbation_norm(way, norm).clamp_min(1e-12), x)", ""),
        ("first - (second + third) / 2", "first - third"),
        ("first - (third + fourth) / 2", "first - third"),
        ("right.scatter(1, highest, False)", "right & ~right"),
        ("(ranked[:, 2] + ranked[:, 3]) / 2", "ranked[:, 2]"),
        ("slopes=i < steps)", "slopes=True)"),
        ("best.see(of[mine], runs.x[mine]", "best.see(of[mine], runs.clean[mine]"),
        ("best.loss[~best.met] = torch.inf", "pass"),
    )
] + [
    ("attacks/common/fab.py", old, new, "autoattack and (fab or projection or box or left)")
    for old, new in (
        ("BACK = 0.9", "BACK = 1.0"),
        ("OVER = 1.05", "OVER = 0.9"),
        ("    _search(model, x, goal, best, enough)", "    pass"),
        ("g.flatten(1).norm(dim=1) if norm", "g.flatten(1).abs().sum(1) if norm"),
        ("pace = w.abs().add_(w == 0) if", "pace = torch.ones_like(w) if"),
        ("lack - reach + torch.linalg.vecdot(whole, free)", "lack"),
        ("torch.minimum(t[:, None] * pace, room)", "t[:, None].clamp_max(9) * pace"),
        ("closer = (far < nearest)", "closer = (far > nearest)"),
        ("return reached_distance(best)[rows] <= enough", "return reached_distance(best)[rows] <= -1"),
        ("torch.where(best.met, best.distance, torch.inf)", "best.distance"),
        ("        if count >= before:", "        if True:"),
        ("(column == k) & ~_is_near(best, eps, of)", "column == k"),
    )
]
CORE += [
    ("attacks/common/rival_classes.py", "at += columns", "at = to.shape[1]", "autoattack and (behind or together)"),
    ("attacks/common/rival_classes.py", "math.ceil((width - at) / max(groups, 1))", "1", "autoattack and together"),
    (
        "attacks/common/rival_classes.py",
        "return rows >= first[of[rows]]",
        "return met",
        "autoattack and (earlier or together)",
    ),
    ("attacks/common/rival_classes.py", '"amin")', '"amax")', "autoattack and (earlier or together)"),
    ("attacks/common/rival_classes.py", ".masked_fill(shut.gather(1, ranked), NONE)", "", "autoattack and rivals"),
    (
        "attacks/common/rival_classes.py",
        "best - outputs.gather",
        "outputs.amax(1) - outputs.gather",
        "autoattack and rivals",
    ),
]
