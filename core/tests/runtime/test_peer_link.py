"""Peer links: one line that carries address, pin and token, and errors that repeat none of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import PolicyError, Secret
from turnlane.net.identity import Pin
from turnlane.runtime.peer_link import PeerLink, new_token, split_host_port

PIN = Pin.parse("A" * 42 + "E")
TOKEN = "t0kenT0kenT0kenT0ken_-planted"


@pytest.mark.parametrize("host", ["192.0.2.7", "tunnel.example.org", "2001:db8::7"])
def test_a_link_is_read_back_as_it_was_written(host: str) -> None:
    link = PeerLink(host, 56000, PIN, Secret(TOKEN))
    assert PeerLink.parse(link.text()) == link


def test_a_bare_address_has_neither_pin_nor_token_and_the_default_port() -> None:
    assert PeerLink.parse(Secret("192.0.2.7")) == PeerLink("192.0.2.7", 56000)
    assert PeerLink.parse(Secret("[2001:db8::7]:9")) == PeerLink("2001:db8::7", 9)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("http://host:1", "invalid_peer"),
        ("turnlane://", "invalid_peer"),
        ("turnlane://host:0", "invalid_peer"),
        ("turnlane://host:99999", "invalid_peer"),
        ("turnlane://[::1", "invalid_peer"),
        ("turnlane://::1:5", "invalid_peer"),
        ("turnlane://host/path", "invalid_peer"),
        ("turnlane://user@host", "invalid_peer"),
        (f"turnlane://host?pin={PIN}&pin={PIN}", "invalid_peer"),
        ("turnlane://host?colour=red", "invalid_peer"),
        ("turnlane://host?pin=short", "invalid_pin"),
        ("turnlane://host?token=short", "weak_token"),
        ("turnlane://host?token=" + "a" * 30 + "%20", "invalid_token"),
        ("turnlane://SERVER-ADDRESS:56000", "placeholder_peer"),
    ],
)
def test_a_malformed_link_is_refused_with_a_code(text: str, code: str) -> None:
    with pytest.raises(PolicyError) as caught:
        PeerLink.parse(Secret(text))
    assert caught.value.code == code


@given(st.text(max_size=80))
def test_any_text_gives_a_link_or_a_policy_error_that_does_not_repeat_the_token(text: str) -> None:
    told = ""
    try:
        PeerLink.parse(Secret(f"turnlane://host?token={TOKEN}{text}"))
    except PolicyError as error:
        told = f"{error} {error!r}"
    assert TOKEN not in told


def test_a_link_does_not_print_its_token() -> None:
    link = PeerLink("host", 1, PIN, Secret(TOKEN))
    assert TOKEN not in repr(link)
    assert TOKEN not in f"{link} {link.text()}"


def test_fresh_tokens_are_long_and_differ() -> None:
    first, second = new_token(), new_token()
    assert first != second
    assert len(first.reveal()) >= 32


@pytest.mark.parametrize("text", ["", ":1", "host:", "host:x", "host:-1", "host:65536", "a b:1"])
def test_a_malformed_address_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"the (host|port)"):
        split_host_port(text)
