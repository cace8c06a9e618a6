"""`host[:port]`: what is taken, what is refused, and that nothing of it is repeated."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import AuthorityError, is_host, parse_authority


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("turn.example", "turn.example", None),
        ("turn.example.:3478", "turn.example.", 3478),
        ("a_1.b-2:1", "a_1.b-2", 1),
        ("192.0.2.7:65535", "192.0.2.7", 65535),
        ("[2001:DB8:0::1]", "2001:db8::1", None),
        ("[::1]:00443", "::1", 443),
        ("4.example", "4.example", None),
    ],
)
def test_host_and_port_are_taken_apart(text: str, host: str, port: int | None) -> None:
    assert parse_authority(text) == (host, port)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "missing_host"),
        (":3478", "missing_host"),
        ("::1", "missing_host"),
        ("2001:db8::1", "invalid_host"),
        ("a:1:2", "invalid_host"),
        ("[]", "invalid_host"),
        ("[::1", "invalid_host"),
        ("[::1]1", "invalid_host"),
        ("[turn.example]", "invalid_host"),
        ("[192.0.2.7]", "invalid_host"),
        ("[fe80::1%eth0]", "invalid_host"),
        ("-a", "invalid_host"),
        ("a-", "invalid_host"),
        ("a..b", "invalid_host"),
        (".", "invalid_host"),
        ("a b", "invalid_host"),
        ("user@a", "invalid_host"),
        ("a/b", "invalid_host"),
        ("a%2Eb", "invalid_host"),
        ("тест.example", "invalid_host"),
        ("999.1.1.1", "invalid_host"),
        ("1.2.3", "invalid_host"),
        ("192.0.2.7.", "invalid_host"),
        ("a" * 64, "invalid_host"),
        ("a.b" * 90, "invalid_host"),
        ("a:", "invalid_port"),
        ("a:0", "invalid_port"),
        ("a:65536", "invalid_port"),
        ("a:-1", "invalid_port"),
        ("a:1_0", "invalid_port"),
        ("a:٣", "invalid_port"),
        ("a:" + "9" * 5000, "invalid_port"),
        ("[::1]:x", "invalid_port"),
    ],
)
def test_what_is_malformed_is_refused_with_the_part_named(text: str, code: str) -> None:
    with pytest.raises(AuthorityError) as caught:
        parse_authority(text)
    assert caught.value.code == code
    assert isinstance(caught.value, ValueError)
    assert caught.value.__context__ is None


def test_a_host_is_a_name_or_an_address_without_brackets() -> None:
    assert all(map(is_host, ("a", "a.example.", "192.0.2.7", "::1", "2001:db8::1")))
    assert not any(map(is_host, ("", "[::1]", "fe80::1%eth0", "1.2.3", "a:1", "a/b", "é")))


LIKE_ONE = st.lists(
    st.sampled_from(["turn", "1", "192.0.2.7", "2001:db8::1", "[::1]", *":.[]-_%/@ é"]), max_size=8
).map("".join)


@given(st.one_of(LIKE_ONE, st.text(st.characters(codec=None), max_size=40)))
def test_any_text_is_an_authority_or_an_error(text: str) -> None:
    try:
        host, port = parse_authority(text)
    except AuthorityError:
        return
    assert is_host(host)
    assert port is None or 1 <= port <= 65535
    written = f"[{host}]" if ":" in host else host
    assert parse_authority(written if port is None else f"{written}:{port}") == (host, port)


@given(st.ip_addresses(v=6).filter(lambda each: each.scope_id is None), st.integers(1, 65535))
def test_every_ipv6_address_is_taken(address: IPv6Address, port: int) -> None:
    assert parse_authority(f"[{address.exploded}]:{port}") == (str(address), port)


@given(st.text(st.sampled_from("ABCDEFGHJKMN23456789:[]%/@."), min_size=8, max_size=30))
def test_no_refusal_repeats_what_was_given(text: str) -> None:
    told = ""
    try:
        parse_authority(text)
    except AuthorityError as error:
        told = f"{error} {error!r} {error.__context__!r}"
    assert text not in told
