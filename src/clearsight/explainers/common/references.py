"""A library of reference pictures: what the model says to each, and what stands at one of its layers.

Built once for each network, layer and set of pictures, and kept in the user's cache folder; built again as soon as a
weight, the layer, the preprocessing or a picture changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from clearsight.core.batching import SIZE
from clearsight.core.classifier import Classifier
from clearsight.core.output import write_whole
from clearsight.core.passes import uncounted
from clearsight.data.datasets import Picture, Pictures, open_data
from clearsight.data.images import open_picture, to_pixels
from clearsight.errors import Notice, Refused
from clearsight.internals.layers import activations

FORM = "1"  # of the files; another number makes all of them stale
BYTES = 256 * 2**20  # of one library's activations; of a folder with more pictures, an even spread that fits is taken
NAMED = 8  # of the references that cannot be read; of more, how many
DISK = 2**30  # of all libraries together; beyond it those that were not used for longest go


@dataclass(frozen=True, eq=False)
class Library:
    """References that could be read: logits (N, classes), activations (N, K, *s), both on the CPU.

    broken: (name, reason) of those that could not; left_out: how many more there were than fit.
    """

    names: tuple[str, ...]
    logits: Tensor
    activations: Tensor
    broken: tuple[tuple[str, str], ...]
    left_out: int


def cache_folder() -> Path:
    """Where this user keeps what can be made again: $XDG_CACHE_HOME/clearsight, else ~/.cache/clearsight."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "clearsight"


_latest: weakref.WeakKeyDictionary[nn.Module, tuple[str, Library]] = weakref.WeakKeyDictionary()


def library(model: Classifier, words: str, layer: str) -> Library:
    """The references that words name, as everywhere for data: a folder, a CSV, "demo"; of splits, train.

    Pictures that could not be read are named in a Notice; Refused where there is none that could.
    """
    pictures = _pictures(words)
    key = key_of(model, pictures, layer)
    known = _latest.get(model.net)
    if known is not None and known[0] == key:
        return known[1]
    path = cache_folder() / f"references-{key}.safetensors"
    with uncounted(), torch.no_grad():
        made = _read(path)
        if made is None or not _still_true(model, pictures, layer, made):
            made = build_library(model, pictures, layer)
            made = _written(path, made)
    if made.broken:
        listed = ", ".join(f"{name} ({why})" for name, why in made.broken[:NAMED])
        more = f" and {len(made.broken) - NAMED} more" if len(made.broken) > NAMED else ""
        warnings.warn(f"left out of the references: {listed}{more}", Notice, stacklevel=2)
    _latest[model.net] = (key, made)
    return made


def key_of(model: Classifier, pictures: Pictures, layer: str) -> str:
    """A hash of all that a library depends on: weights, preprocessing, layer, and the pictures' files.

    Also of the files that are none, so that those which a library names are those which are there.
    """
    files = [*pictures.broken, *((p.name, str(p.path.resolve()), *_stamp(p.path)) for p in pictures.pictures)]
    about = (FORM, BYTES, model.fingerprint(), model.preprocess, model.output, model.scores, layer, files)
    return hashlib.sha256(repr(about).encode(errors="backslashreplace")).hexdigest()[:32]


def _stamp(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _pictures(words: str) -> Pictures:
    """References are what a model was trained on, where the data says what that is."""
    try:
        return open_data(words, split="train")
    except Refused:
        return open_data(words)


def build_library(model: Classifier, pictures: Pictures, layer: str) -> Library:
    """Run the model on the pictures that fit into BYTES, and keep its outputs and the layer's activations."""
    blank = torch.zeros(1, model.preprocess.channels, *model.preprocess.size, device=model.device)
    _, one = _run(model, blank, layer)
    most = max(1, BYTES // (one.numel() * one.element_size()))
    n = len(pictures.pictures)
    chosen = [pictures.pictures[i * n // most] for i in range(most)] if n > most else list(pictures.pictures)
    names: list[str] = []
    broken = list(pictures.broken)
    logits: list[Tensor] = []
    activations = torch.empty(len(chosen), *one.shape[1:])
    for part, x in _pixels(model, chosen, broken):
        out, activations[len(names) : len(names) + len(part)] = _run(model, x, layer)
        names += part
        logits.append(out)
    if not names:
        raise Refused(f"no reference in {pictures.root} can be read; the first is {broken[0][0]}: {broken[0][1]}")
    return Library(tuple(names), torch.cat(logits), activations[: len(names)], tuple(broken), n - len(chosen))


def _pixels(
    model: Classifier, pictures: list[Picture], broken: list[tuple[str, str]]
) -> Iterator[tuple[list[str], Tensor]]:
    """Names and pixels (n, C, H, W) of those that can be read, a few at a time; the others are added to broken."""
    for start in range(0, len(pictures), SIZE):
        names, pixels = [], []
        for picture in pictures[start : start + SIZE]:
            try:
                pixels.append(to_pixels(open_picture(picture.path), model.preprocess))
                names.append(picture.name)
            except Refused as e:
                broken.append((picture.name, str(e)))
        if names:
            yield names, torch.stack(pixels).to(model.device)


def _run(model: Classifier, x: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    a, logits = activations(model, x, layer)
    return logits.float().cpu(), a.float().cpu()


def _still_true(model: Classifier, pictures: Pictures, layer: str, known: Library) -> bool:
    """Whether the network still gives what is kept: its code may have changed while its weights have not."""
    path = next((p.path for p in pictures.pictures if p.name == known.names[0]), None)
    if path is None:
        return False
    try:
        x = to_pixels(open_picture(path), model.preprocess)[None].to(model.device)
    except Refused:
        return False
    out, a = _run(model, x, layer)
    kept = known.logits[:1], known.activations[:1]
    return all(
        now.shape == was.shape and torch.allclose(now, was, rtol=1e-3, atol=1e-3 * float(was.abs().max()))
        for now, was in zip((out, a), kept, strict=True)
    )


def _written(path: Path, made: Library) -> Library:
    """Keep a library, where that can be done, and make room for it; from then on it stays in its file."""
    words = {"names": made.names, "broken": made.broken, "left_out": made.left_out}
    tensors = {"logits": made.logits.contiguous(), "activations": made.activations.contiguous()}
    try:
        write_whole(path, safetensors.torch.save(tensors, {"about": json.dumps(words)}))
        _make_room(path)
    except (Refused, OSError) as e:
        warnings.warn(f"the references are not kept, and will be run again next time: {e}", Notice, stacklevel=3)
        return made
    return _read(path) or made


def _make_room(newest: Path) -> None:
    files = sorted(newest.parent.glob("references-*.safetensors"), key=lambda f: f.stat().st_mtime_ns)
    total = sum(f.stat().st_size for f in files)
    for file in files:
        if total > DISK and file != newest:
            total -= file.stat().st_size
            file.unlink()


def _read(path: Path) -> Library | None:
    """A library that was kept; its activations stay in the file until they are looked at.  None for what is none."""
    try:
        with safetensors.safe_open(path, framework="pt") as f:
            about: dict[str, Any] = json.loads(f.metadata()["about"])
            logits, activations = f.get_tensor("logits"), f.get_tensor("activations")
        os.utime(path)
        broken = tuple((str(name), str(why)) for name, why in about["broken"])
        names, left_out = tuple(about["names"]), int(about["left_out"])
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return None
    return Library(names, logits, activations, broken, left_out) if len(names) == len(logits) > 0 else None
