"""The one importer of the OpenTelemetry SDK: installs it when the operator asks for traces.

Configuration is OpenTelemetry's own, by its standard `OTEL_*` environment variables; nothing reads
them before `setup_tracing` is called.
"""

import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from turnlane.api.errors import PolicyError, UnavailableError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_INSTALL_SDK = "install it: pip install 'turnlane[telemetry]'"
_OTLP_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


def setup_tracing(service_name: str = "turnlane") -> Callable[[], None]:
    """Install the SDK as configured by the environment; return what flushes and ends it.

    Honoured here: `OTEL_SDK_DISABLED`, `OTEL_TRACES_EXPORTER` (`otlp`, the default, `console`
    which writes to standard error, `none`, or the name of an installed exporter; several with
    commas), `OTEL_EXPORTER_OTLP_PROTOCOL`; the SDK itself reads the rest (the service's
    name, which wins over `service_name`, samplers, limits, batches, endpoints). A provider that the
    embedding application installed is left as it is.

    Raises `UnavailableError` when the SDK or an exporter is not installed, `PolicyError` for an
    OTLP protocol that does not exist.
    """
    try:
        from opentelemetry import trace  # noqa: PLC0415 nothing of it is needed before
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise UnavailableError(
            "telemetry_unavailable", "the OpenTelemetry SDK is not installed", _INSTALL_SDK
        ) from None

    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or isinstance(trace.get_tracer_provider(), TracerProvider):
        return _nothing
    exporters = [_exporter(name) for name in exporter_names(os.environ)]
    if not exporters:
        return _nothing
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service_name}))
    provider = TracerProvider(resource=resource)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def exporter_names(environ: Mapping[str, str]) -> list[str]:
    """Return the names under which the exporters that `environ` asks for are installed.

    Raises `PolicyError` for an OTLP protocol that does not exist.
    """
    asked = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if "otlp" in names:
        protocol = (
            environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf"
        )
        if protocol not in _OTLP_PROTOCOLS:
            raise PolicyError(
                "invalid_otlp_protocol",
                "OTEL_EXPORTER_OTLP_PROTOCOL names a protocol that is not supported",
                f"use one of: {', '.join(sorted(_OTLP_PROTOCOLS))}",
            )
        names = [_OTLP_PROTOCOLS[protocol] if name == "otlp" else name for name in names]
    return [name for name in names if name != "none"]


def _exporter(name: str) -> "SpanExporter":
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415

        # Standard output belongs to the commands' results.
        return ConsoleSpanExporter(out=sys.stderr)
    try:
        (entry_point,) = entry_points(group="opentelemetry_traces_exporter", name=name)
        exporter: SpanExporter = entry_point.load()()
    except (ValueError, ImportError):
        distribution = name.replace("_", "-") if name in _OTLP_PROTOCOLS.values() else name
        raise UnavailableError(
            "exporter_unavailable",
            f"no trace exporter named {name!r} is installed",
            f"install opentelemetry-exporter-{distribution},"
            " or set OTEL_TRACES_EXPORTER to console or none",
        ) from None
    return exporter


def _nothing() -> None:
    """End nothing: there is nothing that this module started."""
