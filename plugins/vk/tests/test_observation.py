"""Observation: each rule of the contract, as lists of what was seen and what comes of them."""

import itertools
import json
from typing import Any

import pytest

from turnlane.api import Secret
from turnlane_vk.browser import ObservedAnswer
from turnlane_vk.observation import (
    Failed,
    GoOn,
    Resolved,
    StageResult,
    judge_invite,
    judge_start,
)
from turnlane_vk.recognition import ANONYM_TOKEN, BROWSER_LOGIN, JOIN, OK_LOGIN, PREVIEW, START

RELAYS = {"turn_server": {"username": "u", "credential": "p", "urls": ["turn:t.example:3478"]}}
DOCUMENTS: dict[str, tuple[str, Any]] = {
    "token": (ANONYM_TOKEN, {"response": {"token": "anonym"}}),
    "other token": (ANONYM_TOKEN, {"response": {"token": "other"}}),
    "captcha": (ANONYM_TOKEN, {"error": {"error_code": 14}}),
    "no token": (ANONYM_TOKEN, {"response": {}}),
    "html": (ANONYM_TOKEN, None),
    "login": (BROWSER_LOGIN, {"data": {"access_token": "access"}}),
    "preview": (PREVIEW, {"response": {"state": "prejoin"}}),
    "preview refused": (PREVIEW, {"error": {"error_code": 5}}),
    "ok login": (OK_LOGIN, {"session_key": "key"}),
    "join": (JOIN, RELAYS),
    "join without": (JOIN, {"error_code": 100}),
    "join malformed": (JOIN, {"turn_server": {**RELAYS["turn_server"], "urls": ["turn:"]}}),
    "start": (START, RELAYS),
    "start without": (START, {}),
}


def seen(*names: str, status: int = 200) -> list[StageResult]:
    results = []
    for name in names:
        stage, document = DOCUMENTS[name]
        body = b"<html>" if document is None else json.dumps(document).encode()
        answer = ObservedAnswer(stage=stage, status=status, form_keys=(), body=Secret(body))
        results.append(StageResult.of_untrusted(answer))
    return results


def told(verdict: GoOn | Resolved | Failed) -> tuple[object, ...]:
    if isinstance(verdict, GoOn):
        return (verdict.at, verdict.token.reveal())
    if isinstance(verdict, Resolved):
        return (verdict.at, verdict.server.endpoints[0].address)
    return (verdict.at, verdict.error.provider_stage, verdict.error.code)


CONTINUATION = "browser_continuation_failed"
POST_PREVIEW = "browser_post_preview_unsupported"
LIVE = "unsupported_live_contour"


@pytest.mark.parametrize(
    ("names", "verdict"),
    [
        # Nothing usable.
        ((), (None, ANONYM_TOKEN, CONTINUATION)),
        (("login",), (None, ANONYM_TOKEN, CONTINUATION)),
        # The repeated stage 2.
        (("token",), (0, "anonym")),
        (("login", "token"), (1, "anonym")),
        (("captcha", "token"), (1, "anonym")),
        (("token", "captcha"), (0, "anonym")),
        (("token", "other token"), (1, "other")),
        (("captcha",), (0, ANONYM_TOKEN, CONTINUATION)),
        (("captcha", "no token"), (1, ANONYM_TOKEN, CONTINUATION)),
        (("html", "login"), (0, ANONYM_TOKEN, CONTINUATION)),
        # The live contour, which goes before it.
        (("preview",), (0, PREVIEW, "browser_preview_only")),
        (("preview refused",), (0, PREVIEW, "browser_preview_only")),
        (("login", "preview", "token"), (1, PREVIEW, "browser_preview_only")),
        (("token", "preview", "preview"), (2, PREVIEW, "browser_preview_only")),
        (("preview", "ok login"), (1, OK_LOGIN, POST_PREVIEW)),
        (("preview", "ok login", "preview"), (1, OK_LOGIN, POST_PREVIEW)),
        (("token", "preview", "ok login", "join without"), (3, JOIN, POST_PREVIEW)),
        (("preview", "join malformed", "login"), (1, JOIN, POST_PREVIEW)),
        (("preview", "ok login", "join"), (2, "t.example:3478")),
        (("captcha", "preview", "join without", "join", "join"), (3, "t.example:3478")),
        (("ok login", "preview", "join"), (0, OK_LOGIN, LIVE)),
        (("token", "join"), (1, JOIN, LIVE)),
        (("ok login",), (0, OK_LOGIN, LIVE)),
    ],
)
def test_what_an_invite_s_page_was_seen_to_do(
    names: tuple[str, ...], verdict: tuple[object, ...]
) -> None:
    assert told(judge_invite(seen(*names))) == verdict


@pytest.mark.parametrize(
    ("names", "verdict"),
    [
        (("ok login", "start"), (1, "t.example:3478")),
        (("ok login", "start without", "start"), (2, "t.example:3478")),
        ((), (None, "provider_resolve", "authenticated_browser_contour_incomplete")),
        (("ok login",), (0, OK_LOGIN, "authenticated_browser_contour_incomplete")),
        (("ok login", "start without"), (1, START, "authenticated_browser_contour_incomplete")),
        (("start",), (0, START, "authenticated_browser_unsupported_contour")),
        (("start", "ok login", "start"), (0, START, "authenticated_browser_unsupported_contour")),
    ],
)
def test_what_the_page_of_a_hosted_call_was_seen_to_do(
    names: tuple[str, ...], verdict: tuple[object, ...]
) -> None:
    assert told(judge_start(seen(*names))) == verdict


def test_answers_with_another_status_than_200_give_nothing() -> None:
    assert told(judge_invite(seen("token", status=403)))[-1] == CONTINUATION
    assert told(judge_invite(seen("preview", "join", status=500)))[-1] == POST_PREVIEW
    incomplete = told(judge_start(seen("ok login", "start", status=302)))
    assert incomplete[-1] == "authenticated_browser_contour_incomplete"


def test_every_order_of_up_to_four_answers_has_one_meaning() -> None:
    for names in itertools.chain(
        *(itertools.product(sorted(DOCUMENTS), repeat=length) for length in range(4))
    ):
        stages = [DOCUMENTS[name][0] for name in names]
        verdict = judge_invite(seen(*names))
        behind = [stage for stage in stages if stage in (PREVIEW, OK_LOGIN, JOIN)]
        if isinstance(verdict, Resolved):
            assert stages[verdict.at] == JOIN
            assert behind[0] == PREVIEW
        elif isinstance(verdict, GoOn):
            assert not behind
        elif verdict.at is not None:
            assert verdict.error.provider_stage == stages[verdict.at]


def test_nothing_of_an_answer_is_in_its_print() -> None:
    assert "anonym'" not in repr(seen("token")[0])
