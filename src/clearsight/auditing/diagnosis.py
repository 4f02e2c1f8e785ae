"""Inspect a model: what it is, which problems stand in the way of explaining it, and how to mend them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from clearsight.auditing.kind_facts import KindFacts, kind_facts
from clearsight.core import rng
from clearsight.core.classifier import Classifier
from clearsight.core.label_names import first_name
from clearsight.core.model import Model
from clearsight.core.preprocess import Preprocess
from clearsight.engines.facts import EngineFacts, facts_of
from clearsight.errors import Refused
from clearsight.internals import traceability
from clearsight.internals.target_layer import early, layer_and_later
from clearsight.kinds.questions import BACKGROUND
from clearsight.models.dry_run import Layer, dry_run, probes, reason
from clearsight.models.problems import Problem

if TYPE_CHECKING:
    from clearsight.data.datasets import Pictures

NOTHING = "N/A"  # what torchvision calls the numbers that COCO does not use


@dataclass(frozen=True)
class Inspection:
    """What a model is.  size in pixels; parameters and buffers count numbers; first and last are three labels each.

    layer: what class-activation methods read by default, or "" where there is none; candidates: the last layer at each
    resolution, any of which can be named with layer=; problems: what to mend; notes: what is as it may be.  scores: ""
    where it is no classifier; gives: what such a one gives for a picture, None where it runs too badly to tell.
    """

    source: str
    fingerprint: str
    size: tuple[int, ...]
    channels: int
    preprocess: Preprocess
    output: str | int | None
    scores: str
    classes: int
    first: tuple[str, ...]
    last: tuple[str, ...]
    parameters: int
    frozen: int
    buffers: int
    dtype: str
    device: str
    layer: str
    candidates: tuple[Layer, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    pictures: int | None = None
    exported: EngineFacts | None = None
    kind: str = "classifier"
    gives: KindFacts | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for the terminal."""
        preprocess = self.preprocess
        resizing = (
            "squeezed to" if preprocess.resize is None else f"resized to {preprocess.resize} (shorter side), cut to"
        )
        frozen = "" if not self.frozen else f", {self.frozen:,} of them frozen"
        between = ", " if self.last else ""
        if self.classes > 6:
            between = " ... "
        output = "" if self.output is None else f", part {self.output!r} of the output"
        normalisation = f"mean {_numbers(preprocess.mean)}, std {_numbers(preprocess.std)}"
        how = f"{resizing} {_dimensions(self.size)}, {preprocess.interpolation}; {normalisation}"
        if preprocess.alphabet:
            letters = len(preprocess.alphabet)
            how = (
                f"texts of at most {self.size[0]} characters; one channel for each of {letters} letters, one for others"
            )
        rows = [
            ("model", f"{self.source}  {self.fingerprint}"),
            *([] if self.kind == "classifier" else [("kind", self.kind)]),
            ("input", f"{self.channels} x {_dimensions(self.size)}, pixels in [0, 1]"),
            ("preprocess", how),
            ("classes", f"{self.classes}: {_first_names(self.first)}{between}{_first_names(self.last)}"),
            *self._outputs(output),
            ("weights", f"{self.parameters:,} parameters{frozen}, {self.buffers:,} in buffers"),
            ("kept as", f"{self.dtype} on {self.device}"),
            ("target layer", self.layer or "none found"),
            *[
                ("  or layer=", f"{c.name}  {c.kind}  {_dimensions(c.shape)}")
                for c in self.candidates
                if c.name != self.layer
            ],
        ]
        rows += _rows_of_file(self.exported) if self.exported else []
        rows += [] if self.pictures is None else [("pictures", f"{self.pictures}")]
        lines = [f"{name:<13}{value}" for name, value in rows]
        lines += ["", *(f"note: {n}" for n in self.notes)] if self.notes else []
        if not self.problems:
            return [*lines, "", "Nothing stands in the way of explaining or attacking this model."]
        problem_lines = [line for p in self.problems for line in (f"- {p.what}", f"    {p.mend}")]
        return [*lines, "", f"{len(self.problems)} to mend:", *problem_lines]

    def _outputs(self, part: str) -> list[tuple[str, str]]:
        if self.kind == "classifier":
            return [("scores", f"{self.scores}{part}")]
        rows = [] if self.gives is None else self.gives.rows()
        return [*rows, *([("output", f"part {self.output!r}")] if part else [])]


def _rows_of_file(facts: EngineFacts) -> list[tuple[str, str]]:
    """What is said of an exported file."""
    opset = f", opset {facts.opset}" if facts.opset else ""
    return [
        ("file", f"{facts.file}, {facts.size:,} bytes, {facts.nodes} operations{opset}"),
        ("  takes", "; ".join(facts.inputs)),
        ("  gives", "; ".join(facts.outputs)),
        ("run by", f"{'torch, converted from the file' if facts.converted else facts.engine}, in {facts.precision}"),
        ("gradients", facts.about),
    ]


def inspect(model: Model, pictures: Pictures | None = None, *, apart: bool = True) -> Inspection:
    """Look at a model, and run it a few times on noise -> an Inspection.

    It never fails: what fails is named in the problems.  The model comes back as it was.

    Args:
        model: the classifier, detector or segmenter to look at.
        pictures: pictures from ``folder``; with them it also says how many they are and which of their classes the
            model does not know.
        apart: whether it also tries to take the network apart into its operations, which takes seconds.

    Refused: nothing; what other functions would refuse stands among the problems.
    """
    net = model.net
    problems = [*_repeated_labels(model), *_background_label(model), *_faulty_weights(net)]
    notes = _notes_on_network(net)
    layer = ""
    candidates: tuple[Layer, ...] = ()
    gives: KindFacts | None = None
    try:
        x = probes(model)
        with model.undisturbed(), rng.seeded(0, x[:1]):
            layer, candidates, layer_problems = dry_run(model, x)
            problems += layer_problems
            notes += _note_on_later_layers(model, x) if layer and not problems else []
            notes += traceability.notes(model, x) if apart and not problems else []
            gives = kind_facts(model, x) if not layer_problems else None
    except Exception as e:  # the guard itself complains, or there is no memory for one picture
        message = f"running the network disturbs it: {reason(e)}"
        problems.append(Problem(message, "forward must change nothing", "disturbs-itself"))
    if pictures is not None:
        notes += pictures.notes
        unknown, class_notes = _unknown_classes(model, pictures) if isinstance(model, Classifier) else ([], ())
        problems += unknown
        notes += class_notes
    parameters = [p for p in net.parameters() if not is_lazy(p)]
    return Inspection(
        source=model.source,
        fingerprint=_fingerprint(model),
        size=model.preprocess.size,
        channels=model.preprocess.channels,
        preprocess=model.preprocess,
        output=model.output,
        scores=model.scores if isinstance(model, Classifier) else "",
        classes=len(model.labels),
        first=model.labels[:3],
        last=model.labels[3:][-3:],
        parameters=sum(p.numel() for p in parameters),
        frozen=sum(p.numel() for p in parameters if not p.requires_grad),
        buffers=sum(b.numel() for b in net.buffers() if not is_lazy(b)),
        dtype=" and ".join(sorted({str(p.dtype).removeprefix("torch.") for p in parameters})) or "no parameters",
        device=" and ".join(sorted({str(p.device) for p in parameters})) or "cpu",
        layer=layer,
        candidates=candidates,
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(notes),
        pictures=None if pictures is None else len(pictures.pictures),
        exported=facts_of(net),
        kind=model.kind,
        gives=gives,
    )


def _repeated_labels(model: Model) -> list[Problem]:
    indices_by_name: dict[str, list[int]] = {}
    for i, name in enumerate(model.labels):
        if name != NOTHING:
            indices_by_name.setdefault(name, []).append(i)
    repeated = {name: indices for name, indices in indices_by_name.items() if len(indices) > 1}
    if not repeated:
        return []
    examples = "; ".join(
        f"{name!r} is {' and '.join(map(str, indices))}" for name, indices in list(repeated.items())[:3]
    )
    more = f" and {len(repeated) - 3} more" if len(repeated) > 3 else ""
    mend = "name those classes by number, or rename them"
    return [Problem(f"labels name several classes: {examples}{more}", mend, "labels-twice")]


def _background_label(model: Model) -> list[Problem]:
    """A detector whose labels name the background, which has no column of its own."""
    background = [label for label in model.labels if label.strip().lower() in BACKGROUND]
    if model.kind == "detector" and background:
        mend = "leave it out of the labels: a candidate that is nothing has a low score for every class"
        return [Problem(f"the labels of a detector name {background[0]!r}", mend, "label-of-background")]
    return []


def _faulty_weights(net: nn.Module) -> list[Problem]:
    problems = []
    lazy = [n for n, p in net.named_parameters() if is_lazy(p)]
    if lazy:
        mend = "run one batch through it before wrapping it"
        problems.append(Problem(f"{lazy[0]} has no shape yet (a lazy layer)", mend, "weights-without-shape"))
    parameters = {n: p for n, p in net.named_parameters() if not is_lazy(p)}
    not_finite = [n for n, p in parameters.items() if not bool(p.isfinite().all())]
    if not_finite:
        mend = "training went wrong or the file is damaged: load other weights"
        problems.append(Problem(f"{not_finite[0]} holds values that are not finite", mend, "weights-not-finite"))
    if len({p.device for p in parameters.values()}) > 1:
        mend = "net.to('cpu'), or to one other"
        problems.append(Problem("the parameters lie on several devices", mend, "weights-on-several-devices"))
    return problems


def _note_on_later_layers(model: Model, x: Tensor) -> list[str]:
    """A note that a layer with places comes after the target layer; none where none does."""
    layer, later = layer_and_later(model, x)
    return [early(layer, later)] if later else []


def _notes_on_network(net: nn.Module) -> list[str]:
    """Notes on the network that are no problems but worth knowing."""
    notes = []
    parameters = list(net.parameters())
    frozen = sum(not p.requires_grad for p in parameters)
    if frozen:
        quantity = "all" if frozen == len(parameters) else f"{frozen} of {len(parameters)}"
        notes.append(f"{quantity} parameter tensors are frozen: fine, gradients are taken at the pixels and at layers")
    if any(m.training for m in net.modules()):
        notes.append("the network is in training mode: it is run in eval mode, and given back as it was")
    dtype = next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)
    if dtype != torch.float32:
        notes.append(f"it computes in {str(dtype).removeprefix('torch.')}: pixels are converted, scores converted back")
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
    if hooks:
        notes.append(f"{hooks} hooks of yours are on the network: they run whenever it runs, and are left there")
    return notes


def _unknown_classes(model: Classifier, pictures: Pictures) -> tuple[list[Problem], tuple[str, ...]]:
    """A problem with the pictures' classes that the model does not know, or else notes on how classes were read."""
    from clearsight.data.class_words import understood

    try:
        return [], understood(pictures, model)[1]
    except Refused as e:
        return [Problem(e.what, e.fix or "say what they mean: --classes FILE", "unknown-classes")], ()


def _fingerprint(model: Model) -> str:
    try:
        return model.fingerprint()
    except Exception:  # a network that cannot say its weights has none
        return ""


def _first_names(labels: tuple[str, ...]) -> str:
    return ", ".join(map(first_name, labels))


def _dimensions(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:g}" for v in values)
