"""Sanitized answers: known fields by name, and of values only what is known to be harmless."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.telemetry.redaction import find_leaks
from turnlane_vk.recognition import (
    ANONYM_TOKEN,
    BROWSER_LOGIN,
    JOIN,
    LOGIN,
    OK_LOGIN,
    PREVIEW,
    START,
)
from turnlane_vk.sanitized import extracted, sanitize_untrusted

STAGES = (LOGIN, ANONYM_TOKEN, BROWSER_LOGIN, PREVIEW, OK_LOGIN, JOIN, START)
FIELDS = (
    "data", "response", "error", "turn_server", "access_token", "token", "session_key", "username",
    "credential", "urls", "error_code", "error_msg", "redirect_uri", "captcha_img", "captcha_sid",
    "remixstlid", "join_link", "state", "other",
)  # fmt: skip
SECRET = "planted-secret-value"

PLANTED = st.recursive(
    st.sampled_from([SECRET, f"x {SECRET}/y", f"turn:{SECRET}", 14, 4_815_162_342, None, True]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FIELDS, SECRET]), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(st.sampled_from(STAGES), st.dictionaries(st.sampled_from([*FIELDS, SECRET]), PLANTED))
def test_no_value_of_an_answer_passes(stage: str, document: dict[str, Any]) -> None:
    body = sanitize_untrusted(stage, document)
    assert find_leaks(json.dumps(body), [SECRET, "4815162342"]) == []
    taken = extracted(stage, body)
    assert taken is None or find_leaks(json.dumps(taken), [SECRET]) == []


def test_error_codes_and_known_words_are_shown() -> None:
    answer = {"error": {"error_msg": "Captcha needed", "error_code": 14, "captcha_sid": 815}}
    assert sanitize_untrusted(LOGIN, answer) == {
        "error": {
            "error_code": 14,
            "error_msg": "Captcha needed",
            "captcha_sid": "<redacted:vk-captcha-sid>",
        }
    }
    other = {"error": {"error_code": 5, "error_msg": "no access for Ann"}}
    assert sanitize_untrusted(ANONYM_TOKEN, other) == {
        "error": {"error_code": 5, "error_msg": "<redacted:vk-error-message>"}
    }


def test_the_order_of_the_fields_is_the_artifact_s_own() -> None:
    server = {"urls": ["turn:t.example:3478"], "credential": "p", "username": "u"}
    [shown] = sanitize_untrusted(JOIN, {"turn_server": server}).values()
    assert isinstance(shown, dict)
    assert list(shown) == ["username", "credential", "urls"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("turn:t.example:3478?transport=udp", "turn:t.example:3478?transport=udp"),
        ("turns:t.example:443", "turns:t.example:443"),
        ("turn:t.example:3478?transport=secret", "turn:t.example:3478?transport="),
        ("stun:secret.example:3478", "stun:"),
        ("turn:who:secret@t.example:3478", "<redacted:turn-url>"),
        (5, "<redacted:turn-url>"),
    ],
)
def test_of_a_url_only_the_address_is_shown(url: object, shown: str) -> None:
    body = sanitize_untrusted(START, {"turn_server": {"urls": [url]}})
    assert body == {"turn_server": {"urls": [shown]}}
