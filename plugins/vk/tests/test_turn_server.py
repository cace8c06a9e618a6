"""`turn_server`: which relays are taken, and what is missing where there is none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import RelayEndpoint, RelayTransport, Secret
from turnlane_vk.errors import StageError
from turnlane_vk.turn_server import (
    MAX_URLS,
    TurnUrlError,
    expiry_untrusted,
    parse_turn_url_untrusted,
    read_turn_server_untrusted,
)

STAGE = "ok_join_conversation_by_link"


def answer(urls: Any, **others: Any) -> dict[str, Any]:
    return {"turn_server": {"username": "user", "credential": "word", "urls": urls, **others}}


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("turn:t.example:3478", RelayEndpoint("t.example", 3478)),
        ("turn:t.example:3478?transport=udp", RelayEndpoint("t.example", 3478)),
        (
            "turn:t.example:443?transport=tcp",
            RelayEndpoint("t.example", 443, RelayTransport.TCP),
        ),
        ("TURN:t.example:1?TRANSPORT=UDP", RelayEndpoint("t.example", 1)),
        (
            "turns:t.example:5349",
            RelayEndpoint("t.example", 5349, RelayTransport.TLS, "t.example"),
        ),
        (
            "turns:t.example:5349?transport=tcp",
            RelayEndpoint("t.example", 5349, RelayTransport.TLS, "t.example"),
        ),
        ("turn:[2001:db8::1]:3478", RelayEndpoint("2001:db8::1", 3478)),
    ],
)
def test_a_url_is_a_whole_endpoint(url: str, endpoint: RelayEndpoint) -> None:
    assert parse_turn_url_untrusted(url).endpoint == endpoint


@pytest.mark.parametrize(
    "url", ["stun:t.example:3478", "turns:t.example:1?transport=udp", "turn:h:1?transport=sctp"]
)
def test_what_is_well_formed_and_of_no_use_is_no_endpoint(url: str) -> None:
    assert parse_turn_url_untrusted(url).endpoint is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "turn:",
        "turn:t.example",
        "turn:t.example:0",
        "turn:t.example:65536",
        "turn:t.example:port",
        "turn://t.example:3478",
        "turn:user@t.example:3478",
        "turn:t.example:3478?transport=",
        "turn:t.example:3478?protocol=udp",
        "turn:t.example:3478?transport=udp&a=b",
        "https://t.example:3478",
        "t.example:3478",
        None,
        5,
        ["turn:t.example:3478"],
    ],
)
def test_a_malformed_url_is_refused_and_fails_the_stage(url: object) -> None:
    with pytest.raises(TurnUrlError):
        parse_turn_url_untrusted(url)
    with pytest.raises(StageError) as caught:
        read_turn_server_untrusted(answer(["turn:t.example:3478", url]), STAGE)
    assert (caught.value.code, caught.value.provider_stage) == ("invalid_turn_url", STAGE)


def test_all_usable_urls_are_kept_in_their_order_and_once() -> None:
    urls = [
        "stun:t.example:3478",
        "turn:b.example:3478?transport=tcp",
        "turn:a.example:3478",
        "turn:a.example:3478?transport=udp",
        "turns:a.example:443",
    ]
    endpoints = read_turn_server_untrusted(answer(urls), STAGE).endpoints
    assert [(each.address, each.transport) for each in endpoints] == [
        ("b.example:3478", "tcp"),
        ("a.example:3478", "udp"),
        ("a.example:443", "tls"),
    ]


def test_the_number_of_urls_is_bounded() -> None:
    urls = [f"turn:t.example:{port}" for port in range(1, 1000)]
    assert len(read_turn_server_untrusted(answer(urls), STAGE).endpoints) == MAX_URLS


GOOD = ["turn:t.example:3478"]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "missing_turn_username"),
        ({"turn_server": None}, "missing_turn_username"),
        ({"turn_server": [1]}, "missing_turn_username"),
        (answer(GOOD, username=None), "missing_turn_username"),
        (answer(GOOD, username=""), "missing_turn_username"),
        (answer(GOOD, username=7), "missing_turn_username"),
        (answer(GOOD, username="a\r\nb"), "missing_turn_username"),
        (answer(GOOD, username="x" * 509), "missing_turn_username"),
        (answer(GOOD, credential=None), "missing_turn_credential"),
        (answer(GOOD, credential="\ud800"), "missing_turn_credential"),
        (answer(None), "missing_turn_url"),
        (answer([]), "missing_turn_url"),
        (answer(["stun:t.example:3478"]), "missing_turn_url"),
        (answer({}), "invalid_turn_url"),
    ],
)
def test_what_is_missing_is_named(document: dict[str, Any], code: str) -> None:
    with pytest.raises(StageError) as caught:
        read_turn_server_untrusted(document, STAGE)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("username", "expires_at"),
    [
        ("1700003600:someone", 1_700_003_600.0),
        ("1700003600:", 1_700_003_600.0),
        ("1700003600", None),
        ("someone", None),
        ("1234:someone", None),
        ("9999999999:someone", None),
        ("17000036000:someone", None),
        ("someone:1700003600", None),
    ],
)
def test_the_expiry_is_that_of_a_turn_rest_user_name(
    username: str, expires_at: float | None
) -> None:
    assert expiry_untrusted(Secret(username)) == expires_at
    server = read_turn_server_untrusted(answer(GOOD, username=username), STAGE)
    assert server.credentials.expires_at == expires_at


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)


@given(st.fixed_dictionaries({"turn_server": JSON}) | JSON.map(answer))
def test_whatever_stands_there_is_relays_or_a_refusal(document: dict[str, Any]) -> None:
    try:
        server = read_turn_server_untrusted(document, STAGE)
    except StageError:
        return
    assert server.endpoints
