"""DTLS cookies: a client proves that it receives at its address before anything is kept about it.

RFC 6347, section 4.2.1. A cookie is an HMAC over the time, the address and the ClientHello, so a
server recognises its own without having stored it.
"""

import hmac
import struct
from collections.abc import Callable
from math import floor

from turnlane.proto.dtls_records import ClientHello

TICK = 60.0
"""Seconds for which one tick lasts; a cookie is good for one tick at least and two at most.

A client that got its cookie keeps it for the rest of its handshake, so a tick is to outlast one.
"""

KEY_SIZE = 32

Address = tuple[str | int, ...]
"""Host and port; for IPv6 possibly flow info and scope too, as sockets give them."""

_TICK = struct.Struct("!q")


class CookieIssuer:
    """Makes cookies and knows its own; holds nothing but a key that lives as long as it does."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._key = random_bytes(KEY_SIZE)

    def issue(self, address: Address, hello: ClientHello, now: float) -> bytes:
        """Return the 32-byte cookie for a ClientHello that claims to come from `address`."""
        return self._cookie(address, hello, floor(now / TICK))

    def accepts(self, address: Address, hello: ClientHello, now: float) -> bool:
        """Say whether `hello` brings back a cookie that this address got in this or the last tick.

        Takes the same time for every wrong cookie of the right length.
        """
        tick = floor(now / TICK)
        current = hmac.compare_digest(hello.cookie, self._cookie(address, hello, tick))
        previous = hmac.compare_digest(hello.cookie, self._cookie(address, hello, tick - 1))
        return current | previous

    def _cookie(self, address: Address, hello: ClientHello, tick: int) -> bytes:
        fields = [_TICK.pack(tick), hello.bits, *(str(part).encode() for part in address)]
        # Every field with its length, so that no two inputs give the same bytes.
        message = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        return hmac.digest(self._key, message, "sha256")
