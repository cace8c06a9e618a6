"""TURN URIs (RFC 7065)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import RelayEndpoint, RelayTransport
from turnlane_http.errors import AnswerError
from turnlane_http.turn_uri import MAX_URI, format_turn_uri, parse_turn_uri_untrusted


@pytest.mark.parametrize(
    ("uri", "host", "port", "transport"),
    [
        ("turn:example.org", "example.org", 3478, "udp"),
        ("turns:example.org", "example.org", 5349, "tls"),
        ("turn:example.org:8000", "example.org", 8000, "udp"),
        ("turn:example.org?transport=udp", "example.org", 3478, "udp"),
        ("turn:example.org?transport=tcp", "example.org", 3478, "tcp"),
        ("turns:example.org?transport=tcp", "example.org", 5349, "tls"),
        ("turns:example.org:443?transport=TCP", "example.org", 443, "tls"),
        ("TURN:192.0.2.7:1", "192.0.2.7", 1, "udp"),
        ("turn:[2001:DB8:0::1]:65535?transport=tcp", "2001:db8::1", 65535, "tcp"),
    ],
)
def test_a_turn_uri_says_where_a_relay_is(uri: str, host: str, port: int, transport: str) -> None:
    assert parse_turn_uri_untrusted(uri) == RelayEndpoint(host, port, RelayTransport(transport))


@pytest.mark.parametrize(
    "uri",
    [
        "stun:example.org",
        "stuns:example.org:x",
        "https://example.org",
        "example.org",
        "",
        "turn",
        "turns:example.org?transport=udp",
        "turn:example.org?transport=sctp",
    ],
)
def test_a_uri_of_no_use_is_left_out(uri: str) -> None:
    assert parse_turn_uri_untrusted(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "turn:",
        "turn://example.org",
        "turn:user:password@example.org",
        "turn:example.org:",
        "turn:example.org:0",
        "turn:example.org:65536",
        "turn:example.org:٣",
        "turn:2001:db8::1",
        "turn:[2001:db8::1",
        "turn:[2001:db8::1]1",
        "turn:[fe80::1%eth0]",
        "turn:999.1.1.1",
        "turn:exa mple.org",
        "turn:example.org?",
        "turn:example.org?transport=",
        "turn:example.org?transport=udp&x=1",
        "turn:example.org?x=udp",
        "turns:?transport=udp",
        "turn:example.org/path",
        "turn:" + "a." * (MAX_URI // 2) + "b",
    ],
)
def test_a_malformed_turn_uri_is_refused(uri: str) -> None:
    with pytest.raises(AnswerError) as caught:
        parse_turn_uri_untrusted(uri)

    assert caught.value.code == "invalid_turn_uri"
    assert caught.value.__context__ is None


@given(
    st.sampled_from(["", "turn:", "turns:", "stun:"]),
    st.text(max_size=30) | st.text(st.sampled_from("a1.:[]?=%transport"), max_size=30),
)
def test_any_text_is_an_endpoint_nothing_or_an_answer_error(scheme: str, text: str) -> None:
    try:
        endpoint = parse_turn_uri_untrusted(scheme + text)
    except AnswerError:
        return

    if endpoint is not None:
        assert endpoint.host
        assert 1 <= endpoint.port <= 65535
        assert endpoint.server_name is None


@given(
    host=st.sampled_from(["example.org", "192.0.2.7", "2001:db8::1"]),
    port=st.integers(1, 65535),
    transport=st.sampled_from(RelayTransport),
)
def test_an_endpoint_survives_the_way_through_a_uri(
    host: str, port: int, transport: RelayTransport
) -> None:
    endpoint = RelayEndpoint(host, port, transport)

    assert parse_turn_uri_untrusted(format_turn_uri(endpoint)) == endpoint
