"""The OpenTelemetry SDK is imported and configured on request only."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from turnlane.api import PolicyError, UnavailableError
from turnlane.telemetry import setup
from turnlane.telemetry.setup import exporter_names, setup_tracing

TRACED = """
import os
from turnlane.telemetry import span
from turnlane.telemetry.setup import setup_tracing
shutdown = setup_tracing("turnlane-server")
with span("turn_dial", lane=1):
    print("result")
shutdown()
"""


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_the_facade_imports_neither_the_sdk_nor_the_api() -> None:
    code = "import sys, turnlane.telemetry; print(*sys.modules)"

    modules = run(code).stdout.split()

    assert "turnlane.telemetry.tracing" in modules
    assert not [name for name in modules if name.split(".")[0] == "opentelemetry"]


def test_the_first_span_imports_the_api_alone() -> None:
    code = (
        "import sys\nfrom turnlane.telemetry import span\nwith span('x'): pass\nprint(*sys.modules)"
    )

    modules = run(code).stdout.split()

    assert "opentelemetry.trace" in modules
    assert not [name for name in modules if name.startswith("opentelemetry.sdk")]


def test_spans_go_to_standard_error_and_leave_standard_output_to_results() -> None:
    finished = run(TRACED, OTEL_TRACES_EXPORTER="console")

    assert finished.stdout == "result\n"
    assert '"name": "turn_dial"' in finished.stderr
    assert '"service.name": "turnlane-server"' in finished.stderr


def test_the_name_from_the_environment_wins() -> None:
    finished = run(TRACED, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="mine")

    assert '"service.name": "mine"' in finished.stderr


@pytest.mark.parametrize(
    "environ", [{"OTEL_SDK_DISABLED": "TRUE"}, {"OTEL_TRACES_EXPORTER": "none"}]
)
def test_what_is_switched_off_installs_nothing(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import trace

    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    before = trace.get_tracer_provider()

    setup_tracing()()

    assert trace.get_tracer_provider() is before


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp_proto_http", "console"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ["otlp_proto_http"],
        ),
        ({"OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, ["zipkin"]),
    ],
)
def test_exporters_are_named_by_the_standard_variables(
    environ: dict[str, str], names: list[str]
) -> None:
    assert exporter_names(environ) == names


def test_an_unknown_otlp_protocol_is_refused() -> None:
    with pytest.raises(PolicyError) as caught:
        exporter_names({"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"})

    assert caught.value.code == "invalid_otlp_protocol"
    assert "grpc" in caught.value.advice


def test_an_exporter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setattr(setup, "entry_points", lambda **_: ())

    with pytest.raises(UnavailableError) as caught:
        setup_tracing()

    assert caught.value.code == "exporter_unavailable"
    assert "opentelemetry-exporter-otlp-proto-http" in caught.value.advice


def test_an_installed_exporter_is_loaded_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    found = EntryPoint(
        "memory",
        f"{InMemorySpanExporter.__module__}:InMemorySpanExporter",
        "opentelemetry_traces_exporter",
    )
    monkeypatch.setattr(setup, "entry_points", lambda **_: (found,))

    assert isinstance(setup._exporter("memory"), InMemorySpanExporter)


def test_without_the_sdk_the_advice_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(UnavailableError) as caught:
        setup_tracing()

    assert caught.value.code == "telemetry_unavailable"
    assert "turnlane[telemetry]" in caught.value.advice
