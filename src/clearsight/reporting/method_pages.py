"""The catalogue of methods as text, as JSON and as pages of the documentation."""

from __future__ import annotations

import re
import textwrap
from typing import Any, Literal, get_args, get_origin

from rich.console import Console
from rich.table import Table

from clearsight.core.catalogue import FOLDERS, Method, catalogue, write_value
from clearsight.errors import Refused, nearest

QUESTIONS = {
    "explainers": "why it decides so",
    "attacks": "how little it takes to change its mind",
    "metrics": "how good a map is",
    "checks": "can I trust it",
    "visualisations": "what it sees inside",
    "augmentations": "how pictures are varied in training",
    "corruptions": "what happens to pictures by themselves",
    "purifiers": "what cleans pictures before the model sees them",
    "networks": "what can be trained from random weights",
    "detectors": "what can be trained to find objects",
    "defences": "how training resists attacks",
    "guides": "how training is right for the right reasons",
    "rebalancing": "how training leaves no group of pictures behind",
    "thieves": "what pictures a thief asks about who clones it",
    "answer_defences": "how answers are given so that nobody clones it",
    "segmenters": "what says which class each pixel is of",
}

WIDTH = 112  # of what is printed of an option, as of the docstrings around it


def options(method: Method) -> dict[str, str]:
    """Each option with its type and its default, as they are spelled."""
    return {
        name: f"{_type_in_words(p.annotation)} = {'none' if p.default is None else write_value(p.default)}"
        for name, p in method.options.items()
    }


def listing(name: str | None = None) -> dict[str, Any]:
    """The whole catalogue (or the one method of that name) as plain data."""
    methods_by_folder = {
        folder: {
            n: {
                "summary": m.summary,
                "paper": m.paper,
                "claims": sorted(m.claims),
                "options": options(m),
                "option_help": m.option_help,
            }
            for n, m in catalogue(folder).items()
            if name in (None, n)
        }
        for folder in FOLDERS
    }
    if name is not None and not any(methods_by_folder.values()):
        find(name)
    return {folder: methods for folder, methods in methods_by_folder.items() if methods}


def find(name: str) -> list[tuple[str, Method]]:
    """The methods of that name with their folders: one, or one of each of several kinds."""
    names = [n for folder in FOLDERS for n in catalogue(folder)]
    if name not in names:
        raise Refused(f"no method {name!r}: {nearest(name, dict.fromkeys(names))}")
    return [(folder, catalogue(folder)[name]) for folder in FOLDERS if name in catalogue(folder)]


def one(name: str) -> str:
    """The methods of that name in full: what each does, its options, where it comes from."""
    return "\n\n".join(_in_full(folder, m) for folder, m in find(name))


def _words(folder: str) -> str:
    """A kind as it stands in a sentence: "answer defences"."""
    return folder.replace("_", " ")


def _in_full(folder: str, m: Method) -> str:
    lines = [f"{m.name}, one of the {_words(folder)} ({QUESTIONS[folder]})", "", _without_examples(m.prose), ""]
    if m.options:
        lines += ["options:", *(line for option in m.options for line in _option_lines(m, option)), ""]
    lines += [f"source: {_module_source(m)}"] if _module_source(m) else []
    lines += [f"paper: {paper_link(m.paper) or m.paper}"]
    return "\n".join(lines)


def _option_lines(m: Method, name: str) -> list[str]:
    """An option as `methods NAME` prints it: its type and default, and below them what it does."""
    annotation = m.options[name].annotation
    if get_origin(annotation) is not Literal:
        return [f"  {name}: {options(m)[name]}", *_wrap_indented(m.option_help[name])]
    choices = f"One of {', '.join(map(str, get_args(annotation)))}."
    default = write_value(m.options[name].default)
    return [f"  {name}: choice = {default}", *_wrap_indented(m.option_help[name]), *_wrap_indented(choices)]


def _wrap_indented(text: str) -> list[str]:
    indent = " " * 6
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _module_source(m: Method) -> str:
    """The source that a method's file names; an empty string where the method's own docstring names it."""
    has_source = re.search(r"\bSource:\s", m.prose) is not None
    return "" if has_source else " ".join(m.module_doc.split())


def _without_examples(doc: str) -> str:
    """A docstring without its examples, and without the paragraph that leads up to them.

    >>> _without_examples("What it does.\\n\\nBehind one channel it is this:\\n\\n>>> 1\\n1")
    'What it does.'
    """
    text, examples, _ = doc.partition("\n>>>")
    before, _, last = text.strip().rpartition("\n\n")
    return before if examples and before and last.endswith(":") else text.strip()


def paper_link(paper: str) -> str:
    """Where a paper is found: arXiv:1610.02391 -> its address; an empty string for what is no paper.

    >>> paper_link("arXiv:1610.02391")
    'https://arxiv.org/abs/1610.02391'
    """
    kind, _, number = paper.partition(":")
    places = {
        "arxiv": f"https://arxiv.org/abs/{number}",
        "doi": f"https://doi.org/{number}",
        "openreview": f"https://openreview.net/forum?id={number}",
    }
    return places.get(kind.lower(), "")


def print_listing(console: Console) -> None:
    """Print the whole catalogue, one line for each method."""
    for folder in FOLDERS:
        table = Table(title=f"{_words(folder)}: {QUESTIONS[folder]}", title_justify="left", box=None, pad_edge=False)
        table.add_column("spelling", no_wrap=True)
        table.add_column("what it does")
        table.add_column("paper", style="dim")
        for n, m in catalogue(folder).items():
            table.add_row(n, m.summary, m.paper)
        console.print(table)
        console.print()
    console.print("clearsight methods NAME shows one in full, with its options: integrated-gradients(steps=50).")


def pages() -> dict[str, str]:
    """The documentation's pages of methods, in Markdown, by file name."""
    return {f"{folder}.md": _page(folder) for folder in FOLDERS}


def _page(folder: str) -> str:
    lines = [
        f"# {_words(folder).capitalize()}: {QUESTIONS[folder]}",
        "",
        "| name | what it does | paper |",
        "|---|---|---|",
    ]
    for n, m in catalogue(folder).items():
        cells = (f"[`{n}`](#{_anchor(m)})", m.summary, _paper_cell(m))
        lines.append(f"| {' | '.join(map(_escape_cell, cells))} |")
    for n, m in catalogue(folder).items():
        if n != _anchor(m):  # a heading's own anchor drops its signs: grad-cam++ would be a second grad-cam
            lines += ["", f'<a id="{_anchor(m)}"></a>']
        lines += ["", f"## {n}", "", _markdown(m.prose)]
        if m.options:
            lines += ["", "| option | type and default | what it does |", "|---|---|---|"]
            lines += [f"| `{k}` | `{v}` | {_escape_cell(m.option_help[k])} |" for k, v in options(m).items()]
        claims = f" Claims that the tests hold it to: {', '.join(sorted(m.claims))}." if m.claims else ""
        source = f"Source: {_module_source(m)}" if _module_source(m) else ""
        lines += ["", f"{source}{claims}".strip()]
    return "\n".join(lines) + "\n"


def _escape_cell(text: str) -> str:
    """Text in a table of Markdown."""
    return text.replace("|", "\\|")


def _anchor(m: Method) -> str:
    """Where a method stands on its page: by the name of its file, which holds no signs."""
    return m.file.replace("_", "-")


def _paper_cell(m: Method) -> str:
    link = paper_link(m.paper)
    return f"[{m.paper}]({link})" if link else m.paper


def _markdown(doc: str) -> str:
    """A docstring with its examples fenced."""
    return re.sub(
        r"(?m)((?:^>>> .*\n(?:(?!>>> |\n).*\n?)*)+)", lambda m: f"```python\n{m[1].rstrip()}\n```\n", doc + "\n"
    )


def _type_in_words(annotation: Any) -> str:
    return (
        getattr(annotation, "__name__", str(annotation))
        if isinstance(annotation, type)
        else (
            str(annotation)
            .replace("typing.", "")
            .replace("Literal", "")
            .replace("NoneType", "none")
            .replace("None", "none")
        )
    )
