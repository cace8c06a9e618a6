"""The provider through the runtime, against an endpoint on this machine."""

import json
from base64 import b64encode
from typing import Any

import msgspec
import pytest

from turnlane.api import (
    LinkError,
    RelayEndpoint,
    RelayTransport,
    Renewal,
    SettingsError,
)
from turnlane.telemetry.redaction import find_leaks
from turnlane_http import plugin
from turnlane_http.link import parse_link

pytestmark = pytest.mark.anyio

NOW = 1_700_000_000.75


async def test_credentials_are_fetched_over_https(client: Any, endpoint: Any) -> None:
    resolution = await client.resolve(endpoint.link)

    credentials = resolution.credentials
    assert credentials.endpoints == (RelayEndpoint("turn.example.org", 3478, RelayTransport.UDP),)
    assert credentials.username.reveal() == "1700003600:planted-user"
    assert credentials.password.reveal() == "planted-turn-password"
    assert credentials.expires_at == NOW + 3600
    assert resolution.renewal is Renewal.RESOLVE
    (seen,) = endpoint.seen
    assert (seen.method, seen.body) == ("GET", b"")
    assert seen.target == "/planted-path/turn?key=planted-query"
    assert seen.headers == {
        "host": f"localhost:{endpoint.port}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "user-agent": "turnlane-http",
    }


async def test_an_endpoint_on_this_machine_may_do_without_tls(
    client: Any, plain_endpoint: Any
) -> None:
    resolution = await client.resolve(plain_endpoint.link)

    assert resolution.credentials.password.reveal() == "planted-turn-password"


@pytest.mark.parametrize("status", [200, 201])
async def test_a_post_carries_json_and_what_authenticates(
    client: Any, endpoint: Any, status: int
) -> None:
    endpoint.status = status

    await client.resolve(endpoint.link, method="POST", api_key_header="X-Api-Key", **client.secrets)

    (seen,) = endpoint.seen
    assert seen.method == "POST"
    assert seen.body == client.secrets["request_body"].encode()
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["authorization"] == "Bearer planted-bearer"
    assert seen.headers["x-api-key"] == "planted-api-key"


async def test_basic_authentication_and_a_post_without_a_body(client: Any, endpoint: Any) -> None:
    await client.resolve(endpoint.link, method="POST", user="zoë", password="a:b")

    (seen,) = endpoint.seen
    assert seen.headers["authorization"] == "Basic " + b64encode("zoë:a:b".encode()).decode()
    assert seen.headers["content-length"] == "0"
    assert "content-type" not in seen.headers


ICE = {
    "urls": ["stun:s", "turn:t?transport=tcp", "turns:t:443"],
    "username": "planted-user",
    "credential": "planted-turn-password",
}


@pytest.mark.parametrize(
    "document",
    [{"iceServers": ICE}, {"iceServers": [{"urls": "stun:s"}, ICE]}, {"ice_servers": [ICE]}, [ICE]],
)
async def test_lists_of_ice_servers_are_taken_too(
    client: Any, endpoint: Any, document: object
) -> None:
    endpoint.answer(document)

    resolution = await client.resolve(endpoint.link)

    assert resolution.credentials.endpoints == (
        RelayEndpoint("t", 3478, RelayTransport.TCP),
        RelayEndpoint("t", 443, RelayTransport.TLS),
    )
    assert resolution.credentials.username.reveal() == "planted-user"
    assert resolution.credentials.expires_at is None
    assert resolution.renewal is Renewal.RESOLVE
    assert resolution.artifact.resolution_method == "ice_servers"


@pytest.mark.parametrize(
    ("said", "settings", "expires_at"),
    [
        ({"username": "1700000600:u", "ttl": 60}, {}, NOW + 60),
        ({"username": "1500000000:u", "ttl": 60}, {}, NOW + 60),
        ({"username": "1700000600:u"}, {}, 1_700_000_600),
        ({"username": "1700000600"}, {}, 1_700_000_600),
        (
            {"username": "1700000600:u"},
            {"method": "POST", "request_body": '{"ttl": 9}'},
            1_700_000_600,
        ),
        ({"username": "u"}, {"method": "POST", "request_body": '{"ttl": 9}'}, NOW + 9),
        (
            {"username": "u", "ttl": "60"},
            {"method": "POST", "request_body": '{"ttl": 9}'},
            NOW + 60,
        ),
        ({"username": "u"}, {"method": "POST", "request_body": "{}"}, None),
        ({"username": "u"}, {}, None),
    ],
)
async def test_expiry_is_what_the_answer_says_else_what_was_asked_for(
    client: Any,
    endpoint: Any,
    said: dict[str, Any],
    settings: dict[str, Any],
    expires_at: float | None,
) -> None:
    endpoint.answer({**said, "password": "p", "uris": ["turn:h"]})

    resolution = await client.resolve(endpoint.link, **settings)

    assert resolution.credentials.expires_at == expires_at


async def test_credentials_that_have_expired_are_refused(client: Any, endpoint: Any) -> None:
    endpoint.answer({"username": "1699999999:u", "password": "p", "uris": ["turn:h"]})

    error = await client.failing(endpoint.link)

    assert (error.code, error.provider_stage) == ("expired_credentials", "parse_answer")


async def test_each_resolution_asks_anew(client: Any, endpoint: Any) -> None:
    first = await client.resolve(endpoint.link)
    client.now += 600
    second = await client.resolve(endpoint.link)

    assert second.credentials.expires_at == first.credentials.expires_at + 600
    assert len(endpoint.seen) == 2


async def test_the_artifact_has_two_stages_and_nothing_that_was_not_understood(
    client: Any, endpoint: Any
) -> None:
    endpoint.answer(
        {
            "username": "planted-user",
            "password": "planted-turn-password",
            "ttl": 60,
            "uris": ["turn:a", "stun:b"],
            "planted-unknown-field": {"planted-unknown-field": "planted-unknown-field"},
        }
    )
    endpoint.headers = {"Set-Cookie": "planted-header=planted-header"}

    resolution = await client.resolve(
        endpoint.link, method="POST", api_key_header="X-Api-Key", **client.secrets
    )

    encoded = msgspec.json.encode(resolution.artifact)
    sent = ["link", "bearer_token", "api_key", "request_body"]
    assert json.loads(encoded) == {
        "provider": "http",
        "resolution_method": "turn_rest_api",
        "input": {"link_redacted": f"https://localhost:{endpoint.port}/<redacted:path>"},
        "stages": [
            {
                "name": "http_request",
                "endpoint_id": "http_request",
                "request": {"method": "POST", "form_keys": sent, "redacted_fields": sent},
                "response": {"status_code": 200},
                "outcome": {"kind": "continue"},
            },
            {
                "name": "parse_answer",
                "endpoint_id": "parse_answer",
                "request": {"method": "PARSE", "form_keys": ["body"], "redacted_fields": ["body"]},
                "response": {
                    "body": {
                        "username": "<redacted:turn-username>",
                        "password": "<redacted:turn-password>",
                        "ttl": 60.0,
                        "uris": ["turn:a:3478?transport=udp"],
                        "ignored": 1,
                    }
                },
                "outcome": {
                    "kind": "resolution",
                    "extracted": {
                        "username": "<redacted:turn-username>",
                        "password": "<redacted:turn-password>",
                        "normalized_address": "a:3478",
                    },
                },
            },
        ],
        "outcome": {
            "result_kind": "resolution",
            "resolution": {
                "username_redacted": "<redacted:turn-username>",
                "password_redacted": "<redacted:turn-password>",
                "address": "a:3478",
            },
        },
    }
    assert find_leaks(encoded + repr(resolution).encode(), client.planted) == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "http_status"),
        (401, "http_unauthorized"),
        (403, "http_unauthorized"),
        (404, "http_not_found"),
        (405, "http_method_refused"),
        (410, "http_not_found"),
        (418, "http_status"),
        (429, "rate_limited"),
        (500, "http_server_error"),
        (503, "http_server_error"),
        (599, "http_server_error"),
        (302, "redirect_refused"),
    ],
)
async def test_a_status_that_is_no_success_is_told_by_name(
    client: Any, endpoint: Any, status: int, code: str
) -> None:
    endpoint.status = status
    endpoint.body = json.dumps({"error": client.planted}).encode()

    error = await client.failing(
        endpoint.link, method="POST", api_key_header="X-Api-Key", **client.secrets
    )

    assert (error.code, error.provider_stage) == (code, "http_request")
    assert str(status) in error.message
    assert error.artifact is not None
    assert error.artifact.stages[-1].response.status_code == status


@pytest.mark.parametrize(
    ("status", "told", "seconds"),
    [
        (429, "120", "120"),
        (429, "Tue, 14 Nov 2023 22:14:20 GMT", "59"),
        (429, "Tue, 14 Nov 2023 22:00:00 GMT", "0"),
        (429, "9" * 40, str(30 * 86400)),
        (503, "7", "7"),
    ],
)
async def test_how_long_an_endpoint_wants_to_be_left_alone_is_told(
    client: Any, endpoint: Any, status: int, told: str, seconds: str
) -> None:
    endpoint.status, endpoint.headers = status, {"Retry-After": told}

    error = await client.failing(endpoint.link)

    assert f"try again in {seconds} s" in error.advice
    assert error.artifact is not None
    assert error.artifact.stages[-1].outcome.extracted == {"retry_after": seconds}


@pytest.mark.parametrize("told", ["planted-header", "-1", "1.5", "٣", "Tue, 99 Nov", "x" * 99])
async def test_a_retry_after_that_cannot_be_read_is_left_out(
    client: Any, endpoint: Any, told: str
) -> None:
    endpoint.status = 429
    endpoint.headers = {"Retry-After": told.encode().decode("latin-1")}

    error = await client.failing(endpoint.link)

    assert "try again later" in error.advice


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["same host", "other port", "no TLS"])
async def test_no_redirect_is_followed(
    client: Any, endpoint: Any, plain_endpoint: Any, status: int, where: str
) -> None:
    target = {
        "same host": "/planted-header",
        "other port": "https://localhost:1/planted-header",
        "no TLS": plain_endpoint.link,
    }[where]
    endpoint.status, endpoint.headers = status, {"Location": target}

    error = await client.failing(endpoint.link, bearer_token="planted-bearer")

    assert error.code == "redirect_refused"
    assert "final URL" in error.advice
    assert len(endpoint.seen) == 1
    assert plain_endpoint.seen == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<html>planted-unknown-field</html>", "decode_response"),
        (b"planted-unknown-field", "decode_response"),
        (b"", "decode_response"),
        (b'{"error": "planted-unknown-field"}', "invalid_answer"),
        (b'{"uris": ["turn:h"]}', "missing_credentials"),
        (b'{"uris": ["stun:h"], "username": "planted-user", "password": "p"}', "no_relay"),
        (b'{"uris": ["turn:planted-unknown-field:x"]}', "invalid_turn_uri"),
    ],
)
async def test_an_answer_of_no_use_is_told_by_name(
    client: Any, endpoint: Any, body: bytes, code: str
) -> None:
    endpoint.body = body

    error = await client.failing(endpoint.link)

    assert (error.code, error.provider_stage) == (code, "parse_answer")
    assert error.artifact is not None
    assert [stage.name for stage in error.artifact.stages] == ["http_request", "parse_answer"]


async def test_an_answer_without_content_is_told_as_that(client: Any, endpoint: Any) -> None:
    endpoint.status, endpoint.body = 204, b""

    assert (await client.failing(endpoint.link)).code == "decode_response"


async def test_a_malformed_link_fails_with_an_artifact_that_shows_none_of_it(client: Any) -> None:
    error = await client.failing("http://planted-path.example/planted-query")

    assert isinstance(error, LinkError)
    assert error.code == "plain_http"
    assert error.artifact is not None
    assert error.artifact.input == {"link_redacted": "<redacted:link>"}
    assert [stage.name for stage in error.artifact.stages] == ["parse_link"]


async def test_settings_that_do_not_go_together_are_told_before_anything_is_sent(
    client: Any, endpoint: Any
) -> None:
    with pytest.raises(SettingsError) as caught:
        await client.resolve(
            endpoint.link, bearer_token="planted bearer", user="planted-basic-user"
        )

    assert [(each.field, each.code) for each in caught.value.violations] == [
        ("bearer_token", "pattern"),
        ("password", "required"),
        ("user", "unknown"),
    ]
    assert find_leaks(f"{caught.value} {caught.value!r}", ["planted bearer", *client.planted]) == []
    assert endpoint.seen == []


def test_the_plugin_offers_the_provider_with_links_that_can_be_read() -> None:
    from turnlane.api import Secret

    (descriptor,) = plugin.turnlane_providers()

    assert descriptor.id == "http"
    assert descriptor.capabilities.renewable
    assert [parse_link(Secret(link)).scheme for link in descriptor.example_links] == ["https"] * 3
