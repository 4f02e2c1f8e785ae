"""One method inside another: its spelling, and its maps of versions of the pictures."""

from collections.abc import Iterator

from torch import Tensor

from clearsight.core import catalogue, diagnostics, rng
from clearsight.core.batching import pairs
from clearsight.core.catalogue import Call
from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.internals.kept_graph import held, must_learn


def parse(inner: str) -> Call:
    """The method that ``inner=`` spells; refused where there is none of that name."""
    return catalogue.parse(inner, "explainers")


def run(call: Call, model: Model, versions: Tensor, target: Target, rows: Tensor, numbers: Tensor) -> Tensor:
    """The inner method's maps (n, *S) of versions (n, C, *S) of the pictures rows (n,), about the same question.

    numbers (n,): which version of its picture each is.  What the inner method draws belongs to the version, and what it
    notes about its maps is not kept.
    """
    must_learn(call)
    with rng.for_versions(rows, numbers), diagnostics.silent():
        maps = call.method(model, held(versions).clone(), target[rows], **call.options)
    if not isinstance(maps, Tensor) or maps.shape != versions[:, 0].shape:
        raise Refused(f"{call.method.name} as inner method must return one map (B, *S) for each picture")
    return held(maps).to(versions)


def noisy_maps(
    model: Model, x: Tensor, target: Target, inner: str, samples: int, noise: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The inner method's maps of the pictures x (B, C, *S) under Gaussian noise, a few at a time.

    Gives rows (n,), numbers (n,) and maps (n, *S); those of one picture come in the order of their numbers.  The
    standard deviation is a share of each picture's own range, and what the noise carries beyond [0, 1] stays there.
    """
    if not 0 <= noise < float("inf"):
        raise Refused(f"noise, a share of the picture's range, must be at least 0, not {noise:g}")
    call = parse(inner)
    flat = x.flatten(1)
    sigma = noise * (flat.amax(1) - flat.amin(1)).view(-1, *[1] * (x.dim() - 1))
    for rows, k in pairs(len(x), samples, backward=True):
        versions = x[rows] + sigma[rows] * rng.normal(x[rows], rows)
        yield rows, k, run(call, model, versions, target, rows, k)
