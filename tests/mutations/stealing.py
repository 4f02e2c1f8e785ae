"""How thieves and tests of theft are broken: METHODS by file, CORE (file, old text, new text, pytest's -k)."""

METHODS = {
    "thieves/active.py": [
        ("unsure.topk(min(n, len(p)))", "(-unsure).topk(min(n, len(p)))"),
        ("int(nearest.argmax())", "int(nearest.argmin())"),
        ("torch.minimum(nearest, (points", "torch.maximum(nearest, (points"),
    ],
    "thieves/jbda.py": [
        ("x + step * slope.sign()", "x - step * slope.sign()"),
        ("slope.sign()", "slope"),
        ('if towards == "another":', "if False:"),
        ("x.detach().clone()", "x"),
    ],
    "thieves/knockoff.py": [
        ("theft.drawn(n, len(theft.pool))", "theft.drawn(n, len(theft.pool) // 2)"),
    ],
    "checks/membership_inference.py": [
        ('for part in ("train", "test")}', 'for part in ("test", "train")}'),
        ("max(found, key=", "min(found, key="),
        ('claims="by-name"', 'claims=""'),
        ("if others * rate < 1", "if False"),
    ],
    "checks/model_stealing.py": [
        ("[[call] for call in chains]", "[chains]"),
        ('claims="by-name"', 'claims=""'),
        ("if len(rows) < _FEWEST:", "if False:"),
    ],
}

CORE = [
    ("stealing/served.py", "== k == len(told)", "== k", "may_tell_its_classes"),
    ("stealing/served.py", "if len(names) > 1:", "if False:", "asked_for_its_one_model"),
    ("core/theft.py", "    stays[rows] = False\n", "".join(("        ", "pass\n")), "thieves"),
    ("runner/answer.py", 'raise Refused(f"the defence {twice} is given twice"', 'print(f"{twice}"', "of_ones_own"),
    ("stealing/oracle.py", "x[: self.left]", "x", "ledger_stops_hard"),
    ("stealing/oracle.py", "        self.used += len(x)\n", "", "ledger_stops_hard"),
    ("stealing/oracle.py", "self._turn = account + 1", "self._turn = account", "test_stealing or test_steal"),
    (
        "stealing/oracle.py",
        "parts = [self._request(picture) for picture in torch.split(x, 1)]",
        "parts = [(x[:0], torch.empty(0, len(self.victim.labels)))]",
        "query_budget_stops",
    ),
    ("stealing/clone.py", "y[told] / y[told].sum(1, keepdim=True)", "1 - y[told]", "linear_victim"),
    ("stealing/clone.py", "weight * apart.mean()", "0 * apart.mean()", "maps_teach"),
    ("stealing/theft.py", "COPIES if adaptation ==", "1 if adaptation ==", "averaging_thief"),
    ("stealing/theft.py", 'if adaptation == "argmax":', "if False:", "argmax_thieves"),
    ("stealing/theft.py", "(said == exam.said).sum()", "(said != exam.said).sum()", "counted_by_hand"),
    ("stealing/maps.py", "F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", "defended_maps_by_hand"),
    ("stealing/honest.py", ".abs().sum(1) / 2", ".abs().sum(1)", "honest_pay"),
    ("stealing/honest.py", "            given[i] = False\n", "            pass\n", "honest_pay"),
    ("stealing/membership.py", "y[:, None], -torch.inf", "y[:, None], 0.0", "log_odds"),
    ("stealing/membership.py", "np.maximum(count - 1, 0)", "np.maximum(count, 0)", "likelihood_ratio"),
    ("stealing/membership.py", "f <= rate + 1e-12", "f <= rate + 0.5", "rate_is_kept or neyman"),
    ("stealing/membership.py", "np.nonzero(np.diff(s))[0], len(s) - 1", "np.arange(len(s))", "area_are_sklearns"),
    ("stealing/shadows.py", "order < networks // 2", "order < networks // 4", "likelihood_ratio"),
    ("stealing/frontier.py", '*(("accounts",) if remembers else ())', "", "has_the_curve"),
    ("stealing/pool.py", "not in judging", "not in ()", "that_judge_are_not_asked"),
    ("stealing/served.py", 'host == "localhost" or', "True or", "other_machines or this_machine"),
    ("stealing/served.py", ".permute(0, 2, 3, 1)", "", "answers_as_it_does_here"),
    ("stealing/served.py", "if e.code in (403, 429):", "if False:", "passed_on"),
    ("core/statistics.py", "right + 1, n - right, 0.975", "right, n - right + 1, 0.975", "rate_is_kept"),
]
