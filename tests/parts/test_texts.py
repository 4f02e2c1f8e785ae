"""Texts: what is read from tables and folders, what is named and left out, and how characters become a tensor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import clearsight as cs
from clearsight.auditing.commands import Commands
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.data.text_encoding import PRINTABLE, decode, fitting, marked, text_preprocess, unknown_note
from clearsight.data.text_inputs import as_inputs, place_of_text
from clearsight.data.text_marks import find_pieces, joined, percent_decoded, read_ranges
from clearsight.data.text_records import Text, Texts
from clearsight.data.text_sources import is_texts, same_texts, texts
from clearsight.errors import Refused
from clearsight.models.model_words import names_model

SPOTS = Path(__file__).parents[3] / "shared" / "data" / "csic2010_spots" / "requests.jsonl.gz"


def table(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(folder: Path, *rows: object) -> Path:
    return table(folder, "\n".join(map(json.dumps, rows)), "t.jsonl")


def reader(length: int = 6, alphabet: str = "ab") -> Classifier:
    pre = text_preprocess(length, alphabet)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(pre.channels * length, 2)), pre, ("no", "yes"))


# Tables ---------------------------------------------------------------------------------------------------------------


def test_a_csv_keeps_every_character_of_its_texts(tmp_path: Path) -> None:
    path = table(tmp_path, 'label;text;host\nspam;" a;\r\n""b"" ";x\nham;c;y\n')
    data = texts(path)
    assert [(t.name, t.text, t.labels) for t in data.texts] == [
        ("row 2", ' a;\r\n"b" ', ("spam",)),
        ("row 3", "c", ("ham",)),
    ]
    assert data.texts[0].columns == {"host": "x"}
    assert data.notes == ("t.csv: texts from column text, classes from column label",)


def test_a_mark_of_the_encoding_is_no_part_of_the_first_text(tmp_path: Path) -> None:
    path = table(tmp_path, b'\xef\xbb\xbf{"text": "a"}', "t.jsonl")
    assert texts(path).texts[0].text == "a"
    assert texts(table(tmp_path, b"\xef\xbb\xbftext\na\n")).texts[0].text == "a"
    assert is_texts(path)


def test_json_lines_hold_labels_splits_and_ranges(tmp_path: Path) -> None:
    path = lines(
        tmp_path,
        {"request": "GET /a", "label": 1, "split": "train", "spans": [[4, 6], [0, 2]]},
        {"request": "GET /b", "label": 0, "split": "test", "spans": [{"start": 4, "end": 6}, {"start": 3, "end": 4}]},
        {"request": "GET /c", "label": 0, "split": "test"},
    )
    whole = texts(path, split="all").texts
    assert [t.marks for t in whole] == [((0, 2), (4, 6)), ((3, 6),), None]
    assert [t.labels for t in whole] == [("1",), ("0",), ("0",)]
    assert [t.name for t in texts(path).texts] == ["line 2", "line 3"]
    assert "split test is used, of test 2, train 1 texts" in texts(path).notes[0]


def test_several_columns_make_one_text(tmp_path: Path) -> None:
    path = lines(tmp_path, {"method": "GET", "url": "/a", "body": ""}, {"method": "POST", "url": "/b", "body": "x=1"})
    assert [t.text for t in texts(path, text_column="method, url,body").texts] == ["GET\n/a", "POST\n/b\nx=1"]


def test_rows_of_other_bytes_than_utf8_are_named_and_the_others_are_kept(tmp_path: Path) -> None:
    path = table(tmp_path, b"text,label\ncaf\xe9,a\ncaf\xc3\xa9,b\n")
    data = texts(path)
    assert [t.text for t in data.texts] == ["café"]
    assert data.broken == (("row 2", "not UTF-8"),)
    jsonl = table(tmp_path, b'{"text": "caf\xe9"}\n\n{"text": "b"}\n{"text": "\\ud800"}', "t.jsonl")
    data = texts(jsonl)
    assert ([t.name for t in data.texts], data.broken) == (
        ["line 3"],
        (("line 1", "not UTF-8"), ("line 4", "not UTF-8")),
    )


def test_empty_texts_are_named_and_repeated_ones_are_counted(tmp_path: Path) -> None:
    data = texts(table(tmp_path, 'text,label\n"",a\n"  ",a\nx,a\nx,b\nx,a\n'))
    assert data.broken == (("row 2", "empty"), ("row 3", "nothing but blanks"))
    assert data.notes[1:] == (
        "2 texts repeat another one: row 4 = row 5",
        "the same text has different classes: row 4 and others",
    )
    assert same_texts(data.texts) == [0, 0, 0]


def test_a_very_long_cell_is_read_whole(tmp_path: Path) -> None:
    assert len(texts(table(tmp_path, f"text\n{'a' * 200_000}\n")).texts[0].text) == 200_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "none is known to hold the texts; choose with --text-column"),
        ("text,text\n1,2\n", "two columns of the same name"),
        ("text,label\n1\n", "row 2 has 1 cells, but there are 2 columns"),
        ('text\n"a\n', "is not a CSV"),
        ("text,spans\nab,\"[[1, 3]]\"\n", r"row 2: the mark \[1, 3\] is not in the text, which has 2 characters"),
        ("text,spans\nab,here\n", "row 2: marks 'here': write ranges of characters"),
        ("text,spans,attack\nab,,\n", "spans and attack may hold the marks; choose with --marks-column"),
        ("text\n", "no texts in .*: it is empty; expected a table"),
        (b"\xff\xfet\0", "is UTF-16, not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_texts_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(Refused, match=message):
        texts(table(tmp_path, content))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "ab", "spans": [[1]]}, r"line 1: the mark '\[1\]'"),
        ({"text": "ab", "spans": [[0.5, 1]]}, "its ends are whole numbers"),
        ({"text": "ab", "spans": [[True, 2]]}, "its ends are whole numbers"),
        ({"text": "ab", "spans": [[1, 1]]}, r"\[1, 1\] is not in the text"),
        ({"text": "ab", "spans": 3}, "marks '3'"),
        ({"text": "ab", "attacks": {"a": 1}}, "marked pieces"),
        ({"text": 5}, "5 is no text"),
        ([1], "line 1 is not an object"),
    ],
)
def test_json_that_is_no_text_is_refused(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(Refused, match=message):
        texts(lines(tmp_path, row))


def test_options_for_what_is_not_there_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "text,label\nx,a\n")
    with pytest.raises(Refused, match=r"and no txet: did you mean text"):
        texts(path, text_column="txet")
    with pytest.raises(Refused, match="has no splits"):
        texts(path, split="test")
    with pytest.raises(Refused, match=r"no texts at .*: there is no such file"):
        texts(tmp_path / "none.csv")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(Refused, match="label_column needs a table"):
        texts(tmp_path / "a.txt", label_column="label")


# Marks ----------------------------------------------------------------------------------------------------------------


def test_pieces_are_found_as_they_are_or_percent_encoded() -> None:
    text = "q=%27+OR+1%3D1&r=' OR 1=1"
    assert percent_decoded("%zz%4") == ("%zz%4", [0, 1, 2, 3, 4, 5])
    assert find_pieces("q=' OR 1=1", text) == (((0, 14),), [])
    assert find_pieces(["' OR 1=1", "none"], text) == (((17, 25),), ["none"])  # as it is goes first
    assert find_pieces("none", text) == (None, ["none"])
    assert find_pieces(None, text) == find_pieces([], text) == (None, [])
    assert find_pieces("aa", "aaa") == (((0, 3),), [])
    assert find_pieces("cafÃ©", "caf%C3%A9") == (((0, 9),), [])
    assert find_pieces("c\ufffd.", "c%E9. cx.") == (((6, 9),), [])
    assert find_pieces("c\ufffd.", "c%E9. cxy") == (((0, 5),), [])


def test_ranges_that_touch_are_one() -> None:
    assert joined([(4, 6), (0, 2), (2, 3), (5, 9)]) == ((0, 3), (4, 9))
    assert joined([(0, 9), (2, 3)]) == ((0, 9),)
    assert read_ranges("[[0, 2]]", 2) == ((0, 2),)
    assert read_ranges("", 2) is None
    assert read_ranges([], 2) == ()


def test_pieces_that_their_text_lacks_are_counted(tmp_path: Path) -> None:
    path = lines(tmp_path, {"text": "ab", "attacks": ["b"]}, {"text": "ab", "attacks": ["c"]}, {"text": "cd"})
    data = texts(path)
    assert [t.marks for t in data.texts] == [((1, 2),), None, None]
    assert data.notes[1] == "1 marked pieces are not in their text, so these are not marked: line 2"


@pytest.mark.skipif(not SPOTS.is_file(), reason="the requests are not there")
def test_the_marks_of_the_requests_are_found_where_the_source_says(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "r.jsonl").write_bytes(gzip.decompress(SPOTS.read_bytes()))
    data = texts(tmp_path / "r.jsonl", text_column="method,url,body")
    attacks = [t for t in data.texts if t.labels == ("1",)]
    with_marks = [t for t in attacks if t.marks]
    assert (len(data.texts), len(attacks)) == (8576, 3935)
    assert all(t.marks is None for t in data.texts if t.labels == ("0",))
    assert len(with_marks) == len(attacks) - 3  # 6 % of the pieces have a replacement character for a byte of Latin-1


# Folders --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_text_files_gives_their_classes_and_splits(tmp_path: Path) -> None:
    for name in ("train/a/1.txt", "train/b/2.txt", "test/a/3.txt", "test/b/.hidden.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "test" / "b" / "4.txt").write_bytes(b"\xef\xbb\xbfx\r\n")
    (tmp_path / "test" / "b" / "5.txt").write_bytes(b"caf\xe9")
    (tmp_path / "test" / "b" / "6.txt").write_bytes(b"")
    data = texts(tmp_path)
    assert [(t.name, t.text, t.labels, t.split) for t in data.texts] == [
        ("test/a/3.txt", "test/a/3.txt", ("a",), "test"),
        ("test/b/4.txt", "x\r\n", ("b",), "test"),
    ]
    assert data.broken == (("test/b/5.txt", "not UTF-8 (byte 3)"), ("test/b/6.txt", "empty (0 bytes)"))
    assert len(texts(tmp_path, split="all").texts) == 4
    assert texts(tmp_path / "train").texts[0].labels == ("a",)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train/1.txt", "plane/2.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    assert [(t.labels, t.split) for t in texts(tmp_path).texts] == [(("plane",), ""), (("train",), "")]


def test_texts_are_told_from_pictures(tmp_path: Path) -> None:
    assert is_texts(table(tmp_path, "text,label\nx,a\n"))
    assert is_texts(lines(tmp_path, {"request": "x"}))
    assert not is_texts(table(tmp_path, "file,label,text\nx.png,a,b\n", "p.csv"))
    assert not is_texts(table(tmp_path, "what\nx\n", "w.csv"))
    assert not is_texts(tmp_path / "none.csv")
    (tmp_path / "f").mkdir()
    assert not is_texts(tmp_path / "f")
    (tmp_path / "f" / "a.txt").write_text("x")
    assert is_texts(tmp_path / "f")
    (tmp_path / "f" / "a.png").write_bytes(b"x")
    assert not is_texts(tmp_path / "f")


# Tensors --------------------------------------------------------------------------------------------------------------


def test_each_character_is_a_place_with_one_letter_and_padding_is_nothing() -> None:
    x = cs.one_hot(reader(), "ba\n", "a")
    assert x.tolist()[0] == [[0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]
    assert x[1].sum() == 1
    assert x.dtype == torch.float32
    assert (decode(x[0], "ab", "ba\n"), decode(x[0], "ab"), decode(x[1] * 0, "ab")) == ("ba\n", "ba\ufffd", "")


def test_the_usual_alphabet_is_printable_ascii() -> None:
    assert (len(PRINTABLE), PRINTABLE[0], PRINTABLE[-1]) == (95, " ", "~")
    pre = text_preprocess(974)
    assert (pre.channels, pre.size, set(pre.mean), set(pre.std)) == (96, (974,), {0.0}, {1.0})


def test_texts_that_do_not_fit_are_named_and_never_cut(tmp_path: Path) -> None:
    data = texts(table(tmp_path, "text\nab\nabababa\nac\tc\n"))
    fits = fitting(data, reader().preprocess)
    assert [t.text for t in fits.texts] == ["ab", "ac\tc"]
    assert fits.broken == (("row 3", "7 characters, and the model reads 6"),)
    assert fits.notes[-1] == (
        r"3 characters of 6, in 1 text, are not in the alphabet and read as unknown: 'c' 2, '\t' 1"
    )
    assert unknown_note(["ab"], "ab") == []
    with pytest.raises(Refused, match="row 3: 7 characters, and the model reads 6"):
        cs.one_hot(reader(), data)
    with pytest.raises(Refused, match=r"no text in .* fits the model"):
        fitting(texts(table(tmp_path, "text\nabababa\n")), reader().preprocess)


def test_what_is_no_text_model_or_no_text_is_refused() -> None:
    pictures = Classifier(nn.Flatten(), Preprocess((2, 2), (0.5,), (0.5,)), ("a", "b"))
    with pytest.raises(Refused, match="takes pictures, not texts"):
        cs.one_hot(pictures, "a")
    with pytest.raises(Refused, match="no text is given"):
        cs.one_hot(reader())
    with pytest.raises(Refused, match="empty"):
        cs.one_hot(reader(), "")


@pytest.mark.parametrize(("alphabet", "message"), [("", "the alphabet is empty"), ("aba", "names 'a' twice")])
def test_impossible_alphabets_are_refused(alphabet: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        text_preprocess(8, alphabet)
    with pytest.raises(Refused, match="an alphabet of 2 characters"):
        Preprocess((8,), (0.0,) * 2, (1.0,) * 2, alphabet="ab")
    with pytest.raises(Refused, match="an alphabet of 2 characters"):
        Preprocess((8, 8), (0.0,) * 3, (1.0,) * 3, alphabet="ab")


def test_marked_characters_as_places() -> None:
    assert marked([(0, 1), (3, 4)], 5).tolist() == [True, False, False, True, False]


def test_explainers_and_gradients_work_on_texts() -> None:
    torch.manual_seed(0)
    model = reader()
    x = cs.one_hot(model, "abba", "b")
    maps = cs.explain(model, x, "gradient-x-input", cs.ClassScore(1)).maps
    weight = model.net[1].weight[1].view(3, 6)  # type: ignore[union-attr,operator]
    assert torch.allclose(maps, (x * weight).sum(1))
    assert maps[1, 1:].abs().sum() == 0


def test_a_text_model_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pre = text_preprocess(12, "abc")
    net = cs.catalogue("networks")["character-cnn"](2, (4, 12), width=4)
    model = Classifier(net.eval(), pre, ("no", "yes"))
    folder = cs.save(model, tmp_path / "m", architecture="clearsight:character-cnn(width=4)")
    again = cs.load(folder)
    x = cs.one_hot(model, "abcx")
    assert again.preprocess == pre
    assert torch.equal(again(x), model(x))
    config = json.loads((folder / "config.json").read_text())
    assert config["preprocess"]["alphabet"] == "abc"
    config["preprocess"]["alphabet"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refused, match=r'preprocess.alphabet is not valid: write it like "alphabet": "abc"'):
        cs.load(folder)


# One row of a table ---------------------------------------------------------------------------------------------------


def test_one_row_of_a_table_is_a_set_of_one_text(tmp_path: Path) -> None:
    path = table(tmp_path, "text,label,split\nx,a,train\ny,b,test\n,b,test\n")
    data = texts(f"{path}:2")
    assert ([(t.name, t.text, t.split) for t in data.texts], data.root) == (
        [("row 2", "x", "train")],
        Path(f"{path}:2"),
    )
    assert [p.text for p in cs.folder(f"{path}:3").pictures] == ["y"]
    assert is_texts(f"{path}:3")
    with pytest.raises(Refused, match=r"has no text in row 9: the last one is row 4"):
        texts(f"{path}:9")
    with pytest.raises(Refused, match=r"1 broken \(row 4: empty\)"):
        texts(f"{path}:4")
    with pytest.raises(Refused, match="has train"):
        texts(f"{path}:2", split="test")
    with pytest.raises(Refused, match="there is no such file"):
        texts(f"{path}:x")


def test_one_row_is_no_model_and_what_a_report_quotes(tmp_path: Path) -> None:
    path = table(tmp_path, "url,kind\nx,a\ny,b\n")
    assert not names_model(f"{path}:2")
    assert names_model("package.module:factory")
    assert names_model(f"{path}:factory")
    data = cs.folder(path, text_column="url", label_column="kind")
    words = ("--text-column", "url", "--split", "test", "--classes", "c.json")
    command = Commands("m", str(path), 0, (), words).of_picture("explain", data.pictures[1], "-m", "lrp")
    assert command == f"clearsight explain m {path}:3 -m lrp --text-column url"
    (tmp_path / "a.txt").write_text("x y")
    assert place_of_text(cs.folder(tmp_path / "a.txt").pictures[0]) == str(tmp_path / "a.txt")
    typed = as_inputs(Texts("", (Text("text 1", "GET /"),)))
    assert place_of_text(typed.pictures[0]) == "GET /"
