"""The report as a page and in the terminal: complete, escaped, the same after reading back, with nothing to fetch."""

import base64
import dataclasses
import io
import itertools
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import clearsight as cs
from clearsight.auditing.audit import audit
from clearsight.core.classifier import Classifier
from clearsight.data.datasets import folder
from clearsight.drawing.heatmaps import photo, png, strip, webp
from clearsight.reporting.embedding import size, uri
from clearsight.reporting.facts import BrokenFile
from clearsight.reporting.findings import Figure, Finding
from clearsight.reporting.html_report import anchors, cell, interval_bar, linked
from clearsight.reporting.report import Report
from clearsight.reporting.terminal import print_sheet
from clearsight.reporting.wording import WORDS
from reportbyhand import CHART, HOSTILE, by_hand, picture


@pytest.fixture(scope="module")
def report() -> Report:
    return by_hand()


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return report.html()


class Seen(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_from_the_data_is_markup(page: str, report: Report) -> None:
    for shown in (page, report._repr_html_()):
        seen = Seen(shown)
        assert {t for t, _ in seen.tags} & {"script", "iframe", "object", "i"} == set()
        assert not [a for _, attrs in seen.tags for a in attrs if a.startswith("on")]
    assert HOSTILE in Seen(page).text
    assert "photos/<b>2026</b>" in Seen(page).text


def test_nothing_is_fetched(page: str) -> None:
    seen = Seen(page)
    policy = next(a["content"] for t, a in seen.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    for tag, attrs in seen.tags:
        source = attrs.get("src") or ""
        assert source.startswith("data:") or not source, (tag, source[:60])
        assert tag != "link" or attrs["href"] == "data:,"
        assert tag not in ("image", "use") or (attrs.get("href") or "").startswith(("data:", "#picture_"))
    assert not re.search(r"@import|url\(", page)


def test_everything_found_is_told(page: str, report: Report) -> None:
    text = " ".join(Seen(page).text.split())
    assert " ".join(report.opening) in text
    for f in report.findings:
        assert f.headline in text
        assert f.command in text
        assert WORDS[f.verdict] in text
        assert all(note in text for note in f.notes)
        assert all(e.picture in text and e.command in text for e in f.evidence)
    for words in (
        "truncated after 12 bytes",
        "0123456789abcdef",
        "fedcba9876543210",
        "4 652 008",
        "bicubic",
        "stopped early",
        "missed",
    ):
        assert words in text


def test_a_long_table_is_folded_after_twelve_rows(page: str) -> None:
    assert page.count('<tr class="more">') == 40 - 12
    assert "<summary>all 40 rows</summary>" in page


def test_it_can_be_used_without_seeing_it(page: str) -> None:
    seen = Seen(page)
    assert all(a.get("alt") for t, a in seen.tags if t == "img")
    assert all(a.get("scope") for t, a in seen.tags if t == "th")
    assert all(a.get("aria-label") for t, a in seen.tags if t == "svg")
    heads = [int(t[1]) for t, _ in seen.tags if re.fullmatch("h[1-6]", t)]
    assert heads[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(heads))
    ids = [a["id"] for _, a in seen.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for t, a in seen.tags if t == "a" and (a.get("href") or "").startswith("#")}  # type: ignore[index]
    assert targets <= set(ids)


def test_no_path_of_this_machine(page: str) -> None:
    assert str(Path.home()) + "/" not in page
    assert "/tmp/" not in page


def test_saved_and_read_back_it_is_the_same(report: Report, tmp_path: Path) -> None:
    folder = report.save(tmp_path / "run")
    again = Report.read(folder)
    assert again.html() == report.html() == (folder / "report.html").read_text()
    assert again.json() == report.json() == (folder / "report.json").read_text()


def test_report_json_keeps_its_schema(report: Report) -> None:
    schema = json.loads((resources.files("clearsight.reporting") / "report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    whole = json.loads(report.json(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    check.validate(whole)
    assert whole["findings"][4]["value"] is None
    for broken in (
        whole | {"extra": 1},
        whole | {"schema": 2},
        whole | {"findings": [whole["findings"][0] | {"verdict": "fine"}]},
        whole | {"findings": [whole["findings"][0] | {"trust": 1}]},
        whole | {"data": {k: v for k, v in whole["data"].items() if k != "broken"}},
        {k: v for k, v in whole.items() if k != "model"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            check.validate(broken)


def test_what_an_audit_writes_keeps_the_schema(small: Classifier, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / "abc"[i]).mkdir()
        (tmp_path / "abc"[i] / f"{i}.png").write_bytes(picture(i))
    (tmp_path / "a" / "broken.png").write_bytes(b"no picture")
    whole = audit(small, folder(tmp_path), only="accuracy")
    schema = json.loads((resources.files("clearsight.reporting") / "report.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(whole.json()))
    assert "broken.png" in whole.html()


def test_the_schema_knows_every_field_of_a_finding() -> None:
    schema = json.loads((resources.files("clearsight.reporting") / "report.schema.json").read_text())
    fields = {f.name for f in dataclasses.fields(Finding)} | {"name"}
    finding = schema["$defs"]["finding"]
    assert set(finding["properties"]) == fields
    later = {name: f["default"] for name, f in finding["properties"].items() if "default" in f}
    assert fields - set(finding["required"]) == set(later)
    assert later == {f.name: f.default for f in dataclasses.fields(Finding) if f.name in later}


def test_a_report_of_nothing_can_be_drawn(report: Report) -> None:
    data = dataclasses.replace(report.facts.data, broken=(), notes=())
    facts = dataclasses.replace(report.facts, gate=None, budget=None, complete=True, command="", method="", data=data)
    page = Report(facts, (Finding("note", "Nothing.", check="./mine.py:odd(k=3)"),)).html()
    assert 'href="#mine-py-odd"' in page
    for gone in ("Left out", "Gate", "stopped early", "Evidence", "Shown again"):
        assert gone not in page


def test_interval_bar() -> None:
    f = Finding("pass", "", "top-1", 0.5, (0.25, 0.75), 9, chance=0.1)
    bar = interval_bar(f)
    assert 'd="M37.0 8H103.0"' in bar  # a quarter and three quarters of the line from 4 to 136
    assert 'd="M70.0 1.5V14.5"' in bar
    assert 'aria-label="50.0 %, 95 % interval 25.0 to 75.0 %, chance 10.0 %, on a line from 0.0 % to 100.0 %"' in bar
    assert interval_bar(Finding("note", "")) == ""
    assert interval_bar(Finding("note", "", value=float("nan"), interval=(float("nan"), 0.5))) == ""
    below = interval_bar(Finding("note", "", value=-2.0, interval=(-4.0, 1.0), unit=""))
    assert 'aria-label="−2, 95 % interval −4 to 1, on a line from −4 to 1"' in below
    assert 'd="M56.8 1.5V14.5"' in below
    lost = interval_bar(Finding("note", "", value=-0.5, interval=(-0.75, 0.5)))  # a difference of shares
    assert "on a line from −100.0 % to 100.0 %" in lost
    assert 'd="M37.0 1.5V14.5"' in lost
    assert "<svg" in interval_bar(Finding("note", "", value=0.0, unit=""))


def test_small_words() -> None:
    assert anchors(["a b", "a-b", "…"]) == ["a-b", "a-b-2", "check"]
    some = (float("nan"), 0.5, 1.0, 0.0, -0.25, 1e-5, 12.345, 1234.5, 99999.5, False, "x")
    said = ["–", "0.500", "1.000", "0.000", "-0.250", "1.0e-05", "12.35", "1234", "100000", "no", "x"]
    assert [cell(v) for v in some] == said
    assert linked("<b> doi:10.1/x") == "&lt;b&gt; doi:10.1/x"
    assert '"https://doi.org/10.1080/01621459.1927.10502953"' in linked("doi:10.1080/01621459.1927.10502953.")
    assert size(Figure("a.png", picture(0), "", "")) == (224, 224)
    assert size(Figure("a.svg", CHART, "", "")) is None


def printed(report: Report, **how: object) -> str:
    out = io.StringIO()
    print_sheet(report, Console(file=out, **how), Path("clearsight-runs/audit-1"))  # type: ignore[arg-type]
    return out.getvalue()


def test_the_terminal_sheet(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    text = printed(report, width=80)
    lines = text.splitlines()
    whole = " ".join(text.split())
    assert "\x1b" not in text
    assert lines[-1] == "clearsight-runs/audit-1/report.html"
    assert whole.startswith(" ".join(report.opening))
    for f in report.findings:
        assert f.headline in whole
        assert f"{' ' * 11}$ {f.command}" in lines  # on a line of its own, whole
        assert WORDS[f.verdict] in whole
    assert "holds      accuracy                91.2 %     87.0 to 94.0 %     250" in lines
    assert f"1 of 262 files are left out: {HOSTILE}: truncated after 12 bytes" in whole
    assert "Gate: 1 of 2 bars missed. held: accuracy at least 90.0 %, it is 91.2 % missed: localisation" in whole
    assert "stopped early" in whole
    assert all(len(line) <= 80 for line in lines if "$ " not in line)


def test_the_terminal_sheet_says_the_same_in_colour_and_when_narrow(report: Report) -> None:
    coloured = printed(report, width=80, force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == printed(report, width=80, force_terminal=False)
    narrow = printed(report, width=45)
    assert all(f.command in narrow for f in report.findings)


ORDER = ("accuracy", "accuracy", "localisation", "sanity", "calibration(bins=15)", "faithfulness")


def test_the_page_the_terminal_and_a_notebook_begin_alike(report: Report, page: str) -> None:
    """Two sentences, then accuracy, what fails, what could not be done, what is undecided, and notes."""
    first, second = report.opening
    assert first == "1 of 6 checks fails: localisation; 1 could not be done: sanity; 1 is undecided."
    assert second == "Start with localisation: look at the maps beside the object."
    rows = [line[11:].split("  ")[0] for line in printed(report, width=80).splitlines() if line[9:11] == "  "]
    assert tuple(w for w in rows if w in ORDER) == ORDER
    assert tuple(re.findall(r'<th role="rowheader"[^>]*><a[^>]*>([^<]*)</a>', page)) == ORDER
    assert tuple(re.findall(r'class="check" id="([a-z0-9-]+)"', page)) == (
        "accuracy", "accuracy-2", "localisation", "sanity", "calibration", "faithfulness",
    )  # fmt: skip
    note = report._repr_html_()
    assert re.findall(r"<b>([^<]*)</b>", note)[:2] == [first, second]
    assert tuple(re.findall(r"</b></td><td>([^<]*)</td>", note)) == ORDER
    asked = [f["check"] for f in json.loads(report.json())["findings"]]
    assert asked == [f.check for f in report.findings] != list(ORDER)


def test_a_photo_lies_in_the_page_as_a_webp_that_looks_the_same() -> None:
    x = cs.pixels(cs.load("demo"), "demo:coffee")[0]
    photos = strip([photo(x), photo(x.flip(2))])
    data = png(photos)
    address = uri(Figure("a.png", data, "", ""))
    assert address.startswith("data:image/webp;base64,")
    assert len(address) < len(data) / 2
    shown = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA")
    assert shown.size == photos.size
    a, b = (np.asarray(i, float) for i in (shown, photos))
    assert np.array_equal(a[..., 3], b[..., 3])  # the gap between them stays clear
    assert np.abs(a - b)[..., :3][b[..., 3] > 0].mean() < 3
    plain = png(Image.new("RGB", (2, 2)))
    smallest = min(len(plain), len(webp(plain)))
    assert len(base64.b64decode(uri(Figure("a.png", plain, "", "")).partition(",")[2])) == smallest


def test_a_file_name_cannot_steer_the_terminal(report: Report) -> None:
    broken = tuple(BrokenFile("\x1b[2J\rgone.jpg [bold]x[/bold]", "empty") for _ in range(14))
    facts = dataclasses.replace(report.facts, gate=None, data=dataclasses.replace(report.facts.data, broken=broken))
    text = printed(Report(facts, report.findings), width=80)
    assert "\x1b" not in text
    assert "gone.jpg [bold]x[/bold]: empty" in text
    assert "and 4 more, all of them named in the report" in text
