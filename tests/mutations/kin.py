"""How what is taken over of a like network is broken on purpose."""

_WITNESS, _AGAIN = "another_run_is_seen", "test_seen_again"
_AGAIN_OR_RELEVANCE = "test_seen_again or in_another_way_by_now"
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
    ("internals/expected_run.py", "        if not moving.isdisjoint(step.reads):", "        if step:", "kept_tables"),
    ("internals/expected_run.py", "planned.step.operation is not func", "()", _WITNESS),
    ("internals/expected_run.py", "or self._number(a) != w.number", "", _WITNESS),
    ("internals/expected_run.py", "or self._number(a) != number:", "or ():", _WITNESS),
    ("internals/expected_run.py", "if a is not w and a != w:", "if ():", _AGAIN),
    ("internals/expected_run.py", " or len(step.kinds) != len(returns)", "", "known_again"),
    (
        "internals/recording.py",
        "    if way is None:\n        return False\n",
        "    return way is not None\n",
        _AGAIN_OR_RELEVANCE,
    ),
    ("internals/recording.py", "kin is graph.run_of.found[_KIN]", "False", _PAYS),
    ("internals/recording.py", "    return kin if same else None", "    return kin", "by_now_is_held_anew"),
    ("internals/recording.py", "kin is graph.run_of.found[_KIN]", "kin", "by_now_is_held_anew"),
    ("internals/probe.py", " or probe.plain.keeps", "", "keeps_holds_values"),
    ("core/passes.py", ' or "forward" in vars(m)', "", "user_has_wrapped"),
    ("internals/seen_again.py", " or sight.is_kept(run)", "", "keeps_holds_values"),
    ("internals/seen_again.py", " and not steps.is_kept", "", "begins_to_keep"),
    (
        "internals/expected_run.py",
        "            self.asked = True  # a network may catch the error, and go on\n            raise\n",
        "            raise\n",
        "who_catches_errors",
    ),
    ("internals/expected_run.py", "        if asks:", "        if ():", "who_looks_from_now_on"),
    ("internals/recording.py", "if not _is_seen_plain(model, x) or _WAY", "if _WAY", _AGAIN),
    (
        "internals/recording.py",
        "    if not passes.is_hooked(settled_contents(model.net).modules):",
        "    if True:",
        _AGAIN,
    ),
    ("internals/probe.py", " or passes.is_hooked(settled_contents(model.net).modules)", "", _AGAIN),
    ("internals/seen_again.py", "    if passes.is_hooked", "    if () and passes.is_hooked", _AGAIN),
    ("internals/seen_again.py", "or passes.is_hooked(settled_contents(model.net).modules)", "", _AGAIN),
    ("internals/seen_again.py", "z.stride() != before.run.strides[0] or ", "", _AGAIN),
    ("internals/seen_again.py", "run == before.run and not", "not", _AGAIN),
    ("internals/expected_run.py", "(isinstance(a, Tensor) or a != w)", "isinstance(a, Tensor)", _WITNESS),
    ("internals/expected_run.py", "told_tensor(tensor) if at is None else at", "at", _WITNESS),
    ("internals/expected_run.py", "run.steps[: self.at]", "run.steps", _WITNESS),
    ("internals/expected_run.py", "self.expected.ends.get(number, number)", "number", _WITNESS),
    ("internals/expected_run.py", "planned.is_over and not self.computed", "planned.is_over", _WITNESS),
    ("internals/probe.py", "z.stride() != known.run.strides[0] or ", "", "lie_in_another_way"),
    ("internals/kin.py", "kin.expected.run == run(kin.expected)", "run(kin.expected)", "another_way_back"),
    ("internals/kin.py", "    if not alike.certain:", "    if ():", "networks_are_alike"),
    ("internals/target_layer.py", "            if reads_no_place(", "            if () and reads_no_place(", _PAYS),
    ("internals/target_layer.py", "self.passing.items():", "{}.items():", _PAYS),
    ("internals/recording.py", "    if not _same_logits(logits[:", "    if () and _same_logits(logits[:", _SHOWS),
    ("internals/recording.py", "return graph if self.is_plain_for(likeness(net)) else", "return", _PAYS),
    ("core/batching.py", "if alike.certain and key in kept_alike:", "if False:", _PAYS),
    ("core/batching.py", "    if alike.certain:\n", "    if True:\n", "remembered_only_where"),
    *(
        ("internals/taped_again.py", old, new, "test_first_call")
        for old, new in (
            ("wanted.operation is not func or", "()  or"),
            (" or (wanted.kinds is None) == self.any_moving(nodes)", ""),
            ("kind.shape[axis] // pictures * more", "kind.shape[axis]"),
            ('if name == "mark":', "if False:"),
            ("found[i] = after if lies[i] == before else lies[i]", "found[i] = lies[i]"),
            ("if torch.Tag.inplace_view in operation.tags", "if ()"),
        )
    ),
    *(
        ("internals/recording.py", old, new, "test_first_call")
        for old, new in (
            ("    graph = new_graph(model, x, layer)", "    graph = graph_of(model, x[:1], layer)"),
            (
                "    with suppress(Exception), to_record(model, z, layer):  # it is",
                "    with to_record(model, z, layer):  # it is",
            ),
            ("return taped_again(", "tape_of(model.from_normalised, several(z, pictures)) or taped_again("),
        )
    ),
    ("internals/by_tensor.py", "known.pop(place, None)", "None", "test_first_call"),
    ("internals/by_tensor.py", "weakref.ref(tensor, lambda _: known.pop(place, None))", "tensor", "test_first_call"),
    ("internals/places.py", "last.view(n, height, channels).mT", "last.view(n, channels, height)", "test_first_call"),
    ("internals/probe.py", "plain is not None and bool(slope.any()):", "plain is not None:", "test_first_call"),
    ("internals/probe.py", "plain is not None and bool(slope.any()):", "False:", "test_first_call"),
    ("runner/run.py", "uncollected() if is_first else nullcontext()", "nullcontext()", "test_first_call"),
    ("core/fingerprint.py", "found if digest_now(net) == digest else None", "found", "test_first_call"),
    ("core/fingerprint.py", "_made_aside(net, digest) or ", "", "test_first_call"),
    ("core/fingerprint.py", "(known is not None and known[0] == digest) or", "", "test_first_call"),
    ("explainers/common/lrp_walk.py", "    if len(x) > 1 and not is_kept():\n", "    if True:\n", "test_first_call"),
    ("explainers/common/rectifiers.py", "graph is None and not is_recorded(model, x)", "()", "test_first_call"),
]
