"""Report: the findings and where they came from.  report.json is the only thing that anything else reads."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

from clearsight.core.output import write_whole
from clearsight.errors import Refused
from clearsight.reporting.facts import RunFacts, read_facts
from clearsight.reporting.findings import BoxTable, Evidence, Figure, Finding, Maps, Table
from clearsight.reporting.opening import opening, sheet_order
from clearsight.reporting.wording import show, show_interval

SCHEMA = 1
# fields that stand in report.json only where a check says something of them
_WRITTEN_IF_SET = ("chosen_explainer", "maps_unreliable", "mend", "boxes")
MARKS = "MARKS"  # in a command, a file of boxes that has no place yet


@dataclass(frozen=True)
class Report:
    """The findings of an audit and where they came from.

    Args:
        facts: the run, its model and its data (version, seed, environment, ...), with the fields of report.json;
            `as_dict` has them as a dict.
        findings: one for each check, in the order in which they ran.
    """

    facts: RunFacts
    findings: tuple[Finding, ...]
    kind: ClassVar[str] = "audit"

    @property
    def verdict(self) -> str:
        """The whole audit in one sentence, with its numbers."""
        return verdict(self.findings)

    @property
    def opening(self) -> tuple[str, ...]:
        """The first lines of the sheet and of report.html: what fails, and what to do first."""
        return opening(self.findings, self.facts.thing, self.facts.model.kind)

    @property
    def sheet(self) -> tuple[Finding, ...]:
        """The findings in the order in which people read them; report.json keeps that in which the checks ran."""
        return tuple(sheet_order(self.findings))

    @property
    def status(self) -> int:
        """The exit status: 2 where some of the work could not be done, 1 where a bar of the gate failed, else 0."""
        if any(f.verdict == "error" for f in self.findings):
            return 2
        return int(any(not bar.held for bar in self.facts.gate or ()))

    def as_dict(self) -> dict[str, Any]:
        """What report.json holds: figures by the name of their file, numbers that are not finite as null."""
        fields = {"schema": SCHEMA, "verdict": self.verdict, "status": self.status, **self.facts.as_dict()}
        return _json_values(fields | {"findings": [_finding_fields(f) for f in self.findings]})  # type: ignore[no-any-return]

    def json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def html(self) -> str:
        """One file that opens from disk, with no request to anywhere."""
        from clearsight.reporting.html_report import render

        return render(self.kind, self.opening, self.facts, self.sheet)

    def save(self, folder: str | Path, *, html: bool = True) -> Path:
        """Write report.html, report.json, figures/ and tables of boxes into a folder; each file whole or not at all."""
        folder = Path(folder)
        report = self.placed(folder)
        for f in self.findings:
            if f.boxes is not None:
                write_whole(folder / f.boxes.name, f.boxes.text)
        for figure in self.figures():
            write_whole(folder / "figures" / figure.name, figure.data)
        if html:
            write_whole(folder / "report.html", report.html())
        write_whole(folder / "report.json", report.json())
        return folder

    def placed(self, folder: Path) -> Report:
        """The report as it is saved in a folder: its commands name the tables of boxes that are written there."""
        return dataclasses.replace(self, findings=tuple(_placed(f, folder) for f in self.findings))

    def figures(self) -> Iterable[Figure]:
        for f in self.findings:
            yield from f.figures
            yield from (e.figure for e in f.evidence)

    @staticmethod
    def read(folder: str | Path) -> Report:
        """A report that ``save`` wrote."""
        folder = Path(folder)
        try:
            fields = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as e:
            raise Refused(f"no report in {folder}: {e}") from None
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            schema = fields.get("schema") if isinstance(fields, dict) else None
            raise Refused(f"{folder}/report.json is of schema {schema!r}, this version reads {SCHEMA}")
        try:
            facts = read_facts(fields)
        except Refused as e:
            raise Refused(f"{folder}/report.json is not as it was written: {e}", "make the report again") from None
        try:
            report = Report(facts, tuple(_read_finding(f, folder) for f in fields["findings"]))
            report.as_dict()  # refuses what cannot be written again
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as e:
            raise Refused(f"{folder}/report.json is not as it was written: {type(e).__name__}: {e}") from None
        return report

    def _repr_html_(self) -> str:
        from clearsight.reporting.html_report import summary

        return summary(self.opening, self.sheet)


def verdict(findings: Sequence[Finding]) -> str:
    """One sentence over all findings: what fails, what the pictures are too few for, what holds."""

    def in_words(f: Finding) -> str:
        if not f.n:
            return f.name
        interval = f", {show_interval(f)}" if f.interval else ""
        return f"{f.quantity or f.name} {show(f.value, f.unit)} (n = {f.n}{interval})"

    words = {
        "fail": ("fails", "fail"),
        "warn": ("is undecided", "are undecided"),
        "pass": ("holds", "hold"),
        "note": ("has nothing to judge", "have nothing to judge"),
        "error": ("could not be done", "could not be done"),
    }
    parts = []
    for kind, (one, many) in words.items():
        of_kind = [in_words(f) for f in findings if f.verdict == kind]
        if len(findings) == len(of_kind) == 1:
            return f"The one check {one}: {of_kind[0]}."
        if of_kind:
            parts.append(f"{len(of_kind)} {one if len(of_kind) == 1 else many}: {'; '.join(of_kind)}")
    sentence = ", and ".join(["; ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)
    return f"Of {len(findings)} checks {sentence}."


def _placed(f: Finding, folder: Path) -> Finding:
    if f.boxes is None:
        return f
    words = [str(folder / f.boxes.name) if word == MARKS else word for word in shlex.split(f.mend)]
    return dataclasses.replace(f, mend=shlex.join(words))


def _finding_fields(f: Finding) -> dict[str, Any]:
    fields = {k.name: getattr(f, k.name) for k in dataclasses.fields(f)}
    fields["tables"] = [{"caption": t.caption, "rows": list(t.rows)} for t in f.tables]
    fields["figures"] = [_figure_fields(g) for g in f.figures]
    fields["evidence"] = [
        {
            "picture": e.picture,
            "facts": e.facts,
            "command": e.command,
            "maps": e.maps,
            "figure": _figure_fields(e.figure),
        }
        for e in f.evidence
    ]
    fields["boxes"] = None if f.boxes is None else f.boxes.name
    written = {k: v for k, v in fields.items() if k not in _WRITTEN_IF_SET or v not in ("", None)}
    return {"name": f.name, **written}


def _figure_fields(g: Figure) -> dict[str, str]:
    return {"file": f"figures/{g.name}", "caption": g.caption, "alt": g.alt}


def _read_finding(d: dict[str, Any], folder: Path) -> Finding:
    def figure(g: dict[str, str]) -> Figure:
        name = Path(g["file"]).name  # never outside the report's own folder
        try:
            return Figure(name, (folder / "figures" / name).read_bytes(), g["caption"], g["alt"])
        except OSError as e:
            raise Refused(f"the report in {folder} lacks its figure {name}: {e.strerror}") from None

    names = {f.name for f in dataclasses.fields(Finding)}
    values = {k: v for k, v in d.items() if k in names}
    values["interval"] = tuple(d["interval"]) if d["interval"] else None
    values["notes"] = tuple(d["notes"])
    values["tables"] = tuple(Table(t["caption"], tuple(t["rows"])) for t in d["tables"])
    values["figures"] = tuple(figure(g) for g in d["figures"])
    values["evidence"] = tuple(
        Evidence(e["picture"], figure(e["figure"]), e["facts"], e["command"], _read_maps(e)) for e in d["evidence"]
    )
    if (boxes := d.get("boxes")) is not None:
        name = Path(boxes).name
        try:
            values["boxes"] = BoxTable(name, (folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise Refused(f"the report in {folder} lacks its table of boxes {name}: {e}") from None
    if not isinstance(d.get("chosen_explainer", ""), str):
        raise TypeError(f"chosen_explainer is {d['chosen_explainer']!r}, not a text")
    if not isinstance(d.get("maps_unreliable"), bool | None):
        raise TypeError(f"maps_unreliable is {d['maps_unreliable']!r}, not true or false")
    return Finding(**values)


def _read_maps(evidence: dict[str, Any]) -> Maps:
    """How the evidence's figure draws maps; "none" in reports of versions that did not record it."""
    maps = evidence.get("maps", "none")
    if maps not in get_args(Maps):
        raise ValueError(f"maps are {maps!r}")
    return cast(Maps, maps)


def _json_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _json_values(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json_values(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
