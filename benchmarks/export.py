"""What an export costs and what it proves: ``python benchmarks/export.py PICTURES [--rows openvino,int8]``.

PICTURES is a folder with a folder for each ImageNet class.  Writes benchmarks/export.md, row by row.  Times are of the
processor, since wall times of a shared machine say nothing; latencies are measured in turn with the model, and given as
their ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

import clearsight as cs

ROWS = {
    "onnx fp32": ("onnx", "fp32"),
    "onnx fp16": ("onnx", "fp16"),
    "onnx int8": ("onnx", "int8"),
    "openvino fp32": ("openvino", "fp32"),
    "openvino int8": ("openvino", "int8"),
    "torch-export fp32": ("torch-export", "fp32"),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("pictures")
    options.add_argument("--rows", default=",".join(ROWS))
    given = options.parse_args()
    torch.set_num_threads(1)
    model, data = cs.load("demo"), cs.folder(given.pictures)
    table = []
    for row in given.rows.split(","):
        to, precision = ROWS[row]
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            if precision != "int8":
                cs.export(model, folder, to, precision=precision)
            alone = time.process_time() - began if precision != "int8" else None
            began = time.process_time()
            result = cs.export(model, Path(folder) / "verified", to, precision=precision, verify=data)
            size = sum((result.folder / name).stat().st_size for name in result.files) / 1e6
            table.append((row, result, size, alone, time.process_time() - began))
            print(row, result.report.verdict, flush=True)
            for finding in result.report.findings:
                print("   ", finding.check, finding.headline, flush=True)
        Path(__file__).with_suffix(".md").write_text(page(table, len(data.pictures)), encoding="utf-8")


def page(table: list, pictures: int) -> str:
    """The table as Markdown."""
    heads = (
        "file", "bars", "same answer", "accuracy", "largest difference", "maps", "levels of 255", "computes in", "MB",
        "latency, of the model's", "processor s to write", "with the sheet",
    )  # fmt: skip
    lines = [
        "## What an export proves",
        "",
        f"Made by `python benchmarks/export.py PICTURES` with torch {torch.__version__.partition('+')[0]}, on "
        f"{pictures} photographs, for the embedded EfficientNet-Lite0, with one thread. int8 is calibrated on the same "
        "photographs.",
        "",
        f"| {' | '.join(heads)} |",
        f"|---|---|{'---:|' * (len(heads) - 2)}",
    ]
    for row, result, size, alone, seconds in table:
        found = {f.name: f for f in result.report.findings}
        low, high = found["agreement"].interval
        computes = found["precision"].headline.split(" computes ")[1].split(" on this")[0]
        cells = (
            row,
            "hold" if result.status == 0 else "missed",
            f"{found['agreement'].value:.1%} ({low:.1%} to {high:.1%})",
            found["accuracy"].headline.split(" goes ")[1].split(" (")[0],
            f"{found['probabilities'].value:.2g}",
            f"{found['maps'].value:.4f}",
            f"{found['preprocessing'].value:.0f}",
            computes,
            f"{size:.1f}",
            f"{found['speed'].value:.2f}",
            "–" if alone is None else f"{alone:.0f}",
            f"{seconds:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
