"""What the data's class words mean in classes of a model: all of them are read in one way, and it is said which."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.label_names import finder, first_name, is_number, label_numbers, names, plain, position
from clearsight.data.records import Pictures
from clearsight.errors import Refused, nearest


class Unread(Refused):
    """Class words that mean nothing, or one thing in two ways: a sentence, and another one on what to do."""

    between = ".  "


Classes = Mapping[str, str | list[str]]
NAMED = 5  # words that a note or an error names
_FORM = 'classes give each word its labels, such as {"cat": ["tabby", "tiger cat"], "dog": "beagle"}'


def truth(pictures: Pictures, model: Classifier) -> Tensor:
    """bool (N, K): the classes of the model that are right for each picture; a row of False is an unlabelled picture.

    All words that `pictures.classes` does not explain are read in one way: as labels of the model, or as numbers of its
    classes counted from 0.  Raises Refused once, naming every word that means nothing so, and where two readings
    differ.
    """
    return understood(pictures, model)[0]


def understood(pictures: Pictures, model: Classifier) -> tuple[Tensor, tuple[str, ...]]:
    """What `truth` gives, and sentences on how the words were read wherever they are not simply the labels."""
    words = sorted({word for picture in pictures.pictures for word in picture.labels})
    told = [word for word in words if word in pictures.classes]
    own = [word for word in words if word not in pictures.classes]
    meant, unknown = _explained(told, pictures.classes, model)
    found, strange, note = _read(own, pictures, model)
    if unknown or strange:
        raise Unread(*_unknown({**unknown, **strange}, own, model.labels))
    if (numbers := [word for word in told if is_number(word.strip())]) and _counted(found, model.labels):
        raise Unread(*_half_told(numbers, own, model.labels))
    meant |= found
    right = torch.zeros(len(pictures.pictures), len(model.labels), dtype=torch.bool)
    for row, picture in zip(right, pictures.pictures, strict=True):
        for word in picture.labels:
            row[meant[word]] = True
    return right, (*note, *_synonyms(meant, model.labels))


Found = dict[str, list[int]]  # word -> classes of the model
Unknown = dict[str, str]  # word -> why it means none


def _explained(words: Sequence[str], classes: Mapping[str, Sequence[str]], model: Classifier) -> tuple[Found, Unknown]:
    """What --classes says of words."""
    found: Found = {}
    unknown: Unknown = {}
    one = _one(model.labels)
    for word in words:
        try:
            found[word] = [one(label) for label in classes[word]]
        except Refused as e:
            unknown[word] = str(e)
    return found, unknown


def _one(labels: Sequence[str]) -> Callable[[str], int]:
    """A word -> the one class that it names, by label or, where labels have no numbers of their own, by number."""
    find, numbers, known = finder(labels), label_numbers(labels), names(labels)

    def one(word: str) -> int:
        found, place = find(word), position(word.strip(), len(labels))
        if len(found) == 1:
            return found[0]
        if found:
            named = " or ".join(repr(labels[i]) for i in found[:NAMED])
            raise Refused(f"{word!r} names several classes, {named}")
        if place is not None and not numbers:
            return place
        if numbers and is_number(word.strip()):
            raise Refused(f"{shorten(word, 40)!r} is none of the model's labels, which have numbers of their own")
        if is_number(word.strip()):
            raise Refused(f"class {shorten(word, 40)!r}: this model has classes 0 to {len(labels) - 1}")
        raise Refused(f"the model has no class {word!r}: {nearest(plain(word), known)}")

    return one


def _read(words: Sequence[str], pictures: Pictures, model: Classifier) -> tuple[Found, Unknown, tuple[str, ...]]:
    """The words in one way, those that mean nothing in it, and a note on the way."""
    if not words:
        return {}, {}, ()
    find = finder(model.labels)
    labels = {word: list(found) for word in words if len(found := find(word)) == 1}
    if pictures.numbered:
        return _numbers(words, labels, pictures.column, model.labels)
    if len(labels) == len(words):
        return labels, {}, ()
    places = _places(words, len(model.labels))
    if places and label_numbers(model.labels):
        raise Unread(*_clash(places, model.labels))
    if places:
        return places, {}, (_by_place(places, model.labels),)
    one = _one(model.labels)
    unknown: Unknown = {}
    for word in words:
        try:
            one(word)
        except Refused as e:
            unknown[word] = str(e)
    if not unknown or any(not is_number(word) for word in words):
        how = "a number among names" if labels or unknown else "a number written in two ways"
        unknown |= {word: f"{word!r} is {how}" for word in words if word not in labels and word not in unknown}
    return {}, unknown, ()


def _clash(places: Found, labels: Sequence[str]) -> tuple[str, str]:
    """Why words that count classes from 0 are not read so where labels have numbers of their own; and what to do."""
    example = {word: labels[place] for word, (place,) in list(places.items())[:3]}
    strange = next(word for word in places if len(finder(labels)(word)) != 1)
    return (
        f"the data's class words, {', '.join(list(places)[:NAMED])}, ..., are numbers, and so are the model's labels, "
        f"{', '.join(labels[:NAMED])}, ..., but {strange} is none of them",
        f"Say what they mean: --classes FILE, with FILE a JSON such as {json.dumps(example)} if they count the model's "
        "classes from 0",
    )


def _numbers(
    words: Sequence[str], named: Found, column: str, labels: Sequence[str]
) -> tuple[Found, Unknown, tuple[str, ...]]:
    """Words of a column of class numbers: labels that training made of this column, else numbers counted from 0.

    Where the labels have numbers of their own, these are the other reading.  Refused: where both fit and differ.
    """
    exact = {label: i for i, label in enumerate(labels)}
    if all(label.startswith(f"{column} ") for label in labels):
        own = {word: [exact[called]] for word in words if (called := f"{column} {word}") in exact}
        strange = {word: f"the model was made with other numbers of {column}" for word in words if word not in own}
        return own, strange, (f"the numbers of {column} are the model's own labels, such as {labels[0]}",)
    numbers = label_numbers(labels)
    said = named if len(named) == len(words) else {word: [numbers[word]] for word in words if word in numbers}
    said = said if len(said) == len(words) else {}
    places = _places(words, len(labels))
    if places and said and places != said:
        word = next(word for word in words if places[word] != said[word])
        raise Unread(
            f"column {column} holds class numbers, and the model's labels have numbers too: {word} may be the label "
            f"{labels[said[word][0]]!r} or the class number {word} counted from 0, {labels[places[word][0]]!r}",
            "Say what they mean: --classes FILE, with FILE a JSON such as "
            f"{json.dumps({word: labels[said[word][0]]})} for each of them",
        )
    if places:
        return places, {}, (_by_place(places, labels, f"column {column}: "),)
    if said:
        return said, {}, (f"column {column}: its numbers are read as labels of the model, which has such numbers",)
    strange = {w: f"class {shorten(w, 40)!r}: this model has classes 0 to {len(labels) - 1}" for w in words}
    strange = {w: why for w, why in strange.items() if position(w, len(labels)) is None}
    return {}, strange or {words[0]: "several words write one number"}, ()


def _places(words: Sequence[str], classes: int) -> Found:
    """Every word as the number of a class, counted from 0; {} where one is none, and where two are the same."""
    found = {word: [place] for word in words if (place := position(word, classes)) is not None}
    same = len({place for (place,) in found.values()})
    return found if same == len(words) == len(found) else {}


def _by_place(found: Found, labels: Sequence[str], column: str = "") -> str:
    shown = [(word, labels[place]) for word, (place,) in list(found.items())[:3]]
    examples = ", ".join(f"{word} is {first_name(label)}" for word, label in shown)
    return f"{column}the data's class words are read as numbers of the model's classes, counted from 0: {examples}"


def _synonyms(meant: Found, labels: Sequence[str]) -> list[str]:
    """A note on different words that mean one class."""
    of: dict[int, list[str]] = {}
    for word, classes in meant.items():
        for k in dict.fromkeys(classes):
            of.setdefault(k, []).append(word)
    said = [f"{' and '.join(words)} ({first_name(labels[k])})" for k, words in of.items() if len(words) > 1]
    more = f", and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return [f"words of the data that mean the same class: {'; '.join(said[:NAMED])}{more}"] if said else []


def _unknown(unknown: Mapping[str, str], own: Sequence[str], labels: Sequence[str]) -> tuple[str, str]:
    """What is wrong, and what to do.  own: all words that --classes does not explain."""
    hints = "; ".join(list(unknown.values())[:NAMED])
    example = json.dumps({next(iter(unknown)): ["a label of the model", "another"]}, ensure_ascii=False)
    mend = f"Say what they mean: --classes FILE, with FILE a JSON such as {example}"
    if len(own) > len(unknown) and all(map(is_number, own)):
        mend = _each(own, labels)
    what = f"class words of the data that mean nothing to the model ({len(unknown)}): {', '.join(unknown)} ({hints})"
    return what, mend


def _counted(found: Found, labels: Sequence[str]) -> bool:
    """Whether words were read as numbers of classes counted from 0, and not as labels."""
    find = finder(labels)
    return bool(found) and found == _places(list(found), len(labels)) and any(not find(word) for word in found)


def _half_told(numbers: Sequence[str], own: Sequence[str], labels: Sequence[str]) -> tuple[str, str]:
    """Why numbers are not counted from 0 where --classes says of others what they mean; and what to do."""
    more = ", ..." if len(own) > NAMED else ""
    return (
        f"--classes says what {', '.join(numbers[:NAMED])} means among the data's numbers, but not what "
        f"{', '.join(own[:NAMED])}{more} mean",
        _each([*numbers, *own], labels),
    )


def _each(words: Sequence[str], labels: Sequence[str]) -> str:
    """What to do where some numbers of the data mean nothing: one alone must not be explained, the others follow."""
    places = {word: place for word in words if (place := position(word, len(labels) + 1)) is not None}
    from_one = len(places) == len(words) and 0 not in places.values()
    ordered = sorted(places, key=places.__getitem__) if from_one else list(words)
    example = {word: labels[places[word] - 1] if from_one else "a label of the model" for word in ordered[:3]}
    told = json.dumps(example, ensure_ascii=False)[:-1]
    when = " if they count the model's classes from 1" if from_one else ""
    file = f"--classes FILE, with FILE a JSON such as {told}, ...}}{when}"
    return f"Say what each of the {len(words)} numbers means: {file}"


def meanings(classes: Classes | str | Path | None) -> dict[str, tuple[str, ...]]:
    """{"cat": ["tabby", "tiger cat"], "dog": "beagle"}, or a JSON file of it -> word: labels of the model."""
    told: object = classes
    if isinstance(classes, str | Path):
        try:
            told = json.loads(Path(classes).read_bytes(), object_pairs_hook=_once)
        except OSError as e:
            raise Refused(f"cannot read the classes in {classes}: {e.strerror}") from None
        except Refused as e:
            raise Refused(f"the classes in {classes}: {e}") from None
        except (ValueError, RecursionError) as e:
            raise Refused(f"the classes in {classes} are no JSON: {e}") from None
    told = {} if told is None else told
    if not isinstance(told, Mapping):
        raise Refused(_FORM)
    lists = {k: list(v) if isinstance(v, list | tuple) else [v] for k, v in told.items()}
    for labels in lists.values():
        if not labels or not all(isinstance(n, str | int) and not isinstance(n, bool) for n in labels):
            raise Refused(_FORM)
    return {str(word): tuple(map(str, labels)) for word, labels in lists.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no word stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(word for word, _ in pairs if [w for w, _ in pairs].count(word) > 1)
        raise Refused(f"{twice!r} stands there twice: write all its labels in one list")
    return found
