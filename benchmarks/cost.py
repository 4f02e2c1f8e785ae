"""What every explainer costs: ``python benchmarks/cost.py [MODEL] [--pictures 2] [--only NAME,NAME] [--out FILE]``.

F is one forward of one picture without gradients, in batches of 16, timed again around every method, because the
machine's speed changes.  Each method runs in a process of its own, so that its memory is its own: the peak above what
the process held once the model was loaded and had run 16 pictures.  Times are those of a second call: what is done once
for a network (recording its operations) is given apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))

# spelled as the peers were timed (masks, steps, samples); others at their defaults
CALLS = {
    "integrated-gradients": "integrated-gradients(steps=50)",
    "smooth-grad": "smooth-grad(samples=25)",
    "var-grad": "var-grad(samples=25)",
    "gradient-shap": "gradient-shap(samples=25)",
    "occlusion": "occlusion(window=32, stride=16)",
    "rise": "rise(masks=500)",
    "lime": "lime(samples=200)",
    "kernel-shap": "kernel-shap(samples=200)",
    "partition-shap": "partition-shap(samples=200)",
}
# the cost that speaks for itself: what the best implementation could reach with EfficientNet-Lite0, in F
REACH = {
    "grad-cam": 1.13, "grad-cam++": 1.13, "layer-cam": 1.13, "xgrad-cam": 1.13, "hires-cam": 1.13, "eigen-cam": 1.03,
    "score-cam": 334, "ablation-cam": 8, "saliency": 2.1, "integrated-gradients": 105, "xrai": 420,
    "guided-grad-cam": 3.5, "deep-lift": 6, "smooth-grad": 53, "gradient-shap": 53, "occlusion": 175, "lime": 206,
    "kernel-shap": 206, "partition-shap": 206, "rise": 515, "lrp": 8,
}  # fmt: skip


def main() -> None:
    """Time every method, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        print(json.dumps(one(words.model, words.one, words.pictures)))
        return
    from clearsight.methods import catalogue

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in words.only.split(",") if words.only else catalogue("explainers"):
            call = CALLS.get(name, name)
            if "references" in catalogue("explainers")[name].options and name == "libra-cam":
                call = f'{name}(references="{references(Path(folder))}")'
            command = [sys.executable, __file__, words.model, "--pictures", str(words.pictures), "--one", call]
            env = os.environ | {"XDG_CACHE_HOME": folder}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
            if done.returncode:
                rows.append({"call": call, "refused": done.stderr.strip().splitlines()[-1]})
            else:
                rows.append(json.loads(done.stdout))
            rows[-1]["name"], rows[-1]["call"] = name, CALLS.get(name, name)
            print(rows[-1], file=sys.stderr, flush=True)
    text = table(rows, words.model, words.pictures)
    print(text)
    if words.out:
        words.out.write_text(text)


def references(folder: Path) -> Path:
    """The demo's own pictures, as a folder of references."""
    import shutil

    from clearsight.data import demo_pictures

    where = folder / "references"
    where.mkdir(exist_ok=True)
    for p in demo_pictures().pictures:
        shutil.copy(p.path, where)
    return where


def one(model_words: str, call: str, n: int) -> dict[str, object]:
    """Seconds, passes and peak memory of one method, in this process."""
    import torch

    from clearsight.data import demo_pictures, pixels
    from clearsight.loading import load
    from clearsight.runner import explain
    from clearsight.targets import ClassScore

    model = load(model_words, weights=None if model_words == "demo" else "none")
    x = pixels(model, demo_pictures())[:n]
    x = x.repeat(-(-n // len(x)), 1, 1, 1)[:n]
    sixteen = x.repeat(16, 1, 1, 1)[:16]

    def forward() -> float:
        with model.undisturbed(), torch.no_grad():
            began = time.perf_counter()
            model(sixteen)
            return (time.perf_counter() - began) / 16

    target = ClassScore(torch.zeros(n, dtype=torch.long))
    forward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    explain(model, x, call, target)
    first = time.perf_counter() - began
    around = [forward() for _ in range(3)]
    began = time.perf_counter()
    e = explain(model, x, call, target)
    second = time.perf_counter() - began
    around += [forward() for _ in range(3)]
    f = statistics.median(around)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "call": call, "forwards": e.forwards, "backwards": e.backwards, "times": second / n / f,
        "noise": (max(around) - min(around)) / f, "once": max(first - second, 0.0), "mb": peak / 1024, "f": f,
    }  # fmt: skip


def table(rows: list[dict], model: str, n: int) -> str:
    """The rows as Markdown."""
    fs = [r["f"] for r in rows if "f" in r]
    noise = statistics.median(r["noise"] for r in rows if "noise" in r)
    lines = [
        f"Model {model}, {n} pictures, {os.cpu_count()} cores; F {1000 * statistics.median(fs):.0f} ms "
        f"({1000 * min(fs):.0f} to {1000 * max(fs):.0f}); within one method F varied by {100 * noise:.0f} % (median).",
        "",
        "| method | forwards | backwards | time in F | reach in F | once, s | peak MB above the model |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if "refused" in r:
            lines.append(f"| {r['call']} | refused: {r['refused']} | | | | | |")
            continue
        reach = REACH.get(r["name"], "")
        lines.append(
            f"| {r['call']} | {r['forwards']:.4g} | {r['backwards']:.4g} | {r['times']:.3g} | {reach} "
            f"| {r['once']:.1f} "
            f"{r['mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
