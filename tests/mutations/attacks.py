"""How every attack is broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "attacks/fgsm.py": [
        ("step_down(start, g, size, norm)", "step_down(start, g, -size, norm)"),
        ("step_down(start, g, size, norm)", "start - size * g"),
        ("step_down(start, g, size, norm)", "step_down(start, g, 1.1 * size, norm)"),
        ("step_down(start, g, size, norm)", 'step_down(start, g, size, "linf")'),
        ("moved.clamp_(0, 1)", "moved"),
        ("within(x, eps, norm) if random_start", "x if random_start"),
        ("1.25 * eps if random_start", "eps if random_start"),
    ],
    "attacks/pgd.py": [
        ("step_down(x_adv.detach(), g, size, norm)", "step_down(x_adv.detach(), g, -size, norm)"),
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
        ("step_down(x_adv.detach(), g, size, norm)", 'step_down(x_adv.detach(), g, size, "linf")'),
    ],
}

# the tests of the attacks that rest on what they share
CORE = [
    ("core/best_so_far.py", "less = loss < self.loss[rows]", "less = loss < torch.inf", "pgd"),
    ("core/best_so_far.py", "((met == known) & less)", "less", "pgd"),
    ("core/best_so_far.py", "self._best = self.clean.clone()", "self._best = self.clean", "what_is_best"),
    (
        "core/best_so_far.py",
        " and torch.equal(improved, torch.arange(len(k), device=k.device))",
        "",
        "what_is_best",
    ),
    ("core/norms.py", "    if same(raw, projected):\n", "    if True:\n", "overstep"),
    ("core/norms.py", "steepest(g, norm), alpha=-size)", "g, alpha=-size)", "step_down"),
    ("core/norms.py", "x.shape[1:].numel()", "x[0].numel()", "nobody_is_left"),
    ("core/norms.py", "rng.uniform(x, rows)\n", "0.5\n", "pgd"),
    ("core/norms.py", "rng.uniform(x, rows)\n", "torch.rand_like(x)\n", "pgd"),
    ("core/norms.py", "(x - eps).clamp(min=0)", "(x - eps)", "pgd"),
    ("core/norms.py", "/ per_picture(perturbation_norm(g, norm).clamp_min(0.5), g)", "", "pgd or fgsm"),
]
