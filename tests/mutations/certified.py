"""Mutations of randomised smoothing: a certificate that proves too much, or too little."""

METHODS = {
    "checks/certified_robustness.py": [
        ('return "certified right" if self.is_right else "certified wrong"', 'return "certified right"'),
        ("        if self.abstained:\n", "        if False:\n"),
        ("r >= radius for r in certified)\n        rows", "r >= 0 for r in certified)\n        rows"),
        ("case.batches(rows, size=1)", "case.lots(rows, size=1)"),
        ('claims="by-name"', 'claims=""'),
    ],
}

CORE = [
    ("core/statistics.py", "special.betaincinv(right, n - right + 1, alpha)", "right / n", "certified"),
    ("core/statistics.py", "special.betaincinv(right, n - right + 1, alpha)",
     "special.betaincinv(right, n - right + 1, alpha / 2)", "certified"),
    ("runner/certify.py", "noisy = noisy + sigma * rng.normal(noisy, rows)",
     "noisy = (noisy + sigma * rng.normal(noisy, rows)).clamp(0, 1)", "certified"),
    ("runner/certify.py", "sigma * rng.normal(noisy, rows)", "sigma * (rng.uniform(noisy, rows) - 0.5)", "certified"),
    ("runner/certify.py", "sigma * rng.normal(noisy, rows)", "sigma * torch.randn_like(noisy)", "certified"),
    ("runner/certify.py", "abstained = lower <= 0.5", "abstained = lower < 0", "certified"),
    ("runner/certify.py", ".gather(1, classes[:, None])[:, 0]", ".amax(1)", "certified"),
    ("runner/certify.py", "n, batch).gather", "n0, batch).gather", "certified"),
    ("auditing/audit.py", " if \"by-name\" not in m.claims]", "]", "certified"),
]  # fmt: skip
