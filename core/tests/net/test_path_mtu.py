"""What the system says of a path, and that sockets of the wire send no fragments."""

import errno
import socket
from contextlib import closing

import pytest

from turnlane.api import RelayEndpoint
from turnlane.net.path_mtu import (
    SUPPORTED,
    forbid_fragments,
    largest_payload,
    largest_payload_to,
)
from turnlane.net.relay_wire import UdpWire, dial
from turnlane.net.udp import ListeningUdpSocket

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="only Linux is asked")

LOOPBACK_MTU = 65_536


@pytest.mark.parametrize(
    ("family", "address", "headers"),
    [(socket.AF_INET, ("127.0.0.1", 9), 28), (socket.AF_INET6, ("::1", 9), 48)],
)
def test_the_mtu_of_a_connected_socket_is_told_without_headers(
    family: socket.AddressFamily, address: tuple[str, int], headers: int
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        forbid_fragments(opened)
        assert largest_payload(opened) is None, "it is not connected"
        opened.connect(address)
        assert largest_payload(opened) in (LOOPBACK_MTU - headers, 65_535 - headers)
        assert largest_payload_to(family, address) == largest_payload(opened)


def test_nothing_is_known_of_an_address_that_cannot_be_reached() -> None:
    assert largest_payload_to(socket.AF_INET, ("255.255.255.255", 9)) is None


def test_a_socket_that_forbids_fragments_bears_the_options_of_both_families() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as opened:
        forbid_fragments(opened)
        assert opened.getsockopt(socket.IPPROTO_IP, 10) == 2
        assert opened.getsockopt(socket.IPPROTO_IPV6, 23) == 2
        assert opened.getsockopt(socket.IPPROTO_IPV6, 62) == 1


def test_a_system_without_these_options_leaves_it_to_the_probes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("turnlane.net.path_mtu.SUPPORTED", False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        forbid_fragments(opened)
        assert opened.getsockopt(socket.IPPROTO_IP, 10) != 2
        opened.connect(("127.0.0.1", 9))
        assert largest_payload(opened) is None
    assert largest_payload_to(socket.AF_INET, ("127.0.0.1", 9)) is None


class Sandboxed(socket.socket):
    """A socket of a system that knows none of the options."""

    def setsockopt(self, *_: object) -> None:
        raise OSError(errno.ENOPROTOOPT, "no such option")

    def getsockopt(self, *_: object) -> int:  # type: ignore[override]
        raise OSError(errno.ENOPROTOOPT, "no such option")


def test_a_sandbox_that_lacks_the_options_is_no_failure() -> None:
    with Sandboxed(socket.AF_INET6, socket.SOCK_DGRAM) as opened:
        forbid_fragments(opened)
        assert largest_payload(opened) is None


@pytest.mark.anyio
async def test_wires_to_relays_and_listening_sockets_send_no_fragments() -> None:
    wire = await dial(RelayEndpoint("127.0.0.1", 9))
    assert isinstance(wire, UdpWire)
    listening = await ListeningUdpSocket.bind("127.0.0.1", 0)
    with closing(wire), closing(listening):
        for opened in (wire._socket, listening._socket):
            assert opened.getsockopt(socket.IPPROTO_IP, 10) == 2
        assert wire.largest_payload == listening.largest_payload(("127.0.0.1", 9))
        assert wire.write(bytes(65_000))
        assert not wire.write(bytes(65_530))
        assert wire.too_large == 1
