"""Build the networks of timm, torchvision and clearsight by name, with the facts about them that need no internet.

Classifiers, detectors and segmenters: `kind_of` says which a name is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from clearsight.core.catalogue import Call, catalogue, method_name, parse
from clearsight.core.light_imports import without_compiler
from clearsight.core.preprocess import Preprocess
from clearsight.core.rng import gpus, seed_torch
from clearsight.errors import Refused, nearest
from clearsight.models import torchvision_kinds
from clearsight.models.weights import put_weights

Got = TypeVar("Got")

GIVE_WEIGHTS = 'weights=FILE or weights="none" (--weights FILE or --weights none)'
GIVE_LABELS = "labels=[...] (--labels FILE)"
_SET_HERE = ("num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
_NOT_OPTIONS = frozenset({*_SET_HERE, "weights", "weights_backbone", "progress"})
KINDS = {"networks": "classifier", "detectors": "detector", "segmenters": "segmenter"}  # of the catalogue, of models
_STATE_IT = "give preprocess=Preprocess(size=224, mean=(0.5,) * 3, std=(0.5,) * 3, resize=256)"


def names() -> list[str]:
    """Every spelling that ``build`` takes, without the tags of timm's pretrained weights."""
    with without_compiler():
        import timm
        import torchvision

    spellings = [f"clearsight:{n}" for folder in KINDS for n in catalogue(folder)]
    spellings += [f"timm:{n}" for n in timm.list_models()]
    return spellings + [f"torchvision:{n}" for n in torchvision.models.list_models() if not _why_unusable(n)]


def kind_of(spelling: str) -> str:
    """The kind of model that a library's network is: "classifier", "detector" or "segmenter".

    Refused: a name that the library does not have.
    """
    if spelling.startswith("clearsight:"):
        return KINDS[_folder_of(spelling)]
    return torchvision_kinds.kind_of(_name(spelling)) if spelling.startswith("torchvision:") else "classifier"


def default_preprocess(spelling: str) -> Preprocess:
    """The preprocessing of the default pretrained weights; refused where no Preprocess can express it.

    Clearsight's own networks are not pretrained: they get the paper's size, and by convention pixels from -1 to 1.
    torchvision's detectors and segmenters see the whole picture squeezed to a square, see torchvision_kinds.
    """
    if spelling.startswith("clearsight:"):
        channels, *size = _default(spelling, "shape")
        return Preprocess(tuple(size), (0.5,) * channels, (0.5,) * channels)
    return _timm_preprocess(spelling) if spelling.startswith("timm:") else _torchvision_preprocess(spelling)


def default_labels(spelling: str) -> tuple[str, ...]:
    """The names of the classes of the default pretrained weights; refused where the library does not know them.

    For clearsight's own networks: ImageNet's where the paper has a thousand, else their numbers.
    """
    if spelling.startswith("clearsight:"):
        classes = _default(spelling, "classes")
        return imagenet() if classes == 1000 else tuple(map(str, range(classes)))
    if spelling.startswith("timm:"):
        return _timm_labels(spelling)
    weights = _torchvision_weights(spelling)
    if torchvision_kinds.kind_of(_name(spelling)) != "classifier":
        return torchvision_kinds.labels_of(_name(spelling))
    return tuple(weights.meta["categories"])


def build(
    spelling: str,
    classes: int,
    preprocess: Preprocess,
    options: Mapping[str, Any] | None = None,
    *,
    fetch: Callable[[str], None] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build the network for a number of classes and for inputs as preprocessed, in eval mode, on the CPU.

    classes: how many outputs a classifier has; the labels of a detector, background left out; those of a segmenter.

    options: more keyword arguments of the library's function.  Those of clearsight's networks stand in the spelling,
    "clearsight:lenet5(c3=full)", or here, and those here win.  The weights are random, follow from the seed and leave
    the global generator as it was; with fetch, which is called with a line first, they are the library's default ones.
    """
    options = dict(options or {})
    if bad := sorted(_NOT_OPTIONS & options.keys()):
        raise Refused(f"architecture option {bad[0]!r} cannot be set by a run folder: leave it out")
    make = _BUILD[spelling.partition(":")[0]]
    with torch.random.fork_rng(devices=gpus()):
        seed_torch(seed)
        try:
            return make(spelling, classes, preprocess, options, fetch).eval()
        except Refused:
            raise
        except Exception as e:  # whatever the library makes of options that it does not know
            raise Refused(f"{spelling} cannot be built with {options or 'its options'}: {e}") from e


def _build_timm(
    spelling: str, classes: int, preprocess: Preprocess, options: dict[str, Any], fetch: Callable[[str], None] | None
) -> nn.Module:
    with without_compiler():
        import timm

    cfg = _timm_cfg(spelling)
    channels, *size = cfg.input_size
    if preprocess.channels != channels:
        options = {"in_chans": preprocess.channels, **options}
    if cfg.fixed_input_size and preprocess.size != tuple(size):
        options = {"img_size": preprocess.size, **options}
    if fetch is None:
        return _module(timm.create_model(_name(spelling), pretrained=False, num_classes=classes, **options))
    if not cfg.has_weights:
        raise Refused(f"{spelling} has no pretrained weights: give {GIVE_WEIGHTS}")
    if preprocess.channels != channels:
        raise Refused(
            f"the pretrained weights of {spelling} take {channels} channels, not {preprocess.channels}: give "
            f"{GIVE_WEIGHTS}"
        )
    _check_classes(classes, cfg.num_classes, spelling)
    return _fetch(spelling, fetch, lambda: timm.create_model(_name(spelling), pretrained=True, **options))


def _build_torchvision(
    spelling: str, classes: int, preprocess: Preprocess, options: dict[str, Any], fetch: Callable[[str], None] | None
) -> nn.Module:
    with without_compiler():
        from torchvision.models import get_model

    weights = _torchvision_weights(spelling)
    if preprocess.channels != 3:
        raise Refused(f"{spelling} takes 3 channels, not {preprocess.channels}: timm's networks take any number")
    kind = torchvision_kinds.kind_of(_name(spelling))
    if kind != "classifier":
        return _build_torchvision_kind(spelling, kind, classes, preprocess, options, fetch)
    if fetch is None:
        return _module(get_model(_name(spelling), weights=None, num_classes=classes, **options))
    _check_classes(classes, len(weights.meta["categories"]), spelling)
    return _fetch(spelling, fetch, lambda: get_model(_name(spelling), weights=weights, **options))


def _build_torchvision_kind(
    spelling: str,
    kind: str,
    classes: int,
    preprocess: Preprocess,
    options: dict[str, Any],
    fetch: Callable[[str], None] | None,
) -> nn.Module:
    """A detector or a segmenter of torchvision."""
    name = _name(spelling)
    if kind == "detector":
        net = torchvision_kinds.build_detector(name, classes, (preprocess.channels, *preprocess.size), options)
    else:
        net = torchvision_kinds.build_segmenter(name, classes, options)
    if fetch is None:
        return net
    _check_classes(classes, len(default_labels(spelling)), spelling)
    state = _fetched(spelling, fetch, lambda: torchvision_kinds.published_state(name))
    put_library_weights(net, spelling, state, f"torchvision's {name}", classes)
    return net


def put_library_weights(
    net: nn.Module, spelling: str, state: Mapping[str, Tensor], source: str, outputs: int, file: Path | None = None
) -> None:
    """Copy a state dict with the library's own names into its network; see `put_weights`.

    file: where the state comes from; None for what the library publishes.
    """
    if spelling.startswith("torchvision:") and _name(spelling) in torchvision_kinds.DETECTORS:
        torchvision_kinds.put_detector_weights(net, _name(spelling), state, source, outputs, file)
    else:
        put_weights(net, state, source, outputs)


def _build_clearsight(
    spelling: str, classes: int, preprocess: Preprocess, options: dict[str, Any], fetch: Callable[[str], None] | None
) -> nn.Module:
    # parsing the spelling checks the options
    call = parse(str(_call(spelling).with_options(**options)), _folder_of(spelling))
    if fetch is not None:
        raise Refused(f"{spelling} has no pretrained weights: train it, or give {GIVE_WEIGHTS}")
    return _module(call.method(classes, (preprocess.channels, *preprocess.size), **call.options))


def _folder_of(spelling: str) -> str:
    """The folder of the catalogue that holds clearsight's network; refused where none does."""
    name = method_name(_name(spelling))
    for folder in KINDS:
        if name.lower().replace("_", "-") in catalogue(folder):
            return folder
    known = [n for folder in KINDS for n in catalogue(folder)]
    raise Refused(f"clearsight has no network {name!r}: {nearest(name.replace('_', '-'), known)}")


def _call(spelling: str) -> Call:
    """Clearsight's network and the options in its spelling, never code of a file: a run folder may be a stranger's."""
    return parse(_name(spelling), _folder_of(spelling))


def _default(spelling: str, parameter: str) -> Any:
    return _call(spelling).method.parameters[parameter].default


_BUILD = {"timm": _build_timm, "torchvision": _build_torchvision, "clearsight": _build_clearsight}


def _check_classes(classes: int, pretrained: int, spelling: str) -> None:
    if classes != pretrained:
        raise Refused(
            f"the pretrained weights of {spelling} have {pretrained} classes, but there are {classes} labels: the "
            "last layer would be random; give weights trained for these labels, weights=FILE "
            "(--weights FILE)"
        )


def _fetch(spelling: str, say: Callable[[str], None], make: Callable[[], object]) -> nn.Module:
    return _module(_fetched(spelling, say, make))


def _fetched(spelling: str, say: Callable[[str], None], get: Callable[[], Got]) -> Got:
    say(f"fetching the pretrained weights of {spelling} from the internet, unless they are cached")
    try:
        return get()
    except Exception as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        raise Refused(
            f"the weights of {spelling} could not be fetched ({reason}): without the internet, give {GIVE_WEIGHTS}; "
            "FILE is .safetensors or .pth, none means random weights"
        ) from e


def _module(net: object) -> nn.Module:
    assert isinstance(net, nn.Module)
    return net


def _name(spelling: str) -> str:
    return spelling.partition(":")[2]


def _timm_cfg(spelling: str) -> Any:
    with without_compiler():
        import timm
        from timm.models import get_pretrained_cfg

    architecture, _, tag = _name(spelling).partition(".")
    known = timm.list_models()
    if architecture not in known and not timm.is_model(architecture):
        raise Refused(f"timm has no network {architecture!r}: {nearest(architecture, known)}")
    try:
        cfg = get_pretrained_cfg(_name(spelling))
    except (RuntimeError, KeyError, ValueError):
        cfg = None
    if cfg is None:
        tags = timm.list_pretrained(f"{architecture}.*")
        raise Refused(f"timm has no weights {tag!r} of {architecture}: {nearest(_name(spelling), tags)}")
    return cfg


def _timm_preprocess(spelling: str) -> Preprocess:
    cfg = _timm_cfg(spelling)
    size, crop, mode = tuple(cfg.input_size[1:]), cfg.crop_pct, cfg.crop_mode
    squeezed = mode == "squash" and crop == 1.0
    if not squeezed and (mode != "center" or len(set(size)) > 1):
        raise Refused(
            f"{spelling} crops its pictures by {mode} of {crop:g} to {size}, which is not supported: {_STATE_IT}"
        )
    resize = None if squeezed else math.floor(size[0] / crop)
    return Preprocess(size, cfg.mean, cfg.std, cfg.interpolation, resize)


def _timm_labels(spelling: str) -> tuple[str, ...]:
    with without_compiler():
        from timm.data.imagenet_info import infer_imagenet_subset

    cfg = _timm_cfg(spelling)
    if not cfg.num_classes:
        raise Refused(f"{spelling} gives features, not classes: use one that ends in in1k, or give {GIVE_LABELS}")
    subset = infer_imagenet_subset(cfg.to_dict())
    if cfg.label_names:
        return tuple(map(str, cfg.label_names))
    if subset is None:
        raise Refused(f"the names of the {cfg.num_classes} classes of {spelling} are unknown: give {GIVE_LABELS}")
    return imagenet(subset)


def imagenet(subset: str = "imagenet-1k") -> tuple[str, ...]:
    """The names of ImageNet's classes in their usual order, from timm's own lists."""
    with without_compiler():
        from timm.data import imagenet_info

    known: Any = imagenet_info.ImageNetInfo(subset)
    return tuple(known.index_to_description(i) for i in range(known.num_classes()))


def _why_unusable(name: str) -> str:
    """Why a network of torchvision cannot be used here; "" where it can."""
    with without_compiler():
        from torchvision.models import get_model_builder, get_model_weights

    if name in ("googlenet", "inception_v3"):
        return "has more outputs in training and another normalisation inside: use timm:inception_v3"
    if name.startswith("quantized_"):
        return "is quantized and has no gradients: use the one without quantized_"
    kind = get_model_builder(name).__module__.removeprefix("torchvision.models.").partition(".")[0]
    if kind == "detection" and name not in torchvision_kinds.DETECTORS:
        return f"is not among the detectors that are taken: {', '.join(torchvision_kinds.DETECTORS)}"
    if kind in ("optical_flow", "video"):
        return f"is for {kind.replace('_', ' ')}, not for pictures"
    return "" if len(get_model_weights(name)) else "has no weights that state its preprocessing"


def _torchvision_weights(spelling: str) -> Any:
    with without_compiler():
        from torchvision.models import get_model_weights, list_models

    name, known = _name(spelling), list_models()
    if name not in known:
        raise Refused(f"torchvision has no network {name!r}: {nearest(name, known)}")
    if why := _why_unusable(name):
        raise Refused(f"torchvision's {name} {why}")
    return next(iter(get_model_weights(name))).DEFAULT


def _torchvision_preprocess(spelling: str) -> Preprocess:
    weights = _torchvision_weights(spelling)
    if torchvision_kinds.kind_of(_name(spelling)) != "classifier":
        return torchvision_kinds.preprocess_of(_name(spelling))
    says = weights.transforms()
    (size,), (resize,) = set(says.crop_size), set(says.resize_size)
    return Preprocess(size, tuple(says.mean), tuple(says.std), says.interpolation.value, resize)
