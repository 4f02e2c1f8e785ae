"""A served model on more than one machine: the same application as a deployment of Ray Serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from clearsight.data.images import read_in_threads
from clearsight.errors import Refused
from clearsight.models.loading import load_classifier
from clearsight.serving.app import api_of
from clearsight.serving.serve import backend_of, gate_of
from clearsight.serving.service import Service
from clearsight.serving.settings import Settings
from clearsight.sharding.ray_cluster import keep_ray_quiet


def ray_deployment(
    model: str,
    *,
    name: str = "",
    replicas: int = 1,
    keys: str | Path | None = None,
    settings: Settings | None = None,
    defend: Sequence[str] = (),
    hide: Sequence[str] = (),
) -> Any:
    """An application for `ray.serve.run`: each replica loads the model, and answers with batches of its own.

    Args:
        model: words that load it on every machine of the cluster, such as "demo" or a path that all of them have.
        name: what the model is called in addresses; "" takes it from the words.
        replicas: processes that answer.
        keys: file of API keys; replicas share what is counted only where they share the file's folder.
        settings: limits of one request, and how requests share the model.
        defend: defences that every answer goes through; each replica remembers its own accounts.
        hide: what is not told.

    Refused: where Ray Serve is not installed; fewer than 1 replica.
    """
    keep_ray_quiet()
    try:
        from ray import serve
    except ImportError as e:
        raise Refused(
            f"a deployment needs Ray Serve, which cannot be imported ({e})", "pip install 'clearsight[serve,ray]'"
        ) from None
    if replicas < 1:
        raise Refused(f"replicas={replicas}", "give at least 1")
    options = (model, name, None if keys is None else str(keys), settings, tuple(defend), tuple(hide))

    def build() -> FastAPI:  # in each replica
        return _application(*options)

    @serve.deployment(name="clearsight", num_replicas=replicas)
    @serve.ingress(build)
    class Clearsight:
        """One replica."""

    return Clearsight.bind()  # type: ignore[attr-defined]


def _application(
    words: str, name: str, keys: str | None, settings: Settings | None, defend: Sequence[str], hide: Sequence[str]
) -> FastAPI:
    read_in_threads()
    backend = backend_of(load_classifier(words, "serve"))
    gate = None if keys is None else gate_of(Path(keys))
    return api_of(Service(backend, name, settings, gate, None, defend, hide))
