"""The TURN REST scheme: credentials that carry their expiry, made from a shared secret.

The user name is `<unix time>` or `<unix time>:<label>`, the password the base64 of the HMAC-SHA1 of
the user name under the secret (draft-uberti-behave-turn-rest-00, section 2.2); coturn checks it
with `use-auth-secret`.
"""

import hmac
import re
from base64 import b64encode

from turnlane.api import Secret

_TIMED = re.compile(r"([0-9]{10})(:.*)?", re.DOTALL)

_EARLIEST = 1_262_304_000
_LATEST = 4_102_444_800
"""The years 2010 to 2100: before a colon, any time in between is taken for an expiry."""

_PAST = 30 * 86400
_FUTURE = 366 * 86400
"""Seconds around now: a number that stands alone is an expiry only if it is near, since accounts
and telephone numbers have ten digits too."""


def mint(
    shared_secret: Secret[str], label: Secret[str], expires_at: int
) -> tuple[Secret[str], Secret[str]]:
    """Return a user name and password that are valid until `expires_at` (Unix time, seconds)."""
    username = f"{expires_at}:{label.reveal()}" if label else str(expires_at)
    digest = hmac.digest(shared_secret.reveal().encode(), username.encode(), "sha1")
    return Secret(username), Secret(b64encode(digest).decode())


def expiry_of(username: Secret[str], now: float) -> int | None:
    """Return the Unix time at which a TURN REST user name expires, or None for any other name.

    `now` is the Unix time in seconds; the expiry may lie before it.
    """
    found = _TIMED.fullmatch(username.reveal())
    if found is None:
        return None
    expires_at = int(found[1])
    earliest, latest = (_EARLIEST, _LATEST) if found[2] else (now - _PAST, now + _FUTURE)
    return expires_at if earliest <= expires_at < latest else None
