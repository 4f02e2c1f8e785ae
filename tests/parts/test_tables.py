"""What the data's words mean: class words in one way, columns by name, and the tables that other tools write."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import clearsight as cs
from clearsight.core.classifier import Classifier, wrap
from clearsight.core.preprocess import Preprocess
from clearsight.data.datasets import ALL, Picture, Pictures, folder, joined, open_data, truth
from clearsight.errors import Notice, Refused
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe
from clearsight.training.training_data import classes as in_order
from workshop import COLOURS, square

HALF = ((0.5,) * 3, (0.5,) * 3)
TINY = 'clearsight:plain-cnn(widths="6,8", padding=1, pools=2, norm=batch, head=average, dense="")'
QUICK = Recipe(arch=TINY, size=16, epochs=12, batch=6, augment="none", lr="0.02", shares="0.6,0.2,0.2")


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(root / name)
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def found(pictures: Pictures) -> dict[str, str]:
    return {picture.name: "|".join(picture.labels) for picture in pictures.pictures}


def model(*labels: str) -> Classifier:
    return wrap(nn.Linear(1, 1), Preprocess(4, *HALF), labels)


def classes(pictures: Pictures, *labels: str) -> dict[str, list[int]]:
    """Name of the picture without its folder -> the classes of a model of these labels."""
    rows = truth(pictures, model(*labels))
    return {p.name: row.nonzero().flatten().tolist() for p, row in zip(pictures.pictures, rows, strict=True)}


TO_TEN = [str(i) for i in range(1, 11)]
DIGITS = [str(i) for i in range(10)]


# Words are read in one way -------------------------------------------------------------------------------------------


def digits(root: Path) -> Path:
    return fill(root, *(f"{i}/a.png" for i in range(10)))


def test_folders_of_digits_are_not_shifted_onto_labels_from_1_to_10(tmp_path: Path) -> None:
    data = digits(tmp_path / "set")
    with pytest.raises(
        Refused, match=r"0, 1, 2, 3, 4, ..., are numbers, and so are .* 0 is not one of these.*--classes FI"
    ):
        classes(folder(data), *TO_TEN)
    told = folder(data, classes={str(i): str(i + 1) for i in range(10)})
    assert classes(told, *TO_TEN) == {f"{i}/a.png": [i] for i in range(10)}


@pytest.mark.parametrize("labels", [["01", "02", "03"], ["1.0", "2.0", "3.0"], ["class 1", "class 2", "class 3"]])
def test_numbers_are_no_places_where_labels_have_numbers_of_their_own(tmp_path: Path, labels: list[str]) -> None:
    data = fill(tmp_path, "1/a.png", "2/a.png")
    with pytest.raises(Refused, match=r"not one of these|numbers of their own"):
        classes(folder(data), *labels)
    with pytest.raises(Refused, match="numbers of their own"):
        model(*labels).index("1")


def test_labels_that_are_digits_in_any_order_are_labels(tmp_path: Path) -> None:
    data = digits(tmp_path)
    assert classes(folder(data), *DIGITS) == {f"{i}/a.png": [i] for i in range(10)}
    assert classes(folder(data), *DIGITS[::-1]) == {f"{i}/a.png": [9 - i] for i in range(10)}
    assert classes(folder(data), *(f"LABEL_{i}" for i in range(10))) == {f"{i}/a.png": [i] for i in range(10)}


def test_numbers_for_labels_in_words_are_all_places_and_it_is_said(tmp_path: Path) -> None:
    data = fill(tmp_path / "set", "0/a.png", "2/a.png")
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    small = wrap(net, Preprocess(4, *HALF), ["ant", "bee", "cow"])
    report = cs.audit(small, folder(data), only="accuracy")
    assert any("read as numbers of the model's classes, counted from 0: 0 is ant, 2 is cow" in n for n in notes(report))
    fill(tmp_path / "set", "bee/a.png")
    with pytest.raises(Refused, match=r"\(2\): 0, 2 \('0' is a number among names"):
        truth(folder(data), small)
    mixed = folder(data, classes={"0": "ant", "2": "cow"})
    assert classes(mixed, "ant", "bee", "cow") == {"0/a.png": [0], "2/a.png": [2], "bee/a.png": [1]}
    with pytest.raises(Refused, match=r"\(1\): 3 .*has classes 0 to 2"):
        classes(folder(fill(tmp_path / "three", "0/a.png", "3/a.png")), "ant", "bee", "cow")


def test_numbers_are_not_explained_one_by_one(tmp_path: Path) -> None:
    """What a message advises must not shift the rest: 1 to 3 for three classes, of which only 3 is out of range."""
    names = ("ant", "bee", "cow")
    for data in (
        fill(tmp_path / "set", "1/a.png", "2/a.png", "3/a.png"),
        write(tmp_path / "set/rows.csv", "file,class_id\n1/a.png,1\n2/a.png,2\n3/a.png,3\n"),
    ):
        with pytest.raises(Refused, match=r"each of the 3 numbers .*\{\"1\": \"ant\", \"2\": \"bee\".* from 1"):
            classes(folder(data), *names)
        with pytest.raises(Refused, match=r"explains 3 of .* but not 1, 2\..* each of the 3 numbers"):
            classes(folder(data, classes={"3": "cow"}), *names)
        told = {"1": "ant", "2": "bee", "3": "cow"}
        assert list(classes(folder(data, classes=told), *names).values()) == [[0], [1], [2]]
    apart = fill(tmp_path / "digits", "1/a.png", "other/a.png")
    assert classes(folder(apart, classes={"other": "2"}), "1", "2") == {"1/a.png": [0], "other/a.png": [1]}


def notes(report: cs.Report) -> list[str]:
    return [str(n) for n in json.loads(report.json())["data"]["notes"]]


def test_two_ways_to_write_a_number_are_not_one_class(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"01, 1 .*written in two ways"):
        classes(folder(fill(tmp_path, "01/a.png", "1/a.png")), "ant", "bee")
    assert classes(folder(fill(tmp_path / "minus", "-1/a.png", "1/a.png")), "1", "-1") == {
        "-1/a.png": [1],
        "1/a.png": [0],
    }

    with pytest.raises(Refused, match=r"\(1\): -1 "):
        classes(folder(tmp_path / "minus"), "1", "2")


def test_words_that_mean_one_class_are_said(tmp_path: Path) -> None:
    data = fill(tmp_path, "cat/a.png", "Cat/b.png", "kitten/c.png", "dog/d.png")
    told = folder(data, classes={"kitten": "cat"})
    net = wrap(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), Preprocess(4, *HALF), ["cat", "dog"])
    assert any(
        "for the same class" in n and all(w in n for w in ("Cat", "cat", "kitten", "(cat)"))
        for n in notes(cs.audit(net, told, only="accuracy"))
    )
    assert classes(told, "cat", "Cat", "dog")["Cat/b.png"] == [1]  # letter by letter before anything else


def test_huge_numbers_and_other_scripts_are_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    for word in ("9" * 5000, "٣", "-1", "1e3"):
        told = folder(write(tmp_path / "labels.csv", f"file,label\na.png,{word}\n"))
        with pytest.raises(Refused, match="the model does not have"):
            truth(told, model("ant", "bee", "cow", "dog"))
        with pytest.raises(Refused, match="class"):
            model("ant", "bee", "cow", "dog").index(word)


def test_a_number_on_the_command_line_is_the_label_first_and_it_is_said() -> None:
    with pytest.warns(Notice, match=r"class 3 is the one labelled 3, number 2 of the model .* '4'"):
        assert model(*TO_TEN).index("3") == 2
    assert model(*DIGITS).index("3") == 3
    assert model("ant", "bee").index("1") == 1
    with pytest.raises(Refused, match="no class '0': its labels have numbers of their own, 1, 2, 3"):
        model(*TO_TEN).index("0")


def test_what_classes_say_is_read_with_care(tmp_path: Path) -> None:
    data = fill(tmp_path / "set", "cat/a.png")
    for text, why in (
        ('{"cat": "a", "cat": "b"}', "'cat' is given twice"),
        ("[" * 100_000, "are not JSON"),
        ('{"cat": [true]}', "give each word its labels"),
        ('{"cat": {"a": 1}}', "give each word its labels"),
        (f'{{"cat": {"9" * 5000}}}', "are not JSON"),
    ):
        with pytest.raises(Refused, match=why):
            folder(data, classes=write(tmp_path / "classes.json", text))
    assert classes(folder(data, classes={"cat": 1}), "ant", "bee") == {"cat/a.png": [1]}  # type: ignore[dict-item]


def test_several_sets_keep_what_their_words_mean(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png", "c/ant.png")
    one = folder(write(tmp_path / "one.csv", "file,class_index\na.png,1\n"))
    two = folder(write(tmp_path / "two.csv", "file,class_index\nb.png,2\n"))
    assert classes(joined([one, two]), "x", "y", "z") == {"a.png": [1], "b.png": [2]}
    told = [folder(tmp_path / "c", classes={"c": "x"}), folder(tmp_path / "c", classes={"c": "x"})]
    assert joined(told).classes == {"c": ("x",)}
    words = folder(write(tmp_path / "three.csv", "file,label\nb.png,2\n"))
    with pytest.raises(Refused, match="do not hold class numbers of the same column"):
        joined([one, words])


# A column of class numbers -------------------------------------------------------------------------------------------


def test_a_column_of_class_numbers_counts_from_0(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png")
    told = folder(write(tmp_path / "t.csv", "file,class_index\na.png,0\nb.png,3\n"))
    assert (told.numbered, told.column) == (True, "class_index")
    assert classes(told, *"vwxyz") == {"a.png": [0], "b.png": [3]}
    assert classes(told, *DIGITS) == {"a.png": [0], "b.png": [3]}
    assert classes(told, *TO_TEN) == {"a.png": [0], "b.png": [3]}  # 0 is no label: only places fit
    both = folder(write(tmp_path / "t.csv", "file,class_index\na.png,1\nb.png,3\n"))
    with pytest.raises(Refused, match=r"column class_index .*: 1 may be the label '1' or .* counted from 0, '2'.*--cl"):
        classes(both, *TO_TEN)
    last = folder(write(tmp_path / "t.csv", "file,class_index\na.png,1\nb.png,10\n"))
    assert classes(last, *TO_TEN) == {"a.png": [0], "b.png": [9]}  # 10 is no place: only labels fit


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ("0 -1", "whole number from 0"),
        ("0 1.0", "whole number from 0"),
        ("0 cat", "and also 'cat'"),
        ("1 01", "one class number as 01 and as 1|one class number as 1 and as 01"),
    ],
)
def test_odd_class_numbers_are_refused(tmp_path: Path, values: str, why: str) -> None:
    fill(tmp_path, "a.png", "b.png")
    one, two = values.split()
    with pytest.raises(Refused, match=why):
        folder(write(tmp_path / "t.csv", f"file,class_index\na.png,{one}\nb.png,{two}\n"))


def coloured(root: Path, header: str, numbers: Sequence[int], each: int = 8) -> Path:
    """Squares of three colours and a table of them."""
    rows = [header]
    for k, colour in enumerate(COLOURS):
        for i in range(each):
            name = f"{colour}{i}.png"
            root.mkdir(parents=True, exist_ok=True)
            square(colour, 1000 * k + i)[0].resize((24, 24)).save(root / name)
            rows.append(f"{name},{numbers[k]}")
    return write(root / "all.csv", "\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("header", "numbers"),
    [
        ("file,class_index", (0, 1, 2)),
        ("file,class_index", (1, 2, 3)),
        ("file,class_index", (3, 17, 281)),
        ("File Name,Class ID", (1, 2, 3)),
        ("file,label", (1, 2, 10)),
        ("file,category", (2, 0, 1)),
    ],
)
@pytest.mark.slow
def test_one_column_means_one_thing_when_a_model_is_trained_and_audited(
    tmp_path: Path, header: str, numbers: tuple[int, int, int]
) -> None:
    table = coloured(tmp_path / "set", header, numbers)
    for _ in train(open_data(table, split=ALL), QUICK, tmp_path / "run"):
        pass
    trained = cs.load(tmp_path / "run")
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["accuracy"]["value"] == 1.0
    assert cs.audit(trained, open_data(table), only="accuracy").findings[0].value > 0.9
    # rows of the same table, the very ones that the run judged: the same number
    judged = {
        Path(r["file"]).name
        for r in csv.DictReader((tmp_path / "run/split.csv").read_text().splitlines())
        if r["split"] == "test"
    }
    lines = table.read_text().splitlines()
    part = write(table.with_name("part.csv"), "\n".join([lines[0], *(r for r in lines if r.split(",")[0] in judged)]))
    found = cs.audit(trained, open_data(part), only="accuracy").findings[0]
    assert (found.value, found.n) == (metrics["accuracy"]["value"], metrics["accuracy"]["n"])
    assert len(trained.labels) == 3


def test_class_numbers_that_leave_gaps_are_called_by_their_column(tmp_path: Path) -> None:
    table = coloured(tmp_path / "set", "file,class_index", (3, 17, 281))
    said: list[str] = []
    for _ in train(open_data(table), replace(QUICK, epochs=1), tmp_path / "run", say=said.append):
        pass
    trained = cs.load(tmp_path / "run")
    assert sorted(trained.labels) == ["class_index 17", "class_index 281", "class_index 3"]
    assert any("column class_index holds other numbers than 0 to 2: classes are named such as 'class_index 3'" in s
               for s in said)  # fmt: skip
    other = folder(write(table.with_name("other.csv"), "file,class_index\nred0.png,0\nred1.png,1\n"))
    with pytest.raises(Refused, match="trained with other numbers of class_index"):
        truth(other, trained)
    with pytest.raises(Refused, match="numbers of their own"):
        trained.index("3")


@pytest.mark.parametrize("word", ["a|b", "cat "])
def test_a_class_that_no_table_can_hold_is_refused(tmp_path: Path, word: str) -> None:
    fill(tmp_path, f"{word}/a.png", "dog/b.png")
    with pytest.raises(Refused, match="cannot hold: rename it"):
        next(train(folder(tmp_path), QUICK, tmp_path / "run"))


def test_classes_that_are_numbers_have_one_order(tmp_path: Path) -> None:
    words = ["01", "1", "10", "2", "001"]
    pictures = [Picture(tmp_path, word, (word,)) for word in words]
    assert in_order(pictures) == in_order(pictures[::-1]) == ("001", "01", "1", "2", "10")


# Which column is which -----------------------------------------------------------------------------------------------


def test_a_counter_of_rows_is_no_class(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{i}.png" for i in range(4)))
    rows = [f"{i},{i}.png,{'cat' if i % 2 else 'dog'}" for i in range(4)]
    told = folder(write(tmp_path / "t.csv", "\n".join(["index,file,class", *rows])))
    assert found(told) == {"0.png": "dog", "1.png": "cat", "2.png": "dog", "3.png": "cat"}
    assert told.notes == ("t.csv: files from column file, classes from column class",)
    assert told.pictures[1].columns == {"index": "1"}
    for header in ("index,file,bird", "thing_index,file,bird"):
        with pytest.raises(Refused, match=f"columns {header.replace(',', ', ')}: none is known .* --label-column"):
            folder(write(tmp_path / "t.csv", "\n".join([header, *rows])))
    counted = "\n".join(["file,class_index", *(f"{i}.png,{i}" for i in range(4))])
    assert any("if it counts the rows" in n for n in folder(write(tmp_path / "t.csv", counted)).notes)


@pytest.mark.parametrize(
    ("header", "label", "numbered"),
    [
        ("File,LABEL,Split", "LABEL", False),
        ("file name, Label ,SPLIT", "Label", False),
        ("path,Class Name,split", "Class Name", False),
        ("image,target,Split", "target", False),
        ("filename,Category-Index,split", "Category-Index", True),
        ("file_name,class_id,subset", "class_id", True),
        ("file,imagenet_index,split", "imagenet_index", True),
    ],
)
def test_columns_go_by_their_names_however_they_are_written(
    tmp_path: Path, header: str, label: str, numbered: bool
) -> None:
    fill(tmp_path, "a.png", "b.png", "c.png")
    told = folder(write(tmp_path / "t.csv", f"{header}\na.png,5,Train\nb.png,5,TEST\nc.png,5,val\n"))
    assert (found(told), told.numbered) == ({"b.png": "5"}, numbered)
    file, _, split = (c.strip() for c in header.split(","))
    kind = ", which holds class numbers" if numbered else ""
    assert (
        f"t.csv: files from column {file}, classes from column {label}{kind}, splits from column {split}" in told.notes
    )


@pytest.mark.parametrize(
    "header", ["file,class,category", "file,class,class_index", "file,Label,label", "file,y,bird_index"]
)
def test_of_several_columns_the_user_is_asked(tmp_path: Path, header: str) -> None:
    fill(tmp_path, "a.png")
    table = write(tmp_path / "t.csv", f"{header}\na.png,7,9\n")
    one, two = header.split(",")[1:]
    with pytest.raises(Refused, match=f"{one} and {two} may hold the classes; choose with --label-column NAME"):
        folder(table)
    assert found(folder(table, label_column=one)) == {"a.png": "7"}
    assert f"classes from column {one}" in folder(table, label_column=one).notes[0]


def test_label_goes_before_other_columns(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    told = folder(write(tmp_path / "t.csv", "file,class,label\na.png,7,cat\n"))
    assert (found(told), told.notes) == (
        {"a.png": "cat"},
        ("t.csv: files from column file, classes from column label",),
    )


def test_of_several_columns_of_files_the_one_whose_pictures_are_there(tmp_path: Path) -> None:
    fill(tmp_path, "x/a.png", "b.png")
    told = folder(write(tmp_path / "t.csv", "file,path,label\na.png,x/a.png,cat\n"))
    assert (found(told), told.notes[0][:36]) == ({"x/a.png": "cat"}, "t.csv: files from column path, class")
    with pytest.raises(Refused, match="the columns file and path name different pictures"):
        folder(write(tmp_path / "t.csv", "file,path,label\nb.png,x/a.png,cat\n"))


def test_a_name_that_no_file_can_have_is_broken(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    long, nul = "b" * 5000, "c\\u0000.png"
    rows = f'{{"file": "a.png", "label": "x"}}\n{{"file": "{long}", "label": "y"}}\n{{"file": "{nul}", "label": "y"}}\n'
    told = folder(write(tmp_path / "t.jsonl", rows))
    assert found(told) == {"a.png": "x"}
    assert told.broken == (
        (long, "a name that is too long for this system"),
        ("c\0.png", "not a valid file name"),
    )


def test_a_name_with_a_backslash_is_found(tmp_path: Path) -> None:
    fill(tmp_path, "a\\b.png", "x/c.png")
    told = folder(write(tmp_path / "t.csv", "file,label\na\\b.png,cat\nx\\c.png,dog\n"))
    assert found(told) == {"a\\b.png": "cat", "x/c.png": "dog"}
    assert not told.broken


# Folders -------------------------------------------------------------------------------------------------------------


def test_empty_folders_and_folders_that_are_no_classes_are_said(tmp_path: Path) -> None:
    fill(
        tmp_path, "cat/a.png", "dog/b.png", ".ipynb_checkpoints/c.png", "cat/.ipynb_checkpoints/a.png", "no_label/d.png"
    )
    (tmp_path / "bird").mkdir()
    told = folder(tmp_path)
    assert found(told) == {"cat/a.png": "cat", "dog/b.png": "dog", "no_label/d.png": ""}
    assert "folders without a picture, which are not classes: bird" in told.notes
    assert any("1 pictures in folder no_label are unlabelled, as datumaro writes" in n for n in told.notes)
    assert "2 hidden files or folders skipped (.ipynb_checkpoints, cat/.ipynb_checkpoints)" in told.notes
    split = fill(tmp_path / "set", "train/cat/a.png", "test/cat/b.png")
    (split / "train/dog").mkdir()
    assert "folders without a picture, which are not classes: train/dog" in folder(split).notes


def test_labels_csv_beside_class_folders_is_compared_with_them(tmp_path: Path) -> None:
    fill(tmp_path, "cat/a.png", "dog/b.png")
    write(tmp_path / "labels.csv", "file,label\ncat/a.png,dog\n")
    with pytest.raises(Refused, match="folder cat are dog in the table, and folders and table do not correspond"):
        folder(tmp_path)
    write(tmp_path / "labels.csv", "file,label\ncat/a.png,cat\n")
    assert found(folder(tmp_path)) == {"cat/a.png": "cat", "dog/b.png": "dog"}
    write(tmp_path / "labels.csv", "id,name\n0,cat\n1,dog\n")
    assert "labels.csv is not read: it lists none of the pictures in the folders" in folder(tmp_path).notes


def test_labels_csv_gives_the_classes_where_folders_are_splits_alone(tmp_path: Path) -> None:
    fill(tmp_path, "train/a.png", "train/b.png", "test/c.png")
    write(tmp_path / "labels.csv", "file,label\ntrain/a.png,cat\ntrain/b.png,dog\ntest/c.png,cat\n")
    assert found(folder(tmp_path, split=ALL)) == {"train/a.png": "cat", "train/b.png": "dog", "test/c.png": "cat"}
    assert found(folder(tmp_path)) == {"test/c.png": "cat"}


# metadata.csv and its kin --------------------------------------------------------------------------------------------


def as_lines(header: str, *rows: str) -> str:
    names = header.split(",")
    return "".join(json.dumps(dict(zip(names, row.split(","), strict=True))) + "\n" for row in rows)


def as_csv(header: str, *rows: str) -> str:
    return "\n".join([header, *rows]) + "\n"


FORMS = pytest.mark.parametrize(("name", "put"), [("metadata.csv", as_csv), ("metadata.jsonl", as_lines)])
Put = Callable[..., str]


@FORMS
def test_metadata_beside_flat_pictures(tmp_path: Path, name: str, put: Put) -> None:
    fill(tmp_path, "a.png", "b.png", "c.png")
    write(tmp_path / name, put("file_name,label,text", "a.png,cat,hello", "b.png,dog,", "gone.png,cat,x"))
    told = folder(tmp_path)
    assert found(told) == {"a.png": "cat", "b.png": "dog", "c.png": ""}
    assert told.broken == (("gone.png", "missing"),)
    assert told.pictures[0].columns == {"text": "hello"}
    assert told.notes == (
        f"{name}: files from column file_name, classes from column label",
        f"{name} does not list 1 of the pictures, which are kept, 1 of them unlabelled: c.png",
    )


@FORMS
def test_class_folders_stay_classes_beside_metadata_without_any(tmp_path: Path, name: str, put: Put) -> None:
    fill(tmp_path, "cat/a.png", "dog/b.png", "dog/c.png")
    write(tmp_path / name, put("file_name,text", "cat/a.png,one", "dog/b.png,two"))
    told = folder(tmp_path)
    assert found(told) == {"cat/a.png": "cat", "dog/b.png": "dog", "dog/c.png": "dog"}
    assert f"{name}: files from column file_name, no classes" in told.notes
    assert "classes are those of the folders" in told.notes
    assert f"{name} does not list 1 of the pictures, which are kept, 0 of them unlabelled: dog/c.png" in told.notes
    assert [p.columns for p in told.pictures] == [{"text": "one"}, {"text": "two"}, {}]


@FORMS
def test_metadata_in_each_split(tmp_path: Path, name: str, put: Put) -> None:
    fill(tmp_path, "train/a.png", "train/b.png", "test/c.png", "val/x/d.png")
    write(tmp_path / "train" / name, put("file_name,label", "a.png,cat", "b.png,dog"))
    write(tmp_path / "test" / name, put("file_name,label", "c.png,cat"))
    told = folder(tmp_path, split=ALL)
    assert found(told) == {"train/a.png": "cat", "train/b.png": "dog", "test/c.png": "cat", "val/x/d.png": ""}
    assert {p.name: p.split for p in told.pictures}["test/c.png"] == "test"
    assert any("does not list 1 of the pictures, which are kept, 1 of them unlabelled: val/x/d.png" in n
               for n in told.notes)  # fmt: skip
    write(tmp_path / "test" / name, put("file_name,kind_index", "c.png,7"))
    with pytest.raises(Refused, match="have their classes in kind_index and label"):
        folder(tmp_path)
    write(tmp_path / "test" / name, put("file_name,label,split", "c.png,cat,train"))
    with pytest.raises(Refused, match="lies in split test, and its table says train"):
        folder(tmp_path)


def test_classes_of_folders_and_of_the_table_must_go_together(tmp_path: Path) -> None:
    fill(tmp_path, "cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")

    def told(*labels: str, **options: str) -> dict[str, str]:
        names = ("cat/a.png", "cat/b.png", "dog/c.png")
        write(tmp_path / "metadata.csv", as_csv("file_name,label", *map(",".join, zip(names, labels, strict=True))))
        return found(folder(tmp_path, **options))

    files = ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")
    assert told("Cat", "Cat", "dog") == dict(zip(files, ("Cat", "Cat", "dog", "dog"), strict=True))
    assert told("Katze", "Katze", "Hund") == dict(zip(files, ("Katze", "Katze", "Hund", "Hund"), strict=True))
    assert told("0", "0", "1") == dict(zip(files, ("cat", "cat", "dog", "dog"), strict=True))
    with pytest.raises(Refused, match=r"folder dog are cat in the table.*--label-column NAME .*--label-column folder"):
        told("cat", "cat", "cat")
    with pytest.raises(Refused, match="do not correspond"):
        told("cat", "dog", "dog")
    assert told("cat", "dog", "dog", label_column="label") == dict(zip(files, ("cat", "dog", "dog", ""), strict=True))
    assert told("cat", "dog", "dog", label_column="folder") == dict(
        zip(files, ("cat", "cat", "dog", "dog"), strict=True)
    )
    assert told("", "", "") == dict(zip(files, ("cat", "cat", "dog", "dog"), strict=True))


def test_one_folder_of_pictures_is_no_class_beside_a_table(tmp_path: Path) -> None:
    fill(tmp_path, "images/a.png", "images/b.png")
    write(tmp_path / "metadata.csv", as_csv("file_name,label", "images/a.png,cat", "images/b.png,dog"))
    told = folder(tmp_path)
    assert found(told) == {"images/a.png": "cat", "images/b.png": "dog"}
    assert "the table gives the classes; the folders of the pictures are not classes" in told.notes


def test_class_numbers_of_hugging_face_datasets(tmp_path: Path) -> None:
    """What datasets 5.2.0 writes for ClassLabel: numbers, -1 where the class is not known."""
    fill(tmp_path, "a.png", "b.png", "c.png")
    text = '{"file_name":"a.png","label":1,"text":"x"}\n{"file_name":"b.png","label":0,"text":"y,\\n z"}\n'
    write(tmp_path / "metadata.jsonl", text + '{"file_name":"c.png","label":-1,"text":null}\n')
    told = folder(tmp_path)
    assert found(told) == {"a.png": "1", "b.png": "0", "c.png": ""}
    assert "-1 among the class numbers in column label means no class: 1 pictures are unlabelled" in told.notes
    assert classes(told, "cat", "dog") == {"a.png": [1], "b.png": [0], "c.png": []}


def test_other_names_of_the_column_of_files(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png", "c.png")
    write(tmp_path / "metadata.jsonl", '{"file_names": ["a.png", "b.png"], "label": "cat"}\n{"file_names":["c.png"]}\n')
    assert found(folder(tmp_path)) == {"a.png": "cat", "b.png": "cat", "c.png": ""}
    write(tmp_path / "metadata.jsonl", as_lines("image_file_name,label", "a.png,cat", "b.png,dog"))
    assert found(folder(tmp_path)) == {"a.png": "cat", "b.png": "dog", "c.png": ""}
    write(tmp_path / "metadata.jsonl", as_lines("one_file_name,two_file_name,label", "a.png,b.png,cat"))
    with pytest.raises(Refused, match="one_file_name and two_file_name may name the pictures"):
        folder(tmp_path)


def test_metadata_by_itself_is_data(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    assert found(folder(write(tmp_path / "metadata.jsonl", as_lines("file_name,label", "a.png,cat")))) == {
        "a.png": "cat"
    }


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("metadata.csv", "picture,label\na.png,cat\n", "none names the pictures; rename the one that does"),
        ("metadata.csv", "file_name,class,category\na.png,cat,dog\n", "class and category may hold the classes"),
        ("metadata.csv", "file_name,label\na.png,cat\n./a.png,dog\n", "a.png is in rows 2 and 3"),
        ("metadata.jsonl", "[]\n", "line 1 is not an object"),
        ("metadata.jsonl", '{"file_name": "a.png"', "line 1 is not JSON"),
        ("metadata.jsonl", '{"file_name": "a.png", "file_name": "b.png"}', "'file_name' is given twice"),
        ("metadata.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("metadata.parquet", "PAR1", "Parquet"),
    ],
)
def test_metadata_that_cannot_be_read_is_refused(tmp_path: Path, name: str, text: str, why: str) -> None:
    fill(tmp_path, "a.png")
    write(tmp_path / name, text)
    with pytest.raises(Refused, match=why):
        folder(tmp_path)


def test_two_tables_of_one_folder_are_asked_about(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    write(tmp_path / "metadata.csv", as_csv("file_name,label", "a.png,cat"))
    write(tmp_path / "metadata.jsonl", as_lines("file_name,label", "a.png,dog"))
    with pytest.raises(Refused, match=r"holds metadata.csv and metadata.jsonl: keep one"):
        folder(tmp_path)
    (tmp_path / "metadata.jsonl").rename(tmp_path / "labels.csv")
    with pytest.raises(Refused, match=r"holds labels.csv and metadata.csv: name one"):
        folder(tmp_path)


def test_parquet_without_a_reader_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.png")
    write(tmp_path / "metadata.parquet", "PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(Refused, match=r"pyarrow is not installed: run pip install 'clearsight.parquet.'"):
        folder(tmp_path)


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    fill(tmp_path, "a.png", "b.png", "c.png", "d.png")
    names = ["a.png", "b.png", "c.png"]
    told = {
        "info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}
    }  # as datasets 5.2.0 has it
    table = arrow.table({"file_name": names, "label": [1, 0, -1]}, metadata={"huggingface": json.dumps(told)})
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), tmp_path / "metadata.parquet")
    assert found(folder(tmp_path)) == {"a.png": "dog", "b.png": "cat", "c.png": "", "d.png": ""}
    words = arrow.array(["cat", "dog", "cat"]).dictionary_encode()
    parquet.write_table(arrow.table({"file_name": names, "label": words}), tmp_path / "metadata.parquet")
    assert found(folder(tmp_path)) == {"a.png": "cat", "b.png": "dog", "c.png": "cat", "d.png": ""}


# labels.json of FiftyOne ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        {"classes": None, "labels": {"x": "cat", "x-2": "dog", "y": None}},
        {"classes": ["cat", "dog"], "labels": {"x": 0, "x-2": 1, "y": None}},
        {"classes": None, "labels": {"x": {"label": "cat", "confidence": 0.9}, "x-2": {"label": "dog"}, "y": None}},
    ],
)
def test_labels_json_of_fiftyone(tmp_path: Path, told: dict[str, Any]) -> None:
    fill(tmp_path, "data/x.png", "data/x-2.jpg", "data/y.png", "data/z.png")
    told["labels"]["gone"] = told["labels"]["x"]
    table = write(tmp_path / "labels.json", json.dumps(told))
    for read in (folder(tmp_path), folder(table)):
        assert found(read) == {"data/x.png": "cat", "data/x-2.jpg": "dog", "data/y.png": "", "data/z.png": ""}
        assert read.broken == (("gone", "missing: no picture has this name in data"),)
        assert read.notes == (
            "labels.json gives the classes of 3 pictures in the format of FiftyOne",
            "labels.json does not list 1 of the pictures, unlabelled: data/z.png",
            "labels.json gives 1 pictures no class: unlabelled",
        )


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ('{"classes": null, "labels": {"x": 0}}', "but classes is null"),
        ('{"classes": ["cat"], "labels": {"x": 1}}', "but classes lists 0 to 0"),
        ('{"classes": ["cat"], "labels": {"x": -1}}', "but classes lists 0 to 0"),
        ('{"classes": ["cat"], "labels": {"x": true}}', "neither a class name nor a class number"),
        ('{"classes": "cat", "labels": {"x": 0}}', "must be null or a list of names"),
        ('{"classes": null, "labels": {"x": {"confidence": 1}}}', "has no label, only confidence"),
        ('{"classes": null, "labels": {"x": ["cat"]}}', "neither a class name nor a class number"),
        ('{"classes": null, "labels": {"x": "cat", "x": "dog"}}', "'x' is given twice"),
        ('{"classes": null, "labels": ', "is not JSON"),
        ('{"classes": null, "labels": {"y": "cat"}}', "'y' fits data/y.jpg and data/y.png"),
    ],
)
def test_labels_json_that_says_nothing_clear_is_refused(tmp_path: Path, told: str, why: str) -> None:
    fill(tmp_path, "data/x.png", "data/y.png", "data/y.jpg")
    write(tmp_path / "labels.json", told)
    with pytest.raises(Refused, match=why):
        folder(tmp_path)


# The same from every verb ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_verb_reads_a_table_in_the_same_way(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    coloured(tmp_path / "set", "file_name,class_index", (1, 2, 3)).rename(tmp_path / "set/metadata.csv")
    said = "metadata.csv: files from column file_name, classes from column class_index, which holds class numbers"
    words = ("--arch", TINY, "--size", "16", "--epochs", "1", "--batch", "6", "--augment", "none", "--lr", "0.02")
    trained = run("train", "set", "-o", "run", *words)
    assert (trained.status, said in trained.err) == (0, True)
    told = run("audit", "run", "set", "--only", "accuracy", "-o", "audit")
    assert said in (tmp_path / "audit/report.json").read_text(), told.err
    assert f"note: {said}" in run("data", "check", "set", "-o", "check").out
    assert f"note: {said}" in run("explain", "run", "set", "-m", "saliency", "--no-tests", "-o", "maps").out
    assert f"note: {said}" in run("inspect", "run", "set").out
    (tmp_path / "set/metadata.csv").write_text("file_name,class,category\nred0.png,a,b\n")
    for verb in (("train", "set"), ("audit", "run", "set"), ("data", "check", "set"), ("explain", "run", "set")):
        refused = run(*verb)
        assert (refused.status, "class and category may hold the classes" in refused.err) == (2, True), verb
    assert run("explain", "run", "set", "--label-column", "class", "-m", "saliency", "--no-tests").status == 0


def test_truth_of_no_words_is_empty(tmp_path: Path) -> None:
    assert torch.equal(truth(folder(fill(tmp_path, "a.png")), model("x", "y")), torch.zeros(1, 2, dtype=torch.bool))


@pytest.mark.slow
def test_an_audit_says_at_the_terminal_which_columns_it_read(tmp_path: Path, run: Callable[..., Any]) -> None:
    fill(tmp_path, "a.png", "b.png")
    table = write(tmp_path / "t.csv", "Index,File,Class\n1,a.png,espresso\n2,b.png,cup\n")
    done = run("audit", "demo", str(table), "--only", "accuracy", "-o", str(tmp_path / "out"))
    assert done.status == 0, done.err
    assert re.search(r"(?i)column.*Class", done.err), done.err
    silent = run("audit", "demo", str(table), "--only", "accuracy", "-o", str(tmp_path / "again"), "--quiet")
    assert "column" not in silent.err
