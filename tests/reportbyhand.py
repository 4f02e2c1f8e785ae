"""A report written by hand, with something of everything that a report can hold, and hostile words."""

import torch

from clearsight.drawing.heatmaps import overlay, png
from clearsight.reporting.facts import read_facts
from clearsight.reporting.findings import Evidence, Figure, Finding, Table
from clearsight.reporting.report import Report

HOSTILE = "<script>alert(1)</script>.jpg"
CHART = b"""<svg xmlns="http://www.w3.org/2000/svg" width="400" height="120" viewBox="0 0 400 120">
<path d="M10 110L130 60L260 70L390 10" fill="none" stroke="#2b83b5" stroke-width="3"/>
<script>document.title = "run"</script></svg>"""


def picture(seed: int, region: bool = False) -> bytes:
    random = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.interpolate(torch.rand(1, 3, 7, 7, generator=random), 112, mode="bicubic")[0].clamp(0, 1)
    heat = torch.nn.functional.interpolate(torch.randn(1, 1, 7, 7, generator=random), 112, mode="bicubic")[0, 0]
    mask = torch.zeros(112, 112, dtype=torch.bool)
    mask[20:90, 30:80] = True
    return png(overlay(x, heat, signed=True, region=mask if region else None))


def by_hand() -> Report:
    """A report with every verdict, hostile names, a long table, broken files, a gate and a number that is none."""
    chart = Figure("curve.svg", CHART, "Accuracy <b>by</b> eps", 'A curve that "rises"')
    again = "clearsight audit demo photos/ --only"
    shown = tuple(
        Evidence(
            HOSTILE if i == 0 else f"birds/{'very_long_name_' * (6 if i == 1 else 1)}{i}.jpg",
            Figure(f"looks-{i}.png", picture(i, True), "said <i>tench</i>", f"Map over {HOSTILE}"),
            {"inside": 0.1 * i, "said": "tench, Tinca tinca", "shown": "<img src=x onerror=alert(2)>", "right": i > 1},
            f'clearsight explain demo "photos/{HOSTILE}" -m "grad-cam(layer=blocks.6)"',
            "colour",
        )
        for i in range(5)
    )
    rows = tuple({"class": f"class {i}" if i else HOSTILE, "n": i, "accuracy": i / 40, "why": None} for i in range(40))
    findings = (
        Finding(
            "pass",
            "Right on 91.2 % of 250 pictures.",
            "top-1",
            0.912,
            (0.87, 0.94),
            250,
            chance=0.001,
            tables=(Table("Each class, worst first", rows),),
            figures=(chart,),
            check="accuracy",
            summary="How often is the top class right?",
            paper="Wilson 1927, doi:10.1080/01621459.1927.10502953",
            command=f"{again} accuracy",
            seconds=3.21,
        ),
        Finding(
            "warn",
            "Its confidence is off by 6.1 points, and 250 pictures cannot tell that from 2.",
            "calibration error",
            0.061,
            (0.02, 0.11),
            250,
            check="calibration(bins=15)",
            summary="Is it as often right as it says?",
            paper="Guo et al. 2017, arXiv:1706.04599",
            notes=("Equal-width bins hide <few> pictures.", "Two pictures are counted twice & named."),
            command=f'{again} "calibration(bins=15)"',
        ),
        Finding(
            "fail",
            "On 31.0 % of its right answers most of the relevance lies outside the object.",
            "relevance inside the object",
            0.31,
            (0.24, 0.39),
            140,
            chance=0.27,
            evidence=shown,
            check="localisation",
            summary="Does what speaks for the class lie on the object?",
            advice="look at the maps beside the object",
            command=f"{again} localisation --seed 7",
            seconds=12.0,
        ),
        Finding(
            "note",
            "A random order loses 0.4 more.",
            "deletion gain",
            -0.4,
            (-0.7, 0.1),
            20,
            unit="",
            check="faithfulness",
            command=f"{again} faithfulness",
        ),
        Finding("pass", "It was not a number.", "odd", float("nan"), None, 3, check="accuracy", command="x"),
        Finding("error", "RuntimeError: <b>no</b> layer", check="sanity", command=f"{again} sanity"),
    )
    facts = {
        "clearsight": "0.1.0",
        "complete": False,
        "command": "clearsight audit demo photos/ --gate bars.toml",
        "made": "2026-11-22T10:00:00+00:00",
        "seconds": 41.5,
        "case": "0123456789abcdef",
        "signed": True,
        "seed": 7,
        "asked": "auto",
        "budget": 60.0,
        "method": "grad-cam(layer=blocks.6)",
        "model": {
            "source": "demo",
            "fingerprint": "0123456789abcdef",
            "network": "EfficientNet",
            "parameters": 4652008,
            "classes": 1000,
            "preprocess": {
                "size": (224, 224),
                "mean": (0.5, 0.5, 0.5),
                "std": (0.5, 0.5, 0.5),
                "interpolation": "bicubic",
                "resize": 256,
            },
        },
        "data": {
            "source": "photos/<b>2026</b>",
            "digest": "fedcba9876543210",
            "pictures": 262,
            "tried": 255,
            "read": 250,
            "labelled": 250,
            "annotated": 140,
            "broken": [{"file": HOSTILE, "reason": "truncated after 12 bytes"}],
            "notes": ["Two folders have the same name in other case: Cat & cat"],
        },
        "gate": [
            {"check": "accuracy", "bar": "at least 90.0 %", "value": "91.2 %", "held": True},
            {"check": "localisation", "bar": "not worse than warn", "value": "fail", "held": False},
        ],
        "environment": {"python": "3.11.2", "system": "Linux x86_64", "device": "cpu", "torch": "2.15.0"},
    }
    return Report(read_facts(facts), findings)
