"""How what is taken over of a like network is broken on purpose."""

_SHOWS, _PAYS = "what_another_network_found", "a_second_network_runs_no_more"

# what the methods stand on: (file, old text, new text, pytest's -k)
CORE = [
    *(
        ("core/likeness.py", old, new, "networks_are_not_alike")
        for old, new in (
            ("hidden = tuple(a for", "hidden = tuple(() for"),
            ("return kind, tuple(map(self.of, value))", "return kind, len(value)"),
            ("return kind, tuple(held)", "return (kind,)"),
            ("told.certain and not _is_hooked(held.modules)", "told.certain"),
        )
    ),
    ("core/likeness.py", "        self.certain = False\n", "        pass\n", "networks_are_alike"),
    ("internals/tape.py", "tape.asked or calls.asked", "tape.asked", _SHOWS),
    ("internals/tape.py", '"_set_grad_enabled", ', "", _SHOWS),
    ("internals/plain_run.py", "    if looks is None or", "    if looks is None:\n        return True\n    if", _SHOWS),
    ("internals/kin.py", "or not is_plain(model, x, layer):", "or False:", _SHOWS),
    ("internals/kin.py", "sees_run and _is_taken(model, x)", "_is_taken(model, x)", "copies_are_alike"),
    ("internals/recording.py", "    if not _same_logits(logits[:", "    if () and _same_logits(logits[:", _SHOWS),
    ("internals/recording.py", "recording is not None and recording.is_plain_for(alike)", "True", _SHOWS),
    ("internals/recording.py", "return graph if self.is_plain_for(likeness(net)) else", "return", _PAYS),
    ("runner/run.py", "if is_taken and not is_followed(model):", "if False:", _SHOWS),
    ("runner/run.py", "        if sees_run:\n", "        if False:\n", _PAYS),
    ("core/batching.py", "if alike.certain and key in kept_alike:", "if False:", _PAYS),
    ("core/batching.py", "    if alike.certain:\n", "    if True:\n", "remembered_only_where"),
]
