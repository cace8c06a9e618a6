"""Who may use the relay: long-term credentials, static and by TURN REST."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

from turnlane.api import Secret
from turnlane.proto.stun import long_term_key


def rest_credentials(secret: Secret[str], label: str, expires_at: float) -> tuple[str, Secret[str]]:
    """Mint the username and password that a TURN REST service would hand out.

    The username is `expiry:label` with the expiry as a Unix time in whole seconds, the password
    the base64 of HMAC-SHA1 over it (draft-uberti-behave-turn-rest-00, section 2.2).
    """
    username = f"{int(expires_at)}:{label}"
    return username, _rest_password(secret, username)


class Users:
    """Looks up the key of a username (RFC 8489, section 9.2.2)."""

    def __init__(
        self, static: Mapping[str, Secret[str]], rest_secret: Secret[str] | None, realm: str
    ) -> None:
        self._realm = realm
        self._rest_secret = rest_secret
        self._static_keys = {
            name: long_term_key(name, realm, password.reveal()) for name, password in static.items()
        }

    def key(self, username: str, unix_time: float) -> bytes | None:
        """Return the key that signs for `username` at `unix_time`, or None when it may not pass.

        A TURN REST username may not pass from the second that it names.
        """
        key = self._static_keys.get(username)
        if key is not None or self._rest_secret is None:
            return key
        expiry, separator, _ = username.partition(":")
        if not separator or not (expiry.isascii() and expiry.isdecimal() and len(expiry) <= 15):
            return None
        if int(expiry) <= unix_time:
            return None
        password = _rest_password(self._rest_secret, username)
        return long_term_key(username, self._realm, password.reveal())


def _rest_password(secret: Secret[str], username: str) -> Secret[str]:
    digest = hmac.new(secret.reveal().encode(), username.encode(), hashlib.sha1).digest()
    return Secret(base64.b64encode(digest).decode())
