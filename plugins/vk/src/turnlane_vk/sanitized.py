"""Sanitized answers: what an artifact shows of what VK answered.

Nothing is copied as it came. Each stage has a template with the fields that are known, in an order
of its own; placeholders stand for values, numbers and words are shown where they are known ones,
and everything else is dropped.
"""

from collections.abc import Callable, Mapping
from typing import Any

from turnlane.api.artifact import Json
from turnlane_vk.recognition import (
    ANONYM_TOKEN,
    BROWSER_LOGIN,
    JOIN,
    LOGIN,
    OK_LOGIN,
    PREVIEW,
    START,
)
from turnlane_vk.turn_server import MAX_URLS, TurnUrlError, parse_turn_url_untrusted

JOIN_TOKEN = "<redacted:vk-join-token>"  # noqa: S105 a placeholder
INVITE = f"https://vk.com/call/join/{JOIN_TOKEN}"
USERNAME = "<redacted:turn-username>"
PASSWORD = "<redacted:turn-password>"  # noqa: S105 a placeholder

_Leaf = Callable[[object], Json]
_Template = Mapping[str, "_Leaf | _Template"]

_MAX_CODE = 99_999
_MESSAGES = frozenset({"Captcha needed", "Rate limit reached", "Too many requests per second"})
"""Error messages that are shown; another may quote what was asked."""

_STATES = frozenset({"prejoin"})


def _hidden(placeholder: str) -> _Leaf:
    def leaf(value: object) -> Json:
        there = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
        return placeholder if there else None

    return leaf


def _code(value: object) -> Json:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_CODE:
        return value
    return None


def _known(words: frozenset[str], otherwise: str) -> _Leaf:
    hide = _hidden(otherwise)
    return lambda value: value if isinstance(value, str) and value in words else hide(value)


def _urls(value: object) -> Json:
    urls = value if isinstance(value, list) else [value]
    return [_url(url) for url in urls[:MAX_URLS]]


def _url(value: object) -> str:
    try:
        return parse_turn_url_untrusted(value).shown
    except TurnUrlError:
        return "<redacted:turn-url>"


_ERROR: _Template = {
    "error_code": _code,
    "error_msg": _known(_MESSAGES, "<redacted:vk-error-message>"),
    "redirect_uri": _hidden("<redacted:vk-captcha-redirect-uri>"),
    "captcha_img": _hidden("<redacted:vk-captcha-image-uri>"),
    "captcha_sid": _hidden("<redacted:vk-captcha-sid>"),
    "remixstlid": _hidden("<redacted:vk-remixstlid>"),
}
_OK_ERROR: _Template = {
    "error_code": _code,
    "error_msg": _known(_MESSAGES, "<redacted:ok-error-message>"),
}
_TURN_SERVER: _Template = {
    "turn_server": {"username": _hidden(USERNAME), "credential": _hidden(PASSWORD), "urls": _urls}
}
_BODIES: dict[str, _Template] = {
    LOGIN: {
        "data": {"access_token": _hidden("<redacted:vk-access-token-1>")},
        "error": _ERROR,
    },
    ANONYM_TOKEN: {
        "response": {"token": _hidden("<redacted:vk-anonym-token>")},
        "error": _ERROR,
    },
    BROWSER_LOGIN: {
        "data": {"access_token": _hidden("<redacted:vk-browser-access-token>")},
        "error": _ERROR,
    },
    PREVIEW: {
        "response": {
            "join_link": _hidden(INVITE),
            "state": _known(_STATES, "<redacted:vk-preview-state>"),
        },
        "error": _ERROR,
    },
    OK_LOGIN: {"session_key": _hidden("<redacted:ok-session-key>"), **_OK_ERROR},
    JOIN: {**_TURN_SERVER, **_OK_ERROR},
    START: {**_TURN_SERVER, **_OK_ERROR},
}

_EXTRACTED: dict[str, tuple[str, tuple[str, ...]]] = {
    LOGIN: ("access_token", ("data", "access_token")),
    ANONYM_TOKEN: ("anonym_token", ("response", "token")),
    BROWSER_LOGIN: ("access_token", ("data", "access_token")),
    OK_LOGIN: ("session_key", ("session_key",)),
}
"""What later stages use of an answer: its name, and where in the body it stands."""


def sanitize_untrusted(stage: str, document: dict[str, Any]) -> dict[str, Json]:
    """Return the body of a stage's answer as it may be shown."""
    return _filled(_BODIES[stage], document)


def extracted(stage: str, body: dict[str, Json]) -> dict[str, str] | None:
    """Return what a sanitized body gives to later stages, None where that is nothing."""
    if stage not in _EXTRACTED:
        return None
    name, way = _EXTRACTED[stage]
    value: Json = body
    for part in way:
        value = value.get(part) if isinstance(value, dict) else None
    return {name: value} if isinstance(value, str) else None


def _filled(template: _Template, document: dict[str, Any]) -> dict[str, Json]:
    shown: dict[str, Json] = {}
    for name, part in template.items():
        value = document.get(name)
        if callable(part):
            leaf = None if value is None else part(value)
            shown |= {} if leaf is None else {name: leaf}
        elif isinstance(value, dict):
            shown[name] = _filled(part, value)
    return shown
