"""What users wait for, beside an earlier build and beside other libraries: ``python benchmarks/speed.py``.

    python benchmarks/speed.py --before COMMIT --mnist FOLDER --out benchmarks/speed.md

Commands run in processes of their own, this build and that of COMMIT by turns, so that what the machine does otherwise
falls on both.  Attacks run in one process, this package and the other library by turns, and are counted in processor
time of one thread; explainers beside other libraries stand in `explainer_peers.py`.  A ratio is the median of those of
the turns, with the lowest and the highest; below 1 this build is the faster one.  MB: the peak of a process.  MNIST: a
folder with the four idx files; without it the attacks are left out.

``--only WORD`` measures the rows that hold the word, ``--pictures N`` attacks as many, ``--turns N`` gives each attack
as many turns, ``--keep-memory`` lets freed memory stay with the process, as the commands do.  Rows beside
adversarial-library need ``pip install adv-lib``.  On two cores all of it takes about 60 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COFFEE = ("explain", "demo", "demo:coffee")
COMMANDS: tuple[tuple[str, tuple[str, ...], int], ...] = (  # what it is, the words, turns
    ("the list of methods", ("methods",), 7),
    ("a mistyped folder", ("explain", "demo", "nowhere/x.jpg"), 7),
    ("a mistyped method", (*COFFEE, "-m", "grad-cm"), 7),
    ("one map of one picture", (*COFFEE, "-m", "grad-cam", "--no-tests"), 5),
    ("one relevance map", (*COFFEE, "-m", "lrp", "--no-tests"), 5),
    (
        "three tested maps of two pictures",
        (*COFFEE, "demo:chelsea", "-m", "grad-cam", "-m", "lrp", "-m", "occlusion(window=48, stride=24)"),
        2,
    ),
    ("the first picture judged", ("audit", "demo", "demo:coffee", "--only", "accuracy"), 5),
    ("the whole audit", ("audit",), 1),
)


@dataclass(frozen=True)
class Spent:
    """Seconds of one turn, the peak memory of its process in MB, and of an audit the seconds of each check."""

    seconds: float
    mb: float
    checks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of a table: turns of this build, and of what stands beside it."""

    name: str
    now: list[Spent]
    beside: list[Spent]
    note: str = ""

    def line(self) -> str:
        ratios = sorted(a.seconds / b.seconds for a, b in zip(self.now, self.beside, strict=True))
        mid = [statistics.median(s.seconds for s in side) for side in (self.beside, self.now)]
        peak = [max(s.mb for s in side) for side in (self.beside, self.now)]
        shown = [f"{m:.3g}" for m in mid]
        memory = [f"{m:.0f}" if m else "" for m in peak]
        ratio = f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        cells = (self.name, *shown, ratio, str(len(ratios)), *memory, self.note)
        return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="a commit, whose build stands beside this one")
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--turns", type=int)
    parser.add_argument("--keep-memory", action="store_true")
    parser.add_argument("--attacks", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.attacks:
        attacks_on_digits(words.mnist, words.only, words.pictures, words.turns, words.keep_memory)
        return
    text = "\n".join(tables(words))
    print(text)
    if words.out:
        words.out.write_text(text + "\n", encoding="utf-8")


def tables(words: argparse.Namespace) -> list[str]:
    found = [
        "# How long things take",
        "",
        f"Made by `python {Path(__file__).relative_to(ROOT)}`, which says how; {os.cpu_count()} cores.",
    ]
    if words.before:
        commit = git("rev-parse", "--short", words.before)
        head = ("command", f"{commit}, s", "this build, s", "ratio (range)", "turns", f"{commit}, MB", "MB", "words")
        rows = [row.line() for row in commands(words.before, words.only)]
        found += ["", "## Commands", "", *heads(head), *rows]
    if words.mnist:
        command = [sys.executable, __file__, "--attacks", *sys.argv[1:]]
        rows = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        head = ("call, beside", "the other, s", "this build, s", "ratio (range)", "turns", "", "", "result")
        found += ["", "## Attacks, mnist", "", *heads(head), *rows] if rows else []
    return found


def heads(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|---|{'---:|' * (len(names) - 2)}---|"]


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def commands(before: str, only: str) -> list[Row]:
    """Every command by turns; importing torch is measured as a yardstick."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, checked_out(before, Path(folder) / "before") as old:
        torch = [spent([sys.executable, "-c", "import torch"], ROOT, Path(folder)) for _ in range(5)]
        print(f"import torch: {statistics.median(s.seconds for s in torch):.2f} s", file=sys.stderr, flush=True)
        for name, typed, turns in COMMANDS:
            if only in f"{name} {' '.join(typed)}":
                command = [sys.executable, "-m", "clearsight", *typed]
                for tree in (old, ROOT):  # so that both have their bytecode, and the disk is warm
                    spent(command, tree, Path(folder)) if turns > 2 else None
                pairs = [[spent(command, tree, Path(folder)) for tree in (old, ROOT)] for _ in range(turns)]
                rows.append(Row(name, [p[1] for p in pairs], [p[0] for p in pairs], f"`{' '.join(typed)}`"))
                print(rows[-1].line(), file=sys.stderr, flush=True)
                rows += by_check(rows[-1])
    return rows


def by_check(whole: Row) -> list[Row]:
    """The same of the checks of an audit that take a second or more, the slowest first."""
    long = sorted((s, check) for check, s in whole.beside[0].checks.items() if s >= 1)[::-1]
    if len(long) < 2:
        return []
    return [
        Row(
            f"of it {check}",
            [Spent(s.checks[check], 0) for s in whole.now],
            [Spent(s.checks[check], 0) for s in whole.beside],
        )
        for _, check in long
    ]


@contextmanager
def checked_out(commit: str, folder: Path) -> Any:
    git("worktree", "add", "--detach", str(folder), commit)
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def spent(command: Sequence[str], tree: Path, folder: Path) -> Spent:
    """One run of a command with the package of a tree, in a new folder."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, _, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        report = Path(place) / "clearsight-runs" / "audit-1" / "report.json"
        findings = json.loads(report.read_text("utf-8"))["findings"] if report.is_file() else []
        return Spent(seconds, usage.ru_maxrss / 1024, {f["check"]: f["seconds"] for f in findings})


Call = Callable[[Any, Any], Any]  # an attack on pictures x of classes y


def by_turns(name: str, ours: Call, theirs: Call, turns: int, x: Any, y: Any) -> tuple[Row, Any, Any]:
    """Both once with few pictures before anything is timed; then by turns.  And what each came to at its first turn."""
    now, beside = [], []
    came: dict[Call, Any] = {}
    for call in (theirs, ours):
        call(x[:8], y[:8])
    for _ in range(turns):
        for call, side in ((theirs, beside), (ours, now)):
            began = time.process_time()
            found = call(x, y)
            side.append(Spent(time.process_time() - began, 0.0))
            came.setdefault(call, found)
    return Row(name, now, beside), came[ours], came[theirs]


def attacks_on_digits(mnist: Path, only: str, pictures: int, turns: int | None, keep_memory: bool) -> None:
    """Attacks on a small network that one pass over MNIST has taught, beside other libraries; each row is printed."""
    import torch
    from mnist_attacks import idx, small
    from torch import nn

    import clearsight as cs

    torch.set_num_threads(1)
    if keep_memory:
        cs.reuse_memory()
    torch.manual_seed(0)
    net = small()
    x, y = idx(mnist / "train-images-idx3-ubyte.gz")[:20_000, None] / 255, idx(mnist / "train-labels-idx1-ubyte.gz")
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for rows in torch.randperm(len(x)).split(64):
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows].long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model = cs.wrap(net.eval().requires_grad_(False), cs.Preprocess(28, (0.0,), (1.0,)), labels=list("0123456789"))
    x = idx(mnist / "t10k-images-idx3-ubyte.gz")[: 2 * pictures, None] / 255
    y = idx(mnist / "t10k-labels-idx1-ubyte.gz")[: 2 * pictures].long()
    with torch.no_grad():
        right = model(x).argmax(1) == y
    x, y = x[right][:pictures], y[right][:pictures]

    def fallen(z: Any) -> tuple[Any, Any]:
        """Which pictures are read wrongly, and how far each has moved in L2."""
        z = z.x if isinstance(z, cs.Attacked) else z[1] if isinstance(z, tuple) else z
        with torch.no_grad():
            return net(z).argmax(1) != y, (z - x).flatten(1).norm(dim=1)

    def result(a: Any, b: Any, smallest: bool) -> str:
        (ours, near), (theirs, far) = fallen(a), fallen(b)
        both = ours & theirs
        text = f"{int(ours.sum())} fall, there {int(theirs.sum())}, both {int(both.sum())}, of {len(x)}"
        if smallest:
            text += f"; of both the mean distance is {near[both].mean():.3f}, there {far[both].mean():.3f}"
        return text

    for call, size, peer, another, usual in peers_of_attacks(net):
        if only in f"{call} {peer}":
            ours: Call = lambda x, y, c=call, e=size: cs.attack(model, x, y, c, eps=e)  # noqa: E731
            row, found, there = by_turns(f"{call}, {peer}", ours, another, turns or usual, x, y)
            line = replace(row, note=result(found, there, size == float("inf"))).line()
            print(line, flush=True)
            print(line, file=sys.stderr, flush=True)


Pair = tuple[str, float, str, Call, int]  # a call of this package, its eps, the other library, its call, turns


def peers_of_attacks(net: Any, eps: float = 0.1) -> list[Pair]:
    """Attacks of other libraries on pictures of known classes, each beside the call that does the same here.

    adversarial-library (adv-lib) is left out where it is not installed.
    """
    import foolbox
    import torchattacks

    other = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    f, infinite = foolbox.attacks, float("inf")

    def theirs(kind: str, **options: Any) -> Call:
        return lambda x, y: getattr(torchattacks, kind)(net, **options)(x, y)

    def box(attack: Any, size: float | None) -> Call:
        return lambda x, y: attack(other, x, y, epsilons=size)

    pgd, apgd, search = "pgd(steps=40, step=0.01)", "apgd-ce(steps=40)", f.L2CarliniWagnerAttack
    one_c = "carlini-wagner(c=1.0, searches=1, steps=1000, rate=0.01, back=0)"  # as torchattacks does it
    pairs: list[Pair] = [
        (pgd, eps, "torchattacks", theirs("PGD", eps=eps, alpha=0.01, steps=40), 5),
        (pgd, eps, "foolbox", box(f.LinfPGD(abs_stepsize=0.01, steps=40), eps), 5),
        (apgd, eps, "torchattacks", theirs("APGD", eps=eps, steps=40), 5),
        ("deepfool(norm=l2)", infinite, "torchattacks", theirs("DeepFool", steps=50), 3),
        ("deepfool(norm=l2)", infinite, "foolbox", box(f.L2DeepFoolAttack(), None), 3),
        ("carlini-wagner", infinite, "torchattacks", theirs("CW", c=1, steps=1000, lr=0.01), 3),
        (one_c, infinite, "torchattacks", theirs("CW", c=1, steps=1000, lr=0.01), 3),
        ("carlini-wagner", infinite, "foolbox", box(search(binary_search_steps=9, steps=1000), None), 1),
        ("fab", eps, "torchattacks", theirs("FAB", eps=eps, steps=100, n_classes=10), 3),
        ("square(queries=500)", eps, "torchattacks", theirs("Square", eps=eps, n_queries=500), 7),
        ("auto-attack", eps, "torchattacks", theirs("AutoAttack", eps=eps, n_classes=10), 3),
        ("auto-attack(steps=10)", eps, "torchattacks", theirs("AutoAttack", eps=eps, n_classes=10), 3),
    ]
    try:
        from adv_lib import attacks as lib
    except ImportError:
        print("adv-lib is not installed: its rows are left out", file=sys.stderr)
        return pairs

    def library(kind: str, **options: Any) -> Call:
        return lambda x, y: getattr(lib, kind)(net, x, y, **options)

    return [
        *pairs,
        (pgd, eps, "adv-lib", library("pgd_linf", ε=eps, steps=40, absolute_step_size=0.01, random_init=False), 5),
        (apgd, eps, "adv-lib", library("apgd", eps=eps, norm=infinite, n_iter=40, loss_function="ce"), 5),
        ("deepfool(norm=l2)", infinite, "adv-lib", library("df", steps=50), 3),
        ("carlini-wagner", infinite, "adv-lib", library("carlini_wagner_l2", max_iterations=1000), 1),
        ("fab", eps, "adv-lib", library("fab", norm=infinite, n_iter=100), 3),
        ("auto-attack(part=apgd-t)", eps, "adv-lib", library("apgd_targeted", eps=eps, norm=infinite), 3),
    ]


if __name__ == "__main__":
    main()
