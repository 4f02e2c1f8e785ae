"""Whether a method's docstring says what each of its options does: its ``Args:`` block, for every kind of method."""

import inspect

from clearsight.core.methods import Method, split_args

FEWEST = 3  # words that say what an option does


def check_args_block(m: Method) -> None:
    """The block names exactly the options, in their order, and each entry has a text of at least three words."""
    prose, entries = split_args(inspect.getdoc(m.fn) or "")
    named = [name for name, _ in entries]
    assert "Args:" not in prose.split("\n"), f"{m.name}: a second Args: block"
    assert named == list(m.options), f"{m.name}: Args: names {named}, the options are {list(m.options)}"
    for name, text in entries:
        assert len(text.split()) >= FEWEST, f"{m.name}: Args: says too little of {name}: {text!r}"
