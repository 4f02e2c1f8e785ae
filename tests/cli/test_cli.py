"""The command line: every verb on a real (tiny) model, its files, its exit status, and what it says to wrong input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

import clearsight as cs
from clearsight.cli.app import app, verbs
from clearsight.core.check_kinds import checks_of
from clearsight.explaining.explain_pictures import ExplainedPictures, explain_pictures
from thinning import with_slow
from workshop import SIDE, factory

VERBS = verbs()


def test_help_loads_nothing_heavy():
    """Neither ``clearsight --help`` nor that of any verb."""
    code = (
        "import sys, typer; from clearsight.cli.app import app, verbs\n"
        "command = typer.main.get_command(app)\n"
        "for words in ((), ('data',), *verbs()):\n"
        "    assert command.main([*words, '--help'], prog_name='clearsight', standalone_mode=False) == 0\n"
        "print(sorted(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.count("Usage: clearsight") == 2 + len(VERBS)
    loaded = out.splitlines()[-1]
    assert "'clearsight.cli.app'" in loaded
    for heavy in ("torch", "torchvision", "numpy", "scipy", "sklearn", "PIL", "matplotlib", "timm", "rich", "jinja2"):
        assert f"'{heavy}'" not in loaded


@pytest.mark.parametrize("group", [(), ("data",)])
def test_help_shows_the_whole_summary_of_every_verb(group, run):
    shown = " ".join(run(*group, "--help").out.split())
    command = typer.main.get_command(app)
    for word in group:
        command = command.commands[word]
    for verb in command.commands.values():
        assert " ".join(verb.help.split("\n\n")[0].split()) in shown


@pytest.mark.parametrize(
    ("verb", "usage"),
    [
        ("audit", "[MODEL] [DATA]"),
        ("explain", "[MODEL] PICTURE..."),
        ("attack", "[MODEL]... DATA..."),
        ("train", "DATA"),
    ],
)
def test_the_usage_line_shows_the_words_as_they_are_typed(verb, usage, run):
    assert run(verb, "--help").out.splitlines()[0] == f"Usage: clearsight {verb} [OPTIONS] {usage}"


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option(verb, run):
    shown = run(*verb, "--help")
    assert shown.status == 0
    command = typer.main.get_command(app)
    for word in verb:
        command = command.commands[word]
    assert len(command.params) > 1
    for parameter in command.params:
        assert all(flag in shown.out for flag in parameter.opts if flag.startswith("-"))


def test_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "clearsight", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"clearsight {cs.__version__}\n"


SOME = "accuracy, calibration, localisation, robustness, sanity"


@pytest.mark.parametrize("only", with_slow([SOME, None], None), ids=["some", "every"])
def test_audit_writes_a_report_and_a_sheet(workshop, run, only):
    ran = run("audit", "net.py:factory", "photos", "--boxes", "boxes.json", *(["--only", only] if only else []))
    assert ran.status == 0, ran.err
    folder = workshop / "clearsight-runs" / "audit-1"
    report = json.loads((folder / "report.json").read_text())
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    by = {f["name"]: f for f in report["findings"]}
    unasked = {name for name, m in checks_of("classifier").items() if "by-name" not in m.claims}
    assert set(by) == (set(only.split(", ")) if only else unasked)
    assert not [f["headline"] for f in by.values() if f["verdict"] == "error"]
    assert by["accuracy"]["value"] == pytest.approx(11 / 12)
    assert "green/red0.png" in json.dumps(by["accuracy"]["tables"])  # the wrong picture, by name
    assert by["localisation"]["value"] > 0.9
    for f in by.values():
        for g in f["figures"] + [e["figure"] for e in f["evidence"]]:
            assert (folder / g["file"]).stat().st_size > 0
        assert f["name"] in f["command"]
    assert "report.html" in ran.out.splitlines()[-1]
    assert " ".join(ran.out.split()).startswith(" ".join(cs.Report.read(folder).opening))
    again = run("audit", "net.py:factory", "photos", "--boxes", "boxes.json", "--only", "accuracy", "--quiet")
    assert again.out.strip() == "clearsight-runs/audit-2/report.html"
    assert not again.err


def test_only_may_be_repeated(workshop, run):
    words = ("audit", "net.py:factory", "photos", "--only", "calibration", "--only", "accuracy, groups", "--json")
    assert {f["name"] for f in json.loads(run(*words).out)["findings"]} == {"accuracy", "calibration", "groups"}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_findings(workshop, run):
    words = ("audit", "net.py:factory", "photos", "--boxes", "boxes.json", "--json", "--seed", "5")
    one, two = (json.loads(run(*words).out)["findings"] for _ in range(2))
    for f in (*one, *two):
        f.pop("seconds")
    assert one == two


@pytest.mark.slow
def test_evidence_commands_show_the_evidence(workshop, run):
    """The commands that a report quotes are run as they stand."""
    import shlex

    report = json.loads(run("audit", "net.py:factory", "photos", "--boxes", "boxes.json", "--json").out)
    commands = {f["command"] for f in report["findings"]} | {
        f["evidence"][0]["command"] for f in report["findings"] if f["evidence"]
    }
    assert len(commands) > 6
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "clearsight"
        ran = run(*words)
        assert ran.status == 0, (command, ran.err)


def test_the_base_of_pascal_voc_is_asked_for_and_quoted(workshop, run):
    place = workshop / "voc"
    place.mkdir()
    box = "<xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
    (place / "red0.xml").write_text(
        f"<annotation><filename>green/red0.png</filename><object><bndbox>{box}</bndbox></object></annotation>"
    )
    words = ("audit", "net.py:factory", "photos", "--only", "accuracy", "--boxes", "voc", "--json")
    told = run(*words)
    assert "taken as counted from 1: no corner shows how it counts" in told.out
    asked = run(*words, "--voc-base", "0")
    assert asked.status == 0
    assert "--boxes voc --voc-base 0" in json.loads(asked.out)["findings"][0]["command"]
    assert "counted from" not in asked.out
    assert run(*words, "--voc-base", "2").status == 2
    alone = run("audit", "net.py:factory", "photos", "--only", "accuracy", "--voc-base", "0")
    assert (alone.status, "give boxes too" in alone.err) == (2, True)


def test_gate(workshop, run):
    gate = workshop / "bars.toml"
    audit = ("audit", "net.py:factory", "photos", "--only", "accuracy", "--gate", gate)
    gate.write_text("[accuracy]\nat_least = 0.9\n")
    assert run(*audit).status == 0
    gate.write_text("[accuracy]\nat_least = 0.9\ninterval = true\n")
    failed = run(*audit, "--json")
    assert failed.status == 1
    assert json.loads(failed.out)["gate"][0]["held"] is False
    gate.write_text('[accuracy]\nat_most = 0.5\nnot_worse_than = "pass"\n')
    assert run(*audit).status == 1
    for wrong, word in (
        ("[acuracy]\nat_least = 1\n", "accuracy"),
        ("[accuracy]\nat_lest = 1\n", "at_least"),
        ("", "empty"),
    ):
        gate.write_text(wrong)
        refused = run(*audit)
        assert refused.status == 2
        assert word in refused.err
    gate.write_text("[robustness]\nat_least = 0.1\n")
    assert "--only leaves out" in run(*audit).err


def test_broken_pictures_are_named_and_left_out(workshop, run):
    photos = workshop / "photos"
    (photos / "red" / "empty.jpg").touch()
    (photos / "red" / "text.png").write_text("not a picture")
    whole = (photos / "blue" / "blue0.png").read_bytes()
    (photos / "blue" / "cut.png").write_bytes(whole[: len(whole) // 2])
    report = json.loads(run("audit", "net.py:factory", "photos", "--only", "accuracy", "--json").out)
    assert {b["file"] for b in report["data"]["broken"]} == {"red/empty.jpg", "red/text.png", "blue/cut.png"}
    assert all(b["reason"] for b in report["data"]["broken"])
    assert report["data"]["read"] == 12
    assert report["data"]["pictures"] == 15


def test_an_empty_picture_named_among_others_is_left_out(workshop, run):
    (workshop / "empty.jpg").touch()
    (workshop / "text.png").write_text("not a picture")
    words = ("net.py:factory", "photos/red/red1.png", "empty.jpg", "text.png")
    for verb in ("explain", "attack"):
        ran = run(verb, *words)
        assert ran.status == 0, ran.err
        assert "empty.jpg: empty (0 bytes)" in ran.out
        assert "text.png: not a picture" in ran.out
        assert {"explain": "explaining: 3 pictures", "attack": "reading: 3 pictures"}[verb] in ran.err
        told = json.loads(run(verb, *words, "--json").out)
        assert {b["file"] for b in (told["data"] if verb == "attack" else told)["broken"]} == {"empty.jpg", "text.png"}
        alone = run(verb, "net.py:factory", "empty.jpg")
        assert (alone.status, alone.err) == (2, "clearsight: empty.jpg is empty (0 bytes)\n")
        none = run(verb, "net.py:factory", "empty.jpg", "empty.jpg", "-o", "none")
        assert none.status == 2
        assert "none of the pictures can be read (empty.jpg: empty (0 bytes))" in none.err
        assert not (workshop / "none").exists()


@pytest.mark.slow
def test_pictures_are_counted_alike_everywhere(workshop, run):
    red = workshop / "photos" / "red"
    (red / "empty.jpg").touch()
    (red / "text.png").write_text("not a picture")
    (red / "cut.png").write_bytes((red / "red1.png").read_bytes()[:60])
    for verb, doing in (("explain", "explaining"), ("attack", "reading")):
        assert f"{doing}: 15 pictures" in run(verb, "net.py:factory", "photos").err
    words = ("features", "net.py:factory", "photos", "-m", "activations", "-o", "seen")
    ran = run(*words)
    assert ran.status == 0, ran.err
    assert "reading: 15 pictures" in ran.err
    assert "12 of 15 pictures read" in (workshop / "seen" / "index.html").read_text()


def test_references_that_are_left_out_are_named_once(workshop, run, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(workshop / "cache"))
    (workshop / "photos" / "red" / "empty.jpg").touch()
    (workshop / "photos" / "red" / "te\nxt.png").write_text("not a picture")
    words = ("explain", "net.py:factory", "photos/green/green0.png", "photos/blue/blue0.png")
    two = [
        word for layer in ("features.0", "features") for word in ("-m", f"libra-cam(references=photos,layer={layer})")
    ]
    for how in ((), ("--json",), ("--quiet",)):  # built, and read from the cache
        ran = run(*words, *two, *how)
        assert ran.status == 0, ran.err
        (line,) = [line for line in ran.err.splitlines() if "references" in line]
        assert line.startswith("left out of the references: red/empty.jpg (empty (0 bytes)), red/te\\nxt.png (")
        assert "references: " not in ran.out
        assert "Warning" not in ran.err


def test_warnings_of_libraries_stay_silent_whatever_filters_they_set(workshop, run):
    speaks = "import warnings\nwarnings.simplefilter('always')\nwarnings.warn('a library speaks', stacklevel=1)\n"
    (workshop / "noisy.py").write_text(f"{speaks}from workshop import factory\n")
    ran = run("explain", "noisy.py:factory", "photos/red/red1.png", "-m", "saliency")
    assert ran.status == 0, ran.err
    assert "speaks" not in ran.err


def test_what_was_done_to_odd_pictures_is_told(workshop, run):
    with Image.open(workshop / "photos" / "red" / "red1.png") as whole:
        whole.save(workshop / "photos" / "red" / "moving.gif", save_all=True, append_images=[whole.rotate(90)])
    report = json.loads(run("audit", "net.py:factory", "photos", "--only", "accuracy", "--json").out)
    assert "first frame of several: 1 (red/moving.gif)" in report["data"]["notes"]


def test_explain_draws_and_saves_raw_maps(workshop, run):
    ran = run(
        "explain",
        "net.py:factory",
        "photos/red/red1.png",
        "-m",
        "grad-cam",
        "-m",
        "occlusion(window=8, stride=4)",
        "--target",
        "top2",
        "--seed",
        "3",
    )
    assert ran.status == 0, ran.err
    folder = workshop / "clearsight-runs" / "explain-1"
    with Image.open(folder / "red1.png") as sheet:
        assert min(sheet.size) > 224
    saved = np.load(folder / "red1-grad-cam.npz", allow_pickle=False)
    assert saved["maps"].shape == (2, SIDE, SIDE)
    assert str(saved["method"]) == "grad-cam(layer=features)"
    assert saved["target"].tolist()[0] == "logit of red"
    assert int(saved["seed"]) == 3
    assert str(saved["fingerprint"]) == factory().fingerprint()
    model = factory()
    found = cs.explain(model, cs.pixels(model, "photos/red/red1.png"), "grad-cam")
    torch.testing.assert_close(torch.from_numpy(saved["maps"][0]), found.maps[0])
    versus = json.loads(
        run("explain", "net.py:factory", "photos/red/red1.png", "--target", "red rather than blue", "--json").out
    )
    assert versus["pictures"][0]["maps"][0]["target"] == ["red rather than blue"]


def test_explain_leaves_out_default_methods_that_a_network_refuses(workshop, run):
    (workshop / "mlp.py").write_text(
        "import torch, clearsight as cs\nfrom torch import nn\n"
        "def factory():\n"
        "    torch.manual_seed(0)\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))\n"
        "    return cs.wrap(net, cs.Preprocess(8, (.5,) * 3, (.5,) * 3), ['red', 'green', 'blue'])\n"
    )
    ran = run("explain", "mlp.py:factory", "photos/red/red1.png")
    assert ran.status == 0
    assert "left out: grad-cam" in ran.out
    (picture,) = json.loads(run("explain", "mlp.py:factory", "photos/red/red1.png", "--json").out)["pictures"]
    (left_out,) = picture["left_out"]
    assert left_out["method"] == "grad-cam"
    assert "no convolution" in left_out["why"]
    refused = run("explain", "mlp.py:factory", "photos/red/red1.png", "-m", "grad-cam")
    assert refused.status == 2
    assert "no convolution" in refused.err


def test_methods_lists_everything_with_options(run):
    everything = json.loads(run("methods", "--json").out)
    assert {k: list(v) for k, v in everything.items()} == {k: list(cs.catalogue(k)) for k in everything}
    kinds = "explainers attacks metrics checks visualisations augmentations corruptions purifiers networks detectors"
    others = "segmenters defences guides rebalancing thieves answer_defences"
    assert set(everything) == {*kinds.split(), *others.split()}
    shown = run("methods", "integrated-gradients").out
    assert "steps: int = 50" in shown
    assert "arxiv.org/abs/1703.01365" in shown
    assert "grad-cam" in run("methods").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("audit", "no-such-model"), "no-such-model"),
        (("audit", "photos"), "the model comes first"),
        (("features", "demo:coffee"), "the model comes first: demo demo:coffee"),
        (("audit", "demo", "nowhere"), "nowhere"),
        (("audit", "net.py:factory", "photos", "--only", "acuracy"), "accuracy"),
        (("audit", "net.py:factory", "photos", "--only", "robustness(stepz=1)"), "stepz"),
        (("audit", "net.py:factory", "photos", "--budget", "soon"), "60s"),
        (("audit", "net.py:factory", "photos", "--device", "abacus"), "abacus"),
        (("audit", "net.py:factory", "photos", "--method", "grad-cm"), "grad-cam"),
        (("audit", "net.py:factory", "photos", "--gate", "nothing.toml"), "nothing.toml"),
        (("audit", "net.py:factory", "photos", "-o", "photos"), "photos"),
        (("audit", "demo", "photos"), "--classes"),
        (("explain", "net.py"), "net.py"),
        (("explain", "net.py:factory"), "picture"),
        (("explain", "net.py:factory", "photos/red/red1.png", "-m", "grad-cam(layer=featurs)"), "features"),
        (("explain", "net.py:factory", "photos/red/red1.png", "--target", "mauve"), "mauve"),
        (("explain", "net.py:factory", "photos/red/red1.png", "--target", "top9"), "3 classes"),
        (("attack", "net.py:factory", "photos", "--eps", "much"), "8/255"),
        (("attack", "net.py:factory", "photos", "-a", "pdg"), "pgd"),
        (("methods", "grad-cm"), "grad-cam"),
        (("nonsense",), "nonsense"),
        (("audit", "--nonsense"), "nonsense"),
    ],
)
def test_wrong_input_is_one_line_that_names_it(words, told, workshop, run):
    ran = run(*words)
    assert ran.status == 2
    lines = [line for line in ran.err.splitlines() if not re.match(r"[a-z-]+: \d+ pictures?$", line)]
    assert len(lines) == 1, ran.err
    assert told in lines[0]
    assert "Traceback" not in ran.err + ran.out
    assert "defect" not in lines[0]
    assert not list((workshop / "photos").glob("report*"))


@pytest.mark.slow
def test_a_stopped_audit_goes_on_where_it_ended(workshop):
    """A real process is interrupted after its first finding; the second run takes that finding over."""
    env = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    checks = "accuracy, robustness(steps=100000, pictures=12)"
    words = [sys.executable, "-m", "clearsight", "audit", "net.py:factory", "photos", "--only", checks, "-o", "stopped"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are deaf to it
    going = subprocess.Popen(
        words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    report = workshop / "stopped" / "report.json"
    end = time.monotonic() + 90
    try:
        while not report.exists() and going.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        going.send_signal(signal.SIGINT)
        _, err = going.communicate(timeout=60)
    finally:
        going.kill()
    assert going.returncode == 2
    assert "continues the audit" in err
    first = json.loads(report.read_text())
    assert first["complete"] is False
    assert [f["name"] for f in first["findings"]] == ["accuracy"]
    other = subprocess.run([*words, "--seed", "1"], env=env, capture_output=True, text=True, check=False)
    assert "another seed" in other.stderr
    words[words.index(checks)] = "accuracy, calibration"
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    second = json.loads(report.read_text())
    assert second["complete"] is True
    assert second["findings"][0]["seconds"] == first["findings"][0]["seconds"]
    assert [f["name"] for f in second["findings"]] == ["accuracy", "calibration"]


def test_inspect_shows_the_layers_and_draws_them(workshop, run):
    shown = run("inspect", "net.py:factory", "-o", "seen")
    assert shown.status == 0, shown.err
    assert "features.0" in shown.out
    assert "Nothing stands in the way" in shown.out
    assert (workshop / "seen" / "layers-1.svg").read_bytes().startswith(b"<?xml")
    told = json.loads(run("inspect", "net.py:factory", "photos", "--json").out)
    assert told["layers"][0]["total_parameters"] == told["parameters"] == 24
    assert told["pictures"] == 12


def test_several_models_stand_side_by_side(workshop, run):
    words = ("inspect", "net.py:factory", "clearsight:lenet5", "photos", "--weights", "none", "--json")
    ran = run(*words)
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    assert [len(t["rows"]) > 1 for t in told["layers"]] == [True, True]
    assert told["layers"][1]["total_parameters"] == 60_000
    assert "11 of 12" in run(*words[:-1]).out or "91.7 %" in run(*words[:-1]).out


def test_the_lines_for_the_terminal_are_no_part_of_the_json(workshop, run):
    picture = "photos/red/red1.png"
    for words, keys in (
        (("explain", "net.py:factory", picture, "--no-tests"), ["folder", "seed", "pictures", "broken", "notes"]),
        (("data", "augment", picture, "-a", "flip"), ["folder", "seed", "pictures", "broken", "left_out"]),
        (("inspect", "net.py:factory", "net.py:factory"), ["layers", "left_out", "models", "measured"]),
    ):
        ran = run(*words, "--json")
        assert ran.status == 0, ran.err
        assert list(json.loads(ran.out)) == keys
    for words in (("features", "net.py:factory", "photos", "-m", "activations"), ("data", "check", "photos")):
        told = json.loads(run(*words, "--json").out)
        assert "lines" not in told
        assert (workshop / told["folder"]).is_dir()


def test_the_result_of_explain_pictures_is_a_record(workshop, tmp_path):
    data = [cs.folder(workshop / "photos" / "red")]
    model = factory()

    def explain(tests: bool) -> ExplainedPictures:
        methods = ["grad-cam", "saliency"]
        return explain_pictures(model, data, methods, "top2", lambda: tmp_path, tests=tests, progress=lambda *a: None)

    untested, tested = explain(False), explain(True)
    n = len(data[0].pictures)
    assert repr(untested) == f"<ExplainedPictures in {tmp_path}, {n} pictures: grad-cam(layer=features), saliency>"
    assert [picture.picture for picture in untested.pictures] == [picture.name for picture in data[0].pictures]
    cam, saliency = untested.pictures[0].maps
    assert (cam.tests, len(cam.target), cam.file.parent) == (None, 2, tmp_path)
    assert cam.test_lines() == []
    assert json.loads(json.dumps(untested.as_dict()))["pictures"][0]["maps"][1] == saliency.as_dict()
    for saved in tested.pictures[0].maps:
        assert saved.tests is not None
        assert len(saved.tests) == 2
        for line, target, test in zip(saved.test_lines(), saved.target, saved.tests, strict=True):
            assert line == f"  {saved.method}, {target}: {'; '.join(test.lines())}"
    assert tested.pictures[0].lines()[-1].strip() == str(tested.pictures[0].sheet)


def test_data_augment_draws_a_sheet(workshop, run):
    ran = run(
        "data", "augment", "photos/red/red1.png", "photos/blue/blue1.png", "-a", "flip", "-a", "mixup", "-o", "seen"
    )
    assert ran.status == 0, ran.err
    assert len(list((workshop / "seen").glob("*.png"))) == 2
    assert run("data", "augment", "photos/red/red1.png", "-a", "flop").status == 2


def test_data_check_says_what_is_wrong(workshop, run):
    (workshop / "photos" / "red" / "again.png").write_bytes((workshop / "photos" / "red" / "red1.png").read_bytes())
    ran = run("data", "check", "photos", "-o", "checked")
    assert ran.status == 0, ran.err
    assert "again.png" in ran.out
    assert (workshop / "checked" / "index.html").is_file()
    judged = json.loads(run("data", "check", "photos", "--model", "net.py:factory", "--json").out)
    assert judged["model"] == "net.py:factory"


def test_data_collect_refuses_before_it_asks_anybody(workshop, run):
    assert (
        "at least" in run("data", "collect", " ", "-o", "x").err or run("data", "collect", " ", "-o", "x").status == 2
    )
    ran = run("data", "collect", "apple", "-o", "x", "--source", "gogle")
    assert ran.status == 2
    assert "openverse" in ran.err
