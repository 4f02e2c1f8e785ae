"""Damaged files of every form, by the hundred: a picture, a model, or a refusal that says why; and what they found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import clearsight as cs
import filemutants as mutants
from clearsight.auditing.case import Case
from clearsight.auditing.gate import read_gate
from clearsight.curation.quality.label_flaws import training_warnings
from clearsight.data.datasets import folder as open_folder
from clearsight.errors import Refused
from clearsight.models.model_folder import train_pictures
from clearsight.reporting.report import Report

HERE = Path(__file__).parents[1]  # tests


def faults(kind: str, seed: int, count: int, folder: Path) -> list[dict[str, str]]:
    """What a process that reads so many damaged files found wrong; a crash is a fault too."""
    told = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "filemutants.py"), kind, str(seed), str(count), str(folder)],
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    if told.returncode or not lines or lines[-1].get("tried") != count:
        lines.append({"what": f"it ended with {told.returncode}", "fault": told.stderr[-2000:]})
    return [line for line in lines if "fault" in line]


@pytest.mark.parametrize("kind", ["pictures", "runs"])
def test_sixty_damaged_files(tmp_path: Path, kind: str) -> None:
    read = {"pictures": mutants.pictures, "runs": mutants.runs}[kind]
    assert list(read(0, 60, tmp_path)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed", "count"), [("pictures", 1, 1500), ("pictures", 2, 1500), ("runs", 1, 1200)])
def test_hundreds_of_damaged_files(tmp_path: Path, kind: str, seed: int, count: int) -> None:
    assert faults(kind, seed, count, tmp_path) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    mutants.whole_run(folder)
    return folder


def copied(run: Path, to: Path, **changes: object) -> Path:
    """The run folder with other fields in its config.json."""
    for file in run.iterdir():
        if file.is_file():
            (to / file.name).write_bytes(file.read_bytes())
    says = json.loads((run / "config.json").read_text())
    for name, value in changes.items():
        (says["preprocess"] if name in says["preprocess"] else says)[name] = value
    (to / "config.json").write_text(json.dumps(says))
    return to


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(run: Path, tmp_path: Path, value: float) -> None:
    folder = copied(run, tmp_path)
    state = load_file(run / "model.safetensors")
    state["c5.weight"][3, 0, 0, 0] = value
    save_file(state, folder / "model.safetensors")
    with pytest.raises(
        Refused, match=r"model.safetensors holds numbers that are not finite .* in c5.weight: its train"
    ):
        cs.load(folder)


def test_weights_beyond_the_network_s_precision_are_refused(run: Path, tmp_path: Path) -> None:
    folder = copied(run, tmp_path)
    state = load_file(run / "model.safetensors")
    state["c5.weight"] = state["c5.weight"].double() * 1e300
    save_file(state, folder / "model.safetensors")
    with pytest.raises(Refused, match=r"numbers that are not finite .* in c5.weight"):
        cs.load(folder)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.complex64])
def test_weights_of_another_kind_of_number_are_refused(run: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    folder = copied(run, tmp_path)
    state = load_file(run / "model.safetensors")
    state["c5.weight"] = state["c5.weight"].to(dtype)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(
        Refused, match=r"c5.weight \((whole numbers|complex) instead of floating point\); it may be damaged"
    ):
        cs.load(folder)


def test_weights_of_another_precision_are_read(run: Path, tmp_path: Path) -> None:
    folder = copied(run, tmp_path)
    state = {
        k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in load_file(run / "model.safetensors").items()
    }
    save_file(state, folder / "model.safetensors")
    assert torch.equal(cs.load(folder).net.state_dict()["c5.weight"], state["c5.weight"].float())


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("mean", [float("nan")], "preprocess.mean is not valid"),
        ("std", [float("inf")], "preprocess.std is not valid"),
        ("std", [10**400], "preprocess.std is not valid"),
        ("interpolation", "", "interpolation '': give nearest"),
        ("size", [32], "lenet5 takes pictures"),
        ("labels", ["a", "\ud800", "b"], "is not JSON: "),
        ("architecture", "clearsight:leenet5", "no network 'leenet5'"),
    ],
)
def test_a_config_is_refused_by_its_name(run: Path, tmp_path: Path, field: str, value: object, said: str) -> None:
    folder = copied(run, tmp_path, **{field: value})
    with pytest.raises(Refused) as refused:
        cs.load(folder)
    assert str(refused.value).startswith(str(folder / "config.json"))
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 100_000 + "]" * 100_000])
def test_json_of_thousands_of_digits_or_brackets_is_refused(run: Path, tmp_path: Path, text: str) -> None:
    folder = copied(run, tmp_path)
    for name in ("config.json", "report.json", "labels.json"):
        (folder / name).write_text(f'{{"schema": {text}}}')
    for read in (
        lambda: cs.load(folder),
        lambda: Report.read(folder),
        lambda: cs.load("clearsight:lenet5", weights="none", labels=folder / "labels.json"),
        lambda: open_folder(folder / "0.png", classes=folder / "labels.json"),
        lambda: read_gate(folder / "labels.json"),
    ):
        with pytest.raises(Refused):
            read()


@pytest.mark.parametrize("output", ["T", "mT", 0, 10**30])
def test_a_tensor_has_no_parts(run: Path, tmp_path: Path, output: object) -> None:
    model = cs.load(copied(run, tmp_path, output=output))
    with pytest.raises(Refused, match=r"^the network's output is a tensor \(3, 3\), without parts: leave output="):
        model(torch.zeros(3, 1, 32, 32))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_preprocessing_is_finite(value: float) -> None:
    for mean, std in (((value,), (1.0,)), ((0.0,), (value,))):
        with pytest.raises(Refused, match="give finite numbers"):
            cs.Preprocess(8, mean, std)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file,label\n0.png,cat\n", "has no column split"),
        ("file,label,split\n0.png,cat,trian\n", "split is one of train, val, test"),
        ("file,label,split\n", "split is one of train, val, test"),
        ("file,label,split\n0.png,cat\n", "row 2 has 2 cells"),
    ],
)
def test_a_damaged_table_of_a_run_is_told(run: Path, tmp_path: Path, table: str, said: str) -> None:
    """Not as if the model had been trained on none of the pictures."""
    model, pictures = cs.load(run), open_folder(run / "split.csv", split="all")
    assert Case(model, pictures).learned[0].startswith("The model was trained on 3 of these 6 pictures")
    folder = copied(run, tmp_path)
    (folder / "split.csv").write_text(table)
    with pytest.raises(Refused, match=said):
        train_pictures(str(folder))
    case = Case(cs.load(folder), pictures)
    assert case.learned[0].startswith("Whether the model was trained on some of these pictures is not known: ")
    assert said in case.learned[0]
    assert said in training_warnings(case.model, case.pictures, 0.5)[0]


@pytest.mark.parametrize(("field", "value"), [("interval", ["a", 1]), ("value", "x"), ("n", {}), ("tables", [3])])
def test_a_report_that_cannot_be_told_is_refused(run: Path, tmp_path: Path, field: str, value: object) -> None:
    folder = copied(run, tmp_path)
    says = json.loads((run / "report.json").read_text())
    says["findings"][0][field] = value
    (folder / "report.json").write_text(json.dumps(says))
    with pytest.raises(Refused, match=r"report.json is not as it was written"):
        Report.read(folder)


def test_every_loss_in_a_folder_is_named(tmp_path: Path, run: Path) -> None:
    """What this file's oracle stands on, by hand: a whole picture and a cut one."""
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:-20])
    case = Case(cs.load(run), open_folder(tmp_path))
    assert ([p.name for p in case.pictures], case.broken) == (["a.png"], (("b.png", "truncated"),))
