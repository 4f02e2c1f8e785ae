"""A run folder: config.json, which says everything about a model but its numbers, and model.safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from safetensors.torch import save as as_safetensors
from torch import Tensor

from clearsight.core.classifier import Classifier, outputs_for
from clearsight.core.json_fields import check_fields, preprocess_fields, refuse_wrong, whole
from clearsight.core.model import Model
from clearsight.core.output import write_whole
from clearsight.core.preprocess import Preprocess
from clearsight.core.score_kinds import Scores
from clearsight.core.tables import read_table
from clearsight.errors import Refused
from clearsight.kinds.detector import Detector
from clearsight.models.architectures import KINDS, build, kind_of
from clearsight.models.model_words import CONFIG, LIBRARIES, WEIGHTS, is_run
from clearsight.models.torchvision_kinds import norm_eps_option

SCHEMA = 1
RECIPE = "recipe.json"  # what a training run was asked for
SPLIT = "split.csv"  # which pictures trained the model, chose its epoch and judged it
PARTS = ("train", "val", "test")  # what it calls them
_LINES = {
    "schema": '"schema": 1',
    "architecture": '"architecture": "timm:resnet18"',
    "architecture_options": '"architecture_options": {"drop_rate": 0.1}',
    "labels": '"labels": ["cat", "dog"]',
    "preprocess": '"preprocess": {"size": [224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], '
    '"interpolation": "bilinear", "resize": 256}',
    "output": '"output": null',
    "scores": '"scores": "logits"',
    "channels_last": '"channels_last": true',
    "kind": '"kind": "detector"',
    "floor": '"floor": 0.05',
    "overlap": '"overlap": 0.5',
    "most": '"most": 100',
}
_OF_DETECTORS = ("floor", "overlap", "most")
_OPTIONAL = {"architecture_options", "channels_last", "kind", *_OF_DETECTORS}
_OF_OTHERS = {"scores"}  # which a classifier alone has


@dataclass(frozen=True)
class Config:
    """What config.json says.  floor, overlap, most: of a detector, see Detector; scores: of a classifier."""

    architecture: str
    options: dict[str, Any]
    labels: tuple[str, ...]
    preprocess: Preprocess
    output: str | int | None
    scores: Scores
    channels_last: bool
    kind: str = "classifier"
    floor: float = Detector.floor
    overlap: float = Detector.overlap
    most: int = Detector.most


def outputs_of(kind: str, labels: Sequence[str], scores: Scores) -> int:
    """The number that a network is built for: how many scores a classifier gives, or the labels of another kind."""
    return outputs_for(labels, scores) if kind == "classifier" else len(labels)


def read_config(folder: Path) -> Config:
    """Read and check config.json.  Refused: a wrong field, with its name and an example of the line."""
    path = folder / CONFIG
    config = _read_json(path)
    kind = config.get("kind", "classifier") if isinstance(config, dict) else "classifier"
    check_fields(config, _LINES, path, optional=_OPTIONAL if kind == "classifier" else _OPTIONAL | _OF_OTHERS)
    of_preprocess = preprocess_fields(config["preprocess"], path)
    options, labels, output = config.get("architecture_options", {}), config["labels"], config["output"]
    pre = config["preprocess"]
    right = {
        "schema": whole(config["schema"]),
        "architecture": isinstance(config["architecture"], str) and ":" in config["architecture"],
        "architecture_options": isinstance(options, dict),
        "labels": isinstance(labels, list) and bool(labels) and all(isinstance(n, str) for n in labels),
        "output": output is None or isinstance(output, str) or whole(output),
        "scores": config.get("scores", "logits") in get_args(Scores),
        "channels_last": isinstance(config.get("channels_last", False), bool),
        "floor": _is_share(config.get("floor", 0)),
        "overlap": _is_share(config.get("overlap", 0)),
        "most": whole(config.get("most", 1)) and config.get("most", 1) >= 1,
    }
    refuse_wrong(right | of_preprocess, _LINES, path)
    if config["schema"] != SCHEMA:
        raise Refused(f"{path} has schema {config['schema']}, but this version reads {SCHEMA}: update clearsight")
    _check_kind(config, kind, path)
    try:
        preprocess = _preprocess(pre)
    except Refused as e:
        raise Refused(f"{path}: {e}") from None
    return Config(
        config["architecture"],
        options,
        tuple(labels),
        preprocess,
        output,
        config.get("scores", "logits"),
        config.get("channels_last", False),
        kind,
        **{name: config[name] for name in _OF_DETECTORS if name in config},
    )


def _is_share(value: Any) -> bool:
    return (whole(value) or isinstance(value, float)) and 0 <= value <= 1


def _check_kind(config: Mapping[str, Any], kind: Any, path: Path) -> None:
    """Refuse a kind that there is not, one that the network is not, and fields that are of other kinds."""
    if kind not in KINDS.values():
        *others, last = (f"a {name}" for name in KINDS.values())
        raise Refused(f"{path}: kind {kind!r}: a model is {', '.join(others)} or {last}")
    foreign = [name for name in _OF_DETECTORS if name in config and kind != "detector"]
    if foreign:
        raise Refused(f"{path}: {foreign[0]} is of a detector, and the kind is {kind}: leave it out")
    if kind != "classifier" and config.get("scores", "logits") != "logits":
        raise Refused(f"{path}: scores {config['scores']!r} is of a classifier, and the kind is {kind}: leave it out")
    architecture = config["architecture"]
    if architecture.startswith(LIBRARIES):
        try:
            real = kind_of(architecture)
        except Refused as e:
            raise Refused(f"{path}: {e}") from None
        if real != kind:
            raise Refused(f'{path}: {architecture} is a {real}, and the kind is {kind}: write "kind": "{real}"')


def _read_json(path: Path) -> Any:
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        json.dumps(record, ensure_ascii=False).encode()  # half of a pair of surrogates cannot be written again
    except (OSError, UnicodeDecodeError) as e:
        raise Refused(f"{path} cannot be read: {e}") from e
    except (ValueError, RecursionError) as e:  # a ValueError too where a number has thousands of digits
        raise Refused(f"{path} is not JSON: {e}") from e
    return record


def _preprocess(record: Mapping[str, Any]) -> Preprocess:
    return Preprocess(
        tuple(record["size"]),
        tuple(record["mean"]),
        tuple(record["std"]),
        record["interpolation"],
        record["resize"],
        record.get("alphabet", ""),
    )


def read_preprocess(path: Path) -> Preprocess:
    """The preprocessing in a JSON file: the object that config.json has under "preprocess", or such a config.json."""
    record = _read_json(path)
    if isinstance(record, dict) and isinstance(record.get("preprocess"), dict):
        record = record["preprocess"]
    refuse_wrong(preprocess_fields(record, path), {}, path)
    try:
        return _preprocess(record)
    except Refused as e:
        raise Refused(f"{path}: {e}") from None


def save(
    model: Model,
    folder: str | Path,
    *,
    architecture: str | None = None,
    architecture_options: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder that `load` reads back to the same outputs, bit by bit; returns the folder.

    Args:
        model: a Classifier, Detector or Segmenter.
        folder: where to write.
        architecture: how the network is built, "timm:resnet18", "torchvision:resnet18" or "./file.py:factory" (relative
            to the folder, and only loaded with trust); None for what the model was loaded from.
        architecture_options: keyword options of the architecture; None for those that the model was loaded with.

    Refused: an unknown architecture, one that this network is not, and a state that holds more than tensors.
    """
    folder = Path(folder)
    if architecture is None:
        architecture, source_options = _architecture_of(model.source)
        architecture_options = source_options if architecture_options is None else architecture_options
    state = {k: v for k, v in model.net.state_dict().items() if isinstance(v, Tensor)}
    if len(state) < len(model.net.state_dict()):
        raise Refused("the network's state holds more than tensors (get_extra_state), so it cannot be saved")
    options = dict(architecture_options or {})
    if architecture.startswith(LIBRARIES):
        options |= _check_architecture(model, state, architecture, options)
    elif ":" not in architecture:
        raise Refused(f"architecture {architecture!r}: give one like timm:resnet18 or ./file.py:factory")
    config: dict[str, Any] = {"schema": SCHEMA, "architecture": architecture}
    config |= {"architecture_options": options} if options else {}
    config |= {"labels": list(model.labels), "preprocess": model.preprocess.as_dict()}
    config |= {"output": model.output}
    config |= {"scores": model.scores} if isinstance(model, Classifier) else {"kind": model.kind}
    config |= {name: getattr(model, name) for name in _OF_DETECTORS} if isinstance(model, Detector) else {}
    config |= {"channels_last": True} if model.channels_last else {}
    write_whole(folder / WEIGHTS, as_safetensors({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}))
    write_whole(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    return folder


def _architecture_of(source: str) -> tuple[str, dict[str, Any]]:
    if source == "demo":
        return "timm:tf_efficientnet_lite0", {}
    if source.startswith(LIBRARIES):
        return source, {}
    if source and is_run(Path(source)):
        config = read_config(Path(source))
        return config.architecture, config.options
    raise Refused(
        f"it is unknown how {source or 'the network'} is built: give architecture=, such as "
        "architecture='timm:resnet18' or architecture='./file.py:factory'"
    )


def _check_architecture(
    model: Model, state: dict[str, Tensor], architecture: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Refuse an architecture that the network is not -> options of it that the network shows, beside those given."""
    if kind_of(architecture) != model.kind:
        raise Refused(f"{architecture} is a {kind_of(architecture)}, and the model is a {model.kind}")
    scores = model.scores if isinstance(model, Classifier) else "logits"
    made = build(architecture, outputs_of(model.kind, model.labels, scores), model.preprocess, options)
    built = made.state_dict()
    for k in [*built, *state]:
        if k not in built or k not in state or built[k].shape != state[k].shape:
            raise Refused(f"the network is not {architecture} for {len(model.labels)} classes: {k} differs")
    detects = architecture.startswith("torchvision:") and model.kind == "detector"
    return norm_eps_option(model.net, made) if detects else {}


def trained_on(source: str, files: Sequence[Path]) -> list[int]:
    """Which of these files trained the model of a run folder, by its own table; none where source is not such a folder.

    Refused: a table that does not say it.
    """
    trained = {os.path.realpath(file) for file, _ in train_pictures(source)}
    return [i for i, file in enumerate(files) if os.path.realpath(file) in trained]


def train_pictures(source: str) -> list[tuple[Path, str]]:
    """(file, label) of what trained the model of a run folder, by its table; none where source is not such a folder.

    Refused: a table that does not say it.
    """
    return part_pictures(source, "train")


def part_pictures(source: str, part: str) -> list[tuple[Path, str]]:
    """(file, label) of a part of a run folder's table, train, val or test; none where source is not such a folder.

    Refused: a table that does not say what trained the model.
    """
    table = Path(source) / SPLIT
    if not source or not table.is_file():
        return []
    columns, rows = read_table(table)
    if lost := [name for name in ("file", "label", "split") if name not in columns]:
        raise Refused(f"{table} has no column {lost[0]}, so it does not say which pictures trained the model")
    if not any(row["split"] == "train" for row in rows) or any(row["split"] not in PARTS for row in rows):
        raise Refused(f"{table} does not say which pictures trained the model: split is one of {', '.join(PARTS)}")
    return [(table.parent / row["file"], row["label"]) for row in rows if row["split"] == part]


AT_RANDOM = "trained on labels drawn at random: of use only to test explanations"


def labels_at_random(folder: Path) -> bool:
    """Whether a folder holds a training run on labels that were drawn at random."""
    try:
        job = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        return bool(job["recipe"]["random_labels"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
