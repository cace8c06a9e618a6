"""What a relay's answers say, and which of them may be believed without a signature."""

import ipaddress

from turnlane.proto.stun import REASONS, MessageClass, Method, StunMessage

ALLOCATION_GONE = frozenset({401, 437, 441})
"""Errors after which the relay has no allocation of ours, or takes our word for nothing."""

PEER_UNWANTED = frozenset({403, 443})
"""Errors that speak of the peer alone (RFC 8656, sections 10.2 and 12.2)."""

_UNSIGNED_ERRORS = frozenset({400, 401, 438})
_NEEDED = {
    Method.ALLOCATE: ("XOR-RELAYED-ADDRESS", "LIFETIME"),
    Method.REFRESH: ("LIFETIME",),
}
_SHOWN_ATTRIBUTES = 8


def is_authentic(message: StunMessage, key: bytes | None) -> bool:
    """Say whether an answer to a request that was signed with `key` may be acted upon.

    400, 401 and 438 cannot be signed: a server answers with them when it cannot or will not check
    what we signed (RFC 8489, section 9.2.4). Only who reads our datagrams can forge them, as they
    have to repeat the transaction id.
    """
    if key is None or message.verify(key):
        return True
    return message.error is not None and message.error[0] in _UNSIGNED_ERRORS


def describe_error(code: int, phrase: str, message: StunMessage) -> str:
    """Return an error as a line fit to be shown."""
    reason = f"{code} {phrase or REASONS.get(code, 'without a reason')}"
    unknown = message.attributes.get("UNKNOWN-ATTRIBUTES")
    if unknown:
        reason += f" ({', '.join(f'{number:#06x}' for number in unknown[:_SHOWN_ATTRIBUTES])})"
    return reason


def find_problem(message: StunMessage, family: int | None) -> str | None:
    """Say what makes a success response useless, or None (RFC 8489, section 6.3.3).

    `family` is the IP version that the relayed address must have, if it matters.
    """
    assert message.message_class is MessageClass.RESPONSE
    attributes = message.attributes
    if message.malformed:
        return f"the relay's answer has a malformed {message.malformed[0]}"
    if message.unknown_required:
        return f"the relay's answer needs unknown attribute {message.unknown_required[0]:#06x}"
    for name in _NEEDED.get(message.method, ()):
        if name not in attributes:
            return f"the relay's answer has no {name}"
    if attributes.get("LIFETIME") == 0:
        return "the relay granted no lifetime"
    if message.method is Method.ALLOCATE and family is not None:
        host = attributes["XOR-RELAYED-ADDRESS"][0]
        if ipaddress.ip_address(host).version != family:
            return f"the relayed address {host} is not IPv{family}"
    return None
