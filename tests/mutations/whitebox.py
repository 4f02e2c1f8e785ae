"""How the gradient attacks with small steps, and those that look for the smallest change, are broken on purpose."""

METHODS = {
    "attacks/bim.py": [
        ("1.25 * eps", "1.0 * eps"),
        ("momentum=0.0", "momentum=1.0"),
        ("early_stop: bool = True", "early_stop: bool = False"),
        ("steps < 1", "steps < 0"),
    ],
    "attacks/mi_fgsm.py": [
        ("size = eps / steps", "size = 1.25 * eps / steps"),
        ("momentum=momentum", "momentum=1.0"),
        ("early_stop: bool = False", "early_stop: bool = True"),
        (" or momentum < 0", ""),
    ],
    "attacks/deepfool.py": [
        ("(1 + overshoot) *", "1.02 *"),
        ("near, x_adv = rows[on], near[on], x_adv[on]", "near, x_adv = rows, near, x_adv"),
        ("near[on], x_adv[on]", "x_adv[on], x_adv[on]"),
        ("torch.where(torch.where(slope > 0, x_adv < 1, x_adv > 0), slope, 0.0)", "slope"),
        ("(far > chosen) if farthest else (far < chosen)", "far < chosen"),
        ("(far > chosen) if farthest else (far < chosen)", "(far > chosen) if farthest else chosen.isinf()"),
        ("far.clamp_min(LEAST[norm])", "far"),
        ("gap / steep", "gap / slope.flatten(1).norm(dim=1)"),
        ("topk(min(classes, out.shape[1]) - 1, dim=1)", "topk(out.shape[1] - 1, dim=1)"),
        ("norm, back)", "norm, 0)"),
    ],
    "attacks/carlini_wagner.py": [
        ("INSIDE = 0.999999", "INSIDE = 1.0"),
        ("TINY = 1e-12", "TINY = 1e-3"),
        ("* (1 - i / steps) / (1 - SLOW", "/ (1 - SLOW"),
        ("add(g, move, alpha=2)", "add(g, move)"),
        ("            fooled[rows] = False", "            pass"),
        ("weight * 10", "weight"),
        ("torch.where(fooled[rows], WORTH, HOPE)", "WORTH"),
        ("torch.where(fooled[rows], WORTH, HOPE)", "HOPE"),
        ("(low * high).sqrt()", "high"),
        ("weight / 10", "weight / 2"),
        ("low > 0", "low > -1"),
        (
            "torch.where(fooled, low, weight), torch.where(fooled, weight, high)",
            "low, torch.where(fooled, weight, high)",
        ),
        ("+ confidence).clamp(min=0)", ").clamp(min=0)"),
        ("+ confidence).clamp(min=0)", "+ confidence)"),
        ("if i and i % max(steps // 10, PATIENCE) == 0", "if i % max(steps // 10, PATIENCE) == 0"),
        ("if i and i % max(steps // 10, PATIENCE) == 0", "if False"),
        ("weight[rows] * short", "short"),
        (" / (1 - SLOW ** (i + 1)))", ")"),
        ("mine.met(out) & (short == 0)", "mine.met(out)"),
    ],
}

CORE = [
    (f"attacks/{file}", old, new, words)
    for file, words, changes in [
        (
            "common/small_steps.py",
            "small_steps or bim_and_mi_fgsm or momentum_shows or momentum_sums or default_step or goes_on or costs",
            [
                ("way = momentum * way + even(g)", "way = momentum * way + g"),
                ("way = momentum * way + even(g)", "way = momentum * (way + even(g))"),
                ("way = momentum * way + even(g)", "way = even(g)"),
                ("project(x_adv.detach() - step", "project(x[rows] - step"),
                ("rows, x_adv, way = rows[~met], x_adv[~met], way[~met]", "pass"),
                ("best.see(rows, x_adv, loss, met)", "best.see(rows, x_adv, -i * torch.ones_like(loss), met)"),
                ("range(steps + 1)", "range(steps)"),
            ],
        ),
        (
            "common/bisection.py",
            "cut_to_what or linear_model and deepfool",
            [
                ("torch.where(met, low, middle), torch.where(met, middle, high)", "low, middle"),
                ("range(halvings if len(rows) else 0)", "range(0)"),
            ],
        ),
    ]
    for old, new in changes
]
