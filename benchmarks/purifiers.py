"""Purifiers before a network that was trained without them, attacked as if they were not there, and through them.

python benchmarks/purifiers.py DATA   writes benchmarks/purifiers.md; DATA holds models_cifar10 and cifar10_png100.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from transfer import cifar, small

import clearsight as cs
from clearsight.reporting.findings import Cell

OUT = Path(__file__).with_suffix(".md")
CHECK = 'purification(attack="pgd(steps=20)", eps={}/255, pictures=100)'


def main() -> None:
    data = Path(sys.argv[1])
    model, pictures = cifar(data / "models_cifar10" / "resnet20-12fca82f.th"), small(data / "cifar10_png100")
    text = (
        "# Purifiers, attacked through\n\nMade by `python benchmarks/purifiers.py DATA`: right answers of a ResNet-20 "
        "on 100 pictures of CIFAR-10 behind each purifier, with 95 % Wilson intervals. The attack either does not know "
        "of the purifier (grey box) or goes through it (BPDA with the identity). Athalye, Carlini & Wagner 2018 "
        "(arXiv:1802.00420, table 1) leave 0 % of ImageNet pictures right behind the purifiers of Guo et al. 2018.\n"
    )
    for eps in (2, 8):
        began = time.monotonic()
        (finding,) = cs.audit(model, pictures, only=CHECK.format(eps)).findings
        text += f"\n## pgd(steps=20, early_stop=false), eps {eps}/255\n\n"
        text += "| purifier | no attack | grey box | through it (BPDA) |\n|---|---|---|---|\n"
        for t in finding.tables:
            cells = [cell(row) for row in t.rows]
            name = t.caption.partition("behind ")[2].partition(",")[0]
            if name:
                text += f"| {name} | {' | '.join(cells[:3])} |\n"
            else:
                text += f"| none | {cells[0]} | {cells[1]} | {cells[1]} |\n"
        text += f"\n{finding.headline} {(time.monotonic() - began) / 60:.1f} minutes on one thread.\n"
        print(text, flush=True)
    OUT.write_text(text)


def cell(row: dict[str, Cell]) -> str:
    low, high = (100 * float(row[k] or 0) for k in ("from (95 %)", "to (95 %)"))
    return f"{100 * float(row['share'] or 0):.0f} % ({low:.0f} to {high:.0f})"


if __name__ == "__main__":
    main()
