"""clearsight serve."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from clearsight.cli.inputs import load_classifier, look_first
from clearsight.cli.options import Model, ModelOptions, Placed, RunOptions, grouped
from clearsight.cli.output import sayer
from clearsight.errors import Refused
from clearsight.serving.addresses import check_open
from clearsight.serving.keys import new_key, read_keys
from clearsight.serving.settings import Settings, check_hidden


@dataclass(frozen=True)
class AddressOptions:
    """Where a model is served, and to whom."""

    host: Annotated[str, typer.Option(help="Address to serve at; 127.0.0.1 is this machine alone.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000
    name: Annotated[str, typer.Option(help="Name of the model in addresses.", show_default=False)] = ""
    keys: Annotated[Path | None, typer.Option(help="File of API keys; without it nobody needs one.")] = None
    open: Annotated[bool, typer.Option("--open", help="Serve other machines without keys.")] = False
    new_key: Annotated[
        str | None, typer.Option(metavar="NAME", help="Add a key to --keys FILE, print it, and end.")
    ] = None
    limit: Annotated[
        list[str] | None,
        typer.Option(help="Of the new key: requests=1000/day, bytes=200M/hour, pixels=, seconds=; may be repeated."),
    ] = None
    reference: Annotated[
        str | None, typer.Option(metavar="DATA", help="Pictures that those that come are compared with.")
    ] = None
    defend: Annotated[
        list[str] | None, typer.Option(help="A defence that every answer goes through; may be repeated.")
    ] = None
    hide: Annotated[
        list[str] | None, typer.Option(help="What is not told: map, explain, embed, outlier; may be repeated.")
    ] = None
    log: Annotated[Path | None, typer.Option(help="File for a line of JSON about each request.")] = None


@dataclass(frozen=True)
class LimitOptions:
    """What one request may take, and how requests share the model."""

    most_bytes: Annotated[int, typer.Option(min=1, help="Maximum bytes of a request.")] = 20_000_000
    most_pixels: Annotated[int, typer.Option(min=1, help="Maximum pixels of a picture.")] = 50_000_000
    explain_seconds: Annotated[float, typer.Option(help="Time that an explanation may take.")] = 10.0
    batch: Annotated[int, typer.Option(min=1, help="Maximum pictures that go through the model at once.")] = 4
    wait: Annotated[float, typer.Option(min=0, help="Seconds that a picture waits for others that have arrived.")] = (
        0.002
    )


@grouped
def serve(
    model: Model = "demo",
    *,
    address: AddressOptions,
    limits: LimitOptions,
    about_model: ModelOptions,
    run: Placed,
) -> None:
    """Serve a model over HTTP: answers, explanations and features, with a page to try it.

    POST a picture to /predict, /explain or /embed, or open the address in a browser. Clients of the Open Inference
    Protocol (Triton, KServe) find the model at /v2, Prometheus its measures at /metrics. SIGTERM and Ctrl-C end it when
    all that was accepted is answered.
    """
    if address.new_key is not None:
        _make_key(address, run)
        return
    if address.limit:
        raise Refused("--limit is of a key that is made", "give --keys FILE --new-key NAME with it")
    look_first([model], [address.reference] if address.reference else [], answer_defences=address.defend or [])
    check_hidden(address.hide or [])
    check_open(address.host, keys=address.keys is not None, open_to_all=address.open)
    if address.keys is not None:
        read_keys(address.keys)
    _check_installed()
    from clearsight.data.datasets import open_data
    from clearsight.serving.serve import serve as serve_model

    serve_model(
        load_classifier(model, about_model, run, "serve"),
        host=address.host,
        port=address.port,
        name=address.name,
        keys=address.keys,
        open_to_all=address.open,
        settings=Settings(
            most_bytes=limits.most_bytes,
            most_pixels=limits.most_pixels,
            explain_seconds=limits.explain_seconds,
            batch=limits.batch,
            wait=limits.wait,
        ),
        reference=None if address.reference is None else open_data(address.reference),
        defend=address.defend or [],
        hide=address.hide or [],
        log=address.log,
        say=sayer(False) if run.json else print_line,
    )


def print_line(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def _make_key(address: AddressOptions, run: RunOptions) -> None:
    if address.keys is None:
        raise Refused("--new-key needs the file that the key is added to", "give --keys FILE")
    key = new_key(address.keys, address.new_key or "", address.limit or [])
    sayer(run.silent)(f"this key is shown once; {address.keys} holds its hash alone")
    print(key)


def _check_installed() -> None:
    """Refuse at once where the extra is not installed."""
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise Refused(f"serving needs {', '.join(missing)}, not installed here", "pip install 'clearsight[serve]'")
