"""A model of an exported file: ONNX, a program of torch.export, or OpenVINO, ours or somebody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from clearsight.core.classifier import wrap
from clearsight.core.model import Model
from clearsight.core.preprocess import Preprocess
from clearsight.core.score_kinds import Scores
from clearsight.engines import exported_program, openvino_engine
from clearsight.engines.converted.convert import convert, probe_pictures
from clearsight.engines.converted.node import Unknown
from clearsight.engines.facts import EngineFacts, facts_of
from clearsight.engines.manifest import Manifest
from clearsight.engines.normalisation import Normalisation
from clearsight.engines.onnx_file import OnnxFile, read_onnx
from clearsight.engines.onnx_runtime import OnnxRuntimeNet
from clearsight.errors import Refused
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter

AnyModel = TypeVar("AnyModel", bound=Model)

TOLERANCE = 1e-4  # of the largest score: how far a converted graph may be from the engine on pictures of noise


def load_exported(
    path: Path, labels: tuple[str, ...] | None, preprocess: Preprocess | None, scores: Scores, trust: bool
) -> Model:
    """The model in an exported file.

    Of a file that Clearsight wrote the kind, the labels and the preprocessing are its manifest's.  Others hold
    classifiers, whose labels and preprocessing are stated, and their input is normalised pictures (N, C, H, W).  An
    ONNX graph is converted to torch where that gives the same scores, so that it has gradients; programs of
    torch.export have them; everything else answers scores only.

    Refused: files that are damaged, that hold what could run code (without trust), whose labels or preprocessing are
    unknown, and those that do not take such pictures.
    """
    kind = path.suffix.lower()
    if not path.is_file():
        raise Refused(f"there is no file {path}")
    file = read_onnx(path) if kind == ".onnx" else None
    manifest = _manifest(path, file)
    pre, names, what = _stated(path, manifest, labels, preprocess, scores)
    size = (pre.channels, *pre.size)
    undo = None if manifest is None else Normalisation(pre.mean, pre.std)
    if file is not None:
        net = _onnx(file, pre, size, undo)
    elif kind == ".pt2":
        inner = path if manifest is None else path.with_name(path.name.removesuffix(".pt2") + exported_program.INNER)
        program, data = exported_program.read_program(inner, trust)
        net = exported_program.ExportedProgramNet(inner, program, size, undo, len(data), trust)
    else:
        net = openvino_engine.OpenVinoNet(path, size, "" if manifest is None else manifest.inner, undo)
    return _of_kind(net.eval(), pre, names, what, manifest)


def _of_kind(
    net: nn.Module, pre: Preprocess, names: tuple[str, ...], scores: Scores, manifest: Manifest | None
) -> Model:
    if manifest is None or manifest.kind == "classifier":
        return wrap(net, pre, names, scores=scores)
    if manifest.kind == "segmenter":
        return Segmenter(net, pre, names)
    limits = manifest.suppression
    assert limits is not None  # else the manifest was refused
    return Detector(net, pre, names, floor=limits.floor, overlap=limits.overlap, most=limits.most)


def _manifest(path: Path, file: OnnxFile | None) -> Manifest | None:
    if file is not None:
        return file.manifest
    if path.suffix.lower() == ".pt2":
        return exported_program.manifest_of(path)
    return openvino_engine.manifest_of(path)


def says_itself(path: Path) -> bool:
    """Whether an exported file says its labels and preprocessing by itself.  Refused: files that cannot be read."""
    if not path.is_file():
        raise Refused(f"there is no file {path}")
    return _manifest(path, read_onnx(path) if path.suffix.lower() == ".onnx" else None) is not None


def silent(path: object, labels: bool, preprocess: bool) -> Refused:
    """The refusal of a file that does not say its labels and preprocessing; True for what is stated."""
    wanted = (("labels=[...] (--labels FILE)", labels), (_PREPROCESS, preprocess))
    lacking = " and ".join(name for name, given in wanted if not given)
    return Refused(f"{path} does not say its labels and preprocessing: give {lacking}")


def _stated(
    path: Path,
    manifest: Manifest | None,
    labels: tuple[str, ...] | None,
    preprocess: Preprocess | None,
    scores: Scores,
) -> tuple[Preprocess, tuple[str, ...], Scores]:
    """The preprocessing, the labels and the kind of scores: the manifest's, or those that were stated."""
    if manifest is None:
        if labels is None or preprocess is None:
            raise silent(path, labels is not None, preprocess is not None)
        return preprocess, labels, scores
    if preprocess is not None:
        raise Refused(f"{path} does its preprocessing by itself: leave preprocess out (--preprocess)")
    if labels is not None and len(labels) != len(manifest.labels):
        raise Refused(f"{path} has {len(manifest.labels)} classes, but {len(labels)} labels are given: one for each")
    try:
        pre = Preprocess(**manifest.preprocess)
    except Refused as e:
        raise Refused(f"{path}: its manifest: {e}") from None
    what = manifest.scores if manifest.scores in ("multi-label", "values") else "logits"
    return pre, labels or manifest.labels, what


_PREPROCESS = "preprocess=Preprocess(size=224, mean=(0.5,) * 3, std=(0.5,) * 3) (--preprocess FILE)"


def _onnx(file: OnnxFile, pre: Preprocess, size: tuple[int, ...], undo: Normalisation | None) -> nn.Module:
    """The network of an ONNX file: converted to torch where that gives the engine's scores, else run by the engine."""
    engine = OnnxRuntimeNet(file, size, undo)
    facts = engine.engine_facts
    try:
        _refuse_coarse(facts)
        net = convert(file.model, undo)
        apart = _apart(engine, net, pre, size)
    except Unknown as e:
        engine.engine_facts = replace(facts, about=f"it gives scores and no gradients, because {e}")
        return engine
    about = f"on noise its scores are within {apart:.0e} of those of {facts.engine}"
    converted: EngineFacts = replace(facts, converted=True, about=about)
    net.engine_facts = converted
    net.opened_from = (file.path, file.digest)
    return net


def engine_of(model: AnyModel) -> AnyModel | None:
    """The model as the engine runs its file, where a converted graph answers; None of others, and of changed files."""
    facts, opened_from = facts_of(model.net), getattr(model.net, "opened_from", None)
    if facts is None or not facts.converted or opened_from is None or not opened_from[0].is_file():
        return None
    file = read_onnx(opened_from[0])
    if not torch.equal(file.digest, opened_from[1]):
        return None
    pre = model.preprocess
    undo = None if file.manifest is None else Normalisation(pre.mean, pre.std)
    return replace(model, net=OnnxRuntimeNet(file, (pre.channels, *pre.size), undo).eval())


def engine_beside(model: AnyModel, x: Tensor) -> tuple[AnyModel, str]:
    """The model, compared with its engine on pictures x (B, C, *S) in [0, 1], and a sentence on it.

    Where a score of the converted graph is off by more than TOLERANCE of the largest, it is the engine that is given,
    which has no gradients.  Of models that are no converted graphs the sentence is "".
    """
    engine = engine_of(model)
    if engine is None:
        return model, ""
    with model.undisturbed(), torch.no_grad():
        wanted, given = engine(x.cpu()), model(x.to(model.device)).cpu()
    apart, largest = float((wanted - given).abs().max()), float(wanted.abs().max())
    name = f"{len(x)} of the pictures" if len(x) > 1 else "one of the pictures"
    facts = facts_of(engine.net)
    assert facts is not None
    if apart <= TOLERANCE * max(largest, 1e-6):
        return model, f"on {name}, too, the converted graph's scores are within {apart:.0e} of those of {facts.engine}"
    why = f"the graph converted from it gives other scores on {name} (by {apart:.1e}, of {largest:.1e})"
    assert isinstance(engine.net, OnnxRuntimeNet)
    engine.net.engine_facts = replace(facts, about=f"it gives scores and no gradients, because {why}")
    return engine, ""


def _refuse_coarse(facts: EngineFacts) -> None:
    if facts.precision != "float32":
        raise Unknown(f"it computes in {facts.precision}, through which no exact gradient flows")


def _apart(engine: nn.Module, net: nn.Module, pre: Preprocess, size: tuple[int, ...]) -> float:
    """The largest difference of a score on seeded pictures.  Raises Unknown where it is more than rounding makes it."""
    mean, std = (torch.tensor(v).view(-1, *[1] * len(pre.size)) for v in (pre.mean, pre.std))
    z = (probe_pictures(size) - mean) / std
    with torch.no_grad():
        wanted = _parts(engine(z))
        try:
            given = _parts(net(z))
        except Unknown:
            raise
        except Exception as e:  # a form of an operator that was not foreseen
            raise Unknown(
                f"the converted graph fails ({type(e).__name__}: {str(e).partition(chr(10))[0][:120]})"
            ) from e
    if [w.shape for w in wanted] != [g.shape for g in given]:
        raise Unknown("the converted graph gives scores of another shape")
    apart = max(float((w - g).abs().max()) for w, g in zip(wanted, given, strict=True))
    largest = max(float(w.abs().max()) for w in wanted)
    if not apart <= TOLERANCE * max(largest, 1e-6):
        raise Unknown(f"the converted graph gives other scores (by {apart:.1e}, of {largest:.1e})")
    return apart


def _parts(out: Tensor | dict[str, Tensor]) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else [*out.values()]
