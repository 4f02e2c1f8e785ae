"""The other libraries that figures are measured beside, by the names that people give them."""

from __future__ import annotations

import sys
from importlib.util import find_spec

ATTACKS = {"torchattacks": "torchattacks", "foolbox": "foolbox", "adv-lib": "adv_lib"}  # and what one imports
EXPLAINERS = {
    "pytorch-grad-cam": "pytorch_grad_cam",
    "captum": "captum",
    "zennit": "zennit",
    "shap": "shap",
    "lime": "lime",
    "xplique": "xplique",
}


def all_there(wanted: dict[str, str], without: list[str]) -> None:
    """End here if one is missing, so that no table loses its rows unseen."""
    missing = [name for name, module in wanted.items() if name not in without and not find_spec(module)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}; install them, or leave their rows out: --without NAME,NAME")
