"""OpenTelemetry traces from the request to the file, by OTLP over HTTP.

The packages for traces are imported only when an endpoint is set. A video's trace continues in the worker: the record
carries the `traceparent` (W3C Trace Context) of the HTTP request that created it.
"""

from collections.abc import Mapping

from jobs.errors import FrameditError

# A collector that does not answer must not delay the end of a process.
_TIMEOUT_SECONDS = 3


class TracingUnavailableError(FrameditError):
    code = "tracing_unavailable"


class Tracing:
    """Sends spans to `endpoint` in the background. Close it, or the last spans are lost.

    :raises TracingUnavailableError: when the packages are not installed.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracingUnavailableError(
                f"otlp_endpoint is set, but {error.name} is not installed: install framedit-server[tracing]"
            ) from None
        self.provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_TIMEOUT_SECONDS)
        self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self.provider.get_tracer("framedit")

    def traceparent(self) -> str | None:
        """Return the `traceparent` of the current span, None when there is none."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get("traceparent")

    def record_span(
        self, name: str, parent: str | None, start: float, end: float, attributes: Mapping[str, str | int | float] = {}
    ) -> str:
        """Record a span that has ended, below `parent`; returns its `traceparent`, for spans below it.

        Times are Unix seconds. The attribute `error` marks the span as failed.
        """
        from opentelemetry.context import Context
        from opentelemetry.trace import Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()
        context = propagator.extract({"traceparent": parent} if parent else {}, Context())
        span = self._tracer.start_span(name, context, attributes=dict(attributes), start_time=int(start * 1e9))
        if "error" in attributes:
            span.set_status(Status(StatusCode.ERROR, str(attributes["error"])))
        span.end(int(max(start, end) * 1e9))
        carrier: dict[str, str] = {}
        propagator.inject(carrier, set_span_in_context(span, context))
        return carrier["traceparent"]

    def close(self) -> None:
        """Send the spans that are left."""
        self.provider.shutdown()


def start_tracing(endpoint: str | None, service: str) -> Tracing | None:
    """Return None without an endpoint: tracing then costs nothing."""
    return Tracing(endpoint, service) if endpoint is not None else None
