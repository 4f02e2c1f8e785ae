"""What `clearsight attack` does: attack pictures, recount, and show what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearsight.batching import SIZE
from clearsight.case import Progress
from clearsight.classifier import Classifier
from clearsight.data import Picture, Pictures, truth
from clearsight.draw import attack_sheet, png
from clearsight.errors import Refused
from clearsight.explaining import named, top
from clearsight.files import write_whole
from clearsight.methods import Call, parse, write_value
from clearsight.pictures import open_picture, to_pixels
from clearsight.runner import attack, scores
from clearsight.statistics import wilson
from clearsight.targets import Become, Goal, Misclassify


def attack_pictures(
    model: Classifier,
    data: Sequence[Pictures],
    method: str,
    eps: float,
    target: str | None,
    folder: Callable[[], Path],
    *,
    seed: int = 0,
    progress: Progress,
) -> dict[str, Any]:
    """Attack every picture within eps; sheets and the attacked pictures go into the folder that ``folder()`` makes.

    The goal is any class that the picture's labels do not allow (for a picture without labels: any other than the
    model's own answer), or with target that class.
    Each attacked picture is saved as an 8-bit PNG and judged again from there.
    """
    call = parse(method, "attacks")
    eps = call.options.get("eps", eps)
    call = Call(call.method, {k: v for k, v in call.options.items() if k != "eps"})
    wanted = None if target is None else model.index(target)
    broken = [{"file": name, "reason": reason} for d in data for name, reason in d.broken]
    total = sum(len(d.pictures) + len(d.broken) for d in data)
    where: Path | None = None
    told: list[dict[str, Any]] = []
    unlabelled = 0
    for d in data:
        labels = dict(zip((p.name for p in d.pictures), truth(d, model), strict=True))
        for part, stems, x in _readable(d.pictures, model, broken):
            progress("attacking", len(told), total)
            with model.undisturbed():
                before = scores(model, x)
            right = torch.stack([labels[p.name] for p in part])
            blank = ~right.any(1)
            unlabelled += int(blank.sum())
            right[blank] = torch.nn.functional.one_hot(before.argmax(1), len(model.labels)).bool()[blank]
            goal: Goal = Misclassify(right) if wanted is None else Become(torch.full((len(x),), wanted))
            found = attack(model, x, goal, call, eps=eps, seed=seed)
            stored = (found.x * 255).round() / 255
            with model.undisturbed():
                after, kept = scores(model, found.x.to(model.device)), scores(model, stored.to(model.device))
            survives = goal.met(kept) & found.fooled
            where = where or folder()
            answers = [(top(model, b, 1)[0], top(model, a, 1)[0]) for b, a in zip(before, after, strict=True)]
            drawn = attack_sheet(
                found,
                names=[p.name for p in part],
                before=[_say(b) for b, _ in answers],
                after=[_say(a) for _, a in answers],
            )
            sheet = write_whole(where / f"sheet-{len(told) // SIZE + 1}.png", png(drawn))
            for i, (p, stem) in enumerate(zip(part, stems, strict=True)):
                file = write_whole(where / "attacked" / f"{stem}.png", _exact(stored[i])) if found.fooled[i] else None
                told.append(
                    {
                        "picture": p.name,
                        "before": answers[i][0],
                        "after": answers[i][1],
                        "already": bool(found.already[i]),
                        "fooled": bool(found.fooled[i]),
                        "survives_8_bit": bool(survives[i]),
                        "file": file and str(file),
                        "sheet": str(sheet),
                    }
                )
    progress("attacking", total, total)
    if where is None:
        raise Refused(f"none of the pictures can be read ({broken[0]['file']}: {broken[0]['reason']})")
    lines = [f"left out {b['file']}: {b['reason']}" for b in broken]
    sheets = sorted({t["sheet"] for t in told})
    return {
        "lines": [*lines, *_summary(told, str(call), eps, target, unlabelled), *sheets, str(where)],
        "folder": str(where),
        "method": str(call),
        "eps": eps,
        "seed": seed,
        "target": target,
        "pictures": told,
        "broken": broken,
    }


def _readable(
    pictures: Sequence[Picture], model: Classifier, broken: list[dict[str, str]]
) -> Iterator[tuple[list[Picture], list[str], Tensor]]:
    """A few readable pictures at a time, with names for their files and their pixels; the others join ``broken``."""
    part: list[tuple[Picture, str, Tensor]] = []
    for p, stem in named(pictures):
        try:
            part.append((p, stem, to_pixels(open_picture(p.path), model.preprocess)))
        except Refused as e:
            broken.append({"file": p.name, "reason": str(e)})
        if len(part) == SIZE:
            yield [q for q, _, _ in part], [s for _, s, _ in part], torch.stack([x for _, _, x in part])
            part = []
    if part:
        yield [q for q, _, _ in part], [s for _, s, _ in part], torch.stack([x for _, _, x in part])


def _say(answer: dict[str, Any]) -> str:
    return f"{answer['label']}, {100 * answer['probability']:.1f} %"


def _exact(x: Tensor) -> bytes:
    """One picture (C, H, W) as a PNG of just these pixels, never enlarged."""
    from PIL import Image

    a = (x * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    return png(Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a))


def _summary(told: list[dict[str, Any]], method: str, eps: float, target: str | None, unlabelled: int) -> list[str]:
    n = len(told)
    fooled, already = sum(t["fooled"] for t in told), sum(t["already"] for t in told)
    survive = sum(t["survives_8_bit"] for t in told)
    at = f"{method} at eps {write_value(float(eps))}"
    lines = [f"{t['picture']}: {_say(t['before'])} -> {_say(t['after'])}" for t in told if t["fooled"]]
    if target is None:
        low, high = wilson(n - already - fooled, n)
        lines.append(
            f"right before: {n - already} of {n}; right under {at}: {n - already - fooled} of {n} "
            f"({100 * low:.0f} to {100 * high:.0f} %, 95 % interval)"
        )
        if unlabelled:
            lines.append(f"{unlabelled} of them have no label: there the model's own answer was taken for right")
    else:
        low, high = wilson(fooled, n - already) if n > already else (0.0, 1.0)
        lines.append(
            f"made to say {target} by {at}: {fooled} of {n - already} "
            f"({100 * low:.0f} to {100 * high:.0f} %, 95 % interval)"
        )
    lines.append(f"{survive} of {fooled} still do when saved as 8-bit PNG")
    return lines
