"""The lecture's table of robust networks, made again: ``python benchmarks/robust_mnist.py --data FOLDER``.

FOLDER holds the four idx files of MNIST.  Six networks of one architecture are trained by `train` and judged on test
pictures that chose nothing: natural, under FGSM, under PGD of 40 steps and under auto-attack, each with its 95 %
interval, beside what the check gradient-masking says and what was published.  Pictures under attack are spread evenly
over the test set.  On MNIST training against 0.3 at once gets stuck at chance, so the budget rises in stages, 0, 0.1,
0.2 and 0.3, each of which continues from the one before (--from).  Runs and what was measured are kept in --work, so
that a stopped table goes on.  Writes benchmarks/robust_mnist.md.

    python benchmarks/robust_mnist.py --data mnist --each 100 --epochs 1 --pictures 50 --strong 10   # a try of minutes
    python benchmarks/robust_mnist.py --data mnist --others    # the other defences, into benchmarks/robust_others.md
    python benchmarks/robust_mnist.py --data cifar-10-batches-bin --cifar    # the binary version of CIFAR-10, on a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits import digits
from PIL import Image

import clearsight as cs
from clearsight.core.catalogue import number
from clearsight.core.memory import reuse_memory
from clearsight.core.statistics import wilson
from clearsight.models.model_folder import RECIPE
from clearsight.training.run_folder import METRICS

HERE = Path(__file__).parent
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@dataclass(frozen=True)
class Row:
    """A network of the table.

    asked: what its recipe says beside that of the setting, EPS for the budget.  published: natural accuracy and that
    under attacks, with their source.
    """

    name: str
    asked: dict[str, Any]
    published: str


@dataclass(frozen=True)
class Setting:
    """A data set, the recipe of every network, and the attack by which they are judged.

    budgets: in Linf, of the stages of training, 0 for pictures as they are; the last one is that of the table.
    """

    title: str
    budgets: tuple[str, ...]
    recipe: dict[str, Any]
    pgd: str
    rows: tuple[Row, ...]


ON_MNIST: dict[str, Any] = {  # the network of Wong, Rice & Kolter 2020, 166,000 weights
    "arch": "clearsight:plain-cnn(widths='16,32', kernel=4, strides='2', padding='1', pools='1', dense='100')",
    "size": 28, "grey": True, "augment": "none", "batch": 100, "optimiser": "adam", "lr": "0.005",
    "schedule": "one-cycle", "decay": 0.0, "shares": "0.9,0.1,0",
}  # fmt: skip
ON_CIFAR: dict[str, Any] = {
    "arch": "clearsight:resnet(depth=18, stem=cifar)", "size": 32, "grey": False, "augment": "crop(scale=0.75), flip",
    "batch": 128, "optimiser": "nesterov", "lr": "0.1", "schedule": "one-cycle", "decay": 5e-4,
    "shares": "0.98,0.02,0",
}  # fmt: skip
MNIST = Setting(
    "MNIST, Linf 0.3",
    ("0", "0.1", "0.2", "0.3"),
    ON_MNIST,
    "pgd(steps=40, step=0.01, restarts=2)",
    (
        Row(
            "standard",
            {},
            "98.89; PGD-40 0 (advertorch's LeNet5)",
        ),
        Row(
            "FGSM, from the picture, no guard",
            {"perturb": "fgsm(eps=EPS)", "overfitting_guard": False},
            "PGD 0 (fast_adversarial, issue 25)",
        ),
        Row(
            "FGSM, random start, guard",
            {"perturb": "fgsm(eps=EPS, random_start=true)"},
            "98.50; PGD-50-10 88.77; AutoAttack 82.93 (Wong et al. 2020)",
        ),
        Row(
            "PGD, 7 steps",
            {"perturb": "pgd(eps=EPS, steps=7, random_start=true, keep=best)"},
            "98.53; FGSM 96.36; PGD-100 92.52; AutoAttack 88.50 (Madry et al. 2018)",
        ),
        Row(
            "TRADES, beta 1",
            {"perturb": "pgd(eps=EPS, steps=7, keep=best)", "defence": "trades(beta=1)"},
            "99.48; PGD-40 96.07; AutoAttack 92.81 (Zhang et al. 2019, a larger network)",
        ),
        Row("TRADES, beta 6", {"perturb": "pgd(eps=EPS, steps=7, keep=best)", "defence": "trades(beta=6)"}, ""),
    ),
)
_PGD = {"perturb": "pgd(eps=EPS, steps=7, random_start=true)"}
OTHERS = replace(
    MNIST,
    title="the other defences, MNIST, Linf 0.3",
    rows=(
        Row("PGD, 7 steps, for comparison", _PGD, ""),
        Row("MART", {**_PGD, "defence": "mart"}, ""),
        Row("AWP", {**_PGD, "defence": "awp"}, ""),
        Row("PGD, weights averaged", {**_PGD, "ema": 0.99}, ""),
        Row("free, 4 replays", {**_PGD, "defence": "free(replays=4)"}, ""),
        Row("noise of smoothing, sigma 0.5", {"defence": "gaussian-augmentation(sigma=0.5)"}, ""),
    ),
)
CIFAR = Setting(
    "CIFAR-10, Linf 8/255",
    ("8/255",),
    ON_CIFAR,
    "pgd(steps=20, step=2/255)",
    (
        Row("standard", {}, "95.01; PGD-100 0.00 (Shafahi et al. 2019, WRN-32-10)"),
        Row(
            "FGSM, from the picture, no guard",
            {"perturb": "fgsm(eps=EPS, step=10/255)", "overfitting_guard": False},
            "85.2; PGD 0.00 (Wong et al. 2020)",
        ),
        Row(
            "FGSM, random start, guard",
            {"perturb": "fgsm(eps=EPS, random_start=true)"},
            "83.34; PGD-50-10 46.06; AutoAttack 43.21 (Wong et al. 2020)",
        ),
        Row(
            "PGD, 7 steps",
            {"perturb": "pgd(eps=EPS, steps=7, step=2/255, random_start=true, keep=best)"},
            "87.14; PGD 45.80; AutoAttack 44.04 (Madry et al. 2018, WRN-34-10)",
        ),
        Row(
            "TRADES, beta 1",
            {"perturb": "pgd(eps=EPS, steps=10, step=2/255, keep=best)", "defence": "trades(beta=1)"},
            "",
        ),
        Row(
            "TRADES, beta 6",
            {"perturb": "pgd(eps=EPS, steps=10, step=2/255, keep=best)", "defence": "trades(beta=6)"},
            "84.92; FGSM 61.06; PGD-20 56.61; AutoAttack 53.08 (Zhang et al. 2019, WRN-34-10, eps 0.031)",
        ),
    ),
)


def cifar(data: Path, folder: Path, each: int | None) -> Path:
    """Write part/class/N.png for CIFAR-10's binary files, once; each: the first so many of a class in each part."""
    if not (folder / "done").exists():
        for part, pattern in (("train", "data_batch_*.bin"), ("test", "test_batch.bin")):
            raw = np.concatenate([np.fromfile(f, np.uint8) for f in sorted(data.glob(pattern))]).reshape(-1, 3073)
            for k, name in enumerate(CLASSES):
                (folder / part / name).mkdir(parents=True, exist_ok=True)
                for i in np.nonzero(raw[:, 0] == k)[0][:each]:
                    pixels = raw[i, 1:].reshape(3, 32, 32).transpose(1, 2, 0)
                    Image.fromarray(pixels).save(folder / part / name / f"{i}.png", compress_level=1)
        (folder / "done").touch()
    return folder


def trained(setting: Setting, row: Row, pictures: Path, run: Path, epochs: int, device: str) -> tuple[float, int, Path]:
    """Train a network in its stages, unless it is there; minutes, the epoch of the last stage that is kept, its run."""
    budgets = setting.budgets if "perturb" in row.asked else setting.budgets[-1:]
    short = max(1, epochs // 8)
    minutes, before = 0.0, None
    for k, budget in enumerate(budgets):
        last = k == len(budgets) - 1
        stage, took = run.with_name(f"{run.name}-{k}"), run.with_name(f"{run.name}-{k}.txt")
        if not (stage / METRICS).exists() or not took.exists():
            began = time.monotonic()
            asked = {**setting.recipe, "epochs": max(1, epochs - short * k) if last else short}
            if budget != "0":
                asked |= {k: v.replace("EPS", budget) if k == "perturb" else v for k, v in row.asked.items()}
            if before is not None:
                asked = {k: v for k, v in asked.items() if k not in ("arch", "size", "grey", "shares")}
                asked["from_run"] = str(before)
            begun = (stage / RECIPE).exists()
            for epoch in cs.train(pictures, cs.Recipe(**asked), stage, resume=begun, device=device, save_first=False):
                print(f"{row.name}, budget {budget}:", epoch.line(), flush=True)
            took.write_text(f"{(time.monotonic() - began) / 60:.2f}")
        minutes, before = minutes + float(took.read_text()), stage
    assert before is not None
    return minutes, int(json.loads((before / METRICS).read_text())["epoch"]), before


def judged(setting: Setting, run: Path, test: Path, pictures: int, strong: int, device: str) -> dict[str, Any]:
    """What a network does on test pictures: (right, n) for each column, and what the check says; kept in its run."""
    kept = run / "judged.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    began = time.monotonic()
    model = cs.load(run, device=device)
    data = cs.folder(test)
    x = cs.pixels(model, data)
    y = torch.tensor([model.labels.index(p.labels[0]) for p in data.pictures])
    found = {}
    for name, attack, most in (
        ("natural", "", len(x)),
        ("FGSM", "fgsm", 4 * pictures),
        ("PGD", setting.pgd, pictures),
        ("auto-attack", "auto-attack", strong),
    ):
        n = min(most, len(x))
        some = torch.arange(n) * len(x) // n
        if attack:
            result = cs.attack(model, x[some], y[some], attack, eps=number(setting.budgets[-1]), batch=250)
            right = int((~result.already & ~result.fooled).sum())
        else:
            with torch.no_grad(), model.undisturbed():
                answers = torch.cat([model(part.to(model.device)).cpu() for part in x.split(500)])
            right = int((answers.argmax(1) == y).sum())
        found[name] = [right, n]
        print("  ", name, right, n, flush=True)
    report = cs.audit(model, data, only=f"gradient-masking(eps={setting.budgets[-1]})")
    found["masking"] = f"{report.findings[0].verdict}: {report.findings[0].headline}"
    found["minutes"] = (time.monotonic() - began) / 60
    kept.write_text(json.dumps(found, indent=1) + "\n")
    return found


def table(setting: Setting, lines: list[dict[str, Any]], words: argparse.Namespace) -> str:
    """The table as Markdown."""
    columns = ("natural", "FGSM", "PGD", "auto-attack")
    text = [
        f"# Robust networks: {setting.title}",
        "",
        f"Made by `python benchmarks/{Path(__file__).name} --data FOLDER{words.more} "
        f"--each {words.each} --epochs {words.epochs} --pictures {words.pictures} --strong {words.strong}` "
        f"on {os.cpu_count()} cores. All are `{setting.recipe['arch']}`, trained for {words.epochs} epochs on "
        f"{words.each} pictures of each class, of which val takes a part. Columns are percent right, with 95 % "
        f"intervals; PGD is `{setting.pgd}`; n stands below. The check gradient-masking takes 20 pictures. "
        f"Against attacks the budget rises in {len(setting.budgets)} stages: {', '.join(setting.budgets)}.",
        "",
        "| trained with | " + " | ".join(columns) + " | gradient-masking | published, % | epoch "
        "| minutes: train, judge |",
        "|---|" + "---:|" * 4 + "---|---|---:|---:|",
    ]
    for line in lines:
        cells = []
        for name in columns:
            right, n = line["found"][name]
            low, high = wilson(right, n)
            cells.append(f"{100 * right / n:.1f} ({100 * low:.1f} to {100 * high:.1f})")
        minutes = f"{line['minutes']:.1f}, {line['found']['minutes']:.1f}"
        verdict = line["found"]["masking"].partition(":")[0]
        told = [line["name"], *cells, verdict, line["published"], str(line["epoch"]), minutes]
        text.append("| " + " | ".join(told) + " |")
    counts = ", ".join(f"{name} {lines[0]['found'][name][1]}" for name in columns)
    total = sum(line["minutes"] + line["found"]["minutes"] for line in lines)
    text += ["", f"Test pictures: {counts}. In all {total:.0f} minutes.", "", "What gradient-masking says:", ""]
    text += [f"- {line['name']}: {line['found']['masking'].partition(': ')[2]}" for line in lines]
    text += [""]
    return "\n".join(text)


def main() -> None:
    """Train, judge, and write the table after each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("clearsight-runs/robust"))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--cifar", action="store_true", help="CIFAR-10 instead of MNIST")
    which.add_argument("--others", action="store_true", help="the defences that the first table has not")
    parser.add_argument("--each", type=int, default=2000, help="training pictures of each class")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument(
        "--pictures", type=int, default=500, help="test pictures under PGD; FGSM takes four times as many"
    )
    parser.add_argument("--strong", type=int, default=100, help="test pictures under auto-attack")
    parser.add_argument("--device", default="auto")
    words = parser.parse_args()
    name = "cifar" if words.cifar else "others" if words.others else "mnist"
    setting = {"cifar": CIFAR, "others": OTHERS, "mnist": MNIST}[name]
    words.more = "" if setting is MNIST else f" --{name}"
    work = words.work / f"{name}-{words.each}-{words.epochs}"
    write = cifar if words.cifar else digits
    all_pictures, some_pictures = write(words.data, work / "test", None), write(words.data, work / "train", words.each)
    lines = []
    for k, row in enumerate(setting.rows):
        run = work / f"run-{k}"
        minutes, epoch, last = trained(setting, row, some_pictures / "train", run, words.epochs, words.device)
        found = judged(setting, last, all_pictures / "test", words.pictures, words.strong, words.device)
        lines.append({"name": row.name, "published": row.published, "minutes": minutes, "epoch": epoch, "found": found})
        (HERE / f"robust_{name}.md").write_text(table(setting, lines, words))
        print(table(setting, lines, words), flush=True)


if __name__ == "__main__":
    reuse_memory()  # as the commands do
    main()
