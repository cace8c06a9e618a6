"""Nonces without memory: each carries its time of issue and proves who issued it, to whom."""

import hashlib
import hmac
from collections.abc import Callable

COOKIE = "obMatJos2AAAA"
"""Says that the server follows RFC 8489 and offers none of its optional features (section 9.2)."""

_ISSUED = slice(len(COOKIE), len(COOKIE) + 12)


class Nonces:
    """Issues nonces and says whether one is still good.

    A nonce is good for the client it was issued to, for `lifetime` seconds, as long as the key
    that signed it is kept: nothing is stored for a client that has not proved itself.
    """

    def __init__(self, lifetime: float, random_bytes: Callable[[int], bytes]) -> None:
        self._lifetime = lifetime
        self._random_bytes = random_bytes
        self._key = random_bytes(32)

    def issue(self, client: str, now: float) -> bytes:
        """Return a nonce for `client`, a text that names it."""
        return self._signed(f"{int(now * 1000):012x}", client)

    def valid(self, nonce: bytes, client: str, now: float) -> bool:
        """Whether `nonce` was issued here to `client`, no longer than its lifetime ago."""
        issued = nonce.decode("ascii", "replace")[_ISSUED]
        if not hmac.compare_digest(nonce, self._signed(issued, client)):
            return False
        return now - int(issued, 16) / 1000 < self._lifetime

    def forget(self) -> None:
        """Make every nonce issued so far stale."""
        self._key = self._random_bytes(32)

    def _signed(self, issued: str, client: str) -> bytes:
        mac = hmac.new(self._key, f"{issued}|{client}".encode("utf-8", "replace"), hashlib.sha256)
        return f"{COOKIE}{issued}{mac.hexdigest()[:32]}".encode("utf-8", "replace")
