"""Answers: what each stage takes from the JSON that it gets, and what VK says where it refuses."""

from typing import Any

import msgspec

from turnlane.api import Secret
from turnlane_vk.errors import DRIFT, StageError

CAPTCHA_NEEDED = 14
RATE_LIMIT = 29
"""Codes of errors of VK's API."""

MAX_TOKEN = 16384
MAX_WAIT = 30 * 86400
"""Seconds; an answer that asks for more is told as asking for this."""

Document = dict[str, Any]


def decode_untrusted(body: bytes) -> Document | None:
    """Return the JSON object that a body is, None where it is none."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def error_code_untrusted(document: Document) -> int | None:
    """Return the code of the error that an answer is, None where it is none."""
    error = document.get("error")
    code = (error if isinstance(error, dict) else document).get("error_code")
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def wait_untrusted(document: Document) -> int | None:
    """Return the seconds that an answer says to wait, None where it says nothing of it."""
    error = document.get("error")
    for place in (error, document):
        wait = place.get("retry_after") if isinstance(place, dict) else None
        if isinstance(wait, int | float) and not isinstance(wait, bool) and 0 <= wait < 2**63:
            return min(round(wait), MAX_WAIT)
    return None


def check_answer_untrusted(
    stage: str, status: int, document: Document | None, retry_after: int | None
) -> Document:
    """Return the document of an answer that is no refusal.

    `retry_after` is what the header of that name says. Raises `StageError`: `rate_limited`,
    `unexpected_status`, `decode_response`.
    """
    if status == 429 or (document and error_code_untrusted(document) == RATE_LIMIT):
        wait = retry_after if retry_after is not None else wait_untrusted(document or {})
        when = "in a while" if wait is None else f"in {wait} s"
        raise StageError(
            "rate_limited",
            "VK was asked too often from this network",
            f"try again {when}",
            provider_stage=stage,
            retry_after=wait,
        )
    if status != 200:
        advice = "try again later" if status >= 500 else DRIFT
        raise StageError(
            "unexpected_status", f"VK answered with HTTP status {status}", advice,
            provider_stage=stage,
        )  # fmt: skip
    if document is None:
        raise StageError(
            "decode_response",
            "VK answered with something else than a JSON object of at most 256 KiB",
            "check that nothing on the way (a proxy, a sign-in page) answers in VK's place",
            provider_stage=stage,
        )
    return document


def access_token_untrusted(document: Document) -> Secret[str] | None:
    """Return `data.access_token`."""
    return _text(document.get("data"), "access_token")


def anonym_token_untrusted(document: Document) -> Secret[str] | None:
    """Return `response.token`."""
    return _text(document.get("response"), "token")


def session_key_untrusted(document: Document) -> Secret[str] | None:
    """Return `session_key`."""
    return _text(document, "session_key")


def _text(table: object, name: str) -> Secret[str] | None:
    value = table.get(name) if isinstance(table, dict) else None
    usable = isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_TOKEN
    return Secret(value) if isinstance(value, str) and usable else None
