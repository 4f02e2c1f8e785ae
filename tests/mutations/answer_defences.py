"""How the defences of answers are broken: METHODS by file, CORE (file, old text, new text, pytest's -k)."""

METHODS = {
    "answer_defences/ensemble.py": [
        ("key=key.encode()[:64]", 'key=b""'),
        ("% members", "% 1"),
    ],
    "answer_defences/prediction_poisoning.py": [
        (".argmin(1, keepdim=True)\n    pole", ".argmax(1, keepdim=True)\n    pole"),
        ("l1 / (2 * (1 - y))", "l1 / (1 - y)"),
        ("    if keep_top:\n", "    if False:\n"),
    ],
    "answer_defences/query_budget.py": [
        ("used + len(p) > queries", "used > queries"),
        ('    request.memory["used"] = used + len(p)\n', ""),
    ],
    "answer_defences/query_detection.py": [
        ("<= 3 * d.std()", "<= 30 * d.std()"),
        ('    del memory["distances"][:-_MOST]\n', ""),
        (" < remembered:", " < 10**9:"),
        (".min().sqrt()", ".max().sqrt()"),
        ('distance > known["threshold"]', "True"),
        ("of_class.mean() - of_class.std()", "of_class.mean()"),
        ('memory["w"] < delta', 'memory["w"] > delta'),
    ],
    "answer_defences/reverse_sigmoid.py": [
        ("gamma * logit", "logit"),
        (".sigmoid() - 0.5)", ".sigmoid())"),
        ("moved / total.clamp_min(1e-12)", "moved"),
    ],
    "answer_defences/rounding.py": [("decimals=digits", "decimals=digits + 1")],
    "answer_defences/top_one.py": [("p.argmax(1", "p.argmin(1")],
}

CORE = [
    ("runner/answer.py", "    with account.lock:\n", "    if True:\n", "exact_with_many_threads or test_one_request"),
    ("runner/answer.py", "(p if watches else told)", "p", "of_ones_own"),
]
