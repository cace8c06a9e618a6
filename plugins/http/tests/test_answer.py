"""Answers: each format, what is refused, and any bytes at all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import RelayEndpoint, RelayTransport, Secret
from turnlane.telemetry.redaction import find_leaks
from turnlane_http.answer import (
    ICE_SERVERS,
    MAX_ENDPOINTS,
    TURN_REST,
    Answer,
    expiry_of,
    parse_answer_untrusted,
)
from turnlane_http.errors import AnswerError

NOW = 1_700_000_000.75
DAY = 86400


def parsed(document: object) -> Answer:
    return parse_answer_untrusted(json.dumps(document).encode())


def refused(document: object) -> AnswerError:
    with pytest.raises(AnswerError) as caught:
        parsed(document)
    return caught.value


def test_an_answer_of_the_turn_rest_api_is_read() -> None:
    # The example of draft-uberti-behave-turn-rest-00, section 2.2.
    answer = parsed(
        {
            "username": "12334939:mbzrxpgjys",
            "password": "adfsaflsjfldssia",
            "ttl": 86400,
            "uris": [
                "turn:1.2.3.4:9991?transport=udp",
                "turn:1.2.3.4:9992?transport=tcp",
                "turns:1.2.3.4:443?transport=tcp",
            ],
        }
    )

    assert answer == Answer(
        TURN_REST,
        (
            RelayEndpoint("1.2.3.4", 9991, RelayTransport.UDP),
            RelayEndpoint("1.2.3.4", 9992, RelayTransport.TCP),
            RelayEndpoint("1.2.3.4", 443, RelayTransport.TLS),
        ),
        Secret("12334939:mbzrxpgjys"),
        Secret("adfsaflsjfldssia"),
        86400.0,
        0,
    )


def test_an_answer_like_cloudflares_is_read() -> None:
    answer = parsed(
        {
            "iceServers": {
                "urls": [
                    "stun:stun.cloudflare.com:3478",
                    "turn:turn.cloudflare.com:3478?transport=udp",
                    "turn:turn.cloudflare.com:3478?transport=tcp",
                    "turns:turn.cloudflare.com:5349?transport=tcp",
                ],
                "username": "bc91b63e2b5d759f",
                "credential": "ebd71f1d3edbc2b0",
            }
        }
    )

    assert [endpoint.address for endpoint in answer.endpoints] == [
        "turn.cloudflare.com:3478",
        "turn.cloudflare.com:3478",
        "turn.cloudflare.com:5349",
    ]
    assert [endpoint.transport for endpoint in answer.endpoints] == list(RelayTransport)
    assert (answer.format, answer.lifetime, answer.ignored) == (ICE_SERVERS, None, 1)
    assert answer.username.reveal().startswith("bc91b63e")
    assert answer.password.reveal().startswith("ebd71f1d")


def test_an_answer_like_twilios_is_read() -> None:
    user, password = "dc2d2894", "tE2DajzSJwnsSbc123"
    answer = parsed(
        {
            "account_sid": "ACxxxx",
            "username": user,
            "password": password,
            "ttl": "86400",
            "ice_servers": [
                {"url": "stun:global.stun.twilio.com:3478", "urls": "stun:global.stun.twilio.com"},
                {
                    "url": "turn:ignored.example",
                    "urls": "turn:global.turn.twilio.com:3478?transport=udp",
                    "username": user,
                    "credential": password,
                },
                {
                    "url": "turn:global.turn.twilio.com:443?transport=tcp",
                    "username": user,
                    "credential": password,
                },
            ],
        }
    )

    assert answer.endpoints == (
        RelayEndpoint("global.turn.twilio.com", 3478),
        RelayEndpoint("global.turn.twilio.com", 443, RelayTransport.TCP),
    )
    assert answer.lifetime == 86400.0
    assert (answer.username.reveal(), answer.password.reveal()) == (user, password)


SERVER = {"urls": ["turn:h"], "username": "u", "credential": "p"}


def server(**fields: Any) -> dict[str, Any]:
    return {**SERVER, **fields}


@pytest.mark.parametrize(
    "document", [[SERVER], {"iceServers": [SERVER]}, {"ice_servers": SERVER, "uris": 3}]
)
def test_servers_stand_alone_or_in_a_list(document: object) -> None:
    assert parsed(document).endpoints == (RelayEndpoint("h", 3478),)


def test_a_byte_order_mark_is_no_hindrance() -> None:
    assert parse_answer_untrusted(b"\xef\xbb\xbf" + json.dumps([SERVER]).encode()).endpoints


def test_servers_with_other_credentials_than_the_first_are_left_out_and_counted() -> None:
    answer = parsed(
        [
            server(urls="turn:a"),
            server(urls="turn:b", username="other"),
            server(urls="turn:c", credential="other"),
            server(urls=["turn:d", "turn:a"]),
        ]
    )

    assert [endpoint.host for endpoint in answer.endpoints] == ["a", "d"]
    assert answer.ignored == 3


def test_servers_without_password_credentials_are_left_out() -> None:
    oauth = {"accessToken": "x", "macKey": "y"}

    answer = parsed(
        [
            server(urls="turn:a", credential=oauth, credentialType="oauth"),
            {"urls": "turn:b"},
            server(urls="turn:c", credentialType="password"),
        ]
    )

    assert [endpoint.host for endpoint in answer.endpoints] == ["c"]
    assert answer.ignored == 2


def test_the_first_endpoints_are_taken_of_too_many() -> None:
    answer = parsed([server(urls=[f"turn:h{number}" for number in range(40)])])

    assert len(answer.endpoints) == MAX_ENDPOINTS
    assert answer.endpoints[-1].host == "h31"
    assert answer.ignored == 8


REST = {"username": "u", "password": "p", "uris": ["turn:h"]}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "invalid_answer"),
        (None, "invalid_answer"),
        ("turn:h", "invalid_answer"),
        ({"error": "planted-secret"}, "invalid_answer"),
        ({"iceServers": None}, "invalid_answer"),
        ({"iceServers": "turn:planted-secret"}, "invalid_answer"),
        ([[SERVER]], "invalid_answer"),
        ([server(urls={"planted-secret": 1})], "invalid_answer"),
        ([server(urls=[3])], "invalid_answer"),
        ([server(username=3)], "invalid_answer"),
        ([server(username="")], "invalid_answer"),
        ([server(username="u" * 509)], "invalid_answer"),
        ([server(credential=["planted-secret"])], "invalid_answer"),
        ([server(credential="planted-secret\n")], "invalid_answer"),
        ([server(credential="p" * 4097)], "invalid_answer"),
        ({**REST, "ttl": "planted-secret"}, "invalid_answer"),
        ({**REST, "ttl": True}, "invalid_answer"),
        ({**REST, "ttl": 0}, "invalid_answer"),
        ({**REST, "ttl": -1}, "invalid_answer"),
        ({**REST, "ttl": 10**18}, "invalid_answer"),
        ({**REST, "ttl": [3600]}, "invalid_answer"),
        ([], "no_relay"),
        ([{}], "no_relay"),
        ([server(urls=[])], "no_relay"),
        ([server(urls="stun:h")], "no_relay"),
        ([server(credentialType="oauth")], "no_relay"),
        ({**REST, "uris": ["turns:h?transport=udp"]}, "no_relay"),
        ([{"urls": "turn:h"}], "missing_credentials"),
        ([server(credential=None)], "missing_credentials"),
        ({"uris": ["turn:h"], "username": "u", "credential": "p"}, "missing_credentials"),
        ([server(urls="turn:")], "invalid_turn_uri"),
        ([server(urls="turn:planted-secret:x")], "invalid_turn_uri"),
    ],
)
def test_an_answer_of_no_use_is_refused_by_name_without_repeating_it(
    document: object, code: str
) -> None:
    error = refused(document)

    assert error.code == code
    assert error.provider_stage == "parse_answer"
    assert error.message
    assert error.advice
    told = f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"
    assert find_leaks(told, ["planted-secret"]) == []


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"<!DOCTYPE html><p>planted-secret", "HTML"),
        (b"\xef\xbb\xbf\n<html>", "HTML"),
        (b"planted-secret", "not JSON"),
        (b"\xff\xfeplanted-secret", "not JSON"),
        (b'{"a": "planted-secret\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b'{"ttl": 1e999}', "not JSON"),
        (b'{"uris": NaN}', "not JSON"),
        (b'["\\ud800", "planted-secret"]', "not JSON"),
    ],
    ids=range(12),
)
def test_what_is_not_json_is_told_as_that(body: bytes, word: str) -> None:
    with pytest.raises(AnswerError) as caught:
        parse_answer_untrusted(body)

    error = caught.value
    assert error.code == "decode_response"
    assert word in error.message
    told = f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"
    assert find_leaks(told, ["planted-secret"]) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
URIS = st.sampled_from(["turn:a", "turns:b:1", "stun:c", "turn:", "x", "turn:d?transport=q"])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "urls": st.lists(URIS, max_size=4) | URIS | JSON,
    "uris": st.lists(URIS, max_size=4) | JSON,
    "username": st.text(max_size=9) | JSON,
    "credential": st.text(max_size=9) | JSON,
    "password": st.text(max_size=9) | JSON,
    "ttl": st.integers() | st.floats() | st.text(st.sampled_from("0123456789.-e")) | JSON,
    "credentialType": st.sampled_from(["password", "oauth"]) | JSON,
}
SERVERS = st.fixed_dictionaries({}, optional=FIELDS)
ANSWERS = st.one_of(
    JSON,
    SERVERS,
    st.lists(SERVERS | JSON, max_size=4),
    st.fixed_dictionaries({"iceServers": SERVERS | st.lists(SERVERS, max_size=4)}, optional=FIELDS),
    st.fixed_dictionaries({"ice_servers": SERVERS | JSON}, optional=FIELDS),
)


@given(st.one_of(st.binary(max_size=200), ANSWERS.map(lambda each: json.dumps(each).encode())))
def test_any_bytes_are_an_answer_or_an_answer_error(body: bytes) -> None:
    try:
        answer = parse_answer_untrusted(body)
    except AnswerError:
        return

    assert 1 <= len(answer.endpoints) <= MAX_ENDPOINTS
    assert len(set(answer.endpoints)) == len(answer.endpoints)
    assert 1 <= len(answer.username.reveal().encode()) <= 508
    assert answer.password
    assert answer.lifetime is None or answer.lifetime > 0
    assert answer.ignored >= 0


@given(
    username=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=100),
    password=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=100),
    lifetime=st.integers(1, 366 * DAY),
    hosts=st.lists(st.sampled_from(["a.b", "192.0.2.1", "[2001:db8::1]"]), min_size=1, unique=True),
)
def test_what_an_endpoint_gives_arrives_whole_in_every_format(
    username: str, password: str, lifetime: int, hosts: list[str]
) -> None:
    uris = [f"turn:{host}" for host in hosts]
    ice = {"urls": uris, "username": username, "credential": password}
    rest = {"uris": uris, "username": username, "password": password}

    answers = [
        parsed({**rest, "ttl": lifetime}),
        parsed({"iceServers": ice, "ttl": lifetime}),
        parsed({"ice_servers": [ice], "ttl": str(lifetime)}),
    ]

    for answer in answers:
        assert answer.username.reveal() == username
        assert answer.password.reveal() == password
        assert answer.lifetime == lifetime
        assert [each.host for each in answer.endpoints] == [host.strip("[]") for host in hosts]


def test_an_answer_does_not_print_its_secrets() -> None:
    answer = parsed([server(username="planted-user", credential="planted-password")])

    assert find_leaks(f"{answer} {answer!r}", ["planted-user", "planted-password"]) == []


@pytest.mark.parametrize(
    ("username", "expiry"),
    [
        ("1700003600:alice", 1_700_003_600),
        ("1600000000:", 1_600_000_000),
        ("1262303999:before 2010", None),
        ("4102444800:2100", None),
        ("1700003600", 1_700_003_600),
        (str(1_700_000_000 - 30 * DAY), None),
        (str(1_700_000_000 + 366 * DAY + 1), None),
        ("42:alice", None),
        ("alice:1700003600", None),
        ("1700003600\n", None),
        ("١٧٠٠٠٠٣٦٠٠:alice", None),
        ("", None),
    ],
)
def test_a_user_name_says_its_expiry_only_where_it_is_plausible(
    username: str, expiry: int | None
) -> None:
    assert expiry_of(Secret(username), NOW) == expiry
