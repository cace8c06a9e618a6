"""Recognition: the stages among all that a page asks for."""

import pytest

from turnlane.api import Secret
from turnlane_vk.browser import Watch
from turnlane_vk.recognition import (
    ANONYM_TOKEN,
    BROWSER_LOGIN,
    JOIN,
    OK_LOGIN,
    PREVIEW,
    START,
    recognise_untrusted,
)

OK = "https://calls.okcdn.ru/fb.do"
API = "https://api.vk.com/method/"
WATCH = Watch(
    page=Secret("https://vk.com/call/join/token"),
    endpoints={
        ANONYM_TOKEN: f"{API}calls.getAnonymousToken",
        BROWSER_LOGIN: "https://login.vk.com/?act=get_anonym_token",
        PREVIEW: f"{API}calls.getCallPreview",
        OK_LOGIN: OK,
        JOIN: OK,
        START: OK,
    },
    application_key="KEY",
    join_links=(Secret("token"), Secret("https://vk.com/call/join/token")),
)
COMMON = {"format": "JSON", "application_key": "KEY"}
LOGIN_FORM = {"method": "auth.anonymLogin", **COMMON}
JOIN_FORM = {
    "method": "vchat.joinConversationByLink",
    "protocolVersion": "5",
    "isVideo": "false",
    "joinLink": "token",
    **COMMON,
}
START_FORM = {
    "method": "vchat.startConversation",
    "createJoinLink": "true",
    "session_key": "key",
    **COMMON,
}


@pytest.mark.parametrize(
    ("url", "form", "stage"),
    [
        (f"{API}calls.getAnonymousToken", {}, ANONYM_TOKEN),
        (f"{API}calls.getAnonymousToken?v=5.999&client_id=1", {"a": "b"}, ANONYM_TOKEN),
        ("https://login.vk.com/?act=get_anonym_token", {}, BROWSER_LOGIN),
        ("https://login.vk.com/?act=get_anonym_token&v=1", {}, BROWSER_LOGIN),
        (f"{API}calls.getCallPreview?v=5.274", {}, PREVIEW),
        (OK, LOGIN_FORM, OK_LOGIN),
        (OK, JOIN_FORM, JOIN),
        (f"{OK}?a=b", {**JOIN_FORM, "joinLink": "https://vk.com/call/join/token"}, JOIN),
        (OK, START_FORM, START),
        (f"{API}calls.getAnonymousTokens", {}, None),
        (f"{API}calls.getSettings", {}, None),
        ("https://login.vk.com/?act=login", {}, None),
        ("https://evil.example/https://login.vk.com/?act=get_anonym_token", {}, None),
        (OK, {}, None),
        (f"{OK}x", LOGIN_FORM, None),
        (OK, {**LOGIN_FORM, "method": "auth.login"}, None),
        (OK, {**LOGIN_FORM, "format": "XML"}, None),
        (OK, {**LOGIN_FORM, "application_key": "OTHER"}, None),
        (OK, {**JOIN_FORM, "protocolVersion": "6"}, None),
        (OK, {**JOIN_FORM, "isVideo": "true"}, None),
        (OK, {**JOIN_FORM, "joinLink": "another"}, None),
        (OK, {**JOIN_FORM, "joinLink": ""}, None),
        (OK, {**START_FORM, "createJoinLink": "false"}, None),
        (OK, {**START_FORM, "session_key": ""}, None),
    ],
)
def test_a_stage_is_known_by_its_url_and_its_form(
    url: str, form: dict[str, str], stage: str | None
) -> None:
    assert recognise_untrusted(WATCH, "POST", url, form) == stage
    assert recognise_untrusted(WATCH, "OPTIONS", url, form) is None


def test_only_the_stages_that_are_watched_are_known() -> None:
    start_only = Watch(
        page=Secret("https://calls.vk.com/"),
        endpoints={OK_LOGIN: OK, START: OK},
        application_key="KEY",
    )
    assert recognise_untrusted(start_only, "POST", OK, START_FORM) == START
    assert recognise_untrusted(start_only, "POST", OK, JOIN_FORM) is None
