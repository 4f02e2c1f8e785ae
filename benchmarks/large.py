"""Many pictures: what reading them costs, and what workers save: ``python benchmarks/large.py``.

    python benchmarks/large.py read --photos 5000        # accuracy and calibration beside a plain loop of a DataLoader
    python benchmarks/large.py audit --pictures 50000 --ray   # a whole audit over 1, 2 and 4 workers of a Ray cluster
    python benchmarks/large.py report --pictures 5000 --write    # the size of its report, into benchmarks/large.md

Pictures are made up: photos of noise and shapes for ``read``, which the embedded network judges at 224 pixels, and
squares of three colours of 64 pixels for the others, which a small network judges that `train` has taught
on 600 others.
Every run is a process of its own; MB are the peak of that process, without its workers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import sections
from PIL import Image, ImageDraw, ImageFilter
from speed_rows import peak

COLOURS = {"red": (210, 40, 40), "green": (40, 190, 60), "blue": (50, 70, 210)}
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Make pictures, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["read", "audit", "report", "one"])
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--ray", action="store_true", help="workers of a Ray cluster, not plain processes")
    parser.add_argument("--write", action="store_true", help="the size of the report into benchmarks/large.md")
    parser.add_argument("--words", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what == "one":
        measured(**json.loads(given.words))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.what == "read":
            photos(folder / "photos", given.photos)
            print(reading(folder, given.photos, given.turns))
        else:
            squares(folder / "squares", given.pictures)
            squares(folder / "lessons", 600, seed=7)
            taught(folder)
            if given.what == "audit":
                auditing(folder, given.pictures, given.ray)
            else:
                reporting(folder, given.pictures, given.write)


def photos(folder: Path, count: int) -> None:
    """Pictures as heavy as photos from a camera's thumbnail: 400 x 300, soft noise and shapes, about 30 kB each."""
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8)) for _ in range(8)]
    soft = [n.filter(ImageFilter.GaussianBlur(1.5)) for n in noise]
    for k in range(count):
        image = soft[k % len(soft)].copy()
        draw = ImageDraw.Draw(image)
        for _ in range(6):
            x, y, w, h = (int(v) for v in rng.integers(0, 300, 4))
            draw.ellipse((x, y, x + w, y + h), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
        path = folder / ("espresso", "tabby")[k % 2] / f"{k:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=88)


def squares(folder: Path, count: int, seed: int = 0) -> None:
    """A square of one of three colours on noisy grey, 64 x 64; one in twenty is of another colour than its folder."""
    rng = np.random.default_rng(seed)
    names = list(COLOURS)
    for k in range(count):
        name = names[k % 3]
        seen = names[(k + 1) % 3] if rng.random() < 0.05 else name
        a = rng.integers(90, 140, (64, 64, 1), np.uint8).repeat(3, 2)
        x, y, side = [*rng.integers(0, 32, 2).tolist(), int(rng.integers(12, 32))]
        a[y : y + side, x : x + side] = np.clip(np.array(COLOURS[seen]) + rng.integers(-30, 31, 3), 0, 255)
        path = folder / name / f"{k:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(a).save(path, quality=90)


def taught(folder: Path) -> None:
    words = ["train", str(folder / "lessons"), "-o", str(folder / "model"), "--epochs", "4", "--size", "64", "--quiet"]
    subprocess.run([sys.executable, "-m", "clearsight", *words], check=True, stdout=subprocess.DEVNULL)


def run(**words: Any) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "one", "--words", json.dumps(words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(what: str, folder: str, workers: int = 0, ray: bool = False, most: int = 0) -> None:
    """The work itself; prints seconds, those of the processors, MB and what came out."""
    import clearsight as cs
    from clearsight.data.datasets import open_data

    place = Path(folder)
    model = cs.load("demo" if what in ("plain", "checks") else str(place / "model"))
    data = open_data(str(place / ("photos" if what in ("plain", "checks") else "squares")))
    if most:
        from dataclasses import replace

        data = replace(data, pictures=data.pictures[:most])
    works: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain_loop(model, data, workers),
        "checks": lambda: cs.audit(model, data, only="accuracy, calibration").findings[0].value,
        "audit": lambda: [(f.check, f.verdict, f.value, f.n) for f in cs.audit(model, data).findings],
        "report": lambda: cs.audit(model, data, folder=place / "report").facts.data.read,
    }
    hire = cs.workers(workers or None, ray="local" if ray else None) if workers and what != "plain" else nullcontext()
    began, cpu = time.perf_counter(), processors()
    with hire:
        result = works[what]()
    seconds, cpu = time.perf_counter() - began, processors() - cpu
    print(json.dumps({"seconds": seconds, "processors": cpu, "mb": peak(), "result": result}))


def processors() -> float:
    return sum(
        t.ru_utime + t.ru_stime for t in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def plain_loop(model: Any, data: Any, workers: int) -> float:
    """What one writes without a library: a Dataset, a DataLoader, a loop, and the share of right answers."""
    import torch
    from PIL import Image as Pillow
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    size = model.preprocess
    look = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(size.resize or size.size, interpolation=v2.InterpolationMode(size.interpolation), antialias=True),
            v2.CenterCrop(size.size),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(size.mean, size.std),
        ]
    )

    class Files(Dataset[Any]):
        def __len__(self) -> int:
            return len(data.pictures)

        def __getitem__(self, i: int) -> Any:
            with Pillow.open(data.pictures[i].path) as image:
                return look(image.convert("RGB")), i

    right = 0
    net = model.net.eval().to(memory_format=torch.channels_last)
    labels = [frozenset(p.labels) for p in data.pictures]
    with torch.inference_mode():
        for x, rows in DataLoader(Files(), batch_size=16, num_workers=workers):
            top = net(x.contiguous(memory_format=torch.channels_last)).argmax(1)
            right += sum(model.labels[int(k)] in labels[int(i)] for k, i in zip(top, rows, strict=True))
    return right / len(data.pictures)


def reading(folder: Path, count: int, turns: int) -> str:
    """A table; by turns, so that what the machine does otherwise falls on both."""
    rows = []
    for workers in (0, 2):
        pairs = [
            (
                run(what="plain", folder=str(folder), workers=workers),
                run(what="checks", folder=str(folder), workers=workers),
            )
            for _ in range(turns)
        ]
        fifth = run(what="checks", folder=str(folder), workers=workers, most=count // 5)
        ratios = sorted(b["seconds"] / a["seconds"] for a, b in pairs)
        a, b = (statistics.median(p[k]["seconds"] for p in pairs) for k in (0, 1))
        spread = f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        mb = [max(p[k]["mb"] for p in pairs) for k in (0, 1)]
        cells = (f"{workers}", f"{a:.1f}", f"{b:.1f}", spread, *(f"{m:.0f}" for m in (*mb, fifth["mb"])))
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], file=sys.stderr, flush=True)
    heads = (
        "| workers: | plain loop, s: | checks, s: | ratio (range): | plain, MB: | checks, MB: | a fifth of them, MB: |"
    )
    what = f"{count:,} photos; turns: {turns}."
    return f"{sections.table(heads, rows)}\n\n{what}"


def auditing(folder: Path, count: int, ray: bool) -> None:
    print(f"a whole audit of {count} pictures of 64 x 64 pixels, small network, {os.cpu_count()} cores\n")
    print("| workers | seconds | of processors | MB of the first process | the same as 1 worker |")
    print("|---|---:|---:|---:|---|")
    first: Any = None
    for workers in (1, 2, 4) if ray else (0, 1, 2, 4):
        found = run(what="audit", folder=str(folder), workers=workers, ray=ray)
        first = found["result"] if workers == 1 else first
        same = "" if first is None else ("yes" if found["result"] == first else "**no**")
        name = f"{workers}{' over Ray' if ray else ''}" if workers else "none"
        cells = (name, f"{found['seconds']:.0f}", f"{found['processors']:.0f}" if not ray else "", f"{found['mb']:.0f}")
        print(f"| {' | '.join(cells)} | {same} |", flush=True)


def reporting(folder: Path, count: int, write: bool) -> None:
    began = sections.start()
    found = run(what="report", folder=str(folder))
    size = (folder / "report" / "report.html").stat().st_size / 1e6
    cells = (f"{found['result']:,}", f"{size:.2f}", f"{found['seconds']:.0f}", f"{found['mb']:.0f}")
    heads = "| pictures: | report.html, MB: | the audit, s: | peak memory, MB: |"
    table = sections.table(heads, [f"| {' | '.join(cells)} |"])
    print(table)
    if write:
        made = f"Made by `python benchmarks/large.py report --pictures {count} --write`."
        sections.write(ROOT / "benchmarks" / "large.md", "report", f"{table}\n\n{made}\n{sections.state(began)}")
    shutil.rmtree(folder / "report")


if __name__ == "__main__":
    main()
