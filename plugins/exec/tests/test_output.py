"""The answer: what is taken, every field that is refused, and that no refusal repeats a value."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import (
    Credentials,
    LinkError,
    ProviderError,
    RelayEndpoint,
    RelayTransport,
    Secret,
    Stage,
    is_host,
)
from turnlane.telemetry.redaction import find_leaks
from turnlane_exec.output import MAX_ENDPOINTS, MAX_TTL, parse_output_untrusted
from turnlane_exec.violations import ViolationsError

NOW = 1_700_000_000.75
UDP, TCP, TLS = RelayTransport.UDP, RelayTransport.TCP, RelayTransport.TLS

GOOD: dict[str, Any] = {
    "endpoints": [{"host": "turn.example"}],
    "username": "alice",
    "password": "pass word",
}
ENDPOINT = {"host": "turn.example", "port": 3478, "transport": "udp"}
MANY = [{"host": "turn.example"}] * (MAX_ENDPOINTS + 1)


def parsed(document: object) -> Credentials:
    return parse_output_untrusted(json.dumps(document).encode(), NOW)


def refused(data: bytes) -> ViolationsError:
    with pytest.raises(ViolationsError) as caught:
        parse_output_untrusted(data, NOW)
    error = caught.value
    assert (error.code, error.provider_stage) == ("invalid_output", "parse_output")
    assert error.stage is Stage.PROVIDER_RESOLVE
    assert error.advice
    assert not isinstance(error, LinkError)
    return error


def violations(document: object) -> list[tuple[str, str]]:
    error = refused(json.dumps(document).encode())
    return [(each.field, each.code) for each in error.violations]


def test_an_answer_gives_endpoints_user_name_and_password() -> None:
    endpoints = [
        {"host": "turn.example", "port": 3479, "transport": "tcp"},
        {"host": "2001:db8::1"},
        {"host": "10.0.0.1", "transport": "tls", "server_name": "turn.example"},
        {"host": "turn.example.", "port": 65535, "transport": "udp"},
    ]

    credentials = parsed({**GOOD, "endpoints": endpoints})

    assert credentials == Credentials(
        (
            RelayEndpoint("turn.example", 3479, TCP),
            RelayEndpoint("2001:db8::1", 3478, UDP),
            RelayEndpoint("10.0.0.1", 5349, TLS, "turn.example"),
            RelayEndpoint("turn.example.", 65535, UDP),
        ),
        Secret("alice"),
        Secret("pass word"),
        None,
    )


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("turn:h", RelayEndpoint("h", 3478, UDP)),
        ("turn:h:80", RelayEndpoint("h", 80, UDP)),
        ("turn:h:80?transport=udp", RelayEndpoint("h", 80, UDP)),
        ("turn:h?transport=tcp", RelayEndpoint("h", 3478, TCP)),
        ("TURN:h?transport=TCP", RelayEndpoint("h", 3478, TCP)),
        ("turns:h", RelayEndpoint("h", 5349, TLS)),
        ("turns:h:443?transport=tcp", RelayEndpoint("h", 443, TLS)),
        ("turn:192.0.2.7:3478", RelayEndpoint("192.0.2.7", 3478, UDP)),
        ("turns:[2001:db8::1]", RelayEndpoint("2001:db8::1", 5349, TLS)),
        ("turn:[2001:db8::1]:80?transport=tcp", RelayEndpoint("2001:db8::1", 80, TCP)),
    ],
)
def test_a_url_gives_an_endpoint(url: str, endpoint: RelayEndpoint) -> None:
    answer = {"urls": [url], "username": "alice", "credential": "north"}

    credentials = parsed(answer)

    assert credentials.endpoints == (endpoint,)
    assert credentials.password.reveal() == "north"


def test_urls_keep_their_order_and_those_of_stun_servers_are_passed_over() -> None:
    urls = ["stun:a:3478", "turn:b", "STUNS:c", "turns:d"]

    credentials = parsed({"urls": urls, "username": "alice", "password": "north"})

    assert [endpoint.host for endpoint in credentials.endpoints] == ["b", "d"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "turn:",
        "turn",
        "h:3478",
        "https://h",
        "turn://h",
        "turn:u:p@h",
        "turn:h/",
        "turn:h:",
        "turn:h:x",
        "turn:h:٣",
        "turn:h:123456",
        "turn:h#x",
        "turn:h?",
        "turn:h?transport",
        "turn:h?transport=",
        "turn:h?transport=udp&x=1",
        "turn:h?x=1",
        "turn:2001:db8::1",
        "turn:[2001:db8::1",
        "turn:[fe80::1%25eth0]",
        "turn:[turn.example]",
        "turn:[192.0.2.7]",
        "turn:[]",
        "turn:999.1.1.1",
        "turn:-h",
        "turn:h ",
        " turn:h",
        "turn:h\n",
        "turnſ:h",
    ],
)
def test_a_malformed_url_is_refused(url: str) -> None:
    assert violations({"urls": ["turn:h", url], "username": "a", "password": "b"}) == [
        ("urls[1]", "pattern")
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("turn:h:0", ("urls[0].port", "range")),
        ("turn:h:65536", ("urls[0].port", "range")),
        ("turn:h?transport=tls", ("urls[0].transport", "enum")),
        ("turns:h?transport=udp", ("urls[0].transport", "enum")),
        (3, ("urls[0]", "type")),
        ("stun:h", ("urls", "range")),
    ],
)
def test_a_part_of_a_url_that_is_wrong_is_named(url: object, expected: tuple[str, str]) -> None:
    assert violations({"urls": [url], "username": "a", "password": "b"}) == [expected]


@pytest.mark.parametrize(
    ("fields", "expires_at"),
    [
        ({}, None),
        ({"expires_at": 1_700_000_600}, 1_700_000_600),
        ({"expires_at": 1_700_000_600.5}, 1_700_000_600.5),
        ({"expires_at": 99_999_999_999}, 99_999_999_999),
        ({"ttl": 600}, NOW + 600),
        ({"ttl": 0.5}, NOW + 0.5),
        ({"ttl": MAX_TTL}, NOW + MAX_TTL),
    ],
)
def test_an_answer_says_when_it_expires(fields: dict[str, Any], expires_at: float | None) -> None:
    assert parsed({**GOOD, **fields}).expires_at == expires_at


@pytest.mark.parametrize("expires_at", [1, 1_700_000_000, NOW])
def test_an_answer_that_has_expired_is_refused(expires_at: float) -> None:
    with pytest.raises(ProviderError) as caught:
        parsed({**GOOD, "expires_at": expires_at})

    assert caught.value.code == "expired_credentials"
    assert caught.value.provider_stage == "parse_output"


REFUSED: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"endpoints": []}, [("endpoints", "range")]),
    ({"endpoints": MANY}, [("endpoints", "range")]),
    ({"endpoints": {}}, [("endpoints", "type")]),
    ({"endpoints": None}, [("endpoints", "type")]),
    ({"endpoints": ["turn:h"]}, [("endpoints[0]", "type")]),
    ({"endpoints": [{}]}, [("endpoints[0].host", "required")]),
    ({"endpoints": [ENDPOINT, {"host": 1}]}, [("endpoints[1].host", "type")]),
    ({"endpoints": [{"host": ""}]}, [("endpoints[0].host", "pattern")]),
    ({"endpoints": [{"host": "[::1]"}]}, [("endpoints[0].host", "pattern")]),
    ({"endpoints": [{"host": "h:80"}]}, [("endpoints[0].host", "pattern")]),
    ({"endpoints": [{"host": "a b"}]}, [("endpoints[0].host", "pattern")]),
    ({"endpoints": [{"host": "h\n"}]}, [("endpoints[0].host", "pattern")]),
    ({"endpoints": [{"host": "h", "port": "80"}]}, [("endpoints[0].port", "type")]),
    ({"endpoints": [{"host": "h", "port": 80.0}]}, [("endpoints[0].port", "type")]),
    ({"endpoints": [{"host": "h", "port": True}]}, [("endpoints[0].port", "type")]),
    ({"endpoints": [{"host": "h", "port": None}]}, [("endpoints[0].port", "type")]),
    ({"endpoints": [{"host": "h", "port": 0}]}, [("endpoints[0].port", "range")]),
    ({"endpoints": [{"host": "h", "port": 65536}]}, [("endpoints[0].port", "range")]),
    ({"endpoints": [{"host": "h", "transport": 1}]}, [("endpoints[0].transport", "type")]),
    ({"endpoints": [{"host": "h", "transport": "UDP"}]}, [("endpoints[0].transport", "enum")]),
    (
        {"endpoints": [{"host": "h", "server_name": "h"}]},
        [("endpoints[0].server_name", "pattern")],
    ),
    (
        {"endpoints": [{"host": "h", "transport": "tls", "server_name": "*"}]},
        [("endpoints[0].server_name", "pattern")],
    ),
    (
        {"endpoints": [{"host": "h", "transport": "tls", "server_name": None}]},
        [("endpoints[0].server_name", "type")],
    ),
    ({"endpoints": [{"host": "h", "tls": True}]}, [("endpoints[0].<field 2>", "unknown")]),
    ({"urls": ["turn:h"]}, [("urls", "unknown")]),
    ({"username": ""}, [("username", "range")]),
    ({"username": "u" * 509}, [("username", "range")]),
    ({"username": "é" * 255}, [("username", "range")]),
    ({"username": "a\nb"}, [("username", "pattern")]),
    ({"username": "a\x85b"}, [("username", "pattern")]),
    ({"username": "a\ud800b"}, [("username", "pattern")]),
    ({"username": None}, [("username", "type")]),
    ({"password": ""}, [("password", "range")]),
    ({"password": "p" * 4097}, [("password", "range")]),
    ({"password": "p\0"}, [("password", "pattern")]),
    ({"password": 12345678}, [("password", "type")]),
    ({"credential": "x"}, [("credential", "unknown")]),
    ({"expires_at": "2030-01-01T00:00:00Z"}, [("expires_at", "type")]),
    ({"expires_at": None}, [("expires_at", "type")]),
    ({"expires_at": True}, [("expires_at", "type")]),
    ({"expires_at": 0}, [("expires_at", "range")]),
    ({"expires_at": -1}, [("expires_at", "range")]),
    ({"expires_at": 1_700_000_000_000}, [("expires_at", "range")]),
    ({"expires_at": float("nan")}, [("expires_at", "range")]),
    ({"expires_at": float("inf")}, [("expires_at", "range")]),
    ({"ttl": 0}, [("ttl", "range")]),
    ({"ttl": -60}, [("ttl", "range")]),
    ({"ttl": MAX_TTL + 1}, [("ttl", "range")]),
    ({"ttl": float("nan")}, [("ttl", "range")]),
    ({"ttl": "60"}, [("ttl", "type")]),
    ({"ttl": 60, "expires_at": 1_700_000_600}, [("ttl", "unknown")]),
    ({"realm": "x"}, [("<field 4>", "unknown")]),
]


@pytest.mark.parametrize(("fields", "expected"), REFUSED, ids=range(len(REFUSED)))
def test_a_field_that_is_wrong_is_named(
    fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert violations({**GOOD, **fields}) == expected


def test_the_longest_user_name_that_turn_can_carry_is_taken() -> None:
    assert parsed({**GOOD, "username": "u" * 508}).username.reveal() == "u" * 508
    assert len(parsed({**GOOD, "endpoints": MANY[1:]}).endpoints) == MAX_ENDPOINTS


def test_all_violations_are_told_at_once() -> None:
    document = {
        "endpoints": [{"port": 0}, {"host": "planted host", "transport": "planted"}],
        "planted_key": 1,
        "credential": 7,
        "ttl": "planted-ttl",
    }

    assert violations(document) == [
        ("<field 2>", "unknown"),
        ("credential", "type"),
        ("endpoints[0].host", "required"),
        ("endpoints[0].port", "range"),
        ("endpoints[1].host", "pattern"),
        ("endpoints[1].transport", "enum"),
        ("ttl", "type"),
        ("username", "required"),
    ]
    told = str(refused(json.dumps(document).encode()))
    assert "credential: expected text (type)" in told
    assert "endpoints[1].transport: one of udp, tcp, tls (enum)" in told
    assert "planted" not in told


def test_an_empty_object_is_told_what_it_lacks() -> None:
    assert violations({}) == [
        ("endpoints", "required"),
        ("password", "required"),
        ("username", "required"),
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the command printed no JSON"),
        (b" \n", "the command printed no JSON"),
        (b"planted-secret", "it is not JSON, at line 1, column 1"),
        (b'{"password": "planted-secret"', "it is not JSON, at line 1, column 30"),
        (b'{}\n{"password": "planted-secret"}', "it is not JSON, at line 2, column 1"),
        (b'\xef\xbb\xbf{"password": "planted-secret"}', "it is not JSON, at line 1, column 1"),
        (b'"planted-secret"', "expected an object"),
        (b'["planted-secret"]', "expected an object"),
        (b"null", "expected an object"),
        (b'"planted-secret\xff"', "it is not UTF-8 text"),
        ('{"a": "planted-secret"}'.encode("utf-16"), "it is not UTF-8 text"),
        (b'{"ttl": ' + b"9" * 5000 + b"}", "it holds a number with too many digits"),
        (b"[" * 60_000, "it is nested too deeply"),
    ],
    ids=range(13),
)
def test_what_is_not_a_json_object_is_told_without_what_it_is(data: bytes, told: str) -> None:
    error = refused(data)

    assert [each.field for each in error.violations] == ["document"]
    assert told in error.message
    shown = f"{error} {error!r} {error.__cause__!r} {error.__context__!r} {error.__context__}"
    assert find_leaks(shown, ["planted-secret"]) == []


def test_a_field_that_is_there_twice_is_refused() -> None:
    data = (
        b'{"endpoints": [{"host": "a", "host": "b"}], "username": "u", "password": "p", '
        b'"password": "q"}'
    )

    error = refused(data)

    assert [(each.field, each.code) for each in error.violations] == [
        ("endpoints[0].host", "unknown"),
        ("password", "unknown"),
    ]


def test_credentials_do_not_print_their_secrets() -> None:
    credentials = parsed({**GOOD, "username": "planted-user", "password": "planted-password"})

    assert find_leaks(f"{credentials} {credentials!r}", ["planted-user", "planted-password"]) == []


TEXTS = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(
    ["turn:h", "turns:[::1]:443?transport=tcp", "stun:h", "h", "::1", "udp", "tls", "\ud800"]
)
NAMES = st.sampled_from([*GOOD, *ENDPOINT, "urls", "credential", "expires_at", "ttl"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=6),
    max_leaves=12,
)
ENDPOINTS = st.fixed_dictionaries(
    {"host": TEXTS}, optional={"port": st.integers(-1, 65537), "transport": TEXTS, "x": VALUES}
)
ANSWERS = st.fixed_dictionaries(
    {"username": TEXTS, "password": TEXTS},
    optional={
        "endpoints": st.lists(ENDPOINTS, max_size=3),
        "urls": st.lists(TEXTS, max_size=3),
        "ttl": st.floats() | st.integers(),
        "expires_at": st.floats() | st.integers(),
        "credential": VALUES,
    },
)


@given(
    st.binary(max_size=200)
    | st.one_of(VALUES, ANSWERS).map(lambda document: json.dumps(document).encode())
)
def test_any_output_is_credentials_or_a_provider_error(data: bytes) -> None:
    credentials: Credentials | None = None
    refusal: ProviderError | None = None
    try:
        credentials = parse_output_untrusted(data, NOW)
    except ProviderError as error:
        refusal = error

    if refusal is not None:
        assert refusal.code in {"invalid_output", "expired_credentials"}
        assert refusal.provider_stage == "parse_output"
    if credentials is not None:
        assert 1 <= len(credentials.endpoints) <= MAX_ENDPOINTS
        assert all(is_host(each.host) for each in credentials.endpoints)
        assert all(1 <= each.port <= 65535 for each in credentials.endpoints)
        assert 1 <= len(credentials.username.reveal().encode()) <= 508
        assert credentials.password.reveal().encode()
        assert credentials.expires_at is None or credentials.expires_at > NOW


HOSTS = st.sampled_from(["turn.example", "192.0.2.7", "2001:db8::1", "a_b.example."])


@given(
    st.lists(
        st.builds(
            RelayEndpoint,
            host=HOSTS,
            port=st.integers(1, 65535),
            transport=st.sampled_from(RelayTransport),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_endpoints_and_urls_say_the_same(endpoints: list[RelayEndpoint]) -> None:
    rest = {"username": "alice", "password": "north"}
    schemes = {UDP: "turn:{}?transport=udp", TCP: "turn:{}?transport=tcp", TLS: "turns:{}"}
    urls = [schemes[each.transport].format(each.address) for each in endpoints]
    objects = [
        {"host": each.host, "port": each.port, "transport": each.transport} for each in endpoints
    ]

    assert parsed({"urls": urls, **rest}).endpoints == tuple(endpoints)
    assert parsed({"endpoints": objects, **rest}).endpoints == tuple(endpoints)


SECRETS = st.text(st.sampled_from("ABCDEFGHJKMNPQRSTVWXYZ23456789+/=%&;\n"), min_size=8)


@given(
    secret=SECRETS,
    place=st.sampled_from(
        ["key", "urls", "host", "port", "ttl", "expires_at", "username", "password", "raw"]
    ),
)
def test_no_refusal_repeats_what_was_printed(secret: str, place: str) -> None:
    # The wrong field is always there: what is searched for is the secret beside or in it.
    document: dict[str, Any] = {**GOOD, "username": secret, "password": secret, "ttl": -1}
    if place == "key":
        document[secret] = secret
    elif place == "urls":
        document["urls"] = [secret, f"turn:{secret}"]
    elif place in ("host", "port"):
        document["endpoints"] = [{"host": "h", place: secret, secret: 1}]
    elif place != "raw":
        document[place] = secret
    data = secret.encode() if place == "raw" else json.dumps(document).encode()

    if place == "raw" and secret.strip().isdigit():
        return
    error = refused(data)

    hidden = f"{error.__cause__!r} {error.__context__!r} {error.__context__}"
    shown = f"{error} {error!r} {error.violations} {hidden}"
    assert find_leaks(shown, [secret]) == []
