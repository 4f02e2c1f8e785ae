"""torchvision's detectors and segmenters by its own names, as the catalogue's: raw outputs, and no resizing inside."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core.catalogue import parse
from clearsight.core.light_imports import without_compiler
from clearsight.core.preprocess import Preprocess
from clearsight.errors import Refused
from clearsight.models.weights import put_weights
from clearsight.segmenters.common.from_torchvision import BeforeUpsampling

DETECTORS = {  # its names, and how the catalogue spells them
    "fasterrcnn_resnet50_fpn": "faster-rcnn",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "faster-rcnn(backbone=mobilenet-320)",
    "retinanet_resnet50_fpn": "retinanet",
    "fcos_resnet50_fpn": "torchvision-fcos",
    "ssdlite320_mobilenet_v3_large": "ssdlite",
}
NORM_EPS = "norm_eps"  # the option of a run folder for what BatchNorm adds to the variance
# torchvision runs these published weights without adding anything to the variance (overwrite_eps)
_WITHOUT_EPS = {"fasterrcnn_resnet50_fpn": "COCO_V1", "retinanet_resnet50_fpn": "COCO_V1"}


def kind_of(name: str) -> str:
    """The kind of a network of torchvision: "detector", "segmenter", or "classifier" for all others."""
    with without_compiler():
        from torchvision.models import get_model_builder, list_models

    if name in DETECTORS:
        return "detector"
    segments = name in list_models() and ".segmentation." in get_model_builder(name).__module__
    return "segmenter" if segments else "classifier"


def build_detector(name: str, classes: int, shape: tuple[int, ...], options: dict[str, Any]) -> nn.Module:
    """The catalogue's network, with random weights, for so many classes, background not counted."""
    options = dict(options)
    eps = options.pop(NORM_EPS, None)
    call = parse(str(parse(DETECTORS[name], "detectors").with_options(**options)), "detectors")
    net: nn.Module = call.method(classes, shape, **call.options)
    if eps is not None:
        set_norm_eps(net, float(eps))
    return net


def build_segmenter(name: str, classes: int, options: dict[str, Any]) -> nn.Module:
    """torchvision's network without its last interpolation and its auxiliary head, with random weights."""
    with without_compiler():
        from torchvision.models import get_model

    light = name.startswith("lraspp")
    more = options if light else {"aux_loss": False, **options}
    net = get_model(name, weights=None, weights_backbone=None, num_classes=classes, **more)
    return BeforeUpsampling(net, None if light else "out")


def preprocess_of(name: str) -> Preprocess:
    """The mean and std of its training, and the whole picture squeezed to the size that it was trained at.

    Networks that torchvision runs at a fixed size see what they see there.  The others it gives pictures whose shorter
    side is that long, in their own proportions: of square pictures they see the same.
    """
    with without_compiler():
        from torchvision.models import get_model

    if kind_of(name) == "segmenter":
        says = published(name).transforms()
        return Preprocess(tuple(says.resize_size) * 2, tuple(says.mean), tuple(says.std), says.interpolation.value)
    with torch.device("meta"):
        inside: Any = get_model(name, weights=None, weights_backbone=None).transform
    return Preprocess((inside.min_size[-1],) * 2, tuple(inside.image_mean), tuple(inside.image_std))


def labels_of(name: str) -> tuple[str, ...]:
    """torchvision's names of the classes of its published weights; of detectors without the background.

    COCO's numbers have gaps: the classes that nothing belongs to are named N/A, as there.
    """
    names = tuple(published(name).meta["categories"])
    return names[1:] if name in DETECTORS else names


def published(name: str) -> Any:
    """The weights that torchvision publishes for a network, by default."""
    with without_compiler():
        from torchvision.models import get_model_weights

    return next(iter(get_model_weights(name))).DEFAULT


def published_state(name: str) -> dict[str, Tensor]:
    """The published weights, fetched unless they are cached."""
    state: dict[str, Tensor] = published(name).get_state_dict(progress=True, check_hash=True)
    return state


def put_detector_weights(
    net: Any, name: str, state: Mapping[str, Tensor], source: str, classes: int, file: Path | None
) -> None:
    """Copy a state dict with torchvision's own names, or with those of a run folder, into the catalogue's network.

    file: where it comes from; None for what torchvision publishes.
    """
    if state and all(k.startswith("net.") for k in state):
        state = {k.removeprefix("net."): v for k, v in state.items()}
    put_weights(net.net, state, source, classes, background=1)
    if runs_without_eps(name, file):
        set_norm_eps(net, 0.0)


def runs_without_eps(name: str, weights: Path | None) -> bool:
    """Whether torchvision adds nothing to the variance of BatchNorm with these weights: a file, or None for its own."""
    if name not in _WITHOUT_EPS:
        return False
    with without_compiler():
        from torchvision.models import get_model_weights

    special = getattr(get_model_weights(name), _WITHOUT_EPS[name])
    return special is published(name) if weights is None else is_published_file(weights, special.url)


def is_published_file(file: Path, url: str) -> bool:
    """Whether a file is the one at an address, by the start of its SHA-256, which the address names: NAME-1234abcd.pth.

    Whatever the file is called here.
    """
    digest = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    return digest is not None and hashlib.sha256(file.read_bytes()).hexdigest().startswith(digest[1])


def norms_of(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def set_norm_eps(net: nn.Module, eps: float) -> None:
    """Let BatchNorm add so much to the variance.  Refused: less than 0."""
    if not eps >= 0:
        raise Refused(f"{NORM_EPS} is {eps:g}: give 0 or more")
    for m in norms_of(net):
        m.eps = eps


def norm_eps_option(net: nn.Module, built: nn.Module) -> dict[str, float]:
    """The option that gives a network as it is built the BatchNorm of this one; none where they are the same."""
    eps = [[m.eps for m in norms_of(n)] for n in (net, built)]
    return {NORM_EPS: eps[0][0]} if eps[0] and eps[0] != eps[1] and len({*eps[0]}) == 1 else {}
