"""What the README, CONTRIBUTING and the docs say is run as it stands, so that it cannot go stale."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import clearsight as cs
from clearsight.reporting.method_pages import pages

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks(README, "console") for line in block.splitlines()]
    return [line for line in lines if line.startswith("clearsight ")]


def test_the_two_commands_that_set_everything_up():
    installs = [line for line in README.splitlines() if line.startswith("pip install")]
    assert [line.split("  ")[0] for line in installs] == [
        "pip install . && clearsight audit",
        "pip install -e '.[test]' && pytest",
    ]
    assert "|| true" not in (ROOT / ".ci" / "run").read_text()


@pytest.fixture
def husky(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the README's commands speak of: a package with a model, a run folder, photos, boxes, bars."""
    package = workshop / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text("from workshop import factory as classifier\n")
    monkeypatch.syspath_prepend(str(workshop))
    torch.manual_seed(0)
    model = cs.load("timm:resnet10t", weights="none", labels=["red", "green", "blue"])
    cs.save(model, workshop / "runs" / "husky")
    (toml,) = blocks(README, "toml")
    assert re.search("at_least = ", toml)
    (workshop / "bars.toml").write_text(re.sub("at_least = .*", "at_least = 0.0", toml))
    return workshop


def test_there_are_commands():
    assert len(commands()) >= 7
    assert set(commands()) >= ELSEWHERE


# test_shortcuts and test_detection_demo run them, and look at what they find
ELSEWHERE = {"clearsight demo shortcut", "clearsight demo detection"}


@pytest.mark.parametrize("command", [c for c in commands() if c not in ELSEWHERE])
@pytest.mark.slow
def test_commands_of_the_readme(command, husky, run):
    for folder in ("runs/mine", "runs/mended"):  # what a command above it leaves
        if folder in command and f"-o {folder}" not in command:
            (before,) = [
                c for c in commands() if c.endswith(f"-o {folder}") and c.startswith("clearsight train photos/")
            ]
            assert run(*shlex.split(before)[1:]).status == 0
    ran = run(*shlex.split(command)[1:])
    allowed = {0, 1} if "--gate" in command else {0}
    assert ran.status in allowed, ran.err


@pytest.mark.slow
def test_python_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README, "python")
    told: dict[str, object] = {}
    exec(code, told)
    report = told["report"]
    assert isinstance(report, cs.Report)
    assert report.findings[0].n == 10
    assert told["found"].maps.shape == (2, 224, 224)  # type: ignore[attr-defined]
    assert told["broken"].fooled.shape == (2,)  # type: ignore[attr-defined]


def test_python_of_the_docs(tmp_path, monkeypatch):
    code, truth = blocks((ROOT / "docs" / "models-and-data.md").read_text(), "python")
    told = {"net": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))}
    exec(code, told)
    assert told["model"](torch.rand(1, 3, 224, 224)).shape == (1, 2)
    monkeypatch.chdir(tmp_path)
    for folder in ("det_bccd/images", "det_bccd/labels", "roads/images", "roads/masks"):
        Path(folder).mkdir(parents=True)
    for file, mode in (("det_bccd/images/a.png", "RGB"), ("roads/images/a.png", "RGB"), ("roads/masks/a.png", "L")):
        Image.new(mode, (60, 40), 1 if mode == "L" else (9, 9, 9)).save(file)
    Path("det_bccd/labels/a.txt").write_text("0 0.5 0.5 0.25 0.25")
    exec(truth, told)
    assert told["truth"].boxes.tolist() == [[22.5, 15, 37.5, 25]]
    assert told["classes"].eq(1).all()


def test_python_of_the_page_of_segmenters():
    (code,) = blocks((ROOT / "docs" / "segmentation.md").read_text(), "python")
    told: dict[str, object] = {}
    exec(code, told)
    assert told["logits"].shape == (2, 3, 64, 96)  # type: ignore[attr-defined]
    assert any(p.grad.any() for p in told["net"].parameters())  # type: ignore[attr-defined]


def test_links_lead_somewhere():
    named = re.findall(r'"([\w-]+\.(?:md|svg))"', (ROOT / "docs" / "generate.py").read_text())
    made = {*named, *pages()}  # while mkdocs builds
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not link.startswith("https://"):
                known = (page.parent / link).exists() or (page.parent.name == "docs" and link in made)
                assert known, f"{page.name}: {link}"


def test_the_report_fields_that_the_docs_name_exist():
    page = (ROOT / "docs" / "report.md").read_text()
    schema = json.loads((ROOT / "src" / "clearsight" / "reporting" / "report.schema.json").read_text())
    named = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page.split("## report.json")[1], re.MULTILINE)
    fields = [f for row in named for f in re.findall(r"`(\w+)`", row)]
    assert len(fields) > 10
    assert set(fields) <= set(schema["properties"])


@pytest.mark.slow
def test_a_method_in_five_minutes(tmp_path):
    """The example of CONTRIBUTING, added to a copy of the package: everything finds it, and the contract holds it."""
    code, _ = blocks((ROOT / "CONTRIBUTING.md").read_text(), "python")
    copy = tmp_path / "src"
    shutil.copytree(ROOT / "src" / "clearsight", copy / "clearsight", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "clearsight" / "explainers" / "gradient_power.py").write_text(code)
    tests = tmp_path / "tests"
    tests.mkdir()
    for name in ("conftest.py", "workshop.py", "argsblock.py", "thinning.py", "contract/test_contract.py"):
        shutil.copy(ROOT / "tests" / name, tests)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), str(tests)])}
    code = "from clearsight.cli.app import main; main()"

    def clearsight(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = json.loads(clearsight("methods", "gradient-power", "--json"))
    assert listed["explainers"]["gradient-power"]["options"] == {"power": "float = 2.0"}
    drawn = clearsight("explain", "demo:coffee", "-m", "gradient-power(power=0.5)", "--json")
    assert json.loads(drawn)["pictures"][0]["maps"][0]["method"] == "gradient-power(power=0.5)"
    pages = "from clearsight.reporting.method_pages import pages; print(pages()['explainers.md'])"
    docs = subprocess.run([sys.executable, "-c", pages], env=env, capture_output=True, text=True, check=True).stdout
    assert "## gradient-power" in docs
    held = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "gradient-power", str(tests)],
        env=env, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert held.returncode == 0, held.stdout[-2000:]
    assert int(re.search(r"(\d+) passed", held.stdout)[1]) >= 8  # type: ignore[index]


def test_every_public_name_is_one_of_ours():
    """And no module, which tests/contract/test_layers.py sees to."""
    for name in {*cs.__all__} - {"__version__"}:
        assert getattr(cs, name).__module__.startswith("clearsight.")


def test_the_version_is_said_once():
    from importlib import metadata

    assert metadata.version("clearsight") == cs.__version__
