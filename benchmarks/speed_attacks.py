"""Attacks on a small network beside other libraries: processor time of one thread, by turns in one process.

Memory: the peak of a process of its own for each call, which loads torch, the network, one library and makes the call
once; the imports count.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sections
from speed_rows import Row, Spent, peak

Call = Callable[[Any, Any], Any]  # an attack on pictures x of classes y
INFINITE, EPS = float("inf"), 0.1
PGD, APGD, CW = "pgd(steps=40, step=0.01)", "apgd-ce(steps=40)", "carlini-wagner"
ONE_C = "carlini-wagner(c=1.0, searches=1, steps=1000, rate=0.01, back=0)"  # as torchattacks does it
L2 = "deepfool(norm=l2)"


@dataclass(frozen=True)
class Pair:
    """A call of this package, its eps, the other library, what makes its call for a network, turns, and pictures."""

    call: str
    eps: float
    library: str
    theirs: Callable[[Any], Call]
    turns: int
    most: int = 200


def torchattacks(kind: str, **options: Any) -> Callable[[Any], Call]:
    def of(net: Any) -> Call:
        import torchattacks

        return lambda x, y: getattr(torchattacks, kind)(net, **options)(x, y)

    return of


def foolbox(kind: str, size: float | None, **options: Any) -> Callable[[Any], Call]:
    def of(net: Any) -> Call:
        import foolbox

        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        return lambda x, y: getattr(foolbox.attacks, kind)(**options)(model, x, y, epsilons=size)

    return of


def adv_lib(kind: str, **options: Any) -> Callable[[Any], Call]:
    def of(net: Any) -> Call:
        from adv_lib import attacks

        return lambda x, y: getattr(attacks, kind)(net, x, y, **options)

    return of


PAIRS = (
    Pair(PGD, EPS, "torchattacks", torchattacks("PGD", eps=EPS, alpha=0.01, steps=40), 5),
    Pair(PGD, EPS, "foolbox", foolbox("LinfPGD", EPS, abs_stepsize=0.01, steps=40), 5),
    Pair(PGD, EPS, "adv-lib", adv_lib("pgd_linf", ε=EPS, steps=40, absolute_step_size=0.01, random_init=False), 5),
    Pair(APGD, EPS, "torchattacks", torchattacks("APGD", eps=EPS, steps=40), 5),
    Pair(APGD, EPS, "adv-lib", adv_lib("apgd", eps=EPS, norm=INFINITE, n_iter=40, loss_function="ce"), 5),
    Pair(L2, INFINITE, "torchattacks", torchattacks("DeepFool", steps=50), 3),
    Pair(L2, INFINITE, "foolbox", foolbox("L2DeepFoolAttack", None), 3),
    Pair(L2, INFINITE, "adv-lib", adv_lib("df", steps=50), 3),
    Pair(CW, INFINITE, "torchattacks", torchattacks("CW", c=1, steps=1000, lr=0.01), 3),
    Pair(ONE_C, INFINITE, "torchattacks", torchattacks("CW", c=1, steps=1000, lr=0.01), 3),
    Pair(CW, INFINITE, "foolbox", foolbox("L2CarliniWagnerAttack", None, binary_search_steps=9, steps=1000), 3, 60),
    Pair(CW, INFINITE, "adv-lib", adv_lib("carlini_wagner_l2", max_iterations=1000), 3, 24),
    Pair("fab", EPS, "torchattacks", torchattacks("FAB", eps=EPS, steps=100, n_classes=10), 3),
    Pair("fab", EPS, "adv-lib", adv_lib("fab", norm=INFINITE, n_iter=100), 3),
    Pair("square(queries=500)", EPS, "torchattacks", torchattacks("Square", eps=EPS, n_queries=500), 11),
    Pair("auto-attack", EPS, "torchattacks", torchattacks("AutoAttack", eps=EPS, n_classes=10), 3),
    Pair("auto-attack(steps=10)", EPS, "torchattacks", torchattacks("AutoAttack", eps=EPS, n_classes=10), 3),
    Pair("auto-attack(part=apgd-t)", EPS, "adv-lib", adv_lib("apgd_targeted", eps=EPS, norm=INFINITE), 3),
)


def measured(mnist: Path, only: str, pictures: int, turns: int | None, keep_memory: bool, without: list[str]) -> str:
    """The table; keep_memory: freed memory stays with the process, as with the commands."""
    import torch
    from speed_digits import kept, taught

    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "digits.pt"
        taught(mnist, pictures, file)
        net, x, y = kept(file)
        if keep_memory:
            import clearsight as cs

            cs.reuse_memory()
        for k, pair in enumerate(PAIRS):
            if only in f"{pair.call} {pair.library}" and pair.library not in without:
                rows.append(row(k, net, x[: pair.most], y[: pair.most], turns or pair.turns, file).line())
                print(rows[-1], file=sys.stderr, flush=True)
    heads = (
        "| call, beside | the other, s: | this build, s: | ratio (range): | turns: | the other, MB: | MB: | result |"
    )
    return sections.table(heads, rows)


def row(k: int, net: Any, x: Any, y: Any, turns: int, file: Path) -> Row:
    """Both once with few pictures before anything is timed; then by turns; then each once in a process of its own."""
    pair = PAIRS[k]
    calls = {"the other": pair.theirs(net), "ours": ours(pair, net)}
    times: dict[str, list[float]] = {side: [] for side in calls}
    came: dict[str, Any] = {}
    for call in calls.values():
        call(x[:8], y[:8])
    for _ in range(turns):
        for side, call in calls.items():
            began = time.process_time()
            found = call(x, y)
            times[side].append(time.process_time() - began)
            came.setdefault(side, found)
    peaks = {side: alone(k, side, file) for side in calls}
    now, beside = ([Spent(s, peaks[side]) for s in times[side]] for side in ("ours", "the other"))
    name = f"{pair.call}, {pair.library}" + (f", {len(x)} pictures" if len(x) == pair.most < 200 else "")
    return Row(name, now, beside, result(pair, net, x, y, came["ours"], came["the other"]))


def ours(pair: Pair, net: Any) -> Call:
    from speed_digits import wrapped

    import clearsight as cs

    model = wrapped(net)
    return lambda x, y: cs.attack(model, x, y, pair.call, eps=pair.eps)


def result(pair: Pair, net: Any, x: Any, y: Any, here: Any, there: Any) -> str:
    """How many pictures are read wrongly; of attacks that look for the nearest, how far they have moved in L2."""
    wrong, near = fallen(net, x, y, here.x)
    theirs, far = fallen(net, x, y, there[1] if isinstance(there, tuple) else there)
    both = wrong & theirs
    text = f"{int(wrong.sum())} fall, there {int(theirs.sum())}, both {int(both.sum())}, of {len(x)}"
    if pair.eps == INFINITE:
        text += f"; mean distance of both {near[both].mean():.3f}, there {far[both].mean():.3f}"
    return text


def fallen(net: Any, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
    import torch

    with torch.no_grad():
        return net(z).argmax(1) != y, (z - x).flatten(1).norm(dim=1)


def alone(k: int, side: str, file: Path) -> float:
    """MB of a process that makes the call once."""
    command = [sys.executable, __file__, str(k), side, str(file)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main() -> None:
    """The process whose memory is looked at: it loads one library only."""
    import torch
    from speed_digits import kept

    torch.set_num_threads(1)
    pair, side, (net, x, y) = PAIRS[int(sys.argv[1])], sys.argv[2], kept(Path(sys.argv[3]))
    call = ours(pair, net) if side == "ours" else pair.theirs(net)
    call(x[: pair.most], y[: pair.most])
    print(peak())


if __name__ == "__main__":
    main()
