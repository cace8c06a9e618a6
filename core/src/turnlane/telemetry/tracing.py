"""Spans, through the OpenTelemetry API alone and imported only when one is opened."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from turnlane.api.errors import TurnlaneError
from turnlane.telemetry.redaction import REDACTOR

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

NAMESPACE = "turnlane."
"""Stands before the name of every attribute."""


def tracer() -> "Tracer":
    """Return the tracer that all of Turnlane's spans come from."""
    from opentelemetry import trace  # noqa: PLC0415 not needed before the first span

    return trace.get_tracer("turnlane")


@contextmanager
def span(
    name: str, parent: str | None = None, /, **attributes: str | float | bool | None
) -> Iterator[None]:
    """Open the span `name` around a step; attributes are named `turnlane.<key>`, None is left out.

    `parent` is a traceparent (W3C Trace Context) from the other side of the tunnel; a malformed
    one is ignored. An exception marks the span as failed with `error.type` (the code of a
    `TurnlaneError`, else the name of its class) and, for a `TurnlaneError`, its stage and message:
    other errors' texts may contain anything and are left out. Cancellation is no failure.
    """
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

    with tracer().start_as_current_span(
        name,
        context=_remote_context(parent),
        attributes={
            NAMESPACE + key: _shown(value) for key, value in attributes.items() if value is not None
        },
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except TurnlaneError as error:
            current.set_attribute("error.type", error.code)
            current.set_attribute(NAMESPACE + "stage", error.stage.value)
            current.set_status(Status(StatusCode.ERROR, REDACTOR.redact(error.message)))
            raise
        except Exception as error:
            current.set_attribute("error.type", type(error).__qualname__)
            current.set_status(Status(StatusCode.ERROR))
            raise


def current_traceparent() -> str | None:
    """Return the current span as a traceparent (W3C Trace Context), or None outside of any."""
    from opentelemetry import trace  # noqa: PLC0415

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _remote_context(parent: str | None) -> "Context | None":
    if parent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    return TraceContextTextMapPropagator().extract({"traceparent": parent})


def _shown(value: str | float | bool) -> str | float | bool:
    if isinstance(value, bool | int | float):
        return value
    return REDACTOR.redact(str(value))
