"""What `clearsight explain` does with texts: each coloured by its tested maps, in the terminal and as a page."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clearsight.auditing.map_tests import MapTest, tests_in_words
from clearsight.core.catalogue import parse
from clearsight.core.classifier import Classifier
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.core.remembered import remembering
from clearsight.data.file_stems import named
from clearsight.data.images import of_bytes
from clearsight.data.records import Picture, Pictures
from clearsight.data.text_inputs import input_bytes
from clearsight.drawing.text import TEXT_CSS, Run, print_text, runs, scale_html, text_html
from clearsight.errors import Refused
from clearsight.explaining.explain_input import Asked, ExplainedInput, ask, explain_input
from clearsight.explaining.explain_pictures import file_names
from clearsight.runner.results import Explanation
from clearsight.runner.sharded import require_cpu, spelled
from clearsight.sharding.shards import spread

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT = ("integrated-gradients", "grad-cam")
_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    '<meta name="viewport" content="width=device-width"><style>body {{ font: 15px/1.5 system-ui, sans-serif; '
    "max-width: 70em; margin: 1.5em auto; padding: 0 1em; color-scheme: light dark; }} h1 {{ font-size: 1.3em; }} "
    "h2 {{ font-size: 1em; margin: 1.4em 0 .2em; }} p.test {{ font-size: 85%; }}{css}</style></head>"
    "<body>{body}</body></html>\n"
)


@dataclass(frozen=True)
class TextMap:
    """The map of one method on one text.

    method: the call, with its options.  target: what it answers, in words.  file: the .npz with the raw maps.
    pieces: the text in its colours.  signed: whether negative values mean something.  behind: the share of the absolute
    relevance that lies behind the end of the text, where nothing is drawn.  test: the results of its tests; None where
    none was asked for.
    """

    method: str
    target: str
    file: Path
    pieces: tuple[Run, ...]
    signed: bool
    behind: float
    test: MapTest | None

    @property
    def grey(self) -> bool:
        """Whether it is drawn in grey: it fails a test."""
        return bool(self.test and self.test.failed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        test = None if self.test is None else self.test.as_dict()
        words = {"method": self.method, "target": self.target, "file": str(self.file)}
        return {**words, "behind_the_end": self.behind, "test": test}


@dataclass(frozen=True)
class ExplainedText:
    """One text with its maps: name, page (HTML), up to three answers as `top` gives them, left out (method, why)."""

    name: str
    page: Path
    answers: tuple[dict[str, Any], ...]
    maps: tuple[TextMap, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def headline(self) -> str:
        return f"{self.name}: {_said(self.answers)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        maps = [m.as_dict() for m in self.maps]
        left_out = [{"method": method, "why": why} for method, why in self.left_out]
        answers = list(self.answers)
        return {"text": self.name, "page": str(self.page), "answers": answers, "maps": maps, "left_out": left_out}

    def show(self, console: Console) -> None:
        """Print the text in the colours of each of its maps."""
        from rich.text import Text

        console.print(Text(self.headline()), highlight=False)
        for method, why in self.left_out:
            console.print(Text(f"left out: {method}: {why}"), highlight=False)
        for m in self.maps:
            console.print(Text(_title(m)), highlight=False)
            print_text(console, m.pieces, signed=m.signed, grey=m.grey)
            for line in m.test.lines() if m.test else ():
                console.print(Text(f"  {line}"), highlight=False)
        console.print(Text(str(self.page)), highlight=False)


@dataclass(frozen=True)
class ExplainedTexts:
    """All texts that ``explain_texts`` explained.

    folder: of the results.  seed: of all randomness.  texts: in the order of the data.  broken: (name, reason) of those
    that cannot be read.  notes: remarks on how the data was read.
    """

    folder: Path
    seed: int
    texts: tuple[ExplainedText, ...]
    broken: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return {
            "folder": str(self.folder),
            "seed": self.seed,
            "texts": [e.as_dict() for e in self.texts],
            "broken": [{"text": name, "reason": reason} for name, reason in self.broken],
            "notes": list(self.notes),
        }


def explain_texts(
    model: Classifier,
    data: Pictures,
    methods: Sequence[str],
    target: str,
    folder: Callable[[], Path],
    *,
    seed: int = 0,
    tests: bool = True,
    progress: Progress,
) -> ExplainedTexts:
    """Explain every text by every method; a page and the raw maps of each go into the folder that ``folder()`` makes.

    methods: calls of explainers; without any, integrated gradients and Grad-CAM.  target: as for pictures.  tests:
    whether each map is tested on its text (see `examine`), and drawn in grey where it fails.  Methods that the network
    refuses are named and left out.

    Refused: an unknown class, texts that the model cannot read if none is left, and methods likewise.
    """
    require_cpu(model)
    calls = [parse(m, "explainers") for m in methods or DEFAULT]
    ask(model, target, torch.zeros(1, len(model.labels)))
    place, done, broken = cache(folder), list[ExplainedText](), list(data.broken)
    asked = (model, tuple(spelled(c, "explainers") for c in calls), target, seed, tests)
    with remembering():  # random networks; what is known of one text is let go with it
        shards = ((entry,) for entry in data.pictures)
        explained = zip(named(data.pictures), spread(_explain_text, asked, shards), strict=True)
        for number, ((entry, stem), found) in enumerate(explained, 1):
            if isinstance(found, Refused):
                broken.append((entry.name, str(found)))
            else:
                done.append(_write(entry, found, stem, place()))
            progress("explaining", number, len(data.pictures))
    if not done:
        raise Refused(f"none of the texts can be read ({broken[0][0]}: {broken[0][1]})")
    return ExplainedTexts(place(), seed, tuple(done), tuple(broken), data.notes)


def _explain_text(asked: Asked, entry: Picture) -> ExplainedInput | Refused:
    """One text explained, or why it cannot be read."""
    try:
        x = of_bytes(input_bytes(entry, asked[0].preprocess)[0])
    except Refused as e:
        return e
    return explain_input(asked, x)


def _write(entry: Picture, found: ExplainedInput, stem: str, folder: Path) -> ExplainedText:
    """Write the page stem.html and the maps stem-METHOD.npz."""
    maps = list[TextMap]()
    names = file_names(e.method for e in found.maps)
    for of_method, name, tests in zip(found.maps, names, found.tests or ((),) * len(found.maps), strict=True):
        file = of_method.save(folder / f"{stem}-{name}.npz")
        each = zip_longest(of_method.maps, of_method.questions(), tests)
        maps += [_text_map(entry, of_method, file, heat, words, test) for heat, words, test in each]
    explained = ExplainedText(entry.name, folder / f"{stem}.html", found.answers, tuple(maps), found.left_out)
    write_whole(explained.page, _page(explained))
    return explained


def _text_map(
    entry: Picture, of_method: Explanation, file: Path, heat: Tensor, target: str, test: MapTest | None
) -> TextMap:
    text = entry.text or ""
    pieces = tuple(runs(text, heat, signed=of_method.signed, marks=entry.marks or ()))
    behind = float((heat[len(text) :].abs().sum() / heat.abs().sum()).nan_to_num(0))
    return TextMap(of_method.method, target, file, pieces, of_method.signed, behind, test)


def _page(e: ExplainedText) -> str:
    parts = [f"<h1>{html.escape(e.headline())}</h1>"]
    parts += [f"<p>Left out: {html.escape(f'{method}: {why}')}</p>" for method, why in e.left_out]
    for m in e.maps:
        parts += [
            f"<h2>{html.escape(_title(m))}</h2>",
            text_html(m.pieces, grey=m.grey),
            scale_html(m.signed, grey=m.grey, marked=any(r.marked for r in m.pieces)),
        ]
        parts += [f'<p class="test">{"<br>".join(map(html.escape, m.test.lines()))}</p>'] if m.test else []
    parts += [f'<p class="test">{html.escape(tests_in_words("text"))}</p>'] if any(m.test for m in e.maps) else []
    return _PAGE.format(title=html.escape(e.name), css=TEXT_CSS, body="".join(parts))


def _title(m: TextMap) -> str:
    behind = f"; {100 * m.behind:.0f} % of it lies behind the end of the text" if m.behind >= 0.005 else ""
    return f"{m.method}, {m.target}{behind}"


def _said(answers: Sequence[dict[str, Any]]) -> str:
    return ", ".join(
        f"{a['label']} {a['value']:.4g}" if "value" in a else f"{a['label']} {100 * a['probability']:.1f} %"
        for a in answers
    )
