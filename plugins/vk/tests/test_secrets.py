"""Planted secrets: whatever is answered, none of it is logged, traced, told or recorded."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from turnlane.api import ProviderError, Resolution, ResolveRequest, Secret
from turnlane.plugins.settings import validate
from turnlane.telemetry.redaction import find_leaks
from turnlane.testing.context import FakeProviderContext, ScriptedChallenges
from turnlane_tests.vk_stand_in import ANONYM_TOKEN, JOIN, LOGIN, OK_LOGIN, PREVIEW, Reply
from turnlane_vk.provider import VkProvider
from turnlane_vk.quiet import LOGGERS, quiet
from turnlane_vk.settings import VkSettings

pytestmark = pytest.mark.anyio


@contextmanager
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.DEBUG)
        try:
            yield
        finally:
            for name in LOGGERS:
                logging.getLogger(name).setLevel(logging.NOTSET)


def echoing(vk: Any) -> list[Reply]:
    """Return answers that repeat every secret in every place that is read."""
    replies = []
    for value in vk.planted.all():
        error = {"error_code": value, "error_msg": value, "redirect_uri": value, value: value}
        document = {
            "error": error,
            "error_msg": value,
            "data": {value: value},
            "response": {"join_link": value, "state": value},
            "turn_server": {"username": value, "credential": "", "urls": [value]},
            value: value,
        }
        replies.append(
            Reply(document, headers={"X-Odd": value.encode("ascii", "replace").decode()})
        )
    return replies


def files_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


@pytest.mark.parametrize("stage", [None, LOGIN, ANONYM_TOKEN, OK_LOGIN, JOIN])
async def test_nothing_planted_is_seen_anywhere(
    client: Any, caplog: pytest.LogCaptureFixture, stage: str | None
) -> None:
    vk, browser = client.vk, client.browser
    settings = validate(VkSettings, vk.settings, "the provider vk", text=True)
    context = FakeProviderContext()
    provider = VkProvider(context)
    request = ResolveRequest(Secret(vk.link), settings, interactive=True)
    if stage is not None:
        vk.answer(stage, *echoing(vk))
    outcomes: list[Resolution | ProviderError] = []
    with everything_logged(caplog):
        for _ in range(1 if stage is None else len(vk.planted.all())):
            try:
                outcomes.append(await provider.resolve(request, ScriptedChallenges()))
            except ProviderError as error:
                outcomes.append(error)
    told = [caplog.text, repr(context.spans), repr(provider), repr(request), repr(vars(provider))]
    for outcome in outcomes:
        told += [repr(outcome), str(outcome), repr(getattr(outcome, "artifact", None))]
        client.check(outcome.artifact, "")
    assert find_leaks("\n".join(told), vk.planted.all()) == []
    assert len(context.spans) >= len(outcomes)
    assert browser.watched == []


async def test_nothing_that_a_browser_saw_is_seen_anywhere(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    vk = client.vk
    vk.answer(ANONYM_TOKEN, Reply(vk.captcha()))
    for reply in echoing(vk):
        client.browser.sees(PREVIEW, reply.document)
        client.browser.sees(JOIN, reply.document)
    with everything_logged(caplog):
        error = await client.failing(interactive=True)
    assert error.code == "browser_post_preview_unsupported"
    told = [caplog.text, repr(client.browser.watched), repr(client.browser.answers)]
    assert find_leaks("\n".join([*told, repr(client.asked)]), vk.planted.all()) == []


async def test_requests_of_others_are_still_logged(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await client.resolve()
    with caplog.at_level(logging.INFO, logger="httpx"):
        async with httpx.AsyncClient() as other:
            await other.get(f"{client.vk.base}/elsewhere")
            with quiet():
                await other.get(f"{client.vk.base}/ours")
    assert "elsewhere" in caplog.text
    assert "ours" not in caplog.text


async def test_no_file_is_written(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    await client.resolve()
    assert files_in(tmp_path) == []
