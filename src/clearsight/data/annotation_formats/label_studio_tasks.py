"""Label Studio: the tasks of an export and, of each, the results of the annotation that is used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

from clearsight.data.annotation_formats.label_studio_names import pictures_of
from clearsight.data.annotation_formats.label_studio_shapes import has_area, mark
from clearsight.data.annotation_formats.sheets import shown

_LISTS = ("annotations", "completions")  # the second is the name before version 1.0
_MIN_KEYS = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")


@dataclass(frozen=True)
class Item:
    """One result: what kind it is of and its value.

    key: the same for all results about one region.  stated_size: original_width and original_height.  tag: that of its
    picture.  index: which of several pictures of that tag, where it is stated.
    rotation: of the picture in the tool's window.
    """

    kind: str
    value: dict[str, Any]
    key: object
    stated_size: tuple[object, object] = (None, None)
    tag: str | None = None
    index: object = None
    rotation: object = 0


@dataclass
class Task:
    """A task: its pictures' addresses by their key in its data, and the results of the annotation that is used.

    bad: what of it could not be read, and why.  idle: why it does not annotate its pictures.  several: how many
    annotations there are to choose from.
    """

    name: str
    pictures: dict[str, list[str]]
    items: list[Item] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    idle: str = ""
    several: int = 1


def is_task(value: object) -> bool:
    """Whether it is a task of the export "JSON", a row of "JSON-MIN", or an annotation as it is synced to a storage."""
    if not isinstance(value, dict):
        return False
    full = isinstance(value.get("data"), dict) and not {*_LISTS, "predictions"}.isdisjoint(value)
    return full or _is_row(value) or ("result" in value and isinstance(value.get("task"), dict))


def tasks_of(data: object) -> tuple[list[Task], int]:
    """The tasks, and how many entries of the list are none.

    An annotation that holds its task, as Label Studio syncs it to a storage, is turned inside out.
    """
    entries = data if isinstance(data, list) else [data]
    rows = [each for each in entries if isinstance(each, dict)]
    rows = [
        {**row["task"], "annotations": [row]} if "result" in row and isinstance(row.get("task"), dict) else row
        for row in rows
    ]
    full = [_read_task(row, number) for number, row in enumerate(rows, 1) if isinstance(row.get("data"), dict)]
    small = _read_min_rows([row for row in rows if not isinstance(row.get("data"), dict)])
    return [*full, *small], len(entries) - len(rows)


def _is_row(value: dict[str, Any]) -> bool:
    return "annotator" in value and ("annotation_id" in value or "lead_time" in value)


def _read_task(raw: dict[str, Any], number: int) -> Task:
    """A task of the export "JSON"."""
    task = Task(f"task {shown(raw.get('id', number))}", pictures_of(raw["data"]))
    written = next((raw[key] for key in _LISTS if key in raw), None) or []
    annotations = [each for each in written if isinstance(each, dict)] if isinstance(written, list) else []
    if not isinstance(written, list) or len(annotations) < len(written):
        task.bad.append(f"{task.name}: its annotations are not a list of objects")
    valid = [each for each in annotations if not each.get("was_cancelled") and not each.get("skipped")]
    if not valid:
        task.idle = _why_idle(annotations, raw)
        return task
    truth = [each for each in valid if each.get("ground_truth") is True]
    used, task.several = max(truth or valid, key=_when), len(valid)
    results = used.get("result")
    if not isinstance(results, list):
        task.bad.append(f"{task.name}: its annotation has no list of results")
        return task
    for place, result in enumerate(results):
        if isinstance(result, dict) and isinstance(result.get("value", {}), dict):
            task.items.append(_item(result, place))
        else:
            task.bad.append(f"{task.name}: a result that is not a JSON object with a value")
    return task


def _why_idle(cancelled: list[dict[str, Any]], task: dict[str, Any]) -> str:
    if cancelled:
        return "tasks were cancelled, so their pictures count as not annotated"
    if task.get("predictions"):
        return "tasks have only predictions, which nobody has confirmed, so their pictures count as not annotated"
    return "tasks are not annotated"


def _when(annotation: dict[str, Any]) -> tuple[str, float]:
    """The key that sorts annotations by their last change: ISO 8601 in UTC, then the number that grows with each."""
    number = annotation.get("annotation_id", annotation.get("id"))
    changed = annotation.get("updated_at") or annotation.get("created_at") or ""
    return str(changed), float(number) if isinstance(number, int) and abs(number) < 2**63 else 0.0


def _item(result: dict[str, Any], place: int) -> Item:
    """One result of the export "JSON".  place: its own in the list, which stands for its id where it has none."""
    value, key, tag = result.get("value", {}), result.get("id"), result.get("to_name")
    return Item(
        shown(str(result.get("type") or _kind(value, str(result.get("from_name"))))),
        value,
        ("id", key) if isinstance(key, (str, int)) else ("place", place),
        (result.get("original_width"), result.get("original_height")),
        tag if isinstance(tag, str) else None,
        result.get("item_index", value.get("item_index")),
        result.get("image_rotation"),
    )


def _read_min_rows(rows: list[dict[str, Any]]) -> list[Task]:
    """The tasks of the export "JSON-MIN": a row for each annotation, without those that were cancelled."""
    rows_of: dict[tuple[str, object], list[dict[str, Any]]] = defaultdict(list)
    for place, row in enumerate(rows, 1):
        task_id = row.get("id")
        rows_of[("task", task_id) if isinstance(task_id, (str, int)) else ("row", place)].append(row)
    tasks = []
    for (word, number), task_rows in rows_of.items():
        row = max(task_rows, key=_when)
        pictures = pictures_of({key: value for key, value in row.items() if key not in _MIN_KEYS})
        task = Task(f"{word} {shown(number)}", pictures, several=len(task_rows))
        if not _is_row(row) or row.get("annotation_id", 0) is None:
            task.idle = _why_idle([], {})
        else:
            task.items = list(_min_items(row, pictures))
        tasks.append(task)
    return tasks


def _min_items(row: dict[str, Any], pictures: Container[str]) -> Iterator[Item]:
    """The results in a row.

    The keys between "id" and "annotator" are the tags'; those before are the task's data.  Where they are in another
    order, a value without an area may be either, and is named.  The same place under two tags is one region: one tag
    drew it, the other gave it its label.
    """
    keys = list(row)
    first, last = (keys.index(key) if key in keys else -1 for key in ("id", "annotator"))
    first, last = (first, last) if first < last else (-1, len(keys))
    for at, key in enumerate(keys):
        is_tag = first < at < last and key not in (*_MIN_KEYS, "id") and key not in pictures
        value, counts = row[key], defaultdict[object, int](int)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and (has_area(each) or is_tag):
                region_key = mark(each) if has_area(each) else key
                counts[region_key] += 1
                sizes = (each.get("original_width"), each.get("original_height"))
                yield Item(shown(_kind(each, key)), each, (region_key, counts[region_key]), sizes)
            elif is_tag and each is not None:
                yield Item(f"choices or text of {shown(key)}", {}, (key, str(each)))


def _kind(value: dict[str, Any], otherwise: str) -> str:
    """The kind of a value whose type is not written beside it: the key that holds its labels has its name."""
    return next((key for key in value if key.endswith("labels") or key in ("choices", "text")), otherwise)
