"""How the defences are broken on purpose: the sign of a term, a divergence the wrong way round, what is not kept."""

METHODS = {
    "defences/adversarial_training.py": [
        ("(1 - clean) * loss + clean *", "clean * loss + (1 - clean) *"),
        ("step.model(step.attack(x, label_goal(y))), y)", "step.model(x), y)"),
        ("if not 0 <= clean <= 1:", "if not 0 <= clean:"),
    ],
    "defences/trades.py": [
        ("+ beta * divergence(clean, step.model(moved))", "- beta * divergence(clean, step.model(moved))"),
        ("divergence(clean, step.model(moved))", "divergence(step.model(moved), clean)"),
        ("divergence(clean, step.model(moved))", "divergence(clean.detach(), step.model(moved))"),
        ("NOISE = 0.001", "NOISE = 0.0"),
        ("NOISE = 0.001", "NOISE = 0.05"),
        (
            "    moved = project(step.attack(near, Diverge(step.evaluated(x))), x, step.eps, step.norm)",
            "    moved = step.attack(near, Diverge(step.evaluated(x)))",
        ),
        ("step.cross_entropy(clean, y)", "step.cross_entropy(step.model(moved), y)"),
        ("rng.normal(x)", "rng.uniform(x)"),
        ('    check_factor("trades", "beta", beta)\n', ""),
    ],
    "defences/mart.py": [
        ("ABOVE = 1.0001", "ABOVE = 1.01"),
        ("beta * divergence(clean, attacked)", "-beta * divergence(clean, attacked)"),
        ("divergence(clean, attacked)", "divergence(attacked, clean)"),
        ("* (1 - right)", "* right"),
        ("* (1 - right)", "* (1 - right).detach()"),
        ("* (1 - right)", ""),
        ("step.cross_entropy(attacked, y) - (ABOVE", "step.cross_entropy(attacked, y) + (ABOVE"),
        ("step.cross_entropy(attacked, y)", "step.cross_entropy(clean, y)"),
        (".masked_fill(y > 0, 0.0)", ""),
        ("attacked.softmax(1).masked", "clean.softmax(1).masked"),
        ("(clean.softmax(1) * (y > 0))", "(attacked.softmax(1) * (y > 0))"),
        ('    check_factor("mart", "beta", beta)\n', ""),
    ],
    "defences/free.py": [
        ('    delta = _filled(step.memory.get("delta"), x)', "    delta = _filled(None, x)"),
        ("delta[:rows] + step.eps * steepest", "delta[:rows] - step.eps * steepest"),
        ("delta[:rows] + step.eps * steepest", "step.eps * steepest"),
        ("_shortened(ahead, step.eps, step.norm)", "ahead"),
        (", delta[rows:]])", "])"),
        (".clamp(0, 1).detach()", ".detach()"),
        ("max(0, len(x) - len(delta))", "0"),
        ("(eps / length).clamp(max=1)", "(eps / length)"),
        ("if replays < 1:", "if replays < 0:"),
    ],
    "defences/gaussian_augmentation.py": [
        ("x + sigma * rng.normal(x)", "x + rng.normal(x)"),
        ("x + sigma * rng.normal(x)", "(x + sigma * rng.normal(x)).clamp(0, 1)"),
        ("rng.normal(x)", "rng.uniform(x)"),
        ("rng.normal(x)", "__import__('torch').randn_like(x)"),
        ('claims="attack-free adds-to-pixels"', 'claims="adds-to-pixels"'),
        ('    check_factor("gaussian-augmentation", "sigma", sigma)\n', ""),
    ],
    "defences/awp.py": [
        ("p + of_equal_share", "p - of_equal_share"),
        ("p + of_equal_share", "p.detach() + of_equal_share"),
        ("p.requires_grad and p.dim() > 1", "p.requires_grad"),
        ("p.requires_grad and p.dim() > 1}\n    if", "p.dim() > 1}\n    if"),
        ("    if not weights:\n", "    if False:\n"),
        ("_moved(step, buffers, attacked())", "_moved(step, {}, attacked())"),
        ("            if k == len(made):\n", "            if True:\n"),
        ("            return made[k]\n", "            return attack(x, goal)\n"),
        ("with rng.for_versions(torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long)):", "if True:"),
        ('"remembers" in call.method.claims or call', "call"),
        (' or call.method.file == "awp"', ""),
        ('    check_factor("awp", "gamma", gamma)\n', ""),
    ],
}

CORE = [
    (file, old, new, "test_defences or test_contract_defences")
    for file, changes in {
        "defences/common/divergence.py": [
            ("(p.exp() * (p - q)).sum(1)", "(q.exp() * (q - p)).sum(1)"),
            ("return -divergence(", "return divergence("),
            ("outputs.argmax(1) != self", "outputs.argmax(1) == self"),
            ("Diverge(self.before[rows])", "Diverge(self.before)"),
            ("softmax(1) - outputs.softmax(1)", "softmax(1) + outputs.softmax(1)"),
        ],
        "defences/common/moved_weights.py": [
            ("share * weight.detach().norm() / way.norm() * way", "share * way / way.norm()"),
            ("weight.detach().norm()", "weight.norm()"),
        ],
        "reporting/method_pages.py": [
            ("for folder, m in find(name))", "for folder, m in find(name)[:1])"),
            ('        "openreview": f"https://openreview.net/forum?id={number}",\n', ""),
        ],
        "core/training_step.py": [
            ("with evaluating(self.model.net), torch.no_grad():", "with torch.no_grad():"),
            ("replace(self.model, output=None)(x)", "self.model(x)"),
            ("if not self._last or self._last[0] is not x:", "if True:"),
            ("default_factory=list, init=False", "default_factory=list"),
        ],
        "core/evaluation_mode.py": [
            ("        _set(modes)\n", "        pass\n"),
            ("            p.requires_grad_(True)\n", "            pass\n"),
            ("    _set([(m, False) for m, _ in modes])\n", ""),
        ],
        "training/losses.py": [
            ("    with rng.seeded(step.seed, x, defence.method.name, in_step=True):\n", "    if True:\n"),
            ("rng.seeded(step.seed, x, defence", "rng.seeded(0, x, defence"),
        ],
        "training/objective.py": [
            ('and "attack-free" not in defence.method.claims', ""),
            ("attacker(_evaluated(run), ", "attacker(_trained(run), "),
            (' or getattr(own, "aux1", None) is not None', ""),
            ("replay, run.memory, seed)", "replay, run.memory)"),
        ],
        "training/validate_recipe.py": [("    try_defence(objective(recipe))\n", "    objective(recipe)\n")],
    }.items()
    for old, new in changes
]  # fmt: skip
