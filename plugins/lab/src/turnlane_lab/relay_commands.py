"""What the relay's machine wants done: commands for its driver, payloads for peers."""

from dataclasses import dataclass

from turnlane.proto.stun import Address
from turnlane_lab.allocations import Allocation, FiveTuple

ToPeer = tuple[Allocation, bytes | memoryview, Address]
"""A payload to be sent from an allocation's relayed address to a peer."""


@dataclass(frozen=True, slots=True)
class SendToClient:
    """Send one message (on a stream: as it is) to a client."""

    five_tuple: FiveTuple
    message: bytes


@dataclass(frozen=True, slots=True)
class OpenRelay:
    """Bind a UDP socket on `host`; answer with `relay_opened` or `relay_not_opened`.

    `even_port` wants a port divisible by two (RFC 8656, section 18.6).
    """

    five_tuple: FiveTuple
    host: str
    even_port: bool = False


@dataclass(frozen=True, slots=True)
class CloseRelay:
    """Close the socket of an allocation that is gone."""

    allocation: Allocation


Command = SendToClient | OpenRelay | CloseRelay
