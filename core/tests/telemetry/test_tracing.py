"""Spans through the OpenTelemetry API, looked at with the SDK's in-memory exporter."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from turnlane.api import Secret, Stage, TransportError
from turnlane.telemetry import REDACTOR, current_traceparent, span


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # The API lets a provider be set once per process; a test sets its own.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (finished,) = exporter.get_finished_spans()
    return finished


def test_without_an_sdk_a_span_does_nothing_and_has_no_traceparent() -> None:
    with span("turn_dial", lane=1):
        assert current_traceparent() is None


def test_attributes_are_named_after_the_project(exporter: InMemorySpanExporter) -> None:
    with span("turn_dial", lane=1, turn_mode="udp", restart=None, ok=True):
        pass

    finished = only(exporter)
    assert finished.name == "turn_dial"
    assert dict(finished.attributes or {}) == {
        "turnlane.lane": 1,
        "turnlane.turn_mode": "udp",
        "turnlane.ok": True,
    }
    assert finished.status.is_unset


def test_the_traceparent_continues_on_the_other_side(exporter: InMemorySpanExporter) -> None:
    assert current_traceparent() is None
    with span("client"):
        traceparent = current_traceparent()
    assert traceparent is not None
    with span("server", traceparent):
        pass

    client, server = exporter.get_finished_spans()
    assert client.context is not None
    assert server.context is not None
    assert server.parent is not None
    assert server.context.trace_id == client.context.trace_id
    assert server.parent.span_id == client.context.span_id
    version, trace_id, span_id, flags = traceparent.split("-")
    assert (version, trace_id) == ("00", f"{client.context.trace_id:032x}")
    assert span_id == f"{client.context.span_id:016x}"
    assert int(flags, 16) & 1, "the span is sampled"


@pytest.mark.parametrize("parent", ["", "00-xyz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\0"])
def test_a_malformed_traceparent_is_ignored(exporter: InMemorySpanExporter, parent: str) -> None:
    with span("server", parent):
        pass

    assert only(exporter).parent is None


def test_a_failure_carries_stage_code_and_message(exporter: InMemorySpanExporter) -> None:
    error = TransportError(Stage.TURN_ALLOCATE, "quota_reached", "the relay is full", "wait")
    with pytest.raises(TransportError), span("turn_allocate"):
        raise error

    finished = only(exporter)
    assert dict(finished.attributes or {}) == {
        "error.type": "quota_reached",
        "turnlane.stage": "turn_allocate",
    }
    assert not finished.status.is_ok
    assert finished.status.description == "the relay is full"
    assert finished.events == ()


def test_the_text_of_an_unknown_error_is_left_out(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(KeyError), span("turn_allocate"):
        raise KeyError("password-1234")

    finished = only(exporter)
    assert dict(finished.attributes or {}) == {"error.type": "KeyError"}
    assert "password-1234" not in finished.to_json()


def test_cancellation_is_no_failure(exporter: InMemorySpanExporter) -> None:
    class Cancelled(BaseException):
        pass

    with pytest.raises(Cancelled), span("turn_allocate"):
        raise Cancelled

    finished = only(exporter)
    assert finished.status.is_unset
    assert not finished.attributes


def test_secrets_in_attributes_and_messages_are_redacted(exporter: InMemorySpanExporter) -> None:
    token = Secret("planted-token-1")
    REDACTOR.add(token)
    try:
        with pytest.raises(TransportError), span("dial", link="x planted-token-1 y"):
            raise TransportError(Stage.TURN_DIAL, "refused", "planted-token-1 refused")
    finally:
        REDACTOR.remove(token)

    finished = only(exporter)
    assert (finished.attributes or {})["turnlane.link"] == "x *** y"
    assert "planted-token-1" not in finished.to_json()


def test_a_secret_given_by_mistake_does_not_print(exporter: InMemorySpanExporter) -> None:
    with span("dial", link=Secret("planted-link")):  # type: ignore[arg-type]
        pass

    assert (only(exporter).attributes or {})["turnlane.link"] == "***"
