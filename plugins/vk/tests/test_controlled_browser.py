"""The controlled browser with a real Chromium, and pages of the tests' own."""

import gzip
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import anyio
import pytest

from turnlane.api import Challenge, ChallengeAnswer, Secret
from turnlane_tests.pages import Answer, PageServer
from turnlane_tests.real import require
from turnlane_vk.browser import MAX_OBSERVED_BODY, BrowserUnavailable, Observations, Watch
from turnlane_vk.controlled_browser import ControlledBrowser

pytestmark = [pytest.mark.anyio, pytest.mark.real]

STEP = 60.0
"""Seconds that a step of a browser may take on a busy machine."""

ENVIRON = {**os.environ, "VK_PROVIDER_BROWSER_HEADLESS": "true"}
CHALLENGE = Challenge("captcha", "Complete it.")
KEY = "KEY"
TOKEN = "s3cret-j0in-t0ken"

PREVIEW = {"path": "/preview", "form": {"call_id": "1", "access_token": "a", "v": "5"}}
LOGIN_FORM = {"method": "auth.anonymLogin", "format": "JSON", "application_key": KEY}
JOIN_FORM = {
    "method": "vchat.joinConversationByLink",
    "format": "JSON",
    "application_key": KEY,
    "protocolVersion": "5",
    "isVideo": "false",
    "joinLink": TOKEN,
}
LOGIN = {"path": "/fb.do", "form": LOGIN_FORM}
JOIN = {"path": "/fb.do", "form": JOIN_FORM}


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


both_backends = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture(autouse=True)
def chromium() -> None:
    require("chromium")


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go, with a path as short as a browser needs."""
    with tempfile.TemporaryDirectory(prefix="tl-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def pages() -> Iterator[PageServer]:
    server = PageServer(Path(__file__).parent / "pages")
    server.answers |= {
        "/preview": Answer(b'{"response": {}}'),
        "/fb.do auth.anonymLogin": Answer(b'{"session_key": "k"}'),
        "/fb.do vchat.joinConversationByLink": Answer(b'{"turn_server": {}}'),
        "/fb.do vchat.hangup": Answer(b"{}"),
        "/captcha": Answer(b'{"captcha_key": "secret"}'),
    }
    with server.running():
        yield server


def watch(pages: PageServer, page: str) -> Watch:
    return Watch(
        page=Secret(page),
        endpoints={
            "vk_calls_get_call_preview": f"{pages.base}/preview",
            "ok_anonym_login": f"{pages.base}/fb.do",
            "ok_join_conversation_by_link": f"{pages.base}/fb.do",
        },
        application_key=KEY,
        join_links=(Secret(TOKEN),),
    )


class Operator:
    """Does something once asked, then says a word."""

    def __init__(self, first: Callable[[], Awaitable[object]], says: str = "continue") -> None:
        self._first = first
        self._says = says

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        await self._first()
        return ChallengeAnswer(self._says)  # type: ignore[arg-type]


async def observe(pages: PageServer, page: str, operator: Operator | None = None) -> Observations:
    with anyio.fail_after(STEP):
        return await ControlledBrowser(ENVIRON).observe(
            watch(pages, page), CHALLENGE, operator or Operator(pages.page_done)
        )


def processes_with(mark: bytes) -> list[int]:
    """Return the processes that have `mark` in their arguments or environment, but this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark in told:
                found.append(int(entry.name))
    return found


def command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def chromiums(temporary: Path) -> list[int]:
    """Return the main process of each Chromium that belongs to a folder in there."""
    return [
        process
        for process in processes_with(str(temporary).encode())
        if b"--remote-debugging-pipe" in command_line(process)
        and b"--type=" not in command_line(process)
    ]


def assert_nothing_left(temporary: Path) -> None:
    assert list(temporary.iterdir()) == []
    assert processes_with(str(temporary).encode()) == []


async def all_ended(processes: list[int]) -> None:
    """Wait for the end of processes that need not be children."""
    for process in processes:
        try:
            handle = os.pidfd_open(process)
        except ProcessLookupError:
            continue
        try:
            with anyio.fail_after(STEP):
                await anyio.wait_readable(handle)
        finally:
            os.close(handle)


@both_backends
async def test_the_answers_of_known_stages_are_seen_in_order_and_nothing_else(
    pages: PageServer, temporary: Path
) -> None:
    hangup = {"path": "/fb.do", "form": {**LOGIN_FORM, "method": "vchat.hangup"}}
    another = {"path": "/fb.do", "form": {**JOIN_FORM, "joinLink": "another"}}
    captcha = {"path": "/captcha", "form": {"key": "1"}}

    seen = await observe(pages, pages.plan(captcha, PREVIEW, hangup, LOGIN, another, JOIN))

    assert pages.posted[-1] == "/done"
    assert [(a.stage, a.status, a.form_keys, a.body.reveal()) for a in seen.answers] == [
        (
            "vk_calls_get_call_preview",
            200,
            ("access_token", "call_id", "v"),
            b'{"response": {}}',
        ),
        (
            "ok_anonym_login",
            200,
            ("application_key", "format", "method"),
            b'{"session_key": "k"}',
        ),
        (
            "ok_join_conversation_by_link",
            200,
            ("application_key", "format", "isVideo", "joinLink", "method", "protocolVersion"),
            b'{"turn_server": {}}',
        ),
    ]
    assert seen.ended == "continue"
    assert_nothing_left(temporary)


async def test_frames_other_windows_and_workers_are_watched_too(pages: PageServer) -> None:
    page = pages.plan(
        {**PREVIEW, "where": "frame"}, {**LOGIN, "where": "worker"}, {**JOIN, "where": "window"}
    )

    seen = await observe(pages, page)

    assert [answer.stage for answer in seen.answers] == [
        "vk_calls_get_call_preview",
        "ok_anonym_login",
        "ok_join_conversation_by_link",
    ]
    assert all(answer.body for answer in seen.answers)


async def test_what_a_page_got_is_kept_when_the_page_is_left(pages: PageServer) -> None:
    seen = await observe(pages, pages.plan(LOGIN, JOIN, then="/left.html"))

    assert [answer.body.reveal() for answer in seen.answers] == [
        b'{"session_key": "k"}',
        b'{"turn_server": {}}',
    ]


async def test_an_answer_is_kept_as_it_came_whatever_it_is(pages: PageServer) -> None:
    pages.answers["/preview"] = Answer(b"<h1>Bad gateway</h1>", 502, {"Content-Type": "text/html"})
    pages.answers["/fb.do auth.anonymLogin"] = Answer(
        gzip.compress(b'{"session_key": "zipped"}'),
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    )
    pages.answers["/fb.do vchat.joinConversationByLink"] = Answer(b"x" * (MAX_OBSERVED_BODY + 1))

    seen = await observe(pages, pages.plan(PREVIEW, LOGIN, JOIN))

    assert [(answer.status, answer.body.reveal()) for answer in seen.answers] == [
        (502, b"<h1>Bad gateway</h1>"),
        (200, b'{"session_key": "zipped"}'),
        (200, b""),
    ]


async def test_a_page_that_does_not_load_ends_nothing(pages: PageServer, temporary: Path) -> None:
    seen = await observe(
        pages, "http://127.0.0.1:1/nobody-listens", Operator(anyio.lowlevel.checkpoint)
    )

    assert seen == Observations((), "continue")
    assert_nothing_left(temporary)


@pytest.mark.parametrize("word", ["cancel", "timeout"])
async def test_nothing_is_left_when_the_operator_does_not_confirm(
    pages: PageServer, temporary: Path, word: str
) -> None:
    seen = await observe(pages, pages.plan(LOGIN), Operator(pages.page_done, word))

    assert seen.ended == word
    assert_nothing_left(temporary)


async def test_a_chromium_that_is_gone_before_the_word_is_told_as_closed(
    pages: PageServer, temporary: Path
) -> None:
    async def crash() -> None:
        await pages.page_done()
        (chromium,) = chromiums(temporary)
        os.kill(chromium, signal.SIGKILL)
        await anyio.sleep_forever()

    seen = await observe(pages, pages.plan(LOGIN), Operator(crash))

    assert seen.ended == "closed"
    assert_nothing_left(temporary)


async def test_nothing_is_left_when_the_browsers_process_is_killed(
    pages: PageServer, temporary: Path
) -> None:
    async def kill() -> None:
        await pages.page_done()
        for process in processes_with(str(temporary).encode()):
            if b"turnlane_vk.browser_process" in command_line(process):
                os.kill(process, signal.SIGKILL)
        await anyio.sleep_forever()

    seen = await observe(pages, pages.plan(LOGIN), Operator(kill))

    assert seen.ended == "closed"
    assert_nothing_left(temporary)


@both_backends
@pytest.mark.parametrize("when", ["starting", "asking"])
async def test_nothing_is_left_when_it_is_cancelled(
    pages: PageServer, temporary: Path, when: str
) -> None:
    asked = anyio.Event()

    async def never() -> None:
        await pages.page_done()
        asked.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(observe, pages, pages.plan(LOGIN), Operator(never))
        with anyio.fail_after(STEP):
            if when == "asking":
                await asked.wait()
            else:
                while not chromiums(temporary):
                    await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    assert_nothing_left(temporary)


OBSERVER = """
import sys, anyio
from turnlane.api import Challenge, Secret
from turnlane_vk.browser import Watch
from turnlane_vk.controlled_browser import ControlledBrowser

class Operator:
    async def ask(self, challenge):
        print("asked", flush=True)
        await anyio.sleep_forever()

async def main():
    page = sys.stdin.readline().strip()
    await ControlledBrowser().observe(
        Watch(page=Secret(page), endpoints={"ok_anonym_login": page}),
        Challenge("captcha", "Complete it."),
        Operator(),
    )

anyio.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
async def test_nothing_is_left_when_whoever_asked_for_it_ends(
    pages: PageServer, temporary: Path, number: signal.Signals
) -> None:
    # A Ctrl-C goes to the whole group of the command, which must not take the browser half-way.
    process = await anyio.open_process(
        [sys.executable, "-c", OBSERVER],
        env={**ENVIRON, "TMPDIR": str(temporary)},
        stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True,
    )  # fmt: skip
    async with process:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send(f"{pages.plan(LOGIN)}\n".encode())
        with anyio.fail_after(STEP):
            assert (await process.stdout.receive()).strip() == b"asked"
            await pages.page_done()
            belonging = processes_with(str(temporary).encode())
            os.killpg(process.pid, number)
            await process.wait()
        await all_ended(belonging)

    assert len(belonging) > 3
    assert_nothing_left(temporary)


@pytest.mark.parametrize(
    ("says", "advice"),
    [
        ("it is no browser", "start it by hand"),
        ("FATAL: No usable sandbox! Update your kernel", "user namespaces"),
    ],
)
async def test_a_program_that_does_not_start_is_told_with_advice_but_not_its_words(
    pages: PageServer, temporary: Path, tmp_path: Path, says: str, advice: str
) -> None:
    program = tmp_path / "chromium"
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    program.chmod(0o755)
    browser = ControlledBrowser({**ENVIRON, "VK_PROVIDER_BROWSER": str(program)})

    with pytest.raises(BrowserUnavailable, match="did not start") as caught:
        await browser.observe(
            watch(pages, pages.base), CHALLENGE, Operator(anyio.lowlevel.checkpoint)
        )

    assert advice in caught.value.advice
    assert says not in caught.value.message + caught.value.advice
    assert_nothing_left(temporary)


async def test_without_a_display_the_advice_is_to_go_without_a_window(
    pages: PageServer, temporary: Path
) -> None:
    environ = {n: v for n, v in ENVIRON.items() if n not in ("DISPLAY", "WAYLAND_DISPLAY")}
    browser = ControlledBrowser({**environ, "VK_PROVIDER_BROWSER_HEADLESS": "false"})

    with pytest.raises(BrowserUnavailable) as caught:
        await browser.observe(
            watch(pages, pages.base), CHALLENGE, Operator(anyio.lowlevel.checkpoint)
        )

    assert "VK_PROVIDER_BROWSER_HEADLESS=true" in caught.value.advice
    assert str(temporary) not in caught.value.message + caught.value.advice
    assert_nothing_left(temporary)


async def test_no_secret_is_on_a_command_line_or_printed(
    pages: PageServer, temporary: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    exposed: list[int] = []

    async def look() -> None:
        await pages.page_done()
        exposed.extend(processes_with(TOKEN.encode()))

    page = f"{pages.plan(LOGIN, JOIN)}?invite={TOKEN}"
    seen = await observe(pages, page, Operator(look))

    assert len(seen.answers) == 2
    assert exposed == []
    assert not any(word in "".join(capfd.readouterr()) for word in (TOKEN, "session_key"))
    assert not any(word in repr(seen) for word in (TOKEN, "session_key"))
