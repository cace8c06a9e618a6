"""Telemetry: spans, logs and redaction, for the runtime and for plugins alike.

Spans go through the OpenTelemetry API, which is imported with the first span and does nothing
until an application, or `turnlane.telemetry.setup`, installs an SDK.
"""

from turnlane.telemetry.logging import log_event
from turnlane.telemetry.redaction import REDACTOR, Redactor
from turnlane.telemetry.tracing import current_traceparent, span, tracer

__all__ = ["REDACTOR", "Redactor", "current_traceparent", "log_event", "span", "tracer"]
