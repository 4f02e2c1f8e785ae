"""What is told of the catalogue: a method in full, and options that are not there."""

import inspect
from pathlib import Path

import pytest

from clearsight.core.catalogue import FOLDERS, catalogue, parse
from clearsight.errors import Refused
from clearsight.reporting.method_pages import one, pages

EVERY = [n for folder in FOLDERS for n in catalogue(folder)]


@pytest.mark.parametrize("name", EVERY)
def test_a_method_in_full_ends_in_a_whole_sentence(name: str) -> None:
    """The examples are left out, and so is the paragraph that leads up to them."""
    words = one(name).split("\n\n")
    assert ">>>" not in one(name)
    assert not any(part.endswith(":") for part in words[1:])
    method = next(m for folder in FOLDERS for n, m in catalogue(folder).items() if n == name)
    assert words[1] in (inspect.getdoc(method.fn) or "")


def test_the_documentation_keeps_what_leads_up_to_its_examples() -> None:
    assert "Behind one averaged channel the map is that channel times its weight:" not in one("cam")
    assert (
        "Behind one averaged channel the map is that channel times its weight:\n\n```python" in pages()["explainers.md"]
    )


def test_an_option_before_the_star_is_told_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("def my_cam(model, x, target, k: int = 1):\n    return k * x[:, 0]\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match=r"no option 'k': options stand behind a \* in the function's signature") as told:
        parse("./mine.py:my_cam(k=3)", "explainers")
    assert "(..., *, k=...)" in str(told.value)
    assert "\n" not in str(told.value)
    for other in ("j", "target"):
        with pytest.raises(Refused, match=f"no option '{other}': it has none"):
            parse(f"./mine.py:my_cam({other}=3)", "explainers")
