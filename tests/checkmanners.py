"""The manners of what a check finds, whatever it is about."""

from __future__ import annotations

from clearsight.reporting.findings import Finding


def check_manners(f: Finding, n: int) -> None:
    """A verdict, a sentence, a number with its interval on n pictures, tables with even rows, figures in words."""
    assert f.verdict in ("pass", "warn", "fail"), f.headline
    assert f.headline.endswith(".")
    assert "\n" not in f.headline
    assert f.n == n
    assert f.quantity
    assert f.value is not None
    assert f.interval is not None
    assert f.interval[0] <= f.value <= f.interval[1]
    assert str(f.n) in f.headline
    assert f.summary.endswith("?"), "the docstring begins with the question that the check asks"
    assert all(note.endswith(".") for note in f.notes)
    names = [g.name for g in (*f.figures, *(e.figure for e in f.evidence))]
    assert len(set(names)) == len(names)
    assert all(g.data and g.alt and g.caption for g in (*f.figures, *(e.figure for e in f.evidence)))
    assert all(g.data.startswith(b"<?xml") for g in f.figures)
    assert all(e.command.startswith("clearsight ") and e.figure.data[:4] == b"\x89PNG" for e in f.evidence)
    for t in f.tables:
        assert len({tuple(r) for r in t.rows}) == 1, f"{t.caption}: all rows have the same columns"
        assert all(isinstance(v, str | int | float | None) for r in t.rows for v in r.values())
