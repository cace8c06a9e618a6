"""The provider: credentials, expiry, and the artifact for success and for failure."""

import json
import pkgutil
from typing import Any

import msgspec
import pytest

from turnlane.api import (
    ChallengePort,
    LinkError,
    ProviderCapabilities,
    ProviderContext,
    ProviderError,
    RelayEndpoint,
    RelayTransport,
    Resolution,
    ResolveRequest,
    Secret,
)
from turnlane.telemetry.redaction import find_leaks
from turnlane_generic_turn import plugin
from turnlane_generic_turn.provider import GenericTurn

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.75


async def resolve(context: ProviderContext, challenges: ChallengePort, link: str) -> Resolution:
    provider = GenericTurn(context)
    return await provider.resolve(ResolveRequest(Secret(link)), challenges)


def shown(artifact: object) -> dict[str, object]:
    decoded: dict[str, object] = json.loads(msgspec.json.encode(artifact))
    return decoded


async def test_a_static_link_gives_its_credentials(context: Any, challenges: ChallengePort) -> None:
    link = "generic-turn://alice:pass%20word@turn.example:3479?transport=tcp"

    resolution = await resolve(context, challenges, link)

    credentials = resolution.credentials
    assert credentials.endpoints == (RelayEndpoint("turn.example", 3479, RelayTransport.TCP),)
    assert credentials.username.reveal() == "alice"
    assert credentials.password.reveal() == "pass word"
    assert credentials.expires_at is None
    assert context.spans == [("parse_link", {})]


async def test_the_artifact_of_a_static_link_has_one_stage_and_no_secret(
    context: Any, challenges: ChallengePort
) -> None:
    link = "generic-turn://alice-planted:pass%20word@[2001:db8::1]?transport=tls&server_name=a.b"

    artifact = (await resolve(context, challenges, link)).artifact

    assert shown(artifact) == {
        "provider": "generic-turn",
        "resolution_method": "static_link",
        "input": {
            "link_redacted": "generic-turn://<redacted:turn-username>:<redacted:turn-password>"
            "@[2001:db8::1]:5349?transport=tls"
        },
        "stages": [
            {
                "name": "parse_link",
                "endpoint_id": "parse_link",
                "request": {
                    "method": "PARSE",
                    "form_keys": ["link"],
                    "redacted_fields": ["link"],
                },
                "response": {
                    "body": {
                        "host": "2001:db8::1",
                        "port": 5349,
                        "transport": "tls",
                        "server_name": "a.b",
                        "username": "<redacted:turn-username>",
                        "password": "<redacted:turn-password>",
                    }
                },
                "outcome": {
                    "kind": "resolution",
                    "extracted": {
                        "username": "<redacted:turn-username>",
                        "password": "<redacted:turn-password>",
                        "normalized_address": "[2001:db8::1]:5349",
                    },
                },
            }
        ],
        "outcome": {
            "result_kind": "resolution",
            "resolution": {
                "username_redacted": "<redacted:turn-username>",
                "password_redacted": "<redacted:turn-password>",
                "address": "[2001:db8::1]:5349",
            },
        },
    }
    assert find_leaks(msgspec.json.encode(artifact), ["alice-planted", "pass word"]) == []


async def test_a_turn_rest_user_name_gives_the_credentials_an_expiry(
    context: Any, challenges: ChallengePort
) -> None:
    resolution = await resolve(context, challenges, "generic-turn://1700000600%3Aalice:p@h")

    assert resolution.credentials.expires_at == 1_700_000_600


@pytest.mark.parametrize("username", ["1699999999%3Aalice", "1700000000", "1500000000%3Ax"])
async def test_expired_credentials_are_refused_with_advice(
    context: Any, challenges: ChallengePort, username: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        await resolve(context, challenges, f"generic-turn://{username}:planted-password@h")

    error = caught.value
    assert (error.code, error.provider_stage) == ("expired_credentials", "parse_link")
    assert not isinstance(error, LinkError)
    assert "generic-turn+rest://" in error.advice
    assert error.artifact is not None
    assert error.artifact.stages[0].outcome.error_code == "expired_credentials"
    assert error.artifact.outcome.provider_error is not None
    assert error.artifact.outcome.provider_error.stage == "parse_link"
    told = f"{error} {error!r}".encode() + msgspec.json.encode(error.artifact)
    assert find_leaks(told, ["planted-password", username.split("%", maxsplit=1)[0]]) == []


async def test_credentials_are_good_until_the_second_they_expire(
    context: Any, challenges: ChallengePort
) -> None:
    context.now = 1_700_000_599.9
    link = "generic-turn://1700000600%3Aalice:p@h"

    assert (await resolve(context, challenges, link)).credentials.expires_at == 1_700_000_600
    context.now = 1_700_000_600.0
    with pytest.raises(ProviderError):
        await resolve(context, challenges, link)


async def test_a_rest_link_mints_credentials_that_expire(
    context: Any, challenges: ChallengePort
) -> None:
    link = "generic-turn+rest://alice:north@turn.example?lifetime=3600"

    resolution = await resolve(context, challenges, link)

    credentials = resolution.credentials
    assert credentials.username.reveal() == "1700003600:alice"
    assert credentials.password.reveal() == "wjwSXO2ch1B6VaLTLMy2Avn5O9o="
    assert credentials.expires_at == 1_700_003_600
    assert credentials.endpoints == (RelayEndpoint("turn.example", 3478),)
    assert context.spans == [("parse_link", {}), ("mint_credentials", {"lifetime": 3600})]


async def test_a_rest_link_renews_with_the_clock(context: Any, challenges: ChallengePort) -> None:
    link = "generic-turn+rest://:north@turn.example?lifetime=60"

    first = (await resolve(context, challenges, link)).credentials
    context.now += 30
    second = (await resolve(context, challenges, link)).credentials

    assert (first.expires_at, second.expires_at) == (1_700_000_060, 1_700_000_090)
    assert first.password != second.password


async def test_the_artifact_of_a_rest_link_has_two_stages_and_no_secret(
    context: Any, challenges: ChallengePort
) -> None:
    link = "generic-turn+rest://planted-label:planted-secret@turn.example"

    resolution = await resolve(context, challenges, link)

    artifact = resolution.artifact
    assert artifact.resolution_method == "turn_rest"
    assert [(each.name, each.outcome.kind) for each in artifact.stages] == [
        ("parse_link", "continue"),
        ("mint_credentials", "resolution"),
    ]
    assert artifact.input == {
        "link_redacted": "generic-turn+rest://<redacted:turn-rest-label>:"
        "<redacted:turn-rest-secret>@turn.example:3478?transport=udp"
    }
    encoded = msgspec.json.encode(artifact)
    minted = resolution.credentials
    secrets: list[str | Secret[str]] = [
        "planted-label",
        "planted-secret",
        minted.username,
        minted.password,
    ]
    assert find_leaks(encoded, secrets) == []
    assert encoded == msgspec.json.encode((await resolve(context, challenges, link)).artifact)


async def test_a_malformed_link_fails_with_an_artifact_that_shows_none_of_it(
    context: Any, challenges: ChallengePort
) -> None:
    with pytest.raises(LinkError) as caught:
        await resolve(context, challenges, "generic-turn://planted-user:planted-pw@h:port")

    error = caught.value
    assert error.code == "invalid_port"
    assert error.artifact is not None
    assert shown(error.artifact) == {
        "provider": "generic-turn",
        "resolution_method": "static_link",
        "input": {"link_redacted": "<redacted:link>"},
        "stages": [
            {
                "name": "parse_link",
                "endpoint_id": "parse_link",
                "request": {
                    "method": "PARSE",
                    "form_keys": ["link"],
                    "redacted_fields": ["link"],
                },
                "response": {},
                "outcome": {"kind": "provider_error", "error_code": "invalid_port"},
            }
        ],
        "outcome": {
            "result_kind": "provider_error",
            "provider_error": {"stage": "parse_link", "code": "invalid_port"},
        },
    }


def test_the_plugin_offers_the_provider_under_its_id() -> None:
    (descriptor,) = plugin.turnlane_providers()

    assert descriptor.id == "generic-turn"
    assert descriptor.capabilities == ProviderCapabilities(renewable=True)
    assert pkgutil.resolve_name(descriptor.implementation) is GenericTurn


async def test_the_example_links_of_the_descriptor_work(
    context: Any, challenges: ChallengePort
) -> None:
    (descriptor,) = plugin.turnlane_providers()

    assert len(descriptor.example_links) == 3
    for link in descriptor.example_links:
        endpoint = (await resolve(context, challenges, link)).credentials.endpoints[0]
        assert endpoint.host in link
