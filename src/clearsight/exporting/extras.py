"""What a format needs that is not installed with Clearsight."""

from __future__ import annotations

from importlib.util import find_spec

from clearsight.errors import Refused

_PACKAGES = {"onnx": "export", "onnxruntime": "export", "onnxscript": "export", "openvino": "openvino"}


def need(what: str, *packages: str) -> None:
    """Refuse, with the line that installs them, where a package is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({_PACKAGES[name] for name in missing}))
        raise Refused(
            f"{what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            f"pip install 'clearsight[{extras}]'",
        )
