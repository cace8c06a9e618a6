"""Links: `pool:NAME` names a pool of the operator's own file."""

import re

from turnlane.api import Secret

PROVIDER_ID = "pool"
SCHEME = "pool:"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def is_name(text: str) -> bool:
    """Whether `text` may name a pool or a member: short, printable, and nothing like a link."""
    return _NAME.fullmatch(text) is not None


def pool_name(link: Secret[str]) -> str | None:
    """Return the name in a link, or None for what is no link to a pool."""
    text = link.reveal()
    name = text.removeprefix(SCHEME)
    return name if text.startswith(SCHEME) and is_name(name) else None
