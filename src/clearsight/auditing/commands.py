"""The commands that a report quotes, as they are typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from clearsight.data.datasets import Picture
from clearsight.data.text_inputs import place_of_text

COLUMNS = ("--label-column", "--text-column", "--marks-column")


@dataclass(frozen=True)
class Commands:
    """Quotes commands about one model and one set of pictures.

    Args:
        model: words that load the model; "" where it was made in Python, which a command cannot name.
        data: words that open the pictures.
        seed: start of all randomness; named where it is not 0.
        model_words: options with which the command line loaded the model.
        data_words: options with which the command line loaded the data.
    """

    model: str
    data: str
    seed: int = 0
    model_words: tuple[str, ...] = ()
    data_words: tuple[str, ...] = ()

    def of(self, verb: str, *words: str) -> str:
        """A command about the model."""
        seed = ("--seed", str(self.seed)) if self.seed else ()
        return shlex.join(["clearsight", verb, self.model or "MODEL", *words, *seed])

    def of_picture(self, verb: str, picture: Picture, *words: str) -> str:
        """A command about the model and one of the pictures."""
        columns = () if picture.text is None else columns_of(self.data_words)
        return self.of(verb, self.place(picture), *words, *self.model_words, *columns)

    def of_data(self, verb: str, *words: str) -> str:
        """A command about the model and all of the pictures."""
        return self.of(verb, self.data, *words, *self.model_words, *self.data_words)

    def of_check(self, check: str, explainer: str = "") -> str:
        """The command that runs a check again; explainer: the one that it names, "" for none."""
        method = f" -m {shlex.quote(explainer)}" if explainer else ""
        if (self.model, self.data, *self.model_words, *self.data_words) == ("demo", "demo"):
            seed = f" --seed {self.seed}" if self.seed else ""
            return f"clearsight audit --only {shlex.quote(check)}{seed}{method}"
        return self.of("audit", self.data, "--only", check, *self.model_words, *self.data_words) + method

    def place(self, picture: Picture) -> str:
        """How the command line names a picture, or a text."""
        if picture.text is not None:
            return place_of_text(picture)
        return f"demo:{picture.name}" if self.data.partition(":")[0] == "demo" else str(picture.path)


def columns_of(words: Sequence[str]) -> list[str]:
    """Of typed words the options that name the columns of a table.

    >>> columns_of(("--split", "test", "--text-column", "url"))
    ['--text-column', 'url']
    """
    return [word for i, name in enumerate(words[:-1]) if name in COLUMNS for word in (name, words[i + 1])]
