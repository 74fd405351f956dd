"""OpenTelemetry spans, where the package is installed and its environment variables ask for them."""

import importlib.util
import logging
import os
import threading
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from ..calls.call_record import CallRecord
from ..errors import one_line

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_EXPORTERS = "opentelemetry_traces_exporter"
"""The entry points by which packages offer exporters."""
_CLOSING_SECONDS = 2
_CLIENT_FAULTS = frozenset(
    {
        "CANCELLED",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
    }
)
"""What a server's span does not count as an error, by OpenTelemetry's conventions for gRPC."""

_logger = logging.getLogger(__name__)


class Tracing:
    """Spans of calls, children of the spans that their W3C `traceparent` metadata names.

    Args:
        provider: Where the spans go.
    """

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("infosink.serving")
        self._propagator = TraceContextTextMapPropagator()

    def start(self, method: str, metadata: Mapping[str, str]) -> "Span":
        """A call's span; without a valid parent in its metadata, a trace of its own."""
        from opentelemetry.trace import SpanKind

        name = method.removeprefix("/")
        return self._tracer.start_span(
            name,
            self._propagator.extract(metadata),
            SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": name.rpartition("/")[0], "rpc.method": name.rpartition("/")[2]},
        )

    def names(self, span: "Span") -> dict[str, str]:
        """The span's trace and itself in hexadecimal, as the log states them."""
        from opentelemetry.trace import format_span_id, format_trace_id

        context = span.get_span_context()
        return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}

    def end(self, span: "Span", record: CallRecord) -> None:
        """Ends a call's span with what its record says."""
        import grpc
        from opentelemetry.trace import Status, StatusCode

        span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[record.code].value[0])
        span.set_attribute("infosink.request_id", record.request_id)
        if record.model:
            span.set_attribute("infosink.model", record.model)
        if record.role:
            span.set_attributes(
                {
                    "infosink.role": record.role,
                    "infosink.rows": record.rows,
                    "infosink.batch_rows": record.batch_rows,
                    "infosink.queue_seconds": record.queue_seconds,
                    "infosink.compute_seconds": record.compute_seconds,
                    "infosink.codec_seconds": record.codec_seconds,
                    "infosink.provider": record.provider,
                }
            )
        if record.code != "OK" and record.code not in _CLIENT_FAULTS:
            span.set_status(Status(StatusCode.ERROR, record.code))
        span.end()

    def close(self) -> None:
        """Hands over the spans that wait, for at most two seconds: whoever takes them may have gone."""
        handing_over = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        handing_over.start()
        handing_over.join(_CLOSING_SECONDS)


def tracing_from_environment(environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Tracing as OpenTelemetry's environment variables ask for it; None where they do not, or cannot be obeyed.

    OTEL_TRACES_EXPORTER names the exporter, "otlp" where only OTEL_EXPORTER_OTLP_ENDPOINT is set; the package that
    brings the exporter is the user's choice. OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and the others are the SDK's.
    A wish that cannot be granted is a warning in the log: it is no reason not to serve.
    """
    wish = _exporter_name(environment)
    if not wish:
        return None
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        _logger.warning("no traces: OpenTelemetry is not installed; install it with pip install 'infosink[tracing]'")
        return None
    found = list(entry_points(group=_EXPORTERS, name=wish))
    if not found:
        _logger.warning("no traces: no exporter %s is installed; for otlp, install opentelemetry-exporter-otlp", wish)
        return None

    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        exporter = found[0].load()()
    except Exception as error:
        _logger.warning("no traces: the exporter %s cannot be used: %s", wish, one_line(error))
        return None
    named = {} if environment.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "infosink-serve"}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


def _exporter_name(environment: Mapping[str, str]) -> str:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    default = "otlp" if any(environment.get(name) for name in endpoints) else ""
    name = environment.get("OTEL_TRACES_EXPORTER", default).strip()
    return "" if name == "none" else name
