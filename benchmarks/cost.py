"""What every explainer costs: ``python benchmarks/cost.py [MODEL]``, about ten minutes on two cores for ``demo``.

F is one forward of one picture without gradients, in batches of 16, timed again around every method, because the
machine's speed changes, in processor time, because other programs run.  Methods of at most 20 passes are given 16
pictures, others two.  Each method runs in a process of its own, so that its memory is its own: the peak above what the
process held when the model was loaded (Linux only).  Times are those of a later call: in the first, of two pictures,
what is done once for a network is done too.

    python benchmarks/cost.py --memory torchvision:resnet50 torchvision:vgg16

measures the peaks alone, on several models: 16 pictures, few steps or masks, which is more than one pass can hold.
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
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))

FEW = 20  # passes
PICTURES = 16
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
# further calls that have a row, with the demo network
MORE = {"score-cam": ("score-cam(channels=50)", "score-cam(layer=blocks.6)")}
BRIEF = {"steps": 6, "samples": 12, "masks": 12, "iterations": 6, "window": 56, "stride": 56}
# what the best implementation could reach with EfficientNet-Lite0, in F: from the passes it must make, and the peers
REACH = {
    "grad-cam": 1.13, "grad-cam++": 1.13, "layer-cam": 1.13, "xgrad-cam": 1.13, "hires-cam": 1.13, "eigen-cam": 1.03,
    "score-cam(layer=blocks.6)": 334, "score-cam(channels=50)": 60,
    "ablation-cam": 8, "saliency": 2.1, "integrated-gradients": 105, "xrai": 420,
    "guided-grad-cam": 3.5, "deep-lift": 6, "smooth-grad": 53, "gradient-shap": 53, "occlusion": 80, "lime": 206,
    "kernel-shap": 206, "partition-shap": 206, "rise": 515, "lrp": 8,
}  # fmt: skip
UNFOLDED = (
    "gradients with BatchNorm folded are 1.4 to 1.6 times as fast, but recording the network takes some 1.3 s: it is "
    "done from 40 passes on, and here there were fewer"
)
WHY = {  # above the reach
    "saliency": UNFOLDED,
    "smooth-grad": UNFOLDED,
    "gradient-shap": UNFOLDED,
}


def main() -> None:
    """Measure every method, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["demo"])
    parser.add_argument("--only", default="", help="methods, with commas between")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        print(json.dumps(one(words.models[0], words.one, brief=words.memory)))
        return
    from clearsight.core.catalogue import catalogue

    names = words.only.split(",") if words.only else list(catalogue("explainers"))
    with tempfile.TemporaryDirectory() as folder:
        calls = [(m, n) for m in words.models for n in with_more(m, names, brief=words.memory)]
        rows = {(m, n): apart(m, n, Path(folder), brief=words.memory) for m, n in calls}
    text = peaks(rows) if words.memory else "\n".join(times(rows, m) for m in words.models)
    print(text)
    if words.out:
        words.out.write_text(text)


def with_more(model: str, names: list[str], *, brief: bool) -> list[str]:
    """Methods by name, and where the demo network is timed the calls that have rows of their own."""
    more = {} if brief or model != "demo" else MORE
    return [call for n in names for call in (n, *more.get(n, ()))]


def apart(model: str, name: str, folder: Path, *, brief: bool) -> dict[str, Any]:
    """One method in a process of its own; what it measured, or why it was refused."""
    from clearsight.core.catalogue import catalogue

    options = catalogue("explainers")[name.partition("(")[0]].options
    call = CALLS.get(name, name)
    if brief:
        call = f"{name}({', '.join(f'{k}={v}' for k, v in BRIEF.items() if k in options)})"
    if name == "libra-cam":
        call = f'{name}(references="{references(folder)}")'
    command = [sys.executable, __file__, model, "--one", call, *(["--memory"] if brief else [])]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"XDG_CACHE_HOME": str(folder)}
    )
    found = {"refused": done.stderr.strip().splitlines()[-1]} if done.returncode else json.loads(done.stdout)
    print(model, call, found, file=sys.stderr, flush=True)
    return {"call": "libra-cam(references=FOLDER)" if name == "libra-cam" else call} | found


def references(folder: Path) -> Path:
    """The demo's own pictures, as a folder of references."""
    from clearsight.data.datasets import demo_pictures

    where = folder / "references"
    where.mkdir(exist_ok=True)
    for p in demo_pictures().pictures:
        shutil.copy(p.path, where)
    return where


def one(words: str, call: str, *, brief: bool) -> dict[str, Any]:
    """Seconds, passes and peak memory of one method, in this process."""
    import torch

    from clearsight.core.targets import ClassScore
    from clearsight.data.datasets import demo_pictures, pixels
    from clearsight.models.loading import load
    from clearsight.runner.run import explain

    model = load(words, weights=None if words == "demo" else "none")
    x = pixels(model, demo_pictures())
    x = x.repeat(-(-PICTURES // len(x)), 1, 1, 1)[:PICTURES]
    before = resident()
    if brief:
        explain(model, x[:1] if call.startswith("score-cam") else x, call, ClassScore(0))  # it has a pass per channel
        return {"mb": (highest() - before) / 1024}

    def forward() -> float:
        with model.undisturbed(), torch.no_grad():
            began = time.process_time()
            model(x)
            return (time.process_time() - began) / len(x)

    forward()
    began = time.perf_counter()
    e = explain(model, x[:2], call, ClassScore(0))
    first = time.perf_counter() - began
    asked = x if e.forwards + e.backwards <= FEW else x[:2]
    if asked is x:
        explain(model, x, call, ClassScore(0))
    around = [forward() for _ in range(3)]
    began = time.process_time()
    e = explain(model, asked, call, ClassScore(0))
    second = time.process_time() - began
    around += [forward() for _ in range(3)]
    f = statistics.median(around)
    return {
        "forwards": e.forwards, "backwards": e.backwards, "times": second / len(asked) / f, "pictures": len(asked),
        "noise": (max(around) - min(around)) / f, "first": first, "mb": (highest() - before) / 1024, "f": f,
    }  # fmt: skip


def resident() -> int:
    """What this process holds in memory now, in KiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def highest() -> int:
    """The most that this process ever held, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def times(rows: dict[tuple[str, str], dict[str, Any]], model: str) -> str:
    """What was measured on one model, as Markdown."""
    here = {name: row for (m, name), row in rows.items() if m == model}
    done = [r for r in here.values() if "f" in r]
    columns = ["method", "forwards", "backwards", "time in F", "reach in F", "pictures", "first call, s", "peak MB"]
    fs, noise = [1000 * r["f"] for r in done], statistics.median(r["noise"] for r in done)
    lines = [
        "# What every explainer costs",
        "",
        "Made by `python benchmarks/cost.py`. F is one forward pass of one picture, in batches of 16, timed again",
        "around every method; times are in F, for one picture, of a later call (the first records the network, where",
        "that is needed). Reach: the passes that the method must make, at the best speed that was measured of them.",
        "Peak MB are above what the process held with the model alone; libraries that a method needs are in it.",
        "",
        f"Model {model}, {os.cpu_count()} cores. F was {statistics.median(fs):.0f} ms "
        f"({min(fs):.0f} to {max(fs):.0f}); around one method it varied by {100 * noise:.0f} % (median).",
        "",
        "| " + " | ".join(columns) + " |",
        "|---" + "|---:" * (len(columns) - 1) + "|",
    ]
    for name, r in here.items():
        if "refused" in r:
            lines.append(f"| {r['call']} | refused: {r['refused']} | | | | | | |")
            continue
        lines.append(
            f"| {r['call']} | {r['forwards']:.4g} | {r['backwards']:.4g} | {r['times']:.3g} | {REACH.get(name, '')} "
            f"| {r['pictures']} | {r['first']:.1f} | {r['mb']:.0f} |"
        )
    late = [n for n, r in here.items() if n in REACH and r.get("times", 0) > 1.1 * REACH[n]]
    if model == "demo":
        lines += ["", "More than a tenth above the reach:", ""]
        lines += [f"- {n}: {WHY.get(n, 'within what the machine varies by')}." for n in late] or ["- none."]
    return "\n".join(lines) + "\n"


def peaks(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    """The peak MB of every method on every model, as Markdown."""
    models = list(dict.fromkeys(m for m, _ in rows))
    names = list(dict.fromkeys(n for _, n in rows))
    lines = [
        "## Peak memory on larger networks",
        "",
        "Made by `python benchmarks/cost.py --memory " + " ".join(models) + "`: the most MB that a process held above",
        f"what it held with the model alone, for {PICTURES} pictures (score-cam: one), few steps and masks, but",
        "more than one pass takes: more of them come in further passes of the same size.",
        "",
    ]
    lines += ["| method | " + " | ".join(models) + " |", "|---" + "|---:" * len(models) + "|"]
    for n in names:
        cells = [f"{rows[m, n]['mb']:.0f}" if "mb" in rows[m, n] else "refused" for m in models]
        lines.append(f"| {rows[models[0], n]['call']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
