"""How well a small network for digits can be cloned through its answers, and who was in its training set.

python benchmarks/stealing.py DATA [PART ...]   DATA holds MNIST's idx files; a part is curves, thieves, maps or
membership, all without one.  Each part writes benchmarks/stealing.json anew in its own place, and stealing.md.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from digits import idx
from torch import Tensor

import clearsight as cs
from clearsight.core.catalogue import parse
from clearsight.core.statistics import wilson
from clearsight.runner.answer import answer_defences
from clearsight.stealing.clone import Lesson, answers_of, new_clone, train_clone
from clearsight.stealing.honest import honest_cost
from clearsight.stealing.maps import map_leak
from clearsight.stealing.membership import area, at_rate
from clearsight.stealing.oracle import Oracle
from clearsight.stealing.shadows import membership_scores, train_shadows
from clearsight.stealing.theft import Exam, adapted, steal
from clearsight.stealing.victim import of_classifier

HOME = Path(__file__).parent
STORE = HOME / "stealing.json"
SEEDS = (0, 1, 2)
VICTIM = 'clearsight:plain-cnn(widths="8,16", padding=1, pools=2, dense=32)'
DEFENCES = ("none", "reverse-sigmoid", "rounding(digits=1)", "prediction-poisoning(l1=1.0)",
            "prediction-poisoning(l1=1.0, keep_top=true)", "top-1")  # fmt: skip
LEAKS = (None, ("saliency(absolute=false)", None, None), ("grad-cam", None, None),
         ("saliency(absolute=false)", 4, None), ("saliency(absolute=false)", None, 4))  # fmt: skip


def part(data: Path, stem: str) -> tuple[Tensor, Tensor]:
    """Pixels (N, 1, 28, 28) and classes (N,) of a part of MNIST."""
    x, y = (idx(next(data.glob(f"{stem}-{what}*"))) for what in ("images", "labels"))
    return torch.from_numpy(x.copy()).float()[:, None] / 255, torch.from_numpy(y.astype("int64"))


def network(x: Tensor, y: Tensor, arch: str, epochs: int, seed: int) -> cs.Classifier:
    """A network trained on pictures and classes."""
    lesson = Lesson(arch=arch, epochs=epochs)
    fresh = new_clone(lesson, cs.Preprocess(28, (0.5,), (0.5,)), tuple("0123456789"), seed)
    return train_clone(fresh, x, torch.eye(10)[y], lesson, seed=seed)


class Setting:
    """The victim, the thief's pool, and the pictures that judge clones."""

    def __init__(self, data: Path) -> None:
        x, y = part(data, "train")
        self.test = part(data, "t10k")
        self.train = x, y
        victim = network(x[:20000], y[:20000], VICTIM, 3, 100)
        self.victim, self.pool = of_classifier(victim), x[30000:40000]
        judge, truth = self.test[0][:2000], torch.eye(10, dtype=torch.bool)[self.test[1][:2000]]
        self.exam = Exam(judge, answers_of(victim)(judge).argmax(1), truth)

    def oracle(self, budget: int, defence: str = "none") -> Oracle:
        return Oracle(self.victim, budget, defences=answer_defences([] if defence == "none" else [defence]))


def curves(s: Setting) -> dict[str, Any]:
    """Agreement of knockoff's clone by answers, behind each defence, and the cost to the honest."""
    found: dict[str, Any] = {"rows": [], "cost": []}
    for defence in DEFENCES:
        cost = honest_cost(s.victim, s.oracle(1, defence).defences, s.exam)
        found["cost"].append([defence, cost.accuracy, cost.error, cost.moved, cost.changed, cost.n])
        for adaptation in ("plain", "argmax") if defence != "top-1" else ("plain",):
            runs = []
            for seed in SEEDS:
                asked = adapted(s.oracle(4000, defence), adaptation)
                stolen = steal(asked, parse("knockoff", "thieves"), s.pool, s.exam, rounds=5, adaptation=adaptation,
                               seed=seed)  # fmt: skip
                runs.append([[p.queries, p.agree, p.n, p.right] for p in stolen.points])
            found["rows"].append([defence, adaptation, runs])
            print(defence, adaptation, [run[-1] for run in runs], flush=True)
    return found


def thieves(s: Setting) -> dict[str, Any]:
    """Each thief with 1000 answers, without a defence and behind the detection."""
    rows = []
    for thief in ("knockoff", "active", "active(by=entropy)", "jbda", "jbda(towards=another)"):
        runs = []
        for seed in SEEDS:
            free = steal(s.oracle(1000), parse(thief, "thieves"), s.pool, s.exam, rounds=4, seed=seed)
            row: list[Any] = [free.last.agree, free.last.n]
            for accounts in ("plain", "accounts"):
                watched = adapted(s.oracle(1000, "query-detection"), accounts)  # type: ignore[arg-type]
                stolen = steal(watched, parse(thief, "thieves"), s.pool, s.exam, rounds=4, seed=seed)
                row += [stolen.noticed, watched.used, stolen.last.agree]
            runs.append(row)
        rows.append([thief, runs])
        print(thief, runs, flush=True)
    honest = [honest_cost(s.victim, answer_defences(["query-detection"]), s.exam, seed).withheld for seed in SEEDS]
    return {"rows": rows, "honest withheld": honest}


def maps(s: Setting) -> dict[str, Any]:
    """Agreement by answers where maps are told too."""
    rows = []
    for leak in LEAKS:
        told = None if leak is None else map_leak(*leak)
        runs = []
        for seed in SEEDS:
            stolen = steal(s.oracle(1000), parse("knockoff", "thieves"), s.pool, s.exam, rounds=4, leak=told, seed=seed)
            runs.append([[p.queries, p.agree, p.n] for p in stolen.points])
        rows.append(["none" if told is None else str(told), runs])
        print(rows[-1], flush=True)
    return {"rows": rows}


def membership(s: Setting) -> dict[str, Any]:
    """Members of an overfitted and of a regular network, by three attacks."""
    x, y = s.train
    rows = []
    for name, n, epochs in (("overfitted", 1000, 60), ("regular", 10000, 2)):
        model = network(x[:n], y[:n], VICTIM, epochs, 200)
        both, classes = x[: 2 * n], y[: 2 * n]
        member = torch.arange(2 * n).numpy() < n
        said = answers_of(model)(both).argmax(1) == classes
        lesson = Lesson(arch=VICTIM, epochs=epochs)
        shadows = train_shadows(model, both, classes, networks=16, lesson=lesson)
        for attack, value in membership_scores(model, both, classes, shadows).items():
            at = [at_rate(value, member, rate) for rate in (0.01, 0.001)]
            right = [float(half.float().mean()) for half in said.split(n)]
            found = [[a.hits, a.members, a.alarms, a.others, a.interval] for a in at]
            rows.append([name, n, epochs, *right, attack, *area(value, member), *found])
            print(rows[-1], flush=True)
    return {"rows": rows}


PARTS = {"curves": curves, "thieves": thieves, "maps": maps, "membership": membership}


def main() -> None:
    torch.set_num_threads(1)
    setting = Setting(Path(sys.argv[1]))
    for name in sys.argv[2:] or PARTS:
        began = time.process_time()
        found = PARTS[name](setting) | {"minutes": round((time.process_time() - began) / 60, 1)}
        store = json.loads(STORE.read_text()) if STORE.exists() else {}
        store[name] = found
        right = int(setting.exam.truth.gather(1, setting.exam.said[:, None]).sum())
        store["victim"] = [right, len(setting.exam.x)]
        STORE.write_text(json.dumps(store) + "\n")
        print(name, store[name]["minutes"], "minutes of processor time", flush=True)
    (HOME / "stealing.md").write_text(text(json.loads(STORE.read_text())))


def text(store: dict[str, Any]) -> str:
    """The page, of the parts that were run."""
    right, n = store["victim"]
    low, high = (100 * v for v in wilson(right, n))
    page = [
        "# What theft comes to",
        "",
        "Made by `python benchmarks/stealing.py DATA` on MNIST. The model is a small convolutional network trained on "
        f"20,000 pictures, right on {100 * right / n:.1f} % ({low:.1f} to {high:.1f}) of {n} test pictures, on which "
        "clones are judged. The pool are 10,000 other training pictures; the clone is another small convolutional "
        "network. Each number is the mean share, in per cent, of three thieves (seeds 0 to 2), with the lowest and the "
        f"highest; the 95 % interval of one share of {n} pictures is at most 2.2 points to each side, and 0.7 "
        "near 98 %.",
    ]
    for name, part_of_page in (
        ("curves", _curves),
        ("thieves", _thieves),
        ("maps", _maps),
        ("membership", _membership),
    ):
        if name in store:
            page += ["", *part_of_page(store[name]), "", f"{store[name]['minutes']} minutes of processor time."]
    return "\n".join(page) + "\n"


def _curves(found: dict[str, Any]) -> list[str]:
    points = [point[0] for point in found["rows"][0][2][0]]
    lines = [
        "## Agreement with the model, by answers",
        "",
        "A knockoff thief learns from what it is told, or from the top class alone (argmax). Published for "
        "another model "
        "and clone (notebook of the Adversarial Robustness Toolbox on MNIST, a model that is right on 95.9 "
        "%; accuracy of "
        "the clone): argmax 16, 32, 63, 84, 90 % at 250, 500, 1000, 2000, 4000 answers; behind reverse sigmoid thieves "
        "who learn from probabilities come to 20 to 27 % at 5000, and argmax thieves stay at 88 to 90 %.",
        "",
        f"| defence | the thief learns from | {' | '.join(map(str, points))} |",
        f"|---|---|{'---|' * len(points)}",
    ]
    for defence, adaptation, runs in found["rows"]:
        cells = [mean([run[i][1] for run in runs], runs[0][i][2]) for i in range(len(points))]
        lines.append(f"| {defence} | {'argmax' if adaptation == 'argmax' else 'answers'} | {' | '.join(cells)} |")
    lines += [
        "",
        "What the honest pay, on the same pictures: right answers, expected calibration error, probability "
        "moved (half the "
        "L1 distance), and answers with another top class.",
        "",
        "| defence | right | ECE | moved | other top class |",
        "|---|---|---|---|---|",
    ]
    for defence, accuracy, error, moved, changed, n in found["cost"]:
        lines.append(f"| {defence} | {100 * accuracy:.1f} % | {error:.3f} | {100 * moved:.1f} % | {changed} of {n} |")
    return lines


def _thieves(found: dict[str, Any]) -> list[str]:
    lines = [
        "## Thieves, and who notices them",
        "",
        "Agreement after 1000 answers. Then behind `query-detection` (PRADA, delta 0.9): whether the account "
        "was noticed, "
        "answers it got, and agreement of its clone; and the same for a thief who asks as four accounts. Of an honest "
        f"account that asks about the 2000 pictures, {max(found['honest withheld'])} answers were withheld "
        "(the most of "
        "three orders).",
        "",
        "| thief | free | noticed | answers | agreement | four accounts: noticed | answers | agreement |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for thief, runs in found["rows"]:
        n, k = runs[0][1], len(runs)
        noticed, of_four = sum(r[2] for r in runs), sum(r[5] for r in runs)
        answers = [sum(r[i] for r in runs) / k for i in (3, 6)]
        lines.append(
            f"| {thief} | {mean([r[0] for r in runs], n)} | {noticed} of {k} | {answers[0]:.0f} | "
            f"{mean([r[4] for r in runs], n)} | {of_four} of {4 * k} | {answers[1]:.0f} | "
            f"{mean([r[7] for r in runs], n)} |"
        )
    return lines


def _maps(found: dict[str, Any]) -> list[str]:
    points = [point[0] for point in found["rows"][0][1][0]]
    lines = [
        "## Maps make theft cheaper",
        "",
        "Agreement of a knockoff thief who is told a map with each answer, and whose clone is drawn to the same maps.",
        "",
        f"| maps | {' | '.join(map(str, points))} |",
        f"|---|{'---|' * len(points)}",
    ]
    for name, runs in found["rows"]:
        cells = [mean([run[i][1] for run in runs], runs[0][i][2]) for i in range(len(points))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _membership(found: dict[str, Any]) -> list[str]:
    lines = [
        "## Who was in the training set",
        "",
        "Members found at 1 % and at 0.1 % false positives, as many others as members, 16 shadow networks, "
        "with the exact "
        "95 % interval of Clopper and Pearson.",
        "",
        "| network | members | right on members, others | attack | area under ROC | at 1 % | at 0.1 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, n, epochs, inside, outside, attack, area_of, (low, high), *rates in found["rows"]:
        cells = [f"{100 * hits / of:.1f} % ({100 * a:.1f} to {100 * b:.1f})" for hits, of, _, _, (a, b) in rates]
        lines.append(
            f"| {name}, {epochs} epochs | {n} | {100 * inside:.1f} %, {100 * outside:.1f} % | {attack} | "
            f"{area_of:.3f} ({low:.3f} to {high:.3f}) | {' | '.join(cells)} |"
        )
    return lines


def mean(agree: Sequence[int], n: int) -> str:
    """The mean share over seeds, and the lowest and highest."""
    shares = [100 * a / n for a in agree]
    return f"{sum(shares) / len(shares):.1f} ({min(shares):.1f} to {max(shares):.1f})"


if __name__ == "__main__":
    main()
