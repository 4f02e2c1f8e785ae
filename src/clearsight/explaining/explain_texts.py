"""What `clearsight explain` does with texts: each coloured by its maps, in the terminal and as a page, and raw maps."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clearsight.core.catalogue import parse
from clearsight.core.classifier import Classifier
from clearsight.core.output import write_whole
from clearsight.core.progress import Progress
from clearsight.data.file_stems import named
from clearsight.data.images import of_bytes
from clearsight.data.records import Picture, Pictures
from clearsight.data.text_inputs import input_bytes
from clearsight.data.text_records import Mark
from clearsight.drawing.text import TEXT_CSS, Run, print_text, runs, scale_html, text_html
from clearsight.errors import Refused
from clearsight.explaining.explain_pictures import ask, file_names, top
from clearsight.internals.scores import scores
from clearsight.runner.run import explain

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT = ("integrated-gradients", "grad-cam")
_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    '<meta name="viewport" content="width=device-width"><style>body {{ font: 15px/1.5 system-ui, sans-serif; '
    "max-width: 70em; margin: 1.5em auto; padding: 0 1em; color-scheme: light dark; }} h1 {{ font-size: 1.3em; }} "
    "h2 {{ font-size: 1em; margin: 1.4em 0 .2em; }}{css}</style></head><body>{body}</body></html>\n"
)


@dataclass(frozen=True)
class TextMap:
    """The map of one method on one text.

    method: the call, with its options.  target: what it answers, in words.  file: the .npz with the raw maps.
    pieces: the text in its colours.  signed: whether negative values mean something.  behind: the share of the absolute
    relevance that lies behind the end of the text, where nothing is drawn.
    """

    method: str
    target: str
    file: Path
    pieces: tuple[Run, ...]
    signed: bool
    behind: float


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
        maps = [
            {"method": m.method, "target": m.target, "file": str(m.file), "behind_the_end": m.behind} for m in self.maps
        ]
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
            print_text(console, m.pieces, signed=m.signed)
        console.print(Text(str(self.page)), highlight=False)


def explain_texts(
    model: Classifier,
    data: Pictures,
    methods: Sequence[str],
    target: str,
    folder: Callable[[], Path],
    *,
    seed: int = 0,
    progress: Progress,
) -> tuple[list[ExplainedText], list[tuple[str, str]]]:
    """Explain every text by every method -> these, and (name, reason) of those that cannot be read.

    A page and the raw maps of each text go into the folder that ``folder()`` makes.

    methods: calls of explainers; without any, integrated gradients and Grad-CAM.  target: as for pictures.  Methods
    that the network refuses are named and left out.

    Refused: an unknown class, texts that the model cannot read if none is left, and methods likewise.
    """
    calls = [str(parse(m, "explainers")) for m in methods or DEFAULT]
    ask(model, target, torch.zeros(1, len(model.labels)))
    place, done, broken = cache(folder), list[ExplainedText](), list(data.broken)
    for number, (entry, stem) in enumerate(named(data.pictures), 1):
        try:
            x = of_bytes(input_bytes(entry, model.preprocess)[0])[None].to(model.device)
        except Refused as e:
            broken.append((entry.name, str(e)))
            continue
        done.append(_explain_one(model, entry, x, calls, target, place() / stem, seed))
        progress("explaining", number, len(data.pictures))
    if not done:
        raise Refused(f"none of the texts can be read ({broken[0][0]}: {broken[0][1]})")
    return done, broken


def _explain_one(
    model: Classifier, entry: Picture, x: Tensor, calls: Sequence[str], target: str, stem: Path, seed: int
) -> ExplainedText:
    with model.undisturbed():
        logits = scores(model, x)
    question, rows, _ = ask(model, target, logits)
    maps, left_out = list[TextMap](), list[tuple[str, str]]()
    for call, name in zip(calls, file_names(calls), strict=True):
        try:
            found = explain(model, x.expand(rows, *x.shape[1:]), call, question, seed=seed)
        except Refused as e:
            left_out.append((call, str(e)))
            continue
        file = found.save(Path(f"{stem}-{name}.npz"))
        for heat, words in zip(found.maps, found.questions(), strict=True):
            maps.append(_text_map(found.method, words, file, entry.text or "", heat, found.signed, entry.marks or ()))
    if not maps:
        raise Refused("; ".join(f"{call}: {why}" for call, why in left_out))
    explained = ExplainedText(
        entry.name, Path(f"{stem}.html"), tuple(top(model, logits[0], 3)), tuple(maps), tuple(left_out)
    )
    write_whole(explained.page, _page(explained))
    return explained


def _text_map(
    method: str, target: str, file: Path, text: str, heat: Tensor, signed: bool, marks: Sequence[Mark]
) -> TextMap:
    pieces = tuple(runs(text, heat, signed=signed, marks=marks))
    behind = float((heat[len(text) :].abs().sum() / heat.abs().sum()).nan_to_num(0))
    return TextMap(method, target, file, pieces, signed, behind)


def _page(e: ExplainedText) -> str:
    parts = [f"<h1>{html.escape(e.headline())}</h1>"]
    parts += [f"<p>Left out: {html.escape(f'{method}: {why}')}</p>" for method, why in e.left_out]
    for m in e.maps:
        parts += [
            f"<h2>{html.escape(_title(m))}</h2>",
            text_html(m.pieces),
            scale_html(m.signed, marked=any(r.marked for r in m.pieces)),
        ]
    return _PAGE.format(title=html.escape(e.name), css=TEXT_CSS, body="".join(parts))


def _title(m: TextMap) -> str:
    behind = f"; {100 * m.behind:.0f} % of it lies behind the end of the text" if m.behind >= 0.005 else ""
    return f"{m.method}, {m.target}{behind}"


def _said(answers: Sequence[dict[str, Any]]) -> str:
    return ", ".join(
        f"{a['label']} {a['value']:.4g}" if "value" in a else f"{a['label']} {100 * a['probability']:.1f} %"
        for a in answers
    )
