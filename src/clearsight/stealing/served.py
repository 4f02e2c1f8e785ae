"""A model that is served on this machine, asked by the Open Inference Protocol, version 2, over HTTP.

Source: KServe, "Open Inference Protocol (V2)": metadata and infer, with tensors as JSON.
"""

from __future__ import annotations

import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clearsight.core.answering import Withheld
from clearsight.core.preprocess import Preprocess
from clearsight.errors import Refused
from clearsight.stealing.victim import Victim

SECONDS = 60.0
_PLACE = "http://127.0.0.1:8000/v2/models/NAME"
_NAMES = ("probabilities", "PROBABILITIES", "output", "OUTPUT")  # of the output, where there are several


def is_address(words: str) -> bool:
    """Whether words name a served model rather than one that is loaded.

    >>> is_address("http://127.0.0.1:8000/v2/models/demo"), is_address("runs/train-1")
    (True, False)
    """
    return words.startswith(("http://", "https://"))


def check_address(words: str) -> str:
    """The address of a served model, without what stands behind its name; that of a server, where no model is named.

    Refused: any address but one of this machine, because a test of theft is for one's own model; and a path that is
    not one of the Open Inference Protocol.

    >>> check_address("http://localhost:8000/v2/models/demo/infer"), check_address("http://127.0.0.1:8000/")
    ('http://localhost:8000/v2/models/demo', 'http://127.0.0.1:8000')
    """
    parts = urllib.parse.urlsplit(words)
    host = parts.hostname or ""
    if not (host == "localhost" or _is_loopback(host)):
        raise Refused(
            f"{host or words} is not this machine: a test of theft is for a model of one's own",
            f"serve it here, and give its address on loopback, {_PLACE}",
        )
    path = parts.path.rstrip("/").removesuffix("/infer")
    path = "" if path in ("/v2", "/v2/models") else path
    if path and (not path.startswith("/v2/models/") or len(path.split("/")) not in (4, 6)):
        raise Refused(f"{words} does not name a model", f"give {_PLACE}")
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def of_address(words: str, size: int, labels: Sequence[str] | None = None, keys: Sequence[str] = ()) -> Victim:
    """A served model as a victim, asked once about what it takes and gives.

    Args:
        words: its address on loopback; or that of a server, which is asked for the name of its one model (clearsight
            serve tells it at /v1/models; the Open Inference Protocol has no such question).
        size: side in pixels of the pictures that are sent; whoever serves resizes them.
        labels: names of its classes; None for those that the server tells, or else their numbers.
        keys: API keys with which it is asked; each is an account of its own.

    Refused: other machines, a server that does not answer, a model that does not take pictures (count x height x width
    x channels, UINT8) or gives no probabilities, and labels of another number.
    """
    place = _named(check_address(words), keys[0] if keys else "")
    about = _request(place, None, keys[0] if keys else "")
    inputs, outputs = about.get("inputs"), about.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs or not outputs:
        raise Refused(f"{place} names no inputs and outputs", "give a model of the Open Inference Protocol, version 2")
    entry = next((i for i in inputs if i.get("datatype") == "UINT8" and len(i.get("shape", ())) in (3, 4)), None)
    if entry is None:
        raise Refused(f"{place} takes no pictures", "it needs an input of UINT8, count x height x width x channels")
    names = [o["name"] for o in outputs]
    output = next((o for o in outputs if o["name"] in _NAMES), outputs[0])
    channels = int(entry["shape"][-1])
    channels = 3 if channels < 1 else channels
    ask = _asker(place, entry["name"], output["name"], keys)
    k = int(output["shape"][-1])
    if k < 1:
        k = ask(torch.zeros(1, channels, size, size), 0).shape[1]
    if k < 2:
        raise Refused(f"{place} gives {', '.join(names)}", "it needs an output of probabilities, count x classes")
    if labels is None:
        labels = _labels(about, k)
    if len(labels) != k:
        raise Refused(f"{len(labels)} labels for a model of {k} classes", "give one for each class (--labels)")
    return Victim(
        tuple(labels),
        Preprocess((size, size), (0.0,) * channels, (1.0,) * channels),
        ask,
        place,
        keys=max(1, len(keys)),
    )


def _named(place: str, key: str) -> str:
    """The address of a server's one model.  Refused: a server that names none, or several."""
    if urllib.parse.urlsplit(place).path:
        return place
    try:
        told = _request(f"{place}/v1/models", None, key)
    except (Refused, Withheld) as e:
        raise Refused(f"{place} names no model, and does not tell those it has ({e})", f"give {_PLACE}") from None
    names = told.get("models") if isinstance(told, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise Refused(f"{place} does not tell its models", f"give {_PLACE}")
    if len(names) > 1:
        raise Refused(f"{place} has {len(names)} models: {', '.join(names[:5])}", f"give {place}/v2/models/NAME")
    return f"{place}/v2/models/{urllib.parse.quote(names[0], safe='')}"


def _labels(about: dict[str, Any], k: int) -> Sequence[str]:
    """The names of k classes as `clearsight serve` tells them with the model's metadata, or their numbers."""
    parameters = about.get("parameters")
    told = parameters.get("labels") if isinstance(parameters, dict) else None
    right = isinstance(told, list) and len(set(map(str, told))) == k == len(told)
    return [str(word) for word in told] if isinstance(told, list) and right else [str(i) for i in range(k)]


def _asker(place: str, name: str, output: str, keys: Sequence[str]) -> Callable[[Tensor, int], Tensor]:
    """A function from pictures (B, C, H, W) and the number of an account to what the server answers, (B, K)."""

    def probabilities(x: Tensor, account: int = 0) -> Tensor:
        key = keys[account % len(keys)] if keys else ""
        found = [_infer(place, name, output, part, key) for part in torch.split(x, 32)]
        return torch.cat(found) if found else torch.empty(0, 0)

    return probabilities


def _infer(place: str, name: str, output: str, x: Tensor, key: str) -> Tensor:
    pixels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    tensor = {"name": name, "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.flatten().tolist()}
    told = _request(f"{place}/infer", {"inputs": [tensor], "outputs": [{"name": output}]}, key)
    try:
        (entry,) = [o for o in told["outputs"] if o["name"] == output]
        found = torch.tensor(entry["data"], dtype=torch.float32).reshape(entry["shape"])
    except (KeyError, TypeError, ValueError, RuntimeError) as e:
        raise Refused(f"{place} answered with no tensor {output}: {e}", "it must answer with JSON") from None
    if found.shape[:1] != x.shape[:1] or found.dim() != 2 or not bool(found.isfinite().all()):
        raise Refused(f"{place} answered {tuple(found.shape)}, not probabilities of {len(x)} pictures")
    return found


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it might lead to another machine."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())


def _request(address: str, body: dict[str, Any] | None, key: str) -> Any:
    """What a server answers, as JSON.  Withheld where it answers that a limit is reached, 403 or 429."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    try:
        with _OPENER.open(urllib.request.Request(address, data, headers), timeout=SECONDS) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as e:
        what = f"{address} answered {e.code}: {_sentence(e)}"
        if e.code in (403, 429):
            raise Withheld(str(e.code), what) from None
        raise Refused(what) from None
    except (OSError, ValueError) as e:
        reason = getattr(e, "reason", e)
        raise Refused(f"{address} does not answer: {reason}", "start it, as with clearsight serve MODEL") from None


def _sentence(error: urllib.error.HTTPError) -> str:
    """What the server says of it, one line."""
    text = error.read(2000).decode("utf-8", "replace")
    try:
        found = json.loads(text)
        text = str(found.get("error", found.get("detail", text))) if isinstance(found, dict) else text
    except ValueError:
        pass
    return " ".join(text.split())[:200] or error.reason
