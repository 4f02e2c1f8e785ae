"""The places that an audit found, as boxes that a training avoids: what the report quotes trains."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import clearsight as cs
from clearsight.auditing.commands import Commands
from clearsight.auditing.marked_places import in_picture, pictures_of_run
from clearsight.auditing.mending import mending
from clearsight.cli.app import app
from clearsight.core.catalogue import parse
from clearsight.core.preprocess import Preprocess
from clearsight.core.tables import read_table
from clearsight.data.annotations import Region, region_mask
from clearsight.models.model_folder import part_pictures
from clearsight.reporting.report import Report
from clearsight.training.loop import train
from quickruns import QUICK

SIDE = 32  # twice what the network is given


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of noise whose corner is bright or dark by the class, and a run on them."""
    root = tmp_path_factory.mktemp("marked")
    random = torch.Generator().manual_seed(0)
    for label, level in (("dark", 0), ("light", 255)):
        (root / "photos" / label).mkdir(parents=True)
        for i in range(48):
            x = (torch.rand(8, 8, generator=random) * 160 + 50).byte().repeat_interleave(4, 0).repeat_interleave(4, 1)
            x[:8, :8] = level
            Image.fromarray(x.numpy()).save(root / "photos" / label / f"{i}.png")
    list(
        train(root / "photos", replace(QUICK, grey=True, epochs=8, augment="none", shares="0.5,0.1,0.4"), root / "run")
    )
    return root


@pytest.fixture(scope="module")
def audited(root: Path) -> Report:
    """An audit of the test pictures alone."""
    words = [
        str(root / "run"),
        str(root / "run" / "split.csv"),
        "--split",
        "test",
        "--only",
        "shortcuts",
        "--quiet",
    ]
    done = CliRunner().invoke(app, ["audit", *words, "-o", str(root / "audit")])
    assert done.exit_code == 0, done.output
    return Report.read(root / "audit")


def test_what_the_report_of_test_pictures_quotes_trains(root: Path, audited: Report) -> None:
    (found,) = audited.findings
    assert found.verdict == "fail", found.headline
    table = root / "audit" / "shortcuts-boxes.csv"
    words = shlex.split(found.mend)
    assert words[-2:] == ["--avoid", str(table)]
    done = CliRunner().invoke(app, [*words[1:], "--epochs", "1", "-o", str(root / "mended"), "--quiet"])
    assert done.exit_code == 0, done.output
    n = len(part_pictures(str(root / "run"), "train"))
    assert f"of {n} of {n} training pictures can guide" in (root / "mended" / "report.json").read_text()


def test_the_table_holds_the_mark_in_what_was_audited_and_in_what_trained(root: Path, audited: Report) -> None:
    _, rows = read_table(root / "audit" / "shortcuts-boxes.csv")
    named = {row["file"] for row in rows}
    run = pictures_of_run(str(root / "run"))
    assert run
    assert len(run.trained) == len(part_pictures(str(root / "run"), "train"))
    assert run.trained < named <= run.files.keys()
    for row in rows:
        x, y, w, h = (int(row[c]) for c in ("box_x", "box_y", "box_w", "box_h"))
        assert min(x, y) >= 0
        assert w > 0 < h
        assert max(x + w, y + h) <= SIDE
        assert x < 8 > y  # it meets the mark


def test_a_report_that_is_saved_elsewhere_brings_its_table(tmp_path: Path, root: Path, audited: Report) -> None:
    audited.save(tmp_path / "copy")
    (found,) = audited.findings
    assert found.boxes
    assert (tmp_path / "copy" / "shortcuts-boxes.csv").read_text() == found.boxes.text
    again = replace(audited, findings=(replace(found, mend="clearsight train --avoid MARKS"),))
    again.save(tmp_path / "again")
    fields = json.loads((tmp_path / "again" / "report.json").read_text())["findings"][0]
    assert shlex.split(fields["mend"])[-1] == str(tmp_path / "again" / "shortcuts-boxes.csv")
    assert fields["boxes"] == "shortcuts-boxes.csv"
    (tmp_path / "again" / "shortcuts-boxes.csv").unlink()
    with pytest.raises(cs.Refused, match="lacks its table of boxes"):
        Report.read(tmp_path / "again")


def test_boxes_of_test_pictures_alone_are_not_quoted_as_a_guide(tmp_path: Path, root: Path) -> None:
    """Nor those that training would refuse; boxes of training pictures are."""
    run = str(root / "run")
    for part, box, wanted in (
        ("test", "2,2,9,9", "marks none of the training pictures"),
        ("train", "2,2,90,9", "before what is wrong with it is mended"),
        ("train", "2,2,9,9", ""),
    ):
        path = tmp_path / f"{part}-{len(box)}.csv"
        files = [file.resolve().relative_to(root.resolve() / "photos") for file, _ in part_pictures(run, part)]
        path.write_text("file,box_x,box_y,box_w,box_h\n" + "".join(f"{file},{box}\n" for file in files))
        commands = Commands(run, "photos", data_words=("--boxes", str(path)))
        mend, notes = mending(commands, parse("localisation", "checks"))
        assert bool(mend) == (not wanted)
        assert wanted in " ".join(notes)
        if mend:
            assert shlex.split(mend)[-2:] == ["--guide", str(path)]
        else:
            done = CliRunner().invoke(app, ["train", str(root / "photos"), "--from", run, "--guide", str(path)])
            assert isinstance(done.exception, cs.Refused)


@pytest.mark.parametrize("size", [(32, 32), (100, 70), (20, 51)])
@pytest.mark.parametrize("resize", [None, 20])
def test_a_box_of_the_input_is_the_same_box_in_the_picture(size: tuple[int, int], resize: int | None) -> None:
    preprocess = Preprocess((16, 16), (0.0,), (1.0,), resize=resize)
    box = (2, 5, 9, 12)
    x, y, w, h = in_picture(box, size, preprocess)
    mask = region_mask(Region(((x, y, x + w, y + h),)), size, preprocess)
    assert bool(mask[2:9, 5:12].all())
    wide = max(1, -(-16 * 2 // min(size)))  # what a pixel of the picture covers at the edges
    outside = mask.clone()
    outside[2 - wide : 9 + wide, 5 - wide : 12 + wide] = False
    assert not bool(outside.any())


def test_a_run_that_does_not_say_what_trained_it_gets_no_boxes(tmp_path: Path) -> None:
    nothing = pictures_of_run(str(tmp_path))
    assert nothing
    assert not nothing.files
    (tmp_path / "split.csv").write_text("file,label\na.png,cat\n")
    assert pictures_of_run(str(tmp_path)) is None
