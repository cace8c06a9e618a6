"""The provider's side of the controlled browser, against processes that only pretend to be one."""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from turnlane.api import Challenge, ChallengeAnswer, Secret
from turnlane_vk import controlled_browser
from turnlane_vk.browser import (
    MAX_OBSERVED_BODY,
    BrowserUnavailable,
    Observations,
    ObservedAnswer,
    Watch,
)
from turnlane_vk.browser_wire import MAX_LINE, Observed, encode
from turnlane_vk.controlled_browser import ControlledBrowser

pytestmark = pytest.mark.anyio

STEP = 20.0
"""Seconds that a step may take on a busy machine."""

TOKEN = "s3cret-j0in-t0ken"
WATCH = Watch(
    page=Secret(f"https://example/call/join/{TOKEN}"),
    endpoints={"ok_anonym_login": "https://example/fb.do"},
    application_key="KEY",
    join_links=(Secret(TOKEN),),
)
CHALLENGE = Challenge("captcha", "Complete it.")

PRELUDE = """
import base64, json, os, signal, subprocess, sys, time
def tell(type, **event):
    line = json.dumps({"type": type, **event}).encode() + b"\\n"
    while line:
        line = line[os.write(1, line):]
def answer(body, stage="ok_anonym_login", status=200):
    tell("observed", answer={"stage": stage, "status": status, "form_keys": ["method"],
                             "body": base64.b64encode(body).decode()})
def hear():
    return json.loads(sys.stdin.readline() or "null")
def stay():
    os.read(0, 1)
def never_end():
    while True: signal.pause()
def leave_one_behind():
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", sys.argv[1]],
                     start_new_session=True, stdout=subprocess.DEVNULL)
opening = hear()
"""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go, with a path as short as a browser needs."""
    with tempfile.TemporaryDirectory(prefix="tl-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture(autouse=True)
def playwright_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())


def browser(code: str) -> ControlledBrowser:
    environ = {**os.environ, "VK_PROVIDER_BROWSER": "/bin/sh"}
    return ControlledBrowser(environ, [sys.executable, "-c", PRELUDE + code])


def assert_nothing_left(temporary: Path) -> None:
    assert list(temporary.iterdir()) == []
    assert processes_with(str(temporary).encode()) == []


def processes_with(mark: bytes) -> list[str]:
    """Return the processes that have `mark` in their arguments or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark in told:
                found.append(entry.name)
    return found


class Operator:
    """Answers the challenge when told to; `says` may be an error to raise."""

    def __init__(self, says: str | Exception | None = "continue") -> None:
        self.says = says
        self.asked = anyio.Event()
        self.given_up = False

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        assert challenge is CHALLENGE
        self.asked.set()
        if isinstance(self.says, Exception):
            raise self.says
        try:
            if self.says is None:
                await anyio.sleep_forever()
        except BaseException:
            self.given_up = True
            raise
        return ChallengeAnswer(self.says)  # type: ignore[arg-type]


async def observe(code: str, operator: Operator) -> Observations:
    with anyio.fail_after(STEP):
        return await browser(code).observe(WATCH, CHALLENGE, operator)


async def test_what_is_to_be_watched_is_told_and_what_is_seen_comes_back_in_order(
    temporary: Path,
) -> None:
    seen = await observe(
        """
tell("ready")
answer(json.dumps(opening, sort_keys=True).encode())
assert hear() == {"type": "finish"}
answer(b"\\xff\\n", status=500)
tell("finished")
stay()
""",
        Operator("continue"),
    )

    first, second = seen.answers
    assert b'"page": "https://example/call/join/s3cret-j0in-t0ken"' in first.body.reveal()
    assert b'"executable": "/bin/sh"' in first.body.reveal()
    assert second == ObservedAnswer(
        stage="ok_anonym_login", status=500, form_keys=("method",), body=Secret(b"\xff\n")
    )
    assert seen.ended == "continue"
    assert_nothing_left(temporary)


@pytest.mark.parametrize("word", ["cancel", "timeout"])
async def test_a_word_that_ends_it_closes_the_browser_at_once(temporary: Path, word: str) -> None:
    seen = await observe('tell("ready"); stay()', Operator(word))

    assert seen.ended == word
    assert_nothing_left(temporary)


@pytest.mark.parametrize(
    "ending",
    [
        'tell("closed"); stay()',
        "sys.exit(0)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        'print("what is this?", flush=True); stay()',
        'tell("observed", answer={"stage": 1}); stay()',
        'tell("observed", answer={"stage":"s","status":1,"form_keys":[],"body":"?"}); stay()',
        'tell("observed", answer={"stage":"s","status":1,"form_keys":[],"body":7}); stay()',
        'os.write(1, b"\\xff\\n"); stay()',
        f'tell("x" * {MAX_LINE}); stay()',
    ],
    ids=["told", "ended", "killed", "no json", "wrong type", "no base64", "no text", "no utf-8",
         "too long"],
)  # fmt: skip
async def test_a_browser_that_goes_away_ends_the_question_and_keeps_what_was_seen(
    temporary: Path, ending: str
) -> None:
    operator = Operator(None)

    seen = await observe(f'tell("ready"); answer(b"seen"); {ending}', operator)

    assert seen.ended == "closed"
    assert [answer.body.reveal() for answer in seen.answers] == [b"seen"]
    assert operator.given_up
    assert_nothing_left(temporary)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ('tell("not_started", reason="display")', "VK_PROVIDER_BROWSER_HEADLESS=true"),
        ('tell("not_started", reason="sandbox")', "sandbox"),
        ('tell("not_started", reason="other")', "start it by hand"),
        ("sys.exit(1)", "start it by hand"),
        ('tell("finished")', "start it by hand"),
    ],
)
async def test_a_browser_that_does_not_start_is_told_with_advice_and_asks_nobody(
    temporary: Path, code: str, advice: str
) -> None:
    operator = Operator()

    with pytest.raises(BrowserUnavailable, match="did not start") as caught:
        await observe(code, operator)

    assert advice in caught.value.advice
    assert not operator.asked.is_set()
    assert_nothing_left(temporary)


async def test_a_browser_that_does_not_get_ready_is_given_up(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlled_browser, "START_WITHIN", 0.2)

    with pytest.raises(BrowserUnavailable):
        await observe("stay()", Operator())

    assert_nothing_left(temporary)


async def test_a_process_that_does_not_end_is_killed_with_all_that_belongs_to_it(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlled_browser, "END_WITHIN", 0.1)

    seen = await observe(
        'leave_one_behind(); tell("ready"); hear(); tell("finished"); never_end()', Operator()
    )

    assert seen.ended == "continue"
    assert_nothing_left(temporary)


async def test_what_a_killed_process_leaves_behind_is_killed_too(temporary: Path) -> None:
    seen = await observe(
        'leave_one_behind(); tell("ready"); os.kill(os.getpid(), signal.SIGKILL)', Operator(None)
    )

    assert seen.ended == "closed"
    assert_nothing_left(temporary)


async def test_a_process_that_does_not_finish_is_not_waited_for(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlled_browser, "FINISH_WITHIN", 0.2)

    seen = await observe('tell("ready"); answer(b"seen"); hear(); stay()', Operator())

    assert seen.ended == "continue"
    assert len(seen.answers) <= 1
    assert_nothing_left(temporary)


async def test_a_process_that_still_tells_when_it_is_to_end_is_heard_out(
    temporary: Path, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"

    await observe(
        f"""
tell("ready")
stay()
for _ in range(8): answer(b"x" * {MAX_OBSERVED_BODY})
open({str(ended)!r}, "w").close()
""",
        Operator("cancel"),
    )

    assert ended.exists()
    assert_nothing_left(temporary)


@pytest.mark.parametrize("code", ["stay()", 'tell("ready"); stay()'], ids=["starting", "asking"])
async def test_cancellation_leaves_nothing_behind(temporary: Path, code: str) -> None:
    operator = Operator(None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(observe, f"leave_one_behind(); {code}", operator)
        if "ready" in code:
            await operator.asked.wait()
        else:
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()

    assert_nothing_left(temporary)


async def test_what_the_challenge_raises_is_raised_as_it_is(temporary: Path) -> None:
    error = ValueError("no terminal")

    with pytest.raises(ValueError, match="no terminal") as caught:
        await observe('tell("ready"); stay()', Operator(error))

    assert caught.value is error
    assert_nothing_left(temporary)


async def test_the_page_is_told_through_the_pipe_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    seen = await observe(
        """
print(opening["watch"]["join_links"][0], file=sys.stderr, flush=True)
tell("ready")
answer(open("/proc/self/cmdline", "rb").read() + open("/proc/self/environ", "rb").read())
hear()
tell("finished")
""",
        Operator(),
    )

    (told,) = seen.answers
    assert b"TMPDIR=" in told.body.reveal()
    assert TOKEN.encode() not in told.body.reveal()
    assert TOKEN not in repr(seen)
    assert TOKEN not in "".join(capfd.readouterr())


async def test_without_a_place_for_the_profile_the_advice_is_another(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "nowhere"))

    with pytest.raises(BrowserUnavailable) as caught:
        await observe("", Operator())

    assert "TMPDIR" in caught.value.advice
    assert str(temporary) not in str(caught.value)


def test_the_longest_answer_fits_a_line() -> None:
    answer = ObservedAnswer(
        stage="s" * 64,
        status=200,
        form_keys=("k" * 32,) * 64,
        body=Secret(b"\xff" * MAX_OBSERVED_BODY),
    )

    assert len(encode(Observed(answer))) <= MAX_LINE
