"""Addresses: what is taken and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import AdapterError, Stage
from turnlane_adapters.addresses import parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9000", "127.0.0.1", 9000),
        ("localhost:1", "localhost", 1),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:53", "fe80::1%eth0", 53),
        ("0.0.0.0:0", "0.0.0.0", 0),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert parse_address(text, Stage.LOCAL_BIND, any_port=True) == (host, port)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no port"),
        ("9000", "has no port"),
        ("localhost", "has no port"),
        ("[::1]", "without brackets"),
        ("::1:9000", "without brackets"),
        ("[::1:9000", "without brackets"),
        ("[localhost]:9000", "in its brackets"),
        ("[]:9000", "in its brackets"),
        (":9000", "has no host"),
        ("local host:9000", "white space"),
        ("localhost\n:9000", "white space"),
        ("localhost:", "no port from 1"),
        ("localhost:http", "no port from 1"),
        ("localhost:65536", "no port from 1"),
        ("localhost:-1", "no port from 1"),
        ("localhost:١", "no port from 1"),
        ("localhost:0", "port 0"),
        ("localhost:000", "port 0"),
    ],
)
def test_a_malformed_address_is_refused_at_its_stage(text: str, problem: str) -> None:
    with pytest.raises(AdapterError) as caught:
        parse_address(text, Stage.UPSTREAM_DIAL, any_port=False)

    assert caught.value.stage is Stage.UPSTREAM_DIAL
    assert caught.value.code == "invalid_address"
    assert problem in caught.value.message
    assert "HOST:PORT" in caught.value.advice
    assert str(caught.value).isprintable()


@given(st.text())
def test_any_text_is_an_address_or_an_adapter_error(text: str) -> None:
    try:
        host, port = parse_address(text, Stage.LOCAL_BIND, any_port=True)
    except AdapterError:
        return
    assert host
    assert 0 <= port <= 65535
