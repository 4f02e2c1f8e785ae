"""The floor under every table: no method that is worth its cost can do worse than chance."""

from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.targets import Target


@method(paper="control", claims="control stochastic")
def random(model: Model, x: Tensor, target: Target) -> Tensor:
    """Independent uniform noise: a control map that does not use the model.

    x (B, C, *S) in [0, 1] -> (B, *S), in [0, 1), without a unit.
    """
    return rng.uniform(x[:, 0])
