"""Long-term credentials and the challenge that they answer (RFC 8489, section 9.2)."""

from typing import Any

from turnlane.api.secrets import Secret
from turnlane.proto.stun import long_term_key


class LongTermCredentials:
    """A username and password, and the realm and nonce of the server once it has told them.

    `key` signs requests and checks what comes back; it is None until the server has asked for
    credentials, and until then requests carry none.
    """

    __slots__ = ("_nonce", "_password", "_realm", "_username", "key")

    def __init__(self, username: str, password: Secret[str]) -> None:
        self._username = username
        self._password = password
        self._realm = ""
        self._nonce = b""
        self.key: bytes | None = None

    def answer_challenge(self, realm: str, nonce: bytes) -> None:
        """Take realm and nonce from a 401; what is built from now on is signed."""
        self._realm = realm
        self._nonce = nonce
        self.key = long_term_key(self._username, realm, self._password.reveal())

    def renew_nonce(self, nonce: bytes) -> None:
        """Take the nonce from a 438. The realm stays: no key is made for whoever sends another."""
        self._nonce = nonce

    def attributes(self) -> dict[str, Any]:
        """Return what goes into a request before MESSAGE-INTEGRITY; nothing before a challenge."""
        if self.key is None:
            return {}
        return {"USERNAME": self._username, "REALM": self._realm, "NONCE": self._nonce}
