"""How rebalancing is broken: METHODS by file, CORE (file, old text, new text, pytest's -k)."""

METHODS = {
    "rebalancing/group_dro.py": [
        ("(step_size * mean).exp()", "(-step_size * mean).exp()"),
        ("    q = q / q.sum()\n", ""),
        ('    step.memory["q"] = q\n', ""),
        (
            "(members * losses.detach()[:, None]).sum(0) / count.clamp_min(1)",
            "(members * losses.detach()[:, None]).sum(0)",
        ),
        ("(q / count.clamp_min(1))[group]", "(1 / count.clamp_min(1))[group]"),
    ],
    "rebalancing/just_train_twice.py": [
        ("1 + (times - 1) * wrong.long()", "1 + (times - 1) * (~wrong).long()"),
        ("1 + (times - 1) *", "1 + times *"),
    ],
    "rebalancing/last_layer.py": [
        ("[:fewest]]", "]"),
        ("weight + fitted[0] / draws", "fitted[0]"),
        ("    weight = weight / scale\n", ""),
        ("if int(sizes.min()) < 2:", "if False:"),
        (
            "        rows = equal_groups(group, generator)\n        fitted",
            "        rows = torch.arange(len(z))\n        fitted",
        ),
    ],
}

CORE = [
    ("training/rebalance.py", '_option(rebalancing(recipe), "on", "val") == "val"', "False", "others_stay"),
    (
        "rebalancing/common/sparse_logistic.py",
        "- step * penalty).clamp_min(0)",
        "- step * penalty)",
        "logistic_regression_is",
    ),
    ("rebalancing/common/sparse_logistic.py", "step * penalty).clamp", "penalty).clamp", "logistic_regression_is"),
    (
        "rebalancing/common/sparse_logistic.py",
        "new[:, :d] = new[:, :d].sign()",
        "new = new.sign()",
        "logistic_regression_is",
    ),
    (
        "training/training_data.py",
        "(self.grouping.names, self.grouping.of.tolist())",
        "()",
        "goes_on_with_the_same_groups",
    ),
    ("training/grouping.py", "    if few := [name", "    if False and [name", "without_members"),
    ("training/grouping.py", "    if outside:\n", "    if False:\n", "without_members"),
    ("training/grouping.py", "    if len(words) < 2:\n", "    if False:\n", "without_groups_in_them"),
    (
        "training/group_accuracy.py",
        "key=lambda g: (g.share, -g.n",
        "key=lambda g: (-g.share, -g.n",
        "worst_group_comes_first",
    ),
    (
        "training/group_accuracy.py",
        "        if group >= 0:\n            correct",
        "        if True:\n            correct",
        "worst_group_comes_first",
    ),
    ("training/history.py", "(epoch.worst_right or 0) / max(epoch.worst_n, 1), -epoch", "-epoch", "best_in_the_worst"),
    ("training/rebalance.py", "    return ~torch.cat(right)", "    return torch.cat(right)", "exactly_the_errors"),
    ("training/rebalance.py", "len(rows) / (len(sizes) * sizes[data.grouping.of[rows]])", "1.0", "equally_often"),
    ("training/rebalance.py", "    if not bool(wrong.any()):\n", "    if False:\n", "nothing_to_teach"),
    ("training/preparation.py", ' and stage(r) != "wrong":', ":", "begins_anew"),
    (
        "training/run.py",
        "            return bool(self.history)\n",
        "            return self.epoch > 0\n",
        "others_stay",
    ),
    ("training/loop.py", " and save_first and not run.finished", " and save_first", "stopped_is_written"),
]
