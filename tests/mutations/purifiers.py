"""Mutations of purifiers, of what lies before a classifier, and of the check that attacks through it."""

METHODS = {
    "purifiers/jpeg.py": [("through_jpeg(z, quality)", "through_jpeg(z, min(quality + 1, 100))")],
    "purifiers/bit_depth_reduction.py": [
        ("top = 2**bits - 1", "top = 2**bits"),
        ("(x * top).round()", "(x * top).floor()"),
    ],
    "purifiers/median.py": [
        ("size=(1, 1, size, size)", "size=(1, 3, size, size)"),
        ('mode="reflect"', 'mode="mirror"'),
    ],
    "purifiers/total_variation.py": [
        ("weight=weight", "weight=2 * weight"),
        ("channel_axis=0", "channel_axis=1"),
        ("eps=_CHANGE", "eps=0.1"),
    ],
    "checks/purification.py": [
        ("return self.grey - self.through", "return self.clean - self.through"),
        ("return self.grey & self.through", "return self.grey"),
        ("attacked = run_attack(model, x, goal", "attacked = run_attack(case.model, x, goal"),
        ("answers.grey |= right(model, alone)", "answers.grey |= right(case.model, alone)"),
        ("call = call.with_options(early_stop=False)", "pass"),
        ('claims="by-name"', 'claims=""'),
        ("if not wrong}", "if wrong}"),
        ("judge(interval, ceiling=ceiling)", "judge(interval, floor=ceiling)"),
    ],
}

CORE = [
    ("runner/purify.py", "clean + (x - x.detach())", "clean", "purif"),
    ("runner/purify.py", "clean + (x - x.detach())", "x", "purif"),
    ("runner/purify.py", "x.detach().clamp(0, 1)", "x.detach()", "purified_scores"),
    ("runner/purify.py", "self.model.normalised(through)", "through", "purif"),
    ("runner/purify.py", 'scores = "logits" if model.one_of_many else model.scores', 'scores = "logits"',
     "purified_keeps"),
    ("runner/purify.py", "if coarse in COARSE:", "if False:", "cannot_be_purified"),
    ("runner/purify.py", "run_on_pictures(call, check_pictures(x)).to(x)", "run_on_pictures(call, check_pictures(x))",
     "pictures_in_pictures_out"),
    ("core/jpeg.py", "(x * 255).round()", "(x * 255)", "jpeg"),
]  # fmt: skip
