"""An audit from Python has what the command has: bars that must hold, a folder, and going on after a stop."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_type_hints

import pytest

import clearsight as cs
from clearsight.auditing.audit import Stopped
from clearsight.cli.options import Take, grouped
from clearsight.core.run_names import new_run, unless_empty
from clearsight.reporting.facts import BarResult
from clearsight.reporting.report import Report
from workshop import factory

CHECKS = "accuracy, faithfulness(pictures=2)"


def _stop(what: str, done: int, total: int) -> None:
    """What a user does who interrupts the second check."""
    if what == "faithfulness":
        raise KeyboardInterrupt


def test_a_bar_that_fails_is_the_status(workshop: Path) -> None:
    gate = workshop / "bars.toml"
    gate.write_text("[accuracy]\nat_least = 0.9\n")
    held = cs.audit(factory(), "photos", only="accuracy", gate=gate)
    assert held.status == 0
    assert held.facts.gate == (BarResult("accuracy", "at least 90.0 %", "91.7 %", held=True),)
    gate.write_text("[accuracy]\nat_least = 0.95\n")
    assert cs.audit(factory(), "photos", only="accuracy", gate=str(gate)).status == 1
    assert cs.audit(factory(), "photos", only="accuracy").facts.gate is None
    with pytest.raises(cs.Refused, match="the gate has a bar for accuracy, which --only leaves out"):
        cs.audit(factory(), "photos", only="calibration", gate=gate)


def test_a_stopped_audit_goes_on_in_its_folder(workshop: Path) -> None:
    with pytest.raises(Stopped, match="stopped after 1 of 2 checks") as stopped:
        cs.audit(factory(), "photos", only=CHECKS, folder="kept", progress=_stop)
    assert (stopped.value.done, stopped.value.of, stopped.value.folder) == (1, 2, Path("kept"))
    part = Report.read("kept")
    assert [f.name for f in part.findings] == ["accuracy"]
    assert part.facts.complete is False
    assert not Path("kept/report.html").exists()
    with pytest.raises(cs.Refused, match="a stopped audit of another seed"):
        cs.audit(factory(), "photos", only=CHECKS, folder="kept", seed=1)
    seen: list[str] = []
    whole = cs.audit(factory(), "photos", only=CHECKS, folder="kept", progress=lambda what, *rest: seen.append(what))
    assert [f.name for f in whole.findings] == ["accuracy", "faithfulness"]
    assert "accuracy" not in seen
    assert whole.findings[0].seconds == part.findings[0].seconds
    assert whole.facts.seconds == pytest.approx(sum(f.seconds for f in whole.findings), abs=0.011)
    assert Report.read("kept").as_dict() == whole.as_dict()
    page = Path("kept/report.html").read_text()
    pictures = re.findall(r"data:image/(?:webp|png)[^\"]*", page)
    assert len(pictures) == len(set(pictures)) < page.count('class="told"')  # both checks show the same picture
    assert sum(map(len, pictures)) < 4_500
    assert len(page) < 100_000
    with pytest.raises(cs.Refused, match="kept holds a finished audit"):
        cs.audit(factory(), "photos", only=CHECKS, folder="kept")


def test_without_a_folder_nothing_is_written_and_a_stop_is_plain(workshop: Path) -> None:
    before = sorted(workshop.rglob("*"))
    with pytest.raises(KeyboardInterrupt) as stopped:
        cs.audit(factory(), "photos", only=CHECKS, progress=_stop)
    assert stopped.type is KeyboardInterrupt
    cs.audit(factory(), "photos", only="accuracy")
    assert sorted(workshop.rglob("*")) == before


def test_of_work_that_was_refused_no_folder_is_left(workshop: Path) -> None:
    with pytest.raises(cs.Refused, match="pictures is how many"):
        cs.audit(factory(), "photos", only="faithfulness(pictures=0)", folder="none")
    assert not Path("none").exists()
    with new_run("attack", None) as folder:
        assert folder.is_dir()
    assert not folder.exists()
    with pytest.raises(KeyboardInterrupt), new_run("attack", Path("stopped")) as folder:
        raise KeyboardInterrupt
    assert not folder.exists()
    with new_run("attack", Path("some")) as folder:
        (folder / "attacked.png").touch()
    assert [p.name for p in folder.iterdir()] == ["attacked.png"]
    with unless_empty(Path("never made")):
        pass


def test_a_verb_has_the_options_that_it_takes_of_a_group() -> None:
    @dataclass(frozen=True)
    class Fruit:
        apples: int = 1
        pears: int = 2
        plums: int = 3

    eaten: list[tuple[str, Fruit, bool]] = []

    def eat(who: str, *, fruit: Annotated[Fruit, Take("plums", "apples")], slowly: bool = False) -> None:
        eaten.append((who, fruit, slowly))

    eat.__annotations__ = get_type_hints(eat, localns=locals(), include_extras=True)
    command = grouped(eat)
    assert list(inspect.signature(command).parameters) == ["who", "plums", "apples", "slowly"]
    command(who="me", plums=9, apples=8, slowly=True)
    assert eaten == [("me", Fruit(8, 2, 9), True)]
