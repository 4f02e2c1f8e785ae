"""Mutations of what an audit keeps in its folder and is held against, and of how verbs get their options."""

CORE = [
    ("auditing/gate.py", "if b.check not in {c.method.name for c in calls}]", "if False]", "bar_that_fails"),
    ("auditing/audit.py", "hold(bars, findings) if bars else None", "None", "bar_that_fails"),
    ("auditing/audit.py", "if folder and len(findings) < len(calls):", "if False:", "goes_on_in_its_folder"),
    ("auditing/audit.py", "seconds = earlier_seconds + sum(", "seconds = sum(", "goes_on_in_its_folder"),
    ("auditing/audit.py", "run_checks(case, calls, done):", "run_checks(case, calls):", "goes_on_in_its_folder"),
    ("auditing/audit.py", "        if not folder:\n            raise\n", "", "a_stop_is_plain"),
    ("auditing/resume.py", "report.facts.seed == case.seed", "True", "goes_on_in_its_folder"),
    ("auditing/resume.py", "if report.facts.complete:", "if False:", "goes_on_in_its_folder"),
    ("core/run_names.py", "            folder.rmdir()\n", "            pass\n", "no_folder_is_left"),
    (
        "cli/options.py",
        "[parameters[name] for name in names]",
        "[parameters[name] for name in names[::-1]]",
        "takes_of_a_group",
    ),
    ("cli/options.py", "{n: words.pop(n) for n in names}", "{}", "takes_of_a_group"),
]
