"""Serve a model over HTTP, from Python and from the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from clearsight.core.classifier import Classifier, classifier_of
from clearsight.data.datasets import Pictures
from clearsight.data.images import open_picture, read_in_threads, to_bytes
from clearsight.engines.onnx_file import read_onnx
from clearsight.errors import Refused
from clearsight.exporting.missed_bars import missed_bars
from clearsight.serving.addresses import check_open
from clearsight.serving.app import build_app
from clearsight.serving.backend import Backend
from clearsight.serving.batcher import joined
from clearsight.serving.gate import Gate
from clearsight.serving.keys import read_keys
from clearsight.serving.ledger import Ledger
from clearsight.serving.onnx_backend import onnx_backend
from clearsight.serving.outliers import Reference, reference_of
from clearsight.serving.run import address_of, listening, run_until_stopped
from clearsight.serving.service import Service
from clearsight.serving.settings import Settings
from clearsight.serving.torch_backend import torch_backend

_MOST_REFERENCES = 1000
Say = Callable[[str], object]


def serve(
    model: Classifier | Backend,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str = "",
    keys: str | Path | None = None,
    open_to_all: bool = False,
    settings: Settings | None = None,
    reference: Pictures | None = None,
    defend: Sequence[str] = (),
    hide: Sequence[str] = (),
    log: str | Path | None = None,
    say: Say | None = None,
) -> None:
    """Answer requests until the process is told to stop (SIGTERM or Ctrl-C); then end what was accepted.

    Args:
        model: the classifier, or what runs one.
        host: the address of this machine to serve at; by default only this machine reaches it.
        port: its port; 0 takes a free one.
        name: what the model is called in addresses; "" takes it from the words that load it.
        keys: file of API keys that `clearsight serve --new-key` makes; what they use is counted in a file beside it.
        open_to_all: serve other machines without keys.
        settings: limits of one request, and how requests share the model.
        reference: pictures such as those of the training set, at most 1,000 of which are compared with those that come;
            None compares with nothing.
        defend: defences of the catalogue that every answer goes through, such as "rounding(digits=2)".
        hide: what is not told: "map", "explain", "embed", "outlier".
        log: file to which a line of JSON is added for each request; None for none.
        say: called with the sentence that names the address, and first with what the parity sheet of an exported file
            says against it.

    Refused: an address of other machines without keys, files that cannot be used, models that cannot be served, and a
    reference beside defences, which keep back what it measures.
    """
    check_open(host, keys=keys is not None, open_to_all=open_to_all)
    settings = settings or Settings()
    read_in_threads()
    gate = gate_of(Path(keys)) if keys is not None else Gate()
    backend = model if isinstance(model, Backend) else backend_of(model)
    known = None if reference is None else reference_answers(backend, reference)
    service = Service(backend, name, settings, gate, known, defend, hide)
    with closing(listening(host, port)) as server, _lines_to(log) as write:
        if say is not None:
            if against := missed_bars(Path(backend.source)):
                say(f"{against} See report.html beside {backend.source}.")
            say(f"{service.name} is served at {address_of(server)}")
        run_until_stopped(
            build_app(service, write),
            server,
            stop_seconds=settings.stop_seconds,
            head_seconds=settings.body_seconds,
        )


def backend_of(model: Classifier) -> Backend:
    """What runs a model: ONNX Runtime for a file that `clearsight export` wrote, torch for every other.

    Refused: models that cannot be served.
    """
    model = classifier_of(model, "serve")
    path = Path(model.source)
    if path.suffix == ".onnx" and path.is_file() and read_onnx(path).manifest is not None:
        return onnx_backend(path, model)
    return torch_backend(model)


def reference_answers(backend: Backend, pictures: Pictures) -> Reference:
    """What pictures look like to a model: of more than 1,000 every so many-th is taken.

    Refused: fewer than 20 that can be read.
    """
    step = max(1, -(-len(pictures.pictures) // _MOST_REFERENCES))
    parts = []
    for picture in pictures.pictures[::step]:
        try:
            pixels = to_bytes(open_picture(picture.path), backend.preprocess).numpy()
        except Refused:  # a broken one says nothing of those that come
            continue
        parts.append(backend.run(pixels[None]))
    if not parts:
        raise Refused("no reference picture can be read", "give others")
    return reference_of(joined(parts))


def gate_of(path: Path) -> Gate:
    """The gate of a file of keys; what they use is counted in a file beside it, where a key has limits.

    Refused: a file that is missing or broken.
    """
    keys = read_keys(path)
    limited = any(key.limits for key in keys.values())
    return Gate(keys, Ledger(path.with_name(f"{path.name}.usage")) if limited else None)


@contextmanager
def _lines_to(log: str | Path | None) -> Iterator[Callable[[str], object] | None]:
    """What writes a line to the end of a file at once; None where there is no file."""
    if log is None:
        yield None
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(log).open("a", encoding="utf-8", buffering=1))
        except OSError as e:
            raise Refused(f"{log}: {e.strerror}", "give another --log FILE") from None
        yield lambda line: file.write(f"{line}\n")
