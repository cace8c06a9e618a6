"""The replayable cases: fed to the provider, they give the artifact that they record."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from turnlane.api import Artifact
from turnlane_tests.json_schema import violations
from turnlane_tests.vk_stand_in import Reply

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in (HERE / "fixtures").glob("*.json"))
SHAPE = json.loads((HERE / "fixture.schema.json").read_text())
OF_BROWSERS = ("vk_browser_login_anonym_token_messages", "vk_calls_get_call_preview")

pytestmark = pytest.mark.anyio


def of_browser(stages: list[dict[str, Any]]) -> list[bool]:
    """Say of each stage whether a browser was seen to pass it."""
    names = [each["name"] for each in stages]
    return [
        name in OF_BROWSERS or (name == "vk_calls_get_anonymous_token" and name in names[:number])
        for number, name in enumerate(names)
    ]


def as_fixture(artifact: Artifact, fixture: dict[str, Any]) -> dict[str, Any]:
    """Return an artifact in the shape of a fixture."""
    made = json.loads(msgspec.json.encode(artifact))
    method, outcome = made.pop("resolution_method"), made.pop("outcome")
    assert method in ("staged_http", "browser_observed")
    origin = {key: value for key, value in fixture.items() if key.endswith("_source")}
    return {"scenario_id": fixture["scenario_id"], **origin, **made, "expected": outcome}


def test_there_are_fixtures_and_they_fit_their_schema(
    fixture_named: Callable[[str], dict[str, Any]],
) -> None:
    assert len(NAMES) == 5
    for name in NAMES:
        assert list(violations(SHAPE, fixture_named(name))) == []


@pytest.mark.parametrize("name", NAMES)
async def test_a_fixture_gives_its_own_artifact_byte_for_byte(
    client: Any, fixture_named: Callable[[str], dict[str, Any]], name: str
) -> None:
    fixture = fixture_named(name)
    stages = fixture["stages"]
    interactive = any(of_browser(stages))
    for stage, observed in zip(stages, of_browser(stages), strict=True):
        response = stage["response"]
        document = client.vk.planted.filled(response["body"])
        if observed:
            keys = tuple(reversed(stage["request"]["form_keys"]))
            client.browser.sees(stage["name"], document, status=response["status_code"], keys=keys)
        else:
            client.vk.answer(stage["name"], Reply(document, response["status_code"]))
    if fixture["expected"]["result_kind"] == "resolution":
        artifact = (await client.resolve(interactive=interactive)).artifact
    else:
        error = await client.failing(interactive=interactive)
        artifact = error.artifact
        expected = fixture["expected"]["provider_error"]
        assert (error.provider_stage, error.code) == (expected["stage"], expected["code"])
    made = as_fixture(artifact, fixture)
    for part in ("provider", "input", "stages", "expected"):
        assert json.dumps(made[part], indent=2) == json.dumps(fixture[part], indent=2)
    assert list(violations(SHAPE, made)) == []
