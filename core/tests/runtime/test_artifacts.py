"""Artifacts on disk: one place, one shape, byte for byte the same."""

from pathlib import Path

import msgspec
import pytest

from turnlane.api import Artifact, ArtifactOutcome, PolicyError, Secret
from turnlane.runtime.artifacts import write_artifact
from turnlane.telemetry import REDACTOR


def artifact(provider: str = "acme") -> Artifact:
    return Artifact(provider, "static", {"link": "<redacted>"}, (), ArtifactOutcome("resolution"))


def test_an_artifact_is_written_under_its_providers_name_and_twice_the_same(tmp_path: Path) -> None:
    path = write_artifact(artifact(), tmp_path)
    first = path.read_bytes()
    assert path == tmp_path / "acme" / "probe-artifact.json"
    assert write_artifact(artifact(), tmp_path).read_bytes() == first
    assert b'"provider": "acme"' in first
    assert [entry.name for entry in path.parent.iterdir()] == ["probe-artifact.json"]


def test_a_provider_id_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="invalid_provider_id"):
        write_artifact(artifact("../evil"), tmp_path / "inner")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicyError, match="artifact_not_written"):
        write_artifact(artifact(), tmp_path / "file")


def test_a_secret_that_a_provider_forgot_is_cut(tmp_path: Path) -> None:
    secret = Secret("acme://planted-secret")
    REDACTOR.add(secret)
    try:
        leaky = msgspec.structs.replace(artifact(), input={"link": secret.reveal()})
        written = write_artifact(leaky, tmp_path).read_text()
    finally:
        REDACTOR.remove(secret)
    assert "planted-secret" not in written
    assert msgspec.json.decode(written)["provider"] == "acme"
