"""Map the data's class words to classes of a model.  All words are read in one way, which a note names."""

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
    """Class words that have no meaning in the model, or two."""

    between = ".  "


Classes = Mapping[str, str | list[str]]
NAMED = 5  # words that a note or an error names
_FORM = 'classes must give each word its labels, such as {"cat": ["tabby", "tiger cat"], "dog": "beagle"}'


def truth(pictures: Pictures, model: Classifier) -> Tensor:
    """bool (N, K): the classes of the model that are right for each picture; a row of False is an unlabelled picture.

    All words that `pictures.classes` does not explain are read in one way: as labels of the model, or as numbers of its
    classes counted from 0.  Refused: words without a meaning, all of them in one error, and two readings that differ.
    """
    return understood(pictures, model)[0]


def understood(pictures: Pictures, model: Classifier) -> tuple[Tensor, tuple[str, ...]]:
    """The result of `truth`, and notes on how the words were read where they are not simply the labels."""
    words = sorted({word for picture in pictures.pictures for word in picture.labels})
    explained = [word for word in words if word in pictures.classes]
    unexplained = [word for word in words if word not in pictures.classes]
    classes_of, unknown = _apply_classes_option(explained, pictures.classes, model)
    interpreted, strange, note = _interpret(unexplained, pictures, model)
    if unknown or strange:
        raise Unread(*_describe_unknown({**unknown, **strange}, unexplained, model.labels))
    numbers = [word for word in explained if is_number(word.strip())]
    if numbers and _are_class_numbers(interpreted, model.labels):
        raise Unread(*_describe_half_explained(numbers, unexplained, model.labels))
    classes_of |= interpreted
    right = torch.zeros(len(pictures.pictures), len(model.labels), dtype=torch.bool)
    for row, picture in zip(right, pictures.pictures, strict=True):
        for word in picture.labels:
            row[classes_of[word]] = True
    return right, (*note, *_synonyms_note(classes_of, model.labels))


WordClasses = dict[str, list[int]]  # word -> classes of the model
Unknown = dict[str, str]  # word -> why it means no class


def _apply_classes_option(
    words: Sequence[str], classes: Mapping[str, Sequence[str]], model: Classifier
) -> tuple[WordClasses, Unknown]:
    """The classes that --classes gives to words, and the words whose labels the model does not have."""
    explained: WordClasses = {}
    unknown: Unknown = {}
    class_of = _class_finder(model.labels)
    for word in words:
        try:
            explained[word] = [class_of(label) for label in classes[word]]
        except Refused as e:
            unknown[word] = str(e)
    return explained, unknown


def _class_finder(labels: Sequence[str]) -> Callable[[str], int]:
    """A function from a word to its class, by label or, where labels have no numbers of their own, by number."""
    find, numbers, label_names = finder(labels), label_numbers(labels), names(labels)

    def class_of(word: str) -> int:
        matches, place = find(word), position(word.strip(), len(labels))
        if len(matches) == 1:
            return matches[0]
        if matches:
            named = " or ".join(repr(labels[i]) for i in matches[:NAMED])
            raise Refused(f"{word!r} names several classes, {named}")
        if place is not None and not numbers:
            return place
        if numbers and is_number(word.strip()):
            raise Refused(f"{shorten(word, 40)!r} is not one of the model's labels, which have numbers of their own")
        if is_number(word.strip()):
            raise Refused(f"class {shorten(word, 40)!r}: the model has classes 0 to {len(labels) - 1}")
        raise Refused(f"the model has no class {word!r}: {nearest(plain(word), label_names)}")

    return class_of


def _interpret(
    words: Sequence[str], pictures: Pictures, model: Classifier
) -> tuple[WordClasses, Unknown, tuple[str, ...]]:
    """Read all words in one way: their classes, the words without a class, and a note on the reading."""
    if not words:
        return {}, {}, ()
    find = finder(model.labels)
    labels = {word: list(matches) for word in words if len(matches := find(word)) == 1}
    if pictures.numbered:
        return _interpret_numbers(words, labels, pictures.column, model.labels)
    if len(labels) == len(words):
        return labels, {}, ()
    places = _as_class_numbers(words, len(model.labels))
    if places and label_numbers(model.labels):
        raise Unread(*_describe_clash(places, model.labels))
    if places:
        return places, {}, (_numbers_note(places, model.labels),)
    class_of = _class_finder(model.labels)
    unknown: Unknown = {}
    for word in words:
        try:
            class_of(word)
        except Refused as e:
            unknown[word] = str(e)
    if not unknown or any(not is_number(word) for word in words):
        how = "a number among names" if labels or unknown else "a number written in two ways"
        unknown |= {word: f"{word!r} is {how}" for word in words if word not in labels and word not in unknown}
    return {}, unknown, ()


def _describe_clash(places: WordClasses, labels: Sequence[str]) -> tuple[str, str]:
    """What is wrong, and what to do, where words and labels are numbers and the words are not labels."""
    example = {word: labels[place] for word, (place,) in list(places.items())[:3]}
    strange = next(word for word in places if len(finder(labels)(word)) != 1)
    return (
        f"the data's class words, {', '.join(list(places)[:NAMED])}, ..., are numbers, and so are the model's labels, "
        f"{', '.join(labels[:NAMED])}, ..., but {strange} is not one of these",
        f"Give their meaning with --classes FILE, a JSON such as {json.dumps(example)} if they count the model's "
        "classes from 0",
    )


def _interpret_numbers(
    words: Sequence[str], named: WordClasses, column: str, labels: Sequence[str]
) -> tuple[WordClasses, Unknown, tuple[str, ...]]:
    """Read a column of class numbers: as labels that training made of this column, else as numbers counted from 0.

    Where the labels have numbers of their own, these are a third reading.  Refused: two readings that fit and differ.
    """
    exact = {label: i for i, label in enumerate(labels)}
    if all(label.startswith(f"{column} ") for label in labels):
        from_column = {word: [exact[label]] for word in words if (label := f"{column} {word}") in exact}
        strange = {
            word: f"the model was trained with other numbers of {column}" for word in words if word not in from_column
        }
        return from_column, strange, (f"the numbers of {column} are the model's own labels, such as {labels[0]}",)
    numbers = label_numbers(labels)
    by_label = named if len(named) == len(words) else {word: [numbers[word]] for word in words if word in numbers}
    by_label = by_label if len(by_label) == len(words) else {}
    places = _as_class_numbers(words, len(labels))
    if places and by_label and places != by_label:
        word = next(word for word in words if places[word] != by_label[word])
        raise Unread(
            f"column {column} holds class numbers, and the model's labels have numbers too: {word} may be the label "
            f"{labels[by_label[word][0]]!r} or the class number {word} counted from 0, {labels[places[word][0]]!r}",
            "Give their meaning with --classes FILE, a JSON such as "
            f"{json.dumps({word: labels[by_label[word][0]]})} for each of them",
        )
    if places:
        return places, {}, (_numbers_note(places, labels, f"column {column}: "),)
    if by_label:
        return by_label, {}, (f"column {column}: its numbers are read as labels of the model",)
    strange = {w: f"class {shorten(w, 40)!r}: this model has classes 0 to {len(labels) - 1}" for w in words}
    strange = {w: why for w, why in strange.items() if position(w, len(labels)) is None}
    return {}, strange or {words[0]: "several words write one number"}, ()


def _as_class_numbers(words: Sequence[str], classes: int) -> WordClasses:
    """Every word as the number of a class, counted from 0; {} where a word is not one, or two words are the same."""
    numbered = {word: [place] for word in words if (place := position(word, classes)) is not None}
    distinct = len({place for (place,) in numbered.values()})
    return numbered if distinct == len(words) == len(numbered) else {}


def _numbers_note(numbered: WordClasses, labels: Sequence[str], column: str = "") -> str:
    shown = [(word, labels[place]) for word, (place,) in list(numbered.items())[:3]]
    examples = ", ".join(f"{word} is {first_name(label)}" for word, label in shown)
    return f"{column}the data's class words are read as numbers of the model's classes, counted from 0: {examples}"


def _synonyms_note(meanings: WordClasses, labels: Sequence[str]) -> list[str]:
    """A note on different words for one class."""
    words_of: dict[int, list[str]] = {}
    for word, classes in meanings.items():
        for k in dict.fromkeys(classes):
            words_of.setdefault(k, []).append(word)
    synonyms = [f"{' and '.join(words)} ({first_name(labels[k])})" for k, words in words_of.items() if len(words) > 1]
    more = f", and {len(synonyms) - NAMED} more" if len(synonyms) > NAMED else ""
    return [f"words of the data for the same class: {'; '.join(synonyms[:NAMED])}{more}"] if synonyms else []


def _describe_unknown(unknown: Mapping[str, str], unexplained: Sequence[str], labels: Sequence[str]) -> tuple[str, str]:
    """What is wrong with unknown words, and what to do.  unexplained: all words that --classes does not explain."""
    hints = "; ".join(list(unknown.values())[:NAMED])
    example = json.dumps({next(iter(unknown)): ["a label of the model", "another"]}, ensure_ascii=False)
    advice = f"Give their meaning with --classes FILE, a JSON such as {example}"
    if len(unexplained) > len(unknown) and all(map(is_number, unexplained)):
        advice = _advise_all_numbers(unexplained, labels)
    problem = f"class words of the data that the model does not have ({len(unknown)}): {', '.join(unknown)} ({hints})"
    return problem, advice


def _are_class_numbers(interpreted: WordClasses, labels: Sequence[str]) -> bool:
    """Whether words were read as numbers of classes counted from 0, and not as labels."""
    find = finder(labels)
    return (
        bool(interpreted)
        and interpreted == _as_class_numbers(list(interpreted), len(labels))
        and any(not find(word) for word in interpreted)
    )


def _describe_half_explained(
    numbers: Sequence[str], unexplained: Sequence[str], labels: Sequence[str]
) -> tuple[str, str]:
    """What is wrong where --classes explains only some of the numbers; and what to do."""
    more = ", ..." if len(unexplained) > NAMED else ""
    return (
        f"--classes explains {', '.join(numbers[:NAMED])} of the data's numbers, but not "
        f"{', '.join(unexplained[:NAMED])}{more}",
        _advise_all_numbers([*numbers, *unexplained], labels),
    )


def _advise_all_numbers(words: Sequence[str], labels: Sequence[str]) -> str:
    """What to do where some numbers of the data are unknown: --classes must explain all of them."""
    places = {word: place for word in words if (place := position(word, len(labels) + 1)) is not None}
    from_one = len(places) == len(words) and 0 not in places.values()
    ordered = sorted(places, key=places.__getitem__) if from_one else list(words)
    example = {word: labels[places[word] - 1] if from_one else "a label of the model" for word in ordered[:3]}
    opening = json.dumps(example, ensure_ascii=False)[:-1]
    condition = " if they count the model's classes from 1" if from_one else ""
    file = f"--classes FILE, a JSON such as {opening}, ...}}{condition}"
    return f"Give the meaning of each of the {len(words)} numbers with {file}"


def meanings(classes: Classes | str | Path | None) -> dict[str, tuple[str, ...]]:
    """{"cat": ["tabby", "tiger cat"], "dog": "beagle"}, or a JSON file of it -> word: labels of the model."""
    value: object = classes
    if isinstance(classes, str | Path):
        try:
            value = json.loads(Path(classes).read_bytes(), object_pairs_hook=_unique_keys)
        except OSError as e:
            raise Refused(f"cannot read the classes in {classes}: {e.strerror}") from None
        except Refused as e:
            raise Refused(f"the classes in {classes}: {e}") from None
        except (ValueError, RecursionError) as e:
            raise Refused(f"the classes in {classes} are not JSON: {e}") from None
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        raise Refused(_FORM)
    lists = {k: list(v) if isinstance(v, list | tuple) else [v] for k, v in value.items()}
    for labels in lists.values():
        if not labels or not all(isinstance(n, str | int) and not isinstance(n, bool) for n in labels):
            raise Refused(_FORM)
    return {str(word): tuple(map(str, labels)) for word, labels in lists.items()}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a JSON object that gives a word twice."""
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(word for word, _ in pairs if [w for w, _ in pairs].count(word) > 1)
        raise Refused(f"{twice!r} is given twice: write all its labels in one list")
    return record
