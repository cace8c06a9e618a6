"""`turnlane probe`: what it prints and writes, for success and for failure."""

import json
from pathlib import Path

import pytest


def probe(run, kind, *arguments):
    return run("probe", "--provider", "planted", "--link", f"planted://{kind}", *arguments)


def test_a_resolution_prints_the_address_the_stages_and_the_artifact(
    run, planted, tmp_path
) -> None:
    finished = probe(run, "fine")
    assert (finished.code, finished.err) == (0, "")
    assert finished.out == (
        "turn      198.51.100.7:3478 (udp), 198.51.100.7:443 (tcp)\n"
        "stages    1\n"
        "artifact  artifacts/planted/probe-artifact.json\n"
    )
    artifact = json.loads((tmp_path / "artifacts/planted/probe-artifact.json").read_text())
    assert artifact["outcome"]["resolution"]["address"] == "198.51.100.7:3478"


def test_as_json_it_is_one_object(run, planted, tmp_path) -> None:
    finished = probe(run, "fine", "--json", "--output-dir", tmp_path / "out")
    assert json.loads(finished.out) == {
        "provider": "planted",
        "result": "resolution",
        "turn_address": "198.51.100.7:3478",
        "endpoints": [
            {"address": "198.51.100.7:3478", "transport": "udp"},
            {"address": "198.51.100.7:443", "transport": "tcp"},
        ],
        "expires_at": 2e9,
        "stage_count": 1,
        "artifact": str(tmp_path / "out/planted/probe-artifact.json"),
    }


def test_a_failure_writes_its_artifact_and_exits_with_1(run, planted, tmp_path) -> None:
    finished = probe(run, "refuse")
    assert finished.code == 1
    assert finished.out == "stages    1\nartifact  artifacts/planted/probe-artifact.json\n"
    assert finished.err == (
        "stage=provider_resolve code=planted_refused: the planted provider refused; try another\n"
    )
    assert (tmp_path / "artifacts/planted/probe-artifact.json").exists()


def test_a_failure_as_json_is_an_object_too(run, planted) -> None:
    assert json.loads(probe(run, "refuse", "--json").out) == {
        "provider": "planted",
        "result": "provider_error",
        "stage": "provider_resolve",
        "code": "planted_refused",
        "message": "the planted provider refused",
        "advice": "try another",
        "provider_stage": "parse",
        "stage_count": 1,
        "artifact": "artifacts/planted/probe-artifact.json",
    }


def test_a_provider_that_crashes_leaves_an_artifact_without_stages(run, planted, tmp_path) -> None:
    finished = probe(run, "crash")
    assert finished.code == 1
    assert "code=provider_crashed" in finished.err
    artifact = json.loads((tmp_path / "artifacts/planted/probe-artifact.json").read_text())
    assert artifact["stages"] == []
    assert artifact["outcome"]["provider_error"] == {
        "stage": "provider_resolve",
        "code": "provider_crashed",
    }


def test_a_provider_that_is_not_installed_exits_with_3_and_writes_nothing(
    run, planted, tmp_path
) -> None:
    finished = run("probe", "--provider", "nope", "--link", "x")
    assert finished.code == 3
    assert "code=unknown_provider" in finished.err
    assert not (tmp_path / "artifacts").exists()


def test_an_artifact_that_cannot_be_written_is_bad_input(run, planted, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    finished = probe(run, "fine", "--output-dir", tmp_path / "file")
    assert finished.code == 2
    assert "code=artifact_not_written" in finished.err


def test_a_challenge_without_permission_to_ask_is_cancelled(run, planted) -> None:
    assert "code=planted_cancel" in probe(run, "ask").err


@pytest.mark.parametrize(("answer", "code"), [("continue\n", 0), ("cancel\n", 1), ("", 1)])
def test_a_challenge_is_asked_on_standard_error_and_answered_on_standard_input(
    run, planted, monkeypatch, answer, code
) -> None:
    Path("keyboard").write_text(answer)
    with Path("keyboard").open() as keyboard:
        monkeypatch.setattr("sys.stdin", keyboard)
        finished = probe(run, "ask", "--interactive-provider")
    assert finished.code == code
    assert finished.err.startswith("[confirm] Say yes\nOpen https://x/y\n")


def test_without_a_standard_input_nobody_can_be_asked(run, planted, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    finished = probe(run, "ask", "--interactive-provider")
    assert finished.code == 2
    assert "code=no_input" in finished.err
