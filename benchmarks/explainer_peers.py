"""Explainers beside the same of other libraries: ``python benchmarks/explainer_peers.py --write``.

    python benchmarks/explainer_peers.py --networks torchvision:resnet50 --only captum

Four photos of 224 x 224 pixels in one process and one thread; this package and the other library by turns, with the
same number of samples, steps or windows, in the other library's largest passes of 16 pictures.  Counted is the time of
the processor, so that what else the machine does weighs little.  Where the method wants pieces of the picture, the
other library is given ours, ready made.  Results are each library's own: its versions of a picture and its weights
differ.  Methods of many passes run on the embedded network alone.

--write puts the tables into `explainer_peers.md`, each between its two marks; `speed.py` does the same.

pytorch-grad-cam, captum and zennit come with the extra `bench`.  ``pip install shap lime xplique tensorflow-cpu`` for
the others, or leave them out: ``--without shap,lime,xplique``.  xplique calls a torch network through its wrapper, and
takes the layers of none, so that its Grad-CAM, Guided Backprop and Deconvnet run on TensorFlow's networks alone.
Score-CAM stands in `score_cam.md`; Ablation-CAM of pytorch-grad-cam takes a pass for each channel too, some minutes
here.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libraries
import numpy as np
import sections
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.explainers.common.superpixels import segments

PASS = 16  # pictures in a pass of the other library
SAMPLES, STEPS, NOISY = 100, 20, 10
ENOUGH = 6  # seconds of turns, after which no third begins
Call = Callable[[], Any]
Pair = tuple[str, Call]  # a call of this package, and the other library's


@dataclass(frozen=True)
class Task:
    """The network from pixels to logits, its photos x (B, 3, H, W), the classes y (B,), and the layer of the CAMs."""

    model: Any
    net: nn.Module
    x: Tensor
    y: Tensor
    layer: nn.Module
    rectified: bool  # every rectifier is a ReLU


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="demo,torchvision:resnet50", help="with commas between")
    parser.add_argument("--only", default="", help="rows that hold this word")
    parser.add_argument("--without", default="", help="libraries, with commas between")
    parser.add_argument("--write", type=Path, nargs="?", const=Path(__file__).parent, help="the folder of the page")
    words = parser.parse_args()
    left = words.without.split(",")
    libraries.all_there(libraries.EXPLAINERS, left)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for network in words.networks.split(","):
        began, found = sections.start(), []
        for row in rows(task(network), words.only, left):
            print(row, file=sys.stderr, flush=True)
            found.append(row)
        if not found:  # most rows are measured on one network alone
            print(f"{network}: no row holds {words.only!r}", file=sys.stderr)
            continue
        heads = "| call | beside | the other, s: | this build, s: | ratio (range): | turns: |"
        state = sections.state(began, *libraries.EXPLAINERS)
        text = f"{sections.table(heads, found)}\n\n{made(network, words.only, words.without)}\n{state}"
        print(text)
        if words.write:
            sections.write(words.write / "explainer_peers.md", network, text)


def made(network: str, only: str, without: str) -> str:
    """The command that makes the section again."""
    given = ["--networks", network, *(["--only", only] if only else []), *(["--without", without] if without else [])]
    return f"Made by `python benchmarks/explainer_peers.py {shlex.join(given)} --write`."


def task(network: str) -> Task:
    model = cs.load(network, weights=None if network == "demo" else "none")
    x = cs.pixels(model, "demo:coffee,chelsea,grace_hopper,rocket")
    net = model.net.eval().requires_grad_(False)

    class FromPixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net(model.normalised(x))
            return out

    with torch.no_grad():
        y = model(x).argmax(1)
    layer = cs.explain(model, x[:1], "grad-cam").method.partition("layer=")[2].rstrip(")")
    return Task(model, FromPixels().eval(), x, y, net.get_submodule(layer), network != "demo")


def rows(task: Task, only: str, without: list[str]) -> Iterator[str]:
    for peer, calls in PEERS.items():
        if peer in without:
            continue
        for call, theirs in calls(task):
            if only in f"{call} {peer}" and not (task.rectified and "=" in call):
                ours = functools.partial(cs.explain, task.model, task.x, call, cs.ClassScore(task.y))
                yield by_turns(call, peer, ours, theirs)


def by_turns(call: str, peer: str, ours: Call, theirs: Call) -> str:
    """Both once before anything is timed; then by turns, at least two, and at least three where a turn is short."""
    theirs(), ours()
    beside, now = [], []
    while len(now) < 2 or (len(now) < 9 and sum(beside + now) < ENOUGH):
        beside.append(spent(theirs))
        now.append(spent(ours))
    ratios = sorted(a / b for a, b in zip(now, beside, strict=True))
    middle = [statistics.median(s) for s in (beside, now)]
    share = f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return f"| {call} | {peer} | {middle[0]:.3g} | {middle[1]:.3g} | {share} | {len(now)} |"


def spent(call: Call) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def with_grad_cam(task: Task) -> list[Pair]:
    cams = importlib.import_module("pytorch_grad_cam")
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    wanted = [targets.ClassifierOutputTarget(int(k)) for k in task.y]

    def cam(kind: str) -> Any:
        with getattr(cams, kind)(model=task.net, target_layers=[task.layer]) as method:
            method.batch_size = PASS
            return method(input_tensor=task.x.clone().requires_grad_(), targets=wanted)

    kinds = {
        "grad-cam": "GradCAM", "grad-cam++": "GradCAMPlusPlus", "xgrad-cam": "XGradCAM", "hires-cam": "HiResCAM",
        "layer-cam": "LayerCAM", "eigen-cam": "EigenCAM",
    }  # fmt: skip
    return [(ours, functools.partial(cam, theirs)) for ours, theirs in kinds.items()]


def with_captum(task: Task) -> list[Pair]:
    attr = importlib.import_module("captum.attr")
    x, y, net = task.x, task.y, task.net
    pieces = segments(x, 7, "superpixels")
    each = list(zip(x[:, None], y[:, None], pieces[:, None, None].expand(-1, -1, 3, -1, -1), strict=True))
    masks = [m - m.min() for _, _, m in each]

    def by_pieces(kind: Any) -> Any:
        return [
            kind(net).attribute(a, target=k, feature_mask=m, n_samples=SAMPLES, perturbations_per_eval=PASS)
            for (a, k, _), m in zip(each, masks, strict=True)
        ]

    def noisy(kind: str) -> Any:
        return attr.NoiseTunnel(attr.Saliency(net)).attribute(
            x, nt_type=kind, nt_samples=NOISY, nt_samples_batch_size=4, stdevs=0.15, target=y, abs=False
        )

    def occlusion() -> Any:
        return attr.Occlusion(net).attribute(
            x, (3, 56, 56), target=y, strides=(3, 28, 28), perturbations_per_eval=PASS // 4
        )

    def integrated() -> Any:
        return attr.IntegratedGradients(net).attribute(x, target=y, n_steps=STEPS, internal_batch_size=PASS)

    def expected() -> Any:
        return attr.GradientShap(net).attribute(x, torch.zeros_like(x[:1]), n_samples=NOISY, target=y)

    pairs: list[Pair] = [
        ("saliency", lambda: attr.Saliency(net).attribute(x.clone(), target=y)),
        ("gradient-x-input", lambda: attr.InputXGradient(net).attribute(x.clone(), target=y)),
        (f"integrated-gradients(steps={STEPS})", integrated),
        (f"smooth-grad(samples={NOISY})", lambda: noisy("smoothgrad")),
        (f"var-grad(samples={NOISY})", lambda: noisy("vargrad")),
        (f"gradient-shap(samples={NOISY})", expected),
        ("grad-cam", lambda: attr.LayerGradCam(net, task.layer).attribute(x.clone(), target=y)),
        ("occlusion(window=56, stride=28)", occlusion),
        (f"lime(samples={SAMPLES})", lambda: by_pieces(attr.Lime)),
        (f"kernel-shap(samples={SAMPLES})", lambda: by_pieces(attr.KernelShap)),
    ]
    if task.rectified:  # captum knows no ReLU6
        pairs += [
            ("guided-backprop", lambda: attr.GuidedBackprop(net).attribute(x.clone(), target=y)),
            ("deconvnet", lambda: attr.Deconvolution(net).attribute(x.clone(), target=y)),
            ("guided-grad-cam", lambda: attr.GuidedGradCam(net, task.layer).attribute(x.clone(), target=y)),
        ]
    return pairs


def with_zennit(task: Task) -> list[Pair]:
    attribution = importlib.import_module("zennit.attribution")
    composites = importlib.import_module("zennit.composites")
    one_hot = torch.eye(len(task.model.labels))[task.y]

    def relevance(composite: Any) -> Any:
        with attribution.Gradient(task.net, composite) as attributor:
            return attributor(task.x.clone().requires_grad_(), one_hot)

    def smooth() -> Any:
        with attribution.SmoothGrad(task.net, noise_level=0.15, n_iter=NOISY) as attributor:
            return attributor(task.x.clone().requires_grad_(), one_hot)

    def integrated() -> Any:
        with attribution.IntegratedGradients(task.net, n_iter=STEPS) as attributor:
            return attributor(task.x.clone().requires_grad_(), one_hot)

    pairs: list[Pair] = [
        ("lrp", lambda: relevance(composites.EpsilonPlusFlat())),
        (f"smooth-grad(samples={NOISY})", smooth),
        (f"integrated-gradients(steps={STEPS})", integrated),
    ]
    if task.rectified:
        pairs += [
            ("guided-backprop", lambda: relevance(composites.GuidedBackprop())),
            ("deconvnet", lambda: relevance(composites.DeconvNet())),
        ]
    return pairs


def with_shap(task: Task) -> list[Pair]:
    shap = importlib.import_module("shap")
    photos = task.x.permute(0, 2, 3, 1).numpy()
    hidden = np.array(task.model.preprocess.mean)
    pieces = [p.numpy() - int(p.min()) for p in segments(task.x, 7, "superpixels")]
    every = [*zip(photos, pieces, map(int, task.y), strict=True)]

    def kernel(photo: Any, piece: Any, k: int) -> Any:
        def of_sets(shown: Any) -> Any:
            return scores(task, np.where(shown[:, piece, None] > 0, photo, hidden))[:, k]

        players = np.ones((1, piece.max() + 1))
        explainer = shap.KernelExplainer(of_sets, 0 * players)
        return explainer.shap_values(players, nsamples=SAMPLES, l1_reg=False, silent=True)

    def partition() -> Any:
        masker = shap.maskers.Image("blur(32,32)", photos[0].shape)
        explainer = shap.PartitionExplainer(lambda z: scores(task, z), masker)
        return [
            explainer(photo[None], max_evals=SAMPLES, batch_size=PASS, outputs=[k], silent=True)
            for photo, _, k in every
        ]

    def expected() -> Any:
        explainer = shap.GradientExplainer(task.net, torch.zeros_like(task.x[:1]), batch_size=PASS)
        return explainer.shap_values(task.x, nsamples=NOISY, ranked_outputs=1)

    return [
        (f"kernel-shap(samples={SAMPLES})", lambda: [kernel(*one) for one in every]),
        (f"partition-shap(samples={SAMPLES})", partition),
        (f"gradient-shap(samples={NOISY})", expected),
    ]


def with_lime(task: Task) -> list[Pair]:
    explainer = importlib.import_module("lime.lime_image").LimeImageExplainer
    photos = task.x.permute(0, 2, 3, 1).double().numpy()
    pieces = [p.numpy() for p in segments(task.x, 7, "superpixels")]
    hidden = statistics.mean(task.model.preprocess.mean)

    def lime() -> Any:
        return [
            explainer(random_state=0).explain_instance(
                photo, lambda z: scores(task, z), labels=(int(k),), top_labels=None, hide_color=hidden,
                num_samples=SAMPLES, batch_size=PASS, segmentation_fn=lambda _, piece=piece: piece,
            )
            for photo, piece, k in zip(photos, pieces, task.y, strict=True)
        ]  # fmt: skip

    return [(f"lime(samples={SAMPLES})", lime)]


def with_xplique(task: Task) -> list[Pair]:
    wrapper = importlib.import_module("xplique.wrappers").TorchWrapper
    kinds = importlib.import_module("xplique.attributions")
    net = wrapper(task.net, "cpu", is_channel_first=True)
    photos, one_hot = task.x.permute(0, 2, 3, 1).numpy(), np.eye(len(task.model.labels), dtype=np.float32)[task.y]
    pieces = [(p - p.min()).int().numpy() for p in segments(task.x, 7, "superpixels")]

    def run(kind: str, **options: Any) -> Any:
        return getattr(kinds, kind)(net, batch_size=PASS, **options).explain(photos, one_hot)

    def by_pieces(kind: str) -> Any:
        return [
            getattr(kinds, kind)(
                net, batch_size=PASS, nb_samples=SAMPLES, map_to_interpret_space=lambda _, piece=piece: piece
            ).explain(photo[None], label[None])
            for photo, label, piece in zip(photos, one_hot, pieces, strict=True)
        ]

    return [
        ("saliency", lambda: run("Saliency")),
        ("gradient-x-input", lambda: run("GradientInput")),
        (f"integrated-gradients(steps={STEPS})", lambda: run("IntegratedGradients", steps=STEPS)),
        (f"smooth-grad(samples={NOISY})", lambda: run("SmoothGrad", nb_samples=NOISY)),
        (f"var-grad(samples={NOISY})", lambda: run("VarGrad", nb_samples=NOISY)),
        ("occlusion(window=56, stride=28)", lambda: run("Occlusion", patch_size=56, patch_stride=28)),
        (f"rise(masks={SAMPLES})", lambda: run("Rise", nb_samples=SAMPLES)),
        (f"lime(samples={SAMPLES})", lambda: by_pieces("Lime")),
        (f"kernel-shap(samples={SAMPLES})", lambda: by_pieces("KernelShap")),
    ]


def scores(task: Task, pictures: Any) -> Any:
    """Pictures (n, H, W, C) -> logits (n, K)."""
    z = torch.from_numpy(np.ascontiguousarray(pictures)).float().permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        return torch.cat([task.net(part) for part in z.split(PASS)]).numpy()


PEERS: dict[str, Callable[[Task], list[Pair]]] = {
    "pytorch-grad-cam": with_grad_cam,
    "captum": with_captum,
    "zennit": with_zennit,
    "shap": with_shap,
    "lime": with_lime,
    "xplique": with_xplique,
}

if __name__ == "__main__":
    main()
