"""The ``Args:`` block of a docstring: how it is read, how it is printed, and that the contract refuses a wrong one."""

import json
import re
from collections.abc import Callable

import pytest

from argsblock import check_args_block
from clearsight.core.catalogue import FOLDERS, catalogue
from clearsight.core.methods import Method, split_args
from clearsight.reporting.method_pages import listing, one, pages

HEAD, END = "What it gives.\n\n(B, C, *S) -> (B, *S).\n\n", "\n\nRefused: k below 1.\n\n>>> 1\n1"


def test_a_block_is_read_and_taken_out_of_the_prose() -> None:
    assert split_args(f"{HEAD}Args:\n    steps: number of steps.\n    k: number of copies.{END}") == (
        HEAD.rstrip() + END,
        [("steps", "number of steps."), ("k", "number of copies.")],
    )


def test_lines_that_go_on_belong_to_the_entry_above_them() -> None:
    block = "Args:\n    steps: number of\n        steps,\n        from 1.  Or\n        more.\n    k: number of copies."
    assert split_args(block) == ("", [("steps", "number of steps, from 1. Or more."), ("k", "number of copies.")])


def test_a_colon_inside_a_text_begins_no_entry() -> None:
    block = "Args:\n    mode: what is shown: edges or\n        surfaces: none.\n    k: see paper: table 2."
    assert split_args(block)[1] == [("mode", "what is shown: edges or surfaces: none."), ("k", "see paper: table 2.")]


def test_a_docstring_without_a_block_is_all_prose() -> None:
    for doc in (
        "",
        HEAD + END,
        "What it gives.\n\nThe Args: of a call.",
        "What it gives.\n\n    Args:\n        k: of it.",
    ):
        assert split_args(doc) == (doc, [])


def test_a_block_ends_at_the_first_blank_line() -> None:
    prose, entries = split_args("What.\n\nArgs:\n    k: number of copies.\n\n    not: an entry.")
    assert prose == "What.\n\n    not: an entry."
    assert entries == [("k", "number of copies.")]


def test_a_method_reads_the_texts_of_its_options() -> None:
    def my_cam(model, x, target, *, steps: int = 3, k: float = 1.0):
        """What it gives.

        Args:
            steps: number of steps,
                from 1.
            other: of no option.
        """

    m = Method(my_cam)
    assert m.option_help == {"steps": "number of steps, from 1.", "k": ""}
    assert m.prose == "What it gives."
    assert Method(lambda: None).option_help == {}


def of_options(doc: str) -> Callable[..., None]:
    def my_cam(model, x, target, *, eps: float, steps: int = 3, k: float = 1.0) -> None: ...

    my_cam.__doc__ = doc
    return my_cam


RIGHT = "Args:\n    steps: number of steps.\n    k: number of copies."


def test_the_contract_takes_what_names_exactly_the_options() -> None:
    check_args_block(Method(of_options(HEAD + RIGHT + END)))
    check_args_block(Method(lambda: None))


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("", r"names \[\]"),
        ("Args:\n    steps: number of steps.", r"names \['steps'\]"),
        (f"{RIGHT}\n    eps: radius of the attack.", r"names \['steps', 'k', 'eps'\]"),
        (f"{RIGHT}\n    k: number of copies.", r"names \['steps', 'k', 'k'\]"),
        ("Args:\n    k: number of copies.\n    steps: number of steps.", r"names \['k', 'steps'\]"),
        ("Args:\n    steps: number of\n    steps.\n    k: number of copies.", r"names \['steps', 'steps\.', 'k'\]"),
        ("Args:\n    steps: number of steps.\n    k: copies made.", r"too little of k: 'copies made\.'"),
        ("Args:\n    steps:\n    k: number of copies.", "too little of steps: ''"),
        (f"{RIGHT}\n\n{RIGHT}", "second Args: block"),
    ],
)
def test_the_contract_refuses_a_wrong_block(block: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_args_block(Method(of_options(HEAD + block + END)))


def test_a_superfluous_block_of_a_method_without_options_is_refused() -> None:
    def my_cam(model, x, target):
        """What it gives.

        Args:
            k: number of copies.
        """

    with pytest.raises(AssertionError, match=r"the options are \[\]"):
        check_args_block(Method(my_cam))


def test_a_method_in_full_lists_each_option_once_with_its_text() -> None:
    words = one("integrated-gradients")
    assert words.count("number of gradients on the path; more steps reduce the sum's error.") == 1
    assert "options:\n  steps: int = 50\n      number of gradients" in words
    assert "Args:" not in words
    assert "source: Sundararajan, Taly & Yan 2017" in words
    lines = one("lrp").split("\n")
    assert "  composite: choice = epsilon-plus-flat" in lines
    assert "One of epsilon-plus-flat, epsilon-plus-box," in one("lrp")
    assert max(map(len, lines)) <= 120


def test_a_source_is_told_once() -> None:
    """By the docstring, or else by the file; on the pages with the claims behind it."""
    for folder in FOLDERS:
        page = re.split(r"(?m)^## ", pages()[f"{folder}.md"])[1:]
        for name, section in zip(catalogue(folder), page, strict=True):
            for told in (one(name), section):
                assert len(re.findall(r"(?i)\bsource:\s", told)) == 1, (name, told)


def test_the_pages_of_the_documentation_hold_each_text_in_a_table() -> None:
    page = pages()["explainers.md"]
    assert "| `steps` | `int = 50` | number of gradients on the path; more steps reduce the sum's error. |" in page
    assert "Args:" not in page


def test_the_json_has_the_text_of_each_option() -> None:
    for folder, methods in json.loads(json.dumps(listing())).items():
        for name, told in methods.items():
            assert list(told["option_help"]) == list(told["options"]) == list(catalogue(folder)[name].options)
    steps = listing("integrated-gradients")["explainers"]["integrated-gradients"]["option_help"]["steps"]
    assert steps == "number of gradients on the path; more steps reduce the sum's error."
