"""The arithmetic of a path: what stands around a datagram on its way, and what then fits.

    client ── IP, UDP, ChannelData ── relay ── IP, UDP ── server
              └─────────── DTLS record, frame, datagram ──────┘

Over TCP and TLS the way between client and relay has no such limit. All sizes are in bytes.
"""

from typing import Final

from turnlane.proto.channel_data import HEADER_SIZE as CHANNEL_HEADER
from turnlane.proto.frames import HEADER_SIZE as FRAME_HEADER

IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40
UDP_HEADER: Final = 8

AES_GCM_RECORD: Final = 37
"""What a DTLS record adds at the most: header 13, explicit nonce 8, tag 16 (RFC 5288)."""

WIREGUARD_OVERHEAD: Final = 32
"""What WireGuard adds to an inner packet: header 16, tag 16. The IP and UDP headers that its own
rule of thumb counts, too (60 and 80), are those of the local address: they do not travel."""


def udp_payload(mtu: int, *, ipv6: bool) -> int:
    """Return how large a UDP payload may be that leaves in one packet of at most `mtu` bytes."""
    return mtu - (IPV6_HEADER if ipv6 else IPV4_HEADER) - UDP_HEADER


def largest_datagram(payload: int, *, channel: bool, record: int, framed: bool) -> int:
    """Return the largest inner datagram that a UDP payload of `payload` bytes bears.

    `channel` says that ChannelData's header is in it, `record` is what DTLS adds (0 without DTLS),
    `framed` that the session protocol's header goes before the datagram.
    """
    return payload - channel * CHANNEL_HEADER - record - framed * FRAME_HEADER


def wireguard_mtu(datagram: int) -> int:
    """Return the MTU to give a WireGuard interface whose datagrams may have `datagram` bytes."""
    return datagram - WIREGUARD_OVERHEAD


def _datagram_within(mtu: int, *, ipv6: bool) -> int:
    return largest_datagram(
        udp_payload(mtu, ipv6=ipv6), channel=True, record=AES_GCM_RECORD, framed=True
    )


BASE_DATAGRAM: Final = _datagram_within(1280, ipv6=True)
"""What any path for IPv6 bears (RFC 8200, section 5): the first size a search counts on."""

MIN_DATAGRAM: Final = _datagram_within(576, ipv6=False)
"""What any host takes over IPv4 (RFC 1122, section 3.3.2): no search goes lower."""
