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
        STORE.write_text(json.dumps(store, indent=1) + "\n")
        print(name, store[name]["minutes"], "minutes of processor time", flush=True)
    (HOME / "stealing.md").write_text(text(json.loads(STORE.read_text())))


def text(store: dict[str, Any]) -> str:
    """The page."""
    return json.dumps(sorted(store))


def mean(agree: Sequence[int], n: int) -> str:
    """The mean share over seeds, and the lowest and highest."""
    shares = [100 * a / n for a in agree]
    return f"{sum(shares) / len(shares):.1f} ({min(shares):.1f} to {max(shares):.1f})"


if __name__ == "__main__":
    main()
