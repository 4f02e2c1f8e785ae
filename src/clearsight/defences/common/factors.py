"""Options of defences that are factors."""

from __future__ import annotations

import math

from clearsight.errors import Refused


def check_factor(method: str, name: str, value: float) -> None:
    """Refuse a factor that is below 0 or not finite."""
    if not 0 <= value < math.inf:
        raise Refused(f"{method}({name}={value:g}): a finite number from 0")
