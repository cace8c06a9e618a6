"""The observed flow: a human, a browser that is played here, and what is made of it."""

import json
from typing import Any, Literal

import pytest

from turnlane.api import Renewal
from turnlane_tests.vk_stand_in import (
    ANONYM_TOKEN,
    JOIN,
    LOGIN,
    OK_LOGIN,
    PAGE_LOGIN,
    PREVIEW,
    START,
    Reply,
)
from turnlane_vk.browser import BrowserUnavailable

pytestmark = pytest.mark.anyio

START_LINK = "https://calls.vk.com/"
STAGED = [LOGIN, ANONYM_TOKEN, OK_LOGIN, JOIN]


@pytest.fixture
def challenged(client: Any) -> Any:
    """Return a client of which VK wants a human."""
    client.vk.answer(ANONYM_TOKEN, Reply(client.vk.captcha()))
    return client


def endings(artifact: Any) -> list[tuple[str, str]]:
    """Return stages and what became of them."""
    return [(each.name, each.outcome.error_code or each.outcome.kind) for each in artifact.stages]


async def test_with_a_token_from_the_browser_the_staged_flow_goes_on(challenged: Any) -> None:
    vk, browser = challenged.vk, challenged.browser
    browser.sees(ANONYM_TOKEN, vk.captcha(), keys=("name",))
    browser.sees(ANONYM_TOKEN, vk.good(ANONYM_TOKEN), keys=("vk_join_link", "name", "captcha_sid"))
    resolution = await challenged.resolve(interactive=True)
    assert vk.stages == STAGED
    assert resolution.renewal is Renewal.CHALLENGE
    assert resolution.artifact.resolution_method == "staged_http"
    assert endings(resolution.artifact) == [
        (LOGIN, "continue"),
        (ANONYM_TOKEN, "captcha_required"),
        (ANONYM_TOKEN, "captcha_required"),
        (ANONYM_TOKEN, "continue"),
        (OK_LOGIN, "continue"),
        (JOIN, "resolution"),
    ]
    repeated = resolution.artifact.stages[3].request
    assert repeated.form_keys == ("captcha_sid", "name", "vk_join_link")
    assert repeated.redacted_fields == ("vk_join_link", "captcha_sid")


async def test_the_browser_opens_the_invite_and_not_the_captcha(challenged: Any) -> None:
    challenged.settings["challenge_timeout"] = 42
    await challenged.failing(interactive=True)
    [watch] = challenged.browser.watched
    token = challenged.vk.planted.join_token
    assert watch.page.reveal() == f"{challenged.vk.base}/call/join/{token}"
    assert [each.reveal() for each in watch.join_links] == [token, challenged.vk.link]
    assert START not in watch.endpoints
    [challenge] = challenged.asked
    assert (challenge.kind, challenge.deadline) == ("captcha", 42)
    assert (challenge.completes, challenge.open_url) == ("confirmation", None)


async def test_what_is_opened_and_watched_can_be_told(challenged: Any) -> None:
    vk, base = challenged.vk, "https://vk.example"
    challenged.settings |= {
        "invite_page": f"{base}/j/",
        "start_page": f"{base}/s",
        "browser_login_url": f"{base}/l",
        "browser_anonym_token_url": f"{base}/t",
        "browser_preview_url": f"{base}/p",
        "protocol_version": "6",
    }
    # The stand-in speaks version 5 only, and is not asked to join here.
    await challenged.failing(interactive=True)
    await challenged.failing(START_LINK, interactive=True)
    invite, start = challenged.browser.watched
    assert invite.page.reveal() == f"{base}/j/{vk.planted.join_token}"
    assert invite.endpoints == {
        ANONYM_TOKEN: f"{base}/t",
        PAGE_LOGIN: f"{base}/l",
        PREVIEW: f"{base}/p",
        OK_LOGIN: vk.settings["ok_url"],
        JOIN: vk.settings["ok_url"],
    }
    assert (invite.application_key, invite.protocol_version) == ("CGMMEJLGDIHBABABA", "6")
    assert start.page.reveal() == f"{base}/s"


async def test_relays_that_the_page_got_itself_resolve(challenged: Any) -> None:
    vk, browser = challenged.vk, challenged.browser
    for stage in (PREVIEW, OK_LOGIN, JOIN):
        browser.sees(stage, vk.good(stage), keys=("access_token", "session_key"))
    resolution = await challenged.resolve(interactive=True)
    assert vk.stages == STAGED[:2]
    assert resolution.credentials.password.reveal() == vk.planted.password
    assert resolution.credentials.expires_at == 4_102_444_700.0
    assert resolution.renewal is Renewal.CHALLENGE
    assert resolution.artifact.resolution_method == "browser_observed"
    assert endings(resolution.artifact)[2:] == [
        (PREVIEW, "continue"),
        (OK_LOGIN, "continue"),
        (JOIN, "resolution"),
    ]


@pytest.mark.parametrize(
    ("seen", "code", "stage", "method"),
    [
        ([], "browser_continuation_failed", ANONYM_TOKEN, "staged_http"),
        ([PREVIEW], "browser_preview_only", PREVIEW, "browser_observed"),
        ([PREVIEW, OK_LOGIN], "browser_post_preview_unsupported", OK_LOGIN, "browser_observed"),
        ([OK_LOGIN, JOIN], "unsupported_live_contour", OK_LOGIN, "browser_observed"),
    ],
)
async def test_what_the_page_did_otherwise_fails_with_its_code(
    challenged: Any, seen: list[str], code: str, stage: str, method: str
) -> None:
    for each in seen:
        challenged.browser.sees(each, challenged.vk.good(each))
    error = await challenged.failing(interactive=True)
    assert (error.code, error.provider_stage) == (code, stage)
    assert error.artifact.resolution_method == method
    assert len(error.artifact.stages) == 2 + len(seen)
    assert challenged.vk.stages == STAGED[:2]
    if seen:
        assert (stage, code) in endings(error.artifact)[2:]


async def test_a_page_in_place_of_json_is_no_token(challenged: Any) -> None:
    challenged.browser.sees(ANONYM_TOKEN, b"<html>planted</html>", status=502)
    error = await challenged.failing(interactive=True)
    assert error.code == "browser_continuation_failed"
    assert error.artifact.stages[-1].response.body == {}


@pytest.mark.parametrize("action", ["cancel", "timeout"])
async def test_a_captcha_that_nobody_confirms_counts_for_nothing(
    challenged: Any, action: Literal["cancel", "timeout"]
) -> None:
    challenged.action = action
    challenged.browser.sees(ANONYM_TOKEN, challenged.vk.good(ANONYM_TOKEN))
    error = await challenged.failing(interactive=True)
    assert (error.code, error.provider_stage) == ("browser_continuation_failed", ANONYM_TOKEN)
    assert {"cancel": "cancelled", "timeout": "in time"}[action] in error.message
    assert challenged.vk.stages == STAGED[:2]


async def test_of_a_browser_that_was_closed_counts_what_was_seen(challenged: Any) -> None:
    challenged.browser.closed = True
    challenged.browser.sees(ANONYM_TOKEN, challenged.vk.good(ANONYM_TOKEN))
    assert (await challenged.resolve(interactive=True)).renewal is Renewal.CHALLENGE


@pytest.mark.parametrize(
    ("link", "stage", "where"),
    [(None, ANONYM_TOKEN, f" ({ANONYM_TOKEN})"), (START_LINK, "provider_resolve", "")],
)
async def test_without_a_browser_it_is_told_what_to_install(
    challenged: Any, link: str | None, stage: str, where: str
) -> None:
    challenged.browser.unavailable = BrowserUnavailable("no Chromium", "install chromium")
    error = await challenged.failing(link, interactive=True)
    assert (error.code, error.provider_stage) == ("browser_unavailable", stage)
    assert (error.message, error.advice) == ("no Chromium" + where, "install chromium")


async def test_no_browser_is_started_where_no_human_is_needed(client: Any) -> None:
    resolution = await client.resolve(interactive=True)
    assert (resolution.renewal, client.asked) == (Renewal.RESOLVE, [])
    assert client.browser.watched == []


# The authenticated start.


async def test_a_hosted_call_needs_a_human_from_the_beginning(client: Any) -> None:
    error = await client.failing(START_LINK)
    assert error.code == "authenticated_browser_start_required"
    assert error.provider_stage == "provider_resolve"
    assert error.artifact.resolution_method == "browser_observed"
    assert error.artifact.input == {"entry": "hosted_call"}
    assert (client.browser.watched, client.vk.seen) == ([], [])


async def test_a_hosted_call_gives_the_relays_that_its_page_got(client: Any) -> None:
    for stage in (OK_LOGIN, START):
        client.browser.sees(stage, client.vk.good(stage), keys=("session_key", "createJoinLink"))
    resolution = await client.resolve(START_LINK, interactive=True)
    assert resolution.credentials.username.reveal() == client.vk.username
    assert resolution.renewal is Renewal.CHALLENGE
    assert endings(resolution.artifact) == [(OK_LOGIN, "continue"), (START, "resolution")]
    [watch] = client.browser.watched
    assert watch.page.reveal() == client.vk.settings["start_page"]
    assert set(watch.endpoints) == {OK_LOGIN, START}
    assert [each.kind for each in client.asked] == ["sign_in"]
    # The program itself asks VK for nothing.
    assert client.vk.seen == []


@pytest.mark.parametrize(
    ("seen", "code", "stage"),
    [
        ([], "authenticated_browser_contour_incomplete", "provider_resolve"),
        ([OK_LOGIN], "authenticated_browser_contour_incomplete", OK_LOGIN),
        ([START], "authenticated_browser_unsupported_contour", START),
    ],
)
async def test_a_hosted_call_without_relays_fails_with_its_code(
    client: Any, seen: list[str], code: str, stage: str
) -> None:
    for each in seen:
        client.browser.sees(each, client.vk.good(each))
    error = await client.failing(START_LINK, interactive=True)
    assert (error.code, error.provider_stage) == (code, stage)
    assert endings(error.artifact)[-1] == (stage, code)


@pytest.mark.parametrize("action", ["cancel", "timeout"])
async def test_a_hosted_call_that_nobody_confirms_counts_for_nothing(
    client: Any, action: Literal["cancel", "timeout"]
) -> None:
    client.action = action
    for stage in (OK_LOGIN, START):
        client.browser.sees(stage, client.vk.good(stage))
    error = await client.failing(START_LINK, interactive=True)
    assert error.code == "authenticated_browser_continuation_failed"
    assert error.provider_stage == "provider_resolve"


async def test_names_of_fields_that_may_be_values_are_not_shown(challenged: Any) -> None:
    keys = ("name", challenged.vk.planted.session_key, "x" * 40, "k1", "")
    challenged.browser.sees(ANONYM_TOKEN, {}, keys=keys)
    error = await challenged.failing(interactive=True)
    assert json.loads(json.dumps(error.artifact.stages[-1].request.form_keys)) == ["name"]
