"""What the server counts and times, for Prometheus."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from ..calls.call_record import CallRecord
from ..runtime.session import RUNTIME_VERSION

if TYPE_CHECKING:
    from ..models.served_model import ServedModel
    from ..runtime.batching import BatchedSession

OTHER = "other"
"""Stands for every method that is not served: labels never hold a client's own text."""

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64)
_SESSION = ("model", "role")

M = TypeVar("M")


class _Children(dict[tuple[str, ...], M]):
    """A metric's children by their labels' values, made when first asked for: `labels` takes longer than to count."""

    def __init__(self, labels: Callable[..., M]) -> None:
        super().__init__()
        self._labels = labels

    def __missing__(self, values: tuple[str, ...]) -> M:
        child = self[values] = self._labels(*values)
        return child


class Metrics:
    """Counters, histograms and gauges in a registry of their own.

    Args:
        methods: The full names of the methods that are served, such as "/infosink.v1.SamplingService/Sample"; calls of
            any other are counted as "other", so that clients cannot make up labels.
        models: The models that are served now; asked at every scrape.
    """

    def __init__(self, methods: Iterable[str], models: Callable[[], Iterable["ServedModel"]]) -> None:
        self.registry = CollectorRegistry()
        self._methods = frozenset(methods)
        self._requests = self._counter("requests", "Calls that ended, by their status code.", "method", "code")
        self._rejected = self._counter("rejected", "Calls that were refused, by their ErrorInfo's reason.", "reason")
        self._rows = self._counter("rows", "Rows in the answers of calls.", *_SESSION)
        self._reloads = self._counter("reloads", "Attempts to serve a model anew.", "model", "outcome")
        in_flight = Gauge(
            "infosink_requests_in_flight", "Calls that have not ended.", ("method",), registry=self.registry
        )
        self._in_flight = _Children(in_flight.labels)
        self._request_seconds = self._histogram("request_seconds", "A whole call.", "method")
        self._codec_seconds = self._histogram(
            "codec_seconds", "Reading a call's request and making its answer.", "method"
        )
        self._queue_seconds = self._histogram("queue_seconds", "A call's wait for its runs of a model.", *_SESSION)
        self._compute_seconds = self._histogram("compute_seconds", "A run of a model.", *_SESSION)
        self._batch_rows = self._histogram("batch_rows", "Rows in a run of a model.", *_SESSION, buckets=_ROWS)
        self.registry.register(_Sessions(models))
        ProcessCollector(registry=self.registry)

    def started(self, record: CallRecord) -> None:
        """Counts a call as in flight."""
        self._in_flight[(self._method(record),)].inc()

    def ended(self, record: CallRecord, seconds: float) -> None:
        """Counts a call's end by its record.

        Args:
            record: The call, with its code.
            seconds: How long it took as a whole.
        """
        method = (self._method(record),)
        self._in_flight[method].dec()
        self._requests[*method, record.code].inc()
        self._request_seconds[method].observe(seconds)
        if record.reason:
            self._rejected[(record.reason,)].inc()
        if record.codec_seconds:
            self._codec_seconds[method].observe(record.codec_seconds)
        session = (record.model, record.role)
        if record.queue_seconds:
            self._queue_seconds[session].observe(record.queue_seconds)
        if record.rows and record.code == "OK":
            self._rows[session].inc(record.rows)
        for rows, run_seconds in record.runs:
            self._batch_rows[session].observe(rows)
            self._compute_seconds[session].observe(run_seconds)

    def reloaded(self, model: str, renewed: bool) -> None:
        """Counts an attempt to serve a model anew.

        Args:
            model: Its name; empty where it has none yet.
            renewed: Whether it is served anew; it stays as it was where not.
        """
        self._reloads[model, "renewed" if renewed else "failed"].inc()

    def _method(self, record: CallRecord) -> str:
        return record.method.removeprefix("/") if record.method in self._methods else OTHER

    def _counter(self, name: str, description: str, *labels: str) -> _Children[Counter]:
        return _Children(Counter(f"infosink_{name}", description, labels, registry=self.registry).labels)

    def _histogram(
        self, name: str, description: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
    ) -> _Children[Histogram]:
        histogram = Histogram(f"infosink_{name}", description, labels, buckets=buckets, registry=self.registry)
        return _Children(histogram.labels)


class _Sessions(Collector):
    """What is asked at every scrape, rather than kept."""

    def __init__(self, models: Callable[[], Iterable["ServedModel"]]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("infosink_queue_rows", "Rows that wait for a run of a model.", labels=_SESSION)
        described = InfoMetricFamily("infosink_model", "What a model is, and what it runs on.", labels=_SESSION)
        for model in self._models():
            for session in _sessions(model):
                depth.add_metric((model.name, session.role), session.depth())
                described.add_metric(
                    (model.name, session.role),
                    {
                        "provider": session.execution_provider,
                        "checkpoint": model.checkpoint_sha256,
                        "runtime": RUNTIME_VERSION,
                    },
                )
        yield depth
        yield described


def _sessions(model: "ServedModel") -> list["BatchedSession"]:
    return [model.generator] if model.encoder is None else [model.generator, model.encoder]
