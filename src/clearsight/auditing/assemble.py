"""Findings of a case put together as a report, and the commands that make them again."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata

from clearsight.auditing.case import Case
from clearsight.auditing.place_case import PlaceCase
from clearsight.core.catalogue import catalogue
from clearsight.core.check_kinds import why_not
from clearsight.core.model import Model
from clearsight.reporting.facts import BarResult, BrokenFile, DataFacts, ModelFacts, NotJudged, RunFacts
from clearsight.reporting.findings import Finding
from clearsight.reporting.report import Report

AnyCase = Case | PlaceCase


def make(
    case: AnyCase,
    findings: Sequence[Finding],
    *,
    seconds: float,
    command: str = "",
    gate: Sequence[BarResult] | None = None,
    complete: bool = True,
) -> Report:
    """The report of the findings of a case, with its model, its data and its run."""
    method = str(case.method) if any(f.verdict != "error" for f in findings) else ""
    findings_with_commands = [
        dataclasses.replace(f, command=f.command or evidence_command(case, f.check)) for f in findings
    ]
    facts = RunFacts(
        clearsight=metadata.version("clearsight"),
        complete=complete,
        command=command,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 2),
        case=case.key,
        seed=case.seed,
        budget=case.budget,
        asked=case.requested_method if method else case.method_words,
        method=method,
        signed=case.signed if method else False,
        model=model_facts(case.model),
        data=_data_facts(case),
        gate=None if gate is None else tuple(gate),
        environment=environment(str(case.model.device)),
        not_judged=not_judged(case.model.kind),
    )
    return Report(facts, tuple(findings_with_commands))


def not_judged(kind: str) -> tuple[NotJudged, ...]:
    """The checks of classifiers that cannot judge another kind of model, and why; none for a classifier itself."""
    if kind == "classifier":
        return ()
    reasons = {name: why_not(check, kind) for name, check in catalogue("checks").items()}
    return tuple(NotJudged(name, why) for name, why in reasons.items() if why)


def model_facts(model: Model) -> ModelFacts:
    """A model of any kind as a report names it."""
    return ModelFacts(
        source=model.source,
        fingerprint=model.fingerprint(),
        network=type(model.net).__name__,
        parameters=sum(w.numel() for w in model.net.parameters()),
        classes=len(model.labels),
        preprocess=model.preprocess,
        kind=model.kind,
    )


def _data_facts(case: AnyCase) -> DataFacts:
    return DataFacts(
        source=str(case.data.root),
        digest=case.digest,
        pictures=len(case.data.pictures) + len(case.data.broken),
        tried=case.tried + len(case.data.broken),
        read=len(case.pictures),
        labelled=len(case.labelled),
        annotated=len(case.annotated),
        broken=tuple(BrokenFile(name, reason) for name, reason in case.broken),
        notes=case.notes,
    )


def evidence_command(case: AnyCase, check: str) -> str:
    """The command that runs this check again, with the options that it has.

    It names the explainer, where one was asked for, or where the check drew maps by one that an earlier check chose.
    """
    explainer = str(case.method)
    if case.method_words == "auto":
        explainer = case.chosen_explainer if case.maps_used else ""
    return case.commands.of_check(check, explainer)


def environment(device: str) -> dict[str, str]:
    """Versions of Python and libraries, the system and the device."""
    names = ("torch", "torchvision", "timm", "numpy", "pillow")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
    } | {n: metadata.version(n) for n in names}
