"""The table of a network's layers: sizes, parameters, multiply-adds, memory and receptive fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakTensorKeyDictionary

from clearsight.core import rng
from clearsight.core.model import Model
from clearsight.errors import Refused
from clearsight.inspecting import receptive_fields
from clearsight.internals.watch import Watch
from clearsight.models.dry_run import probes, reason

OUTSIDE = "outside modules"
FOLDED = 40  # rows that a terminal shows unless all are asked for


@dataclass(frozen=True)
class Field:
    """The receptive field of one place of a layer, along each axis of the picture.

    size: in pixels, by the arithmetic of the layers (it may be larger than the picture); step: how many pixels the
    next place is away.  None where the layer has no places along that axis any more.  whole: besides that window, it
    sees the whole picture, as behind a squeeze-and-excitation gate, attention, global pooling or a dense layer.
    """

    size: tuple[int | None, ...]
    step: tuple[int | None, ...]
    whole: bool


@dataclass(frozen=True)
class Row:
    """One layer, or several that are folded into one row.  All numbers are for one picture.

    shape: (C, *s) of its output, () where that is no tensor or it did not run.  parameters: its own, those that several
    layers share at the first of them.  macs: multiply-adds, None where it is not known what it computes.  kept: bytes
    of its outputs as float32, 0 for a view or what works in place.  field: None where it cannot be said.  repeats: how
    often it ran.  layers: how many of the network's layers the row stands for.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    macs: int | None
    kept: int
    field: Field | None
    repeats: int
    layers: int = 1


@dataclass(frozen=True)
class LayerTable:
    """All layers in the order in which they first ended, then those that did not run.

    rows: modules without children; modules that compute something, or have parameters, themselves; and what is
    computed outside of all.  blocks: the other modules, with the sums of what is inside.  unknown: rows that run
    operations whose multiply-adds are not known; the total leaves these out.
    """

    rows: tuple[Row, ...]
    blocks: tuple[Row, ...]
    total_parameters: int
    total_macs: int
    total_kept: int
    unknown: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values only, for --json."""
        return asdict(self)

    def lines(self, *, all: bool = False) -> list[str]:
        """The table for the terminal; all: every layer, else blocks are one row and alike blocks in a row are one."""
        rows = self.rows if all else folded(self, FOLDED)
        head = ("layer", "what", "output", "parameters", "multiply-adds", "memory", "sees / step")
        cells = [head, *(_cells(r) for r in rows)]
        total = (
            "total",
            "",
            "",
            f"{self.total_parameters:,}",
            short_number(self.total_macs),
            memory(self.total_kept),
            "",
        )
        widths = [max(len(row[i]) for row in (*cells, total)) for i in range(len(head))]
        lines = ["  ".join(_pad(v, widths[i], i) for i, v in enumerate(row)).rstrip() for row in (*cells, total)]
        lines.insert(1, "-" * max(len(line) for line in lines))
        lines.insert(-1, lines[1])
        folds = sum(r.layers for r in rows) - len(rows)
        notes = [f"{len(self.rows)} layers in {len(rows)} rows"] if folds else []
        return [*lines, *(f"note: {n}" for n in (*notes, *self.notes))]


def layer_table(model: Model) -> LayerTable:
    """Run the model once on noise and tabulate each layer's output, parameters, multiply-adds and receptive field.

    Multiply-adds are those of convolutions and matrix products, attention's among them, wherever they are called;
    biases, activations, normalisation, pooling, resampling and additions count 0, as in the literature's tables
    (ResNet-18: 1.8 G).  A transposed convolution counts one for each weight that each of its inputs meets.  Receptive
    fields: see the module ``receptive_fields``.  The model comes back as it was.

    Refused: a network that has parameters without a shape yet, or that does not run on pictures of its size.
    """
    lazy = [n for n, p in model.net.named_parameters() if is_lazy(p)]
    if lazy:
        raise Refused(f"{lazy[0]} has no shape yet (a lazy layer): run one batch through the network first")
    x = probes(model)[:1]
    names = {m: n for n, m in model.net.named_modules()}
    run = _Run(names)
    with model.undisturbed(), rng.seeded(0, x), torch.no_grad(), _attention_as_products(), _hooked(run, model.net):
        z = model.normalised(x).to(model.dtype)
        run.views[z] = receptive_fields.start(z)
        try:
            with run:
                model.net(z)
        except Exception as e:
            raise Refused(
                f"the network cannot run on an input of {tuple(x.shape[1:])}: {reason(e)}; clearsight inspect MODEL "
                "says what it takes"
            ) from e
    return _table(model.net, run)


def layer_tables(
    models: Sequence[Model],
) -> tuple[list[tuple[str, LayerTable]], list[tuple[str, str]]]:
    """(source, table) of each model that has one, and (source, why) of each that has none."""
    tables, refusals = [], []
    for model in models:
        try:
            tables.append((model.source, layer_table(model)))
        except Refused as e:
            refusals.append((model.source, str(e)))
    return tables, refusals


@contextmanager
def _attention_as_products() -> Iterator[None]:
    """Inside, attention runs as the matrix products that it consists of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@dataclass
class _ModuleRun:
    """The measurements of one module after the run."""

    shape: tuple[int, ...] = ()
    kept: int = 0
    macs: int = 0
    unknown: bool = False
    field: Field | None = None
    repeats: int = 0


# whether a tensor depends on the picture, and what it sees of it
Dependence = tuple[bool, receptive_fields.View | None]


class _Run(Watch):
    """Sees every operation of a run: what it computes and which part of the picture its result depends on."""

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = names
        self.weights = {_storage(p) for m in names for p in m.parameters(recurse=False)}
        self.readers: dict[int, str] = {}  # where a parameter is, and the layer that first computed with it
        self.counted_outputs: list[list[Tensor]] = [[]]  # outputs that were counted, for each module that still runs
        self.open_modules: list[str] = [""]
        self.modules: dict[str, _ModuleRun] = {}
        self.order: list[str] = []  # as they first ended
        self.views: Any = WeakTensorKeyDictionary()  # a View, or None where it is lost
        self.stale: set[int] = set()  # storages that were written to in part, so that views of them may be stale
        self.lost: dict[str, str] = {}  # the layer that lost the receptive field first, and at what

    def of(self, name: str) -> _ModuleRun:
        return self.modules.setdefault(name, _ModuleRun())

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = receptive_fields.tensors((*args, *kwargs.values()))
        dependences = [self._view(t) for t in inputs]  # before the operation, which may work in place
        out = op(*args, **kwargs)
        module = self.of(self.open_modules[-1])
        for storage in self.weights.intersection(_storage(t) for t in inputs):
            self.readers.setdefault(storage, self.open_modules[-1])
        macs = multiply_adds(op, args, out)
        module.macs += macs or 0
        module.unknown |= macs is None
        if any(depends for depends, _ in dependences):
            self._follow(op, args, kwargs, out, dependences)
        return out

    def _view(self, t: Tensor) -> Dependence:
        if _storage(t) in self.stale:
            return True, None
        return t in self.views, self.views.get(t)

    def _follow(self, op: Any, args: Any, kwargs: Any, out: Any, dependences: list[Dependence]) -> None:
        outs = receptive_fields.tensors(out)
        view = None
        if outs and all(view is not None for depends, view in dependences if depends):
            try:
                view = receptive_fields.sees(op, [view for _, view in dependences], args, kwargs, outs[0])
            except receptive_fields.UnknownViewError as e:
                self.lost.setdefault(self.open_modules[-1] or OUTSIDE, str(e))
        if op._schema.is_mutable and outs and dependences[0] != (True, view) and _is_partial(outs[0]):
            self.stale.add(_storage(outs[0]))
        for t in outs:
            self.views[t] = view

    def enter(self, module: nn.Module, _args: Any) -> None:
        self.open_modules.append(self.names[module])
        self.counted_outputs.append([])

    def leave(self, module: nn.Module, args: Any, out: Any) -> None:
        name = self.open_modules.pop()
        module_run = self.of(name)
        if not module_run.repeats:
            self.order.append(name)
        module_run.repeats += 1
        inputs = {_storage(t) for t in receptive_fields.tensors(args)}
        counted = {_storage(t) for t in self.counted_outputs.pop()}
        outs = receptive_fields.tensors(list(out.values()) if isinstance(out, Mapping) else out)
        fresh = {_storage(t): t for t in outs if _storage(t) not in inputs}
        module_run.kept += sum(4 * t.numel() for storage, t in fresh.items() if storage not in counted)
        self.counted_outputs[-1] += fresh.values()
        if outs:
            first = outs[0]
            module_run.shape = tuple(first.shape[1:] if first.dim() > 1 and first.shape[0] == 1 else first.shape)
            depends, view = self._view(first)
            module_run.field = _field(view) if depends and view is not None else None


@contextmanager
def _hooked(run: _Run, net: nn.Module) -> Iterator[None]:
    handles: list[Any] = []
    for m in net.modules():
        handles += [m.register_forward_pre_hook(run.enter), m.register_forward_hook(run.leave)]
    try:
        yield
    finally:
        for h in handles:
            h.remove()


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _is_partial(t: Tensor) -> bool:
    """Whether a tensor shows only a part of what is stored."""
    return t.numel() * t.itemsize < t.untyped_storage().nbytes()


def _field(view: receptive_fields.View) -> Field:
    return Field(
        tuple(None if a.dim is None else a.high - a.low + 1 for a in view),
        tuple(None if a.dim is None else a.step for a in view),
        any(a.whole for a in view),
    )


# What an operation computes -----------------------------------------------------------------------------------------


def _convolution_macs(args: Sequence[Any], out: Any) -> int:
    x, weight, transposed = args[0], args[1], bool(args[6])
    return int((x if transposed else out).numel() * prod(weight.shape[1:]))


def _recurrent_macs(args: Sequence[Any], out: Any) -> int:
    """One direction of one layer: each step meets both matrices once; x (steps, B, features)."""
    x, to_hidden, in_hidden = args[:3]
    return int(x.shape[0] * x.shape[1] * (to_hidden.numel() + in_hidden.numel()))


COMPUTES: dict[str, Callable[[Sequence[Any], Any], int]] = {
    "convolution": _convolution_macs,
    "mm": lambda args, out: int(out.numel() * args[0].shape[-1]),
    "bmm": lambda args, out: int(out.numel() * args[0].shape[-1]),
    "mv": lambda args, out: int(args[0].numel()),
    "dot": lambda args, out: int(args[0].numel()),
    "addmm": lambda args, out: int(out.numel() * args[1].shape[-1]),
    "baddbmm": lambda args, out: int(out.numel() * args[1].shape[-1]),
    "addmv": lambda args, out: int(args[1].numel()),
    "mkldnn_rnn_layer": _recurrent_macs,
}
_OPAQUE = (
    "_fft", "linalg_", "_linalg", "_scaled_dot_product", "_cudnn", "miopen", "quantized", "mkldnn", "_cdist", "addbmm",
    "addr", "_native_multi_head", "_transformer_encoder", "_thnn", "_trilinear", "_sparse",
)  # fmt: skip


def multiply_adds(op: Any, args: Sequence[Any], out: Any) -> int | None:
    """Multiply-adds of one operation; None for one that may well compute products in a way that is not known."""
    name = str(op.overloadpacket.__name__)
    count = COMPUTES.get(name) or COMPUTES.get(name.removesuffix("_"))
    if count:
        return count(args, out)
    if op.namespace not in ("aten", "prim", "prims", "clearsight"):
        return None
    return None if name.startswith(_OPAQUE) and name != "linalg_vector_norm" else 0


# From the run to rows -----------------------------------------------------------------------------------------------


def _table(net: nn.Module, run: _Run) -> LayerTable:
    modules = dict(net.named_modules())
    own_parameters = _own_parameters(net, run)
    unused = [n for n in modules if n and n not in run.order and own_parameters[n]]
    rows = []
    for name in [*run.order, *unused]:
        module_run, module = run.of(name), modules[name]
        leaf = bool(name) and not any(module.children())
        if "parametrizations" in name.split(".") or not (
            leaf or module_run.macs or module_run.unknown or module_run.kept or own_parameters[name]
        ):
            continue
        macs = None if module_run.unknown else module_run.macs
        has_parts = any(
            n.startswith(f"{name}." if name else "") and own_parameters[n] for n in own_parameters if n != name
        )
        words = kind(module) + (" itself" if has_parts else "")
        rows.append(
            Row(
                name or OUTSIDE,
                words,
                module_run.shape,
                own_parameters[name],
                macs,
                module_run.kept,
                module_run.field,
                module_run.repeats,
            )
        )
    blocks = [_block(n, modules[n], run, rows) for n in run.order if n and any(modules[n].children())]
    unknown = tuple(r.name for r in rows if r.macs is None)
    return LayerTable(
        tuple(rows),
        tuple(b for b in blocks if b is not None),
        sum(r.parameters for r in rows),
        sum(r.macs or 0 for r in rows),
        sum(r.kept for r in rows),
        unknown,
        tuple(_notes(rows, unknown, run)),
    )


def _own_parameters(net: nn.Module, run: _Run) -> dict[str, int]:
    """How many numbers each module's own parameters hold.

    Those of a module that is not called, but that another one reads in its own forward, count as that other's.
    """
    counted_ids: set[int] = set()
    counts = dict.fromkeys((name for name, _ in net.named_modules()), 0)
    for name, module in net.named_modules():
        inner = name not in run.order or "parametrizations" in name.split(".")
        for p in module.parameters(recurse=False):
            if id(p) not in counted_ids:
                counted_ids.add(id(p))
                counts[_owner_of_parameter(name, _storage(p), run) if inner else name] += p.numel()
    return counts


def _owner_of_parameter(name: str, storage: int, run: _Run) -> str:
    parts = name.split(".")
    if "parametrizations" in parts:
        return ".".join(parts[: parts.index("parametrizations")])
    return run.readers.get(storage, name)


def _block(name: str, module: nn.Module, run: _Run, rows: Sequence[Row]) -> Row | None:
    inside = [r for r in rows if r.name == name or r.name.startswith(f"{name}.")]
    if not inside:
        return None
    module_run, total = run.of(name), _sum(inside)
    return replace(
        total,
        name=name,
        kind=type(module).__name__,
        shape=module_run.shape,
        field=module_run.field,
        repeats=module_run.repeats,
    )


def _sum(rows: Sequence[Row]) -> Row:
    """The last of the rows, with the sums of all."""
    return replace(
        rows[-1],
        parameters=sum(r.parameters for r in rows),
        macs=None if any(r.macs is None for r in rows) else sum(r.macs or 0 for r in rows),
        kept=sum(r.kept for r in rows),
        layers=sum(r.layers for r in rows),
        repeats=max(r.repeats for r in rows),
    )


def _notes(rows: Sequence[Row], unknown: Sequence[str], run: _Run) -> list[str]:
    notes = []
    if unknown:
        notes.append(f"multiply-adds are not known and not in the total for {_first_names(unknown)}")
    unused = [r.name for r in rows if not r.repeats and r.parameters]
    if unused:
        notes.append(f"not used in a forward pass: {_first_names(unused)}")
    repeated = [r.name for r in rows if r.repeats > 1 and (r.parameters or r.macs)]
    if repeated:
        notes.append(f"run several times, with the same parameters: {_first_names(repeated)}")
    if run.lost:
        name, word = next(iter(run.lost.items()))
        notes.append(f"receptive fields are not followed through {word}, as in {name}")
    return notes


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def kind(module: nn.Module) -> str:
    """What a layer is, in a few words.

    >>> kind(nn.Conv2d(8, 8, (1, 7), stride=2, groups=8))
    'Conv2d 1x7, stride 2, depthwise'
    >>> kind(nn.MaxPool2d(3, 2))
    'MaxPool2d 3x3, stride 2'
    """
    words = type(module).__name__
    size = getattr(module, "kernel_size", None)
    if not isinstance(size, int | tuple):
        return words
    axes = next((int(c) for c in "123" if f"{c}d" in words), 1)
    k, s, d = (_per_axis(getattr(module, a, 1), axes) for a in ("kernel_size", "stride", "dilation"))
    parts = [f"{words} {'x'.join(map(str, k))}"]
    parts += [f"stride {_joined_sizes(s)}"] if set(s) != {1} else []
    parts += [f"dilation {_joined_sizes(d)}"] if set(d) != {1} else []
    if isinstance(module, _ConvNd) and module.groups > 1:
        deep = module.groups == module.in_channels
        parts.append("depthwise" if deep else f"{module.groups} groups")
    return ", ".join(parts)


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (int(value),) * axes


def _joined_sizes(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


# Fewer rows ---------------------------------------------------------------------------------------------------------


def folded(table: LayerTable, most: int, *, alike: bool = True) -> list[Row]:
    """At most so many rows where that can be: as deep into the blocks as fits, and branches that are alike as one.

    What only passes its input on (Identity, Dropout, a view, what works in place) is left out.  alike: blocks in a row
    that are alike but for what they see become one row too; otherwise they do only where they have to.
    """
    rows = _join_branches([r for r in table.rows if r.parameters or r.macs is None or r.macs or r.kept])
    if len(rows) <= most:
        return rows
    blocks = {b.name: b for b in table.blocks}
    result = rows
    for depth in range(max(r.name.count(".") for r in rows) + 1, 0, -1):
        cut = _cut_to_depth(rows, blocks, depth)
        result = _join_neighbours(cut)
        if len(cut) <= most and not alike:
            return cut
        if len(result) <= most:
            break
    return result


def _join_branches(rows: Sequence[Row]) -> list[Row]:
    """Three or more layers of one module that are alike, also in what they see: they work side by side."""
    result = []
    for _, group in groupby(rows, lambda r: replace(r, name=r.name.rpartition(".")[0])):
        same = list(group)
        result += same if len(same) < 3 or not same[0].macs else [_join_rows(same)]
    return result


def _join_rows(same: Sequence[Row]) -> Row:
    both = f"{same[0].name} to {same[-1].name.rpartition('.')[2]}"
    return replace(_sum(same), name=both, kind=f"{len(same)} x {same[0].kind}")


def _cut_to_depth(rows: Sequence[Row], blocks: Mapping[str, Row], depth: int) -> list[Row]:
    result = []
    for name, group in groupby(rows, lambda r: ".".join(r.name.split(".")[:depth])):
        inside = list(group)
        if len(inside) == 1:
            result += inside
            continue
        block = blocks.get(name)
        total = _sum(inside)
        result.append(total if block is None else replace(total, kind=block.kind, shape=block.shape, field=block.field))
        result[-1] = replace(result[-1], name=name)
    return result


def _join_neighbours(rows: Sequence[Row]) -> list[Row]:
    """Neighbours that are alike in all but the name and what they see become one row."""
    result = []
    for (_, layers), group in groupby(rows, lambda r: ((r.kind, r.shape, r.parameters, r.macs, r.kept), r.layers)):
        same = list(group)
        if layers == 1 or len(same) == 1:
            result += same
            continue
        result.append(_join_rows(same))
    return result


# For people ---------------------------------------------------------------------------------------------------------


def _cells(r: Row) -> tuple[str, ...]:
    runs = "" if r.repeats else " (did not run)"
    if r.repeats > 1:
        runs = f" (ran {r.repeats} times)"
    macs = short_number(r.macs) if r.macs else ""
    if r.macs is None:
        macs = "not known"
    parameters = f"{r.parameters:,}" if r.parameters else ""
    return (
        r.name,
        r.kind + runs,
        shape_text(r.shape),
        parameters,
        macs,
        memory(r.kept) if r.kept else "",
        field_text(r.field),
    )


def _pad(value: str, wide: int, column: int) -> str:
    return value.rjust(wide) if column in (3, 4, 5, 6) else value.ljust(wide)


def shape_text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def field_text(f: Field | None) -> str:
    """A receptive field as the table shows it.

    >>> whole = Field((None, None), (None, None), True)
    >>> field_text(Field((11, 11), (4, 4), False)), field_text(whole), field_text(None)
    ('11 / 4', 'whole', '?')
    """
    if f is None:
        return "?"
    sizes, steps = ([v for v in values if v is not None] for values in (f.size, f.step))
    if not sizes:
        return "whole"
    return f"{_joined_sizes(sizes)} / {_joined_sizes(steps)}" + (" + whole" if f.whole else "")


def short_number(n: float) -> str:
    """A large number in three figures.

    >>> short_number(1_814_073_344), short_number(118_013_952), short_number(999)
    ('1.81 G', '118 M', '999')
    """
    for unit, word in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if n >= unit:
            value = n / unit
            digits = 1 if value < 100 else 0
            if value < 10:
                digits = 2
            return f"{value:.{digits}f}{word}"
    return f"{n:g}"


def memory(n: int) -> str:
    """A number of bytes in words.

    >>> memory(3_211_264), memory(40)
    ('3.21 MB', '40 B')
    """
    return f"{short_number(n)}B" if n >= 1000 else f"{n} B"
