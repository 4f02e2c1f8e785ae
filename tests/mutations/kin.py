"""How what is taken over of a like network is broken on purpose."""

_SHOWS, _PAYS = "what_another_network_found", "a_second_network_runs_no_more or known_again"

# what the methods stand on: (file, old text, new text, pytest's -k)
CORE = [
    *(
        ("core/likeness.py", old, new, "networks_are_not_alike")
        for old, new in (
            ("hidden = tuple(a for", "hidden = tuple(() for"),
            ("return kind, tuple(map(self.of, value))", "return kind, len(value)"),
            ("return kind, tuple(held)", "return (kind,)"),
            ("tuple(classes), _hooks_told(held.modules, told))", "tuple(classes))"),
        )
    ),
    ("core/likeness.py", ' and self.constants == getattr(other, "constants", None)', "", "hooks_do_the_same"),
    ("core/likeness.py", "        self.certain = False\n", "        pass\n", "networks_are_alike"),
    ("core/likeness.py", "        if isinstance(value, types.FunctionType):", "        if ():", "known_again"),
    ("internals/seen_run.py", "steps.asked or self._calls.asked", "steps.asked", _SHOWS),
    ("internals/seen_run.py", '"_set_grad_enabled", ', "", _SHOWS),
    ("internals/seen_run.py", "or any(map(is_of_others, operations))", "or ()", _SHOWS),
    (
        "internals/plain_run.py",
        "    if axes is None or len",
        "    if axes is None:\n        return\n    if len",
        _SHOWS,
    ),
    ("internals/plain_run.py", "_computed(one, pictures, rows.spread) ==", "() == () or", _SHOWS),
    ("internals/plain_run.py", "if step.over:  # a constant", "if ():  # a constant", _SHOWS),
    ("internals/plain_run.py", '    if step.name != "convolution" or', "    if True or", "gaps_in_a_kernel"),
    ("internals/seen_run.py", " and not is_ours(args[1])", " and False", _SHOWS),
    ("internals/seen_run.py", "if self.moving.isdisjoint(step.reads)", "if ()", "kept_tables"),
    (
        "internals/seen_run.py",
        "wanted is None or wanted[:3] != step[:3] or",
        "wanted is None or",
        "ends_with_the_first",
    ),
    ("internals/probe.py", ".stride() != known.strides[0]", " is None", "lie_in_another_way"),
    ("internals/probe.py", "in _ask_alone or", "in () or", _PAYS),
    ("internals/kin.py", "kin.run == run(kin.run)", "run(kin.run)", "another_way_back"),
    ("internals/kin.py", "    if not alike.certain:", "    if ():", "networks_are_alike"),
    ("internals/probe.py", "torch.equal(seen[0], x.detach())", "()", _PAYS),
    ("internals/target_layer.py", "            if reads_no_place(", "            if () and reads_no_place(", _PAYS),
    ("internals/target_layer.py", "self.passing.items():", "{}.items():", _PAYS),
    ("internals/recording.py", "    if not _same_logits(logits[:", "    if () and _same_logits(logits[:", _SHOWS),
    ("internals/recording.py", "return graph if self.is_plain_for(likeness(net)) else", "return", _PAYS),
    ("core/batching.py", "if alike.certain and key in kept_alike:", "if False:", _PAYS),
    ("core/batching.py", "    if alike.certain:\n", "    if True:\n", "remembered_only_where"),
]
