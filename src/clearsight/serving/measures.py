"""What a server measures of itself, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from clearsight._version import __version__
from clearsight.serving.backend import Answers, Backend
from clearsight.serving.drift import Drift
from clearsight.serving.outliers import Reference, outlier_scores, shares_below

MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TENTHS = tuple(i / 10 for i in range(1, 11))


class Measures:
    """Counters and histograms of one server, in a registry of their own.

    Args:
        backend: the model.
        waiting: gives the number of pictures that wait for a batch.
        reference: what the pictures that come are compared with; None compares with nothing.
    """

    def __init__(self, backend: Backend, waiting: Callable[[], int], reference: Reference | None = None) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        about = Info("clearsight_model", "The served model.", registry=r)
        about.info(
            {
                "source": backend.source,
                "fingerprint": backend.fingerprint,
                "engine": backend.engine,
                "version": __version__,
            }
        )
        self.requests = Counter("clearsight_requests", "Requests by route and status.", ("route", "status"), registry=r)
        self.seconds = Histogram(
            "clearsight_request_seconds",
            "Time from a request's head to its answer's end.",
            ("route",),
            buckets=_SECONDS,
            registry=r,
        )
        self.batches = Histogram(
            "clearsight_batch_pictures", "Pictures of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=r
        )
        self.batch_seconds = Histogram(
            "clearsight_batch_seconds", "Time that the model takes for a batch.", buckets=_SECONDS, registry=r
        )
        waits = Gauge("clearsight_waiting_pictures", "Pictures that wait for a batch.", registry=r)
        waits.set_function(waiting)
        self.confidence = Histogram(
            "clearsight_confidence", "Probability of the top class of each answer.", buckets=_TENTHS, registry=r
        )
        self._likely = backend.scores != "values"
        self._reference = reference
        self.unusual = Histogram(
            "clearsight_outlier_share",
            "Share of the reference pictures that are less unusual than each picture.",
            buckets=(0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0),
            registry=r,
        )
        self._drift = None if reference is None else self._watch_drift(reference)

    def batch(self, pictures: int, seconds: float) -> None:
        """Count one batch."""
        self.batches.observe(pictures)
        self.batch_seconds.observe(seconds)

    def answered(self, answers: Answers) -> None:
        """Count the answers to pictures."""
        if self._likely:
            for top in answers.values.max(1).tolist():
                self.confidence.observe(top)
        if self._reference is not None and self._drift is not None:
            scores = outlier_scores(answers, self._reference)
            self._drift.note(answers.values.max(1), scores)
            for share in shares_below(scores, self._reference):
                self.unusual.observe(share)

    def _watch_drift(self, reference: Reference) -> Drift:
        drift = Drift(reference)
        words = {"psi": "Population stability index", "ks": "Kolmogorov-Smirnov distance"}
        for name, word in words.items():
            text = f"{word} of the last answers from the reference."
            gauge = Gauge(f"clearsight_drift_{name}", text, ("of",), registry=self.registry)
            for of in ("confidence", "outlier") if self._likely else ("outlier",):
                gauge.labels(of).set_function(partial(drift.measure, name, of))
        return drift

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
