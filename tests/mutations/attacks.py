"""How every attack is broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "attacks/fgsm.py": [
        ("alpha=size", "alpha=-size"),
        ("steepest(g, norm)", "g"),
        ("alpha=size", "alpha=1.1 * size"),
        ("steepest(g, norm)", 'steepest(g, "linf")'),
        ("moved.clamp_(0, 1)", "moved"),
        ("within(x, eps, norm) if random_start", "x if random_start"),
        ("1.25 * eps if random_start", "eps if random_start"),
    ],
    "attacks/pgd.py": [
        ("x_adv.detach() - size * steepest", "x_adv.detach() + size * steepest"),
        ("2.5 * eps", "0.5 * eps"),
        ("restart or random_start", "restart"),
        ("within(clean, eps, norm, rows)", "clean"),
        ("within(clean, eps, norm, rows)", "within(clean, eps / 2, norm, rows)"),
        ("        elif len(rows):\n", "        elif False:\n"),
        ("best.x.index_copy_(0, rows, x_adv)", "pass"),
        ('keep == "best" or early_stop', "early_stop"),
        ('keep == "best" or early_stop', 'keep == "best"'),
        ('if keep == "last" and restarts > 1:', "if False:"),
        ("rows, moved, clean, aim = rows[left], moved[left], clean[left], aim[left.cpu()]", "pass"),
        ("clean[left], aim[left.cpu()]", "clean[left], aim[: int(left.sum())]"),
        ("range(restarts)", "range(1)"),
        ("rows = (~best.met).nonzero()[:, 0] if early_stop else torch", "rows = torch"),
        ("steepest(g, norm)", 'steepest(g, "linf")'),
    ],
}

# the tests of the attacks that rest on what they share
CORE = [
    ("core/best_so_far.py", "less = loss < self.loss[rows]", "less = loss < torch.inf", "pgd"),
    ("core/best_so_far.py", "((met == known) & less)", "less", "pgd"),
    ("core/norms.py", "rng.uniform(x, rows)\n", "0.5\n", "pgd"),
    ("core/norms.py", "rng.uniform(x, rows)\n", "torch.rand_like(x)\n", "pgd"),
    ("core/norms.py", "(x - eps).clamp(min=0)", "(x - eps)", "pgd"),
    ("core/norms.py", "/ per_picture(perturbation_norm(g, norm).clamp_min(0.5), g)", "", "pgd or fgsm"),
]
