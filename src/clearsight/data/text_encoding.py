"""Texts as tensors: each character is one place, and a channel for each letter of the alphabet says which it is.

Zhang, Zhao & LeCun 2015, arXiv:1509.01626, section 2.2, with three differences.  A character outside of the alphabet
has a channel of its own, the last one, so that it is told from padding, where all channels are zero.  Capitals and
small letters differ, and the text is not turned round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.text import counted
from clearsight.data.images import of_bytes
from clearsight.data.text_records import Mark, Text, Texts
from clearsight.errors import Refused

UNKNOWN = "\ufffd"  # what is shown for a character that is outside of the alphabet, where it is not known which
PRINTABLE = "".join(map(chr, range(32, 127)))  # the 95 printable characters of ASCII


def text_preprocess(length: int, alphabet: str = PRINTABLE) -> Preprocess:
    """How texts become what a network takes: (letters + 1, length), one-hot, and zero behind the end.

    Args:
        length: most characters that a text may have, at least 1.
        alphabet: the characters that have a channel of their own, each once; the last channel is for all others.

    Refused: an empty alphabet, a character twice, and a length below 1.

    >>> text_preprocess(974).channels
    96
    """
    if not alphabet:
        raise Refused("the alphabet is empty: give the characters that the model is to tell apart")
    channels = len(alphabet) + 1
    return Preprocess((length,), (0.0,) * channels, (1.0,) * channels, alphabet=alphabet)


def one_hot(model: Classifier, *sources: str | Text | Texts) -> Tensor:
    """Texts as the model takes them: (B, letters + 1, L) float32, 0 or 1, all zero behind the end.

    Args:
        model: the classifier, whose preprocessing has an alphabet.
        sources: texts, as they are or from `texts`.

    Refused: a model of pictures, an empty text, one with more than L characters, and no text at all.
    """
    each: list[tuple[str, str]] = []
    for source in sources:
        if isinstance(source, Texts):
            each += [(entry.name, entry.text) for entry in source.texts]
        else:
            each.append((source.name, source.text) if isinstance(source, Text) else (repr(source[:40]), source))
    if not each:
        raise Refused("no text is given: name one, as in one_hot(model, 'GET /')")
    batch = []
    for name, text in each:
        try:
            batch.append(text_bytes(text, model.preprocess))
        except Refused as e:
            raise Refused(f"{name}: {e}") from None
    return of_bytes(torch.stack(batch))


def text_bytes(text: str, preprocess: Preprocess) -> Tensor:
    """One text as (letters + 1, L) uint8, 255 where the character is, as pictures are kept.  Refused: see `one_hot`."""
    reads_texts(preprocess)
    if reason := too_long(text, preprocess):
        raise Refused(reason)
    if not text:
        raise Refused("empty")
    places = {c: k for k, c in enumerate(preprocess.alphabet)}
    rows = np.array([places.get(c, len(places)) for c in text])
    values = np.zeros((preprocess.channels, preprocess.size[0]), np.uint8)
    values[rows, np.arange(len(rows))] = 255
    return torch.from_numpy(values)


def too_long(text: str, preprocess: Preprocess) -> str:
    """Why a text does not fit the model; "" where it does."""
    if len(text) <= preprocess.size[0]:
        return ""
    return f"{len(text)} characters, and the model reads {preprocess.size[0]}"


def reads_texts(preprocess: Preprocess) -> None:
    """Refuse a model of pictures."""
    if not preprocess.alphabet:
        raise Refused("the model takes pictures, not texts: its preprocessing has no alphabet")


def decode(x: Tensor, alphabet: str, before: str = "") -> str:
    """The text of a one-hot tensor (letters + 1, L), up to its last character.

    before: the text as it was before some of its characters were changed; where x says no more than that a character is
    outside of the alphabet, it is the one that stood there.

    >>> decode(torch.eye(3)[:, [1, 2, 0]], "ab", "b\\t?")
    'b\\ta'
    """
    used = x.amax(0) > 0
    end = int(used.nonzero()[-1]) + 1 if bool(used.any()) else 0
    letters: list[str] = []
    for i, k in enumerate(x.argmax(0)[:end].tolist()):
        if not used[i]:
            letters.append("")
        elif k < len(alphabet):
            letters.append(alphabet[k])
        else:
            letters.append(before[i] if i < len(before) and before[i] not in alphabet else UNKNOWN)
    return "".join(letters)


def fitting(data: Texts, preprocess: Preprocess) -> Texts:
    """The texts that the model can read whole; the longer ones go to `broken`, and a note counts unknown characters."""
    reads_texts(preprocess)
    reasons = {entry.name: reason for entry in data.texts if (reason := too_long(entry.text, preprocess))}
    kept = tuple(entry for entry in data.texts if entry.name not in reasons)
    if not kept and reasons:
        name, reason = next(iter(reasons.items()))
        raise Refused(f"no text in {data.root} fits the model ({name}: {reason}): train one that reads longer texts")
    notes = unknown_note([entry.text for entry in kept], preprocess.alphabet)
    return replace(data, texts=kept, broken=(*data.broken, *reasons.items()), notes=(*data.notes, *notes))


def unknown_note(entries: Sequence[str], alphabet: str) -> list[str]:
    """A note on the characters that are not in the alphabet: how many, in how many texts, and which most often."""
    known, counts, texts = set(alphabet), Counter[str](), 0
    for text in entries:
        outside = [c for c in text if c not in known]
        counts.update(outside)
        texts += bool(outside)
    if not counts:
        return []
    shown = ", ".join(f"{c!r} {n}" for c, n in counts.most_common(5))
    return [
        f"{counted(counts.total(), 'character')} of {sum(map(len, entries))}, in {counted(texts, 'text')}, "
        f"{'is' if counts.total() == 1 else 'are'} not in the alphabet and read{'s' if counts.total() == 1 else ''} as "
        f"unknown: {shown}"
    ]


def marked(marks: Sequence[Mark], length: int) -> Tensor:
    """bool (length,): true at the marked characters.

    >>> marked([(1, 3)], 4).tolist()
    [False, True, True, False]
    """
    places = torch.zeros(length, dtype=torch.bool)
    for start, end in marks:
        places[start:end] = True
    return places
