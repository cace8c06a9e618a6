"""VK calls that ask for a human: the command line, a real headless Chromium, a stand-in for VK.

The pages do what a human would have them do by themselves: nothing here clicks or types in a page.
"""

import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import anyio
import pytest

from turnlane.api import Secret
from turnlane.telemetry.redaction import find_leaks
from turnlane_lab.stand import Stand
from turnlane_tests.local_peers import local_peers
from turnlane_tests.pages import PageServer
from turnlane_tests.programs import STEP, TURNLANE, Program, Shell
from turnlane_tests.real import require
from turnlane_tests.vk_stand_in import (
    ANONYM_TOKEN,
    APPLICATION_KEY,
    JOIN,
    LOGIN,
    OK_LOGIN,
    PAGE_ANONYM_TOKEN,
    PAGE_LOGIN,
    PREVIEW,
    START,
    Reply,
    VkStandIn,
)

# The programs choose their backend themselves; the stand beside them needs only one.
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.real,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
]

FIXTURES = Path(__file__).parents[2] / "plugins" / "vk" / "tests" / "fixtures"
LOGS = ("--log-level", "debug", "--log-format", "json")

Request = tuple[str, Mapping[str, str]]
"""What a page asks for: a stage, and the form it sends."""

PATHS = {
    PAGE_ANONYM_TOKEN: "/page/calls.getAnonymousToken",
    PAGE_LOGIN: "/page/login?act=get_anonym_token",
    PREVIEW: "/page/calls.getCallPreview",
    OK_LOGIN: "/fb.do",
    JOIN: "/fb.do",
    START: "/fb.do",
}
OF_PAGES = {PAGE_LOGIN: PAGE_LOGIN, PREVIEW: PREVIEW, ANONYM_TOKEN: PAGE_ANONYM_TOKEN}

PAGE = """<!doctype html>
<html lang="en">
<title>A call</title>
<h1>A call</h1>
<script>
  (async () => {
    for (const [path, form] of %s) {
      const answer = await fetch(path, { method: "POST", body: new URLSearchParams(form) });
      await answer.text();
    }
    await fetch("%s/done", { method: "POST", mode: "no-cors" });
  })();
</script>
</html>
"""


class Scene:
    """A stand-in whose page makes requests by itself, and a terminal with an operator."""

    def __init__(self, vk: VkStandIn, pages: PageServer, shell: Shell, temporary: Path) -> None:
        self.vk = vk
        self.pages = pages
        self.shell = shell
        self.temporary = temporary
        self.link = shell.write("link", vk.link)
        self.artifacts = shell.folder / "artifacts"
        self.environment = {
            "TMPDIR": str(temporary),
            "VK_PROVIDER_BROWSER_HEADLESS": "true",
        }

    def page(self, *requests: Request, path: str | None = None) -> None:
        """Let the page of the invite, or of another path, make these requests."""
        asked = json.dumps([[PATHS[stage], form] for stage, form in requests])
        where = f"/call/join/{self.vk.planted.join_token}" if path is None else path
        self.vk.pages[where] = PAGE % (asked, self.pages.base)

    def form(self, stage: str) -> Request:
        """Return a request as VK's page makes it."""
        planted = self.vk.planted
        ok = {"format": "JSON", "application_key": APPLICATION_KEY}
        forms: dict[str, dict[str, str]] = {
            PAGE_ANONYM_TOKEN: {"vk_join_link": self.vk.link, "captcha_sid": planted.captcha_sid},
            PAGE_LOGIN: {"client_id": "1", "app_id": "1", "token_type": "messages", "version": "1"},
            PREVIEW: {"access_token": planted.browser_access_token, "call_id": "1", "v": "5.275"},
            OK_LOGIN: {"method": "auth.anonymLogin", "session_data": "{}", **ok},
            JOIN: {
                "method": "vchat.joinConversationByLink",
                "joinLink": planted.join_token,
                "isVideo": "false",
                "protocolVersion": "5",
                "session_key": planted.session_key,
                **ok,
            },
            START: {
                "method": "vchat.startConversation",
                "createJoinLink": "true",
                "session_key": planted.session_key,
                **ok,
            },
        }
        return stage, forms[stage]

    @asynccontextmanager
    async def run(self, command: str, *arguments: object) -> AsyncIterator[Program]:
        """Start a command with a terminal, in a process group of its own."""
        given = ("--provider", "vk", "--link-file", self.link, "--interactive-provider", "--json")
        settings = [f"--set={name}={value}" for name, value in self.vk.settings.items()]
        process = await anyio.open_process(
            [*TURNLANE, command, *map(str, (*given, *LOGS, *settings, *arguments))],
            stdin=PIPE,
            cwd=self.shell.folder,
            env={**self.shell.environment, **self.environment},
            start_new_session=True,
        )
        program = Program(process)
        async with process, anyio.create_task_group() as tasks:
            program.listen(tasks)
            try:
                yield program
            finally:
                if process.returncode is None:
                    process.kill()
                tasks.cancel_scope.cancel()

    async def probe(self, word: str = "continue") -> tuple[int, Program]:
        """Probe, and say a word when the page is done; return the exit code and the program."""
        async with self.run("probe", "--output-dir", self.artifacts) as program:
            await self.says(program, word)
            code = await program.ended()
        self.check(program)
        return code, program

    async def says(self, program: Program, word: str) -> None:
        """Type a word when the page is done."""
        assert program.process.stdin is not None
        await self.pages.page_done()
        await program.process.stdin.send(f"{word}\n".encode())

    @property
    def artifact(self) -> dict[str, Any]:
        """What the probe has written."""
        written = (self.artifacts / "vk" / "probe-artifact.json").read_text()
        artifact: dict[str, Any] = json.loads(written)
        return artifact

    def check(self, program: Program) -> None:
        """Check that the browser left nothing behind, and nothing planted was written."""
        assert list(self.temporary.iterdir()) == []
        assert self.belonging() == []
        planted = self.vk.planted.all()
        assert find_leaks(program.out, planted) == []
        assert find_leaks(program.err, planted) == []
        for path in self.shell.folder.rglob("*"):
            if path.is_file() and path != self.link:
                assert find_leaks(path.read_bytes(), planted) == [], path
        assert self.vk.faults == []

    def belonging(self) -> list[int]:
        """Return the processes of the browser: they have its folder's place among what they got."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                except OSError:
                    continue
                if f"{self.temporary}/turnlane-vk-".encode() in told:
                    found.append(int(entry.name))
        return found

    def chromiums(self) -> list[int]:
        """Return those among them that are a browser's main process."""
        lines = {each: Path(f"/proc/{each}/cmdline").read_bytes() for each in self.belonging()}
        return [
            process
            for process, line in lines.items()
            if b"--remote-debugging-pipe" in line and b"--type=" not in line
        ]


@pytest.fixture(autouse=True)
def chromium() -> None:
    require("chromium")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with (
        # The path of a browser's socket is bounded, so its folder lies higher than others.
        tempfile.TemporaryDirectory(prefix="tl-", dir="/tmp") as temporary,
        PageServer(tmp_path).running() as pages,
        VkStandIn() as vk,
    ):
        yield Scene(vk, pages, Shell(tmp_path), Path(temporary))


@pytest.fixture
def captcha(scene: Scene) -> Scene:
    """A scene in which the staged flow is asked for a human."""
    scene.vk.answer(ANONYM_TOKEN, Reply(scene.vk.captcha()))
    return scene


async def test_a_completed_captcha_carries_datagrams_to_the_echo(captcha: Scene) -> None:
    vk = captcha.vk
    captcha.page(captcha.form(PAGE_ANONYM_TOKEN))
    async with Stand(relay={"users": {vk.username: Secret(vk.planted.password)}}) as stand:
        vk.turn_urls = [f"turn:127.0.0.1:{stand.relay.udp_port}?transport=udp"]
        given = ("--peer", stand.peer.reveal(), "--listen", "127.0.0.1:0", "--connections", 2)
        async with captcha.run("client", *given) as program:
            await captcha.says(program, "continue")
            host, _, port = (await program.ready())["listen"].rpartition(":")
            assert captcha.belonging() == []
            async with local_peers((host, int(port)), "ann") as [peer]:
                await peer.echoed(peer.send())
            assert await program.signalled(signal.SIGTERM) == 0
    captcha.check(program)
    assert vk.stages == [LOGIN, ANONYM_TOKEN, PAGE_ANONYM_TOKEN, OK_LOGIN, JOIN]


async def test_a_page_that_joins_by_itself_resolves_by_what_it_got(captcha: Scene) -> None:
    stages = [PAGE_LOGIN, PREVIEW, OK_LOGIN, JOIN]
    captcha.page(*map(captcha.form, stages))

    code, program = await captcha.probe()

    assert code == 0, program.err
    assert json.loads(program.out)["turn_address"] == "turn.example.test:3478"
    assert captcha.artifact["resolution_method"] == "browser_observed"
    assert [each["name"] for each in captcha.artifact["stages"]] == [LOGIN, ANONYM_TOKEN, *stages]
    assert captcha.vk.stages == [LOGIN, ANONYM_TOKEN, *stages]


async def test_a_hosted_call_resolves_by_what_the_page_got(scene: Scene) -> None:
    scene.link.write_text("https://calls.vk.com/")
    scene.page(scene.form(OK_LOGIN), scene.form(START), path="/start")

    code, program = await scene.probe()

    assert code == 0, program.err
    assert json.loads(program.out)["turn_address"] == "turn.example.test:3478"
    assert scene.vk.stages == [OK_LOGIN, START]


@pytest.mark.parametrize(
    ("stages", "at", "error"),
    [
        ([], ANONYM_TOKEN, "browser_continuation_failed"),
        ([PAGE_LOGIN, PREVIEW], PREVIEW, "browser_preview_only"),
        ([PREVIEW, OK_LOGIN], OK_LOGIN, "browser_post_preview_unsupported"),
        ([OK_LOGIN, PREVIEW], OK_LOGIN, "unsupported_live_contour"),
    ],
)
async def test_what_the_page_did_not_get_to_is_told(
    captcha: Scene, stages: Sequence[str], at: str, error: str
) -> None:
    captcha.page(*map(captcha.form, stages))

    code, program = await captcha.probe()

    assert code == 1
    told = json.loads(program.out)
    assert (told["provider_stage"], told["code"]) == (at, error)
    assert captcha.artifact["outcome"]["provider_error"] == {"stage": at, "code": error}


@pytest.mark.parametrize(
    "name",
    [
        "vk_call_debug_browser_continuation_failed_v1",
        "vk_call_debug_captcha_resume_success_v1",
        "vk_call_debug_live_browser_preview_only_v1",
    ],
)
async def test_a_fixture_replayed_in_the_browser_gives_its_artifact(
    captcha: Scene, name: str
) -> None:
    fixture = json.loads((FIXTURES / f"{name}.json").read_text())
    asked: list[Request] = []
    for number, stage in enumerate(fixture["stages"]):
        document = captcha.vk.planted.filled(stage["response"]["body"])
        reply = Reply(document, stage["response"]["status_code"])
        again = stage["name"] in [each["name"] for each in fixture["stages"][:number]]
        if again or stage["name"] in (PAGE_LOGIN, PREVIEW):
            keys = stage["request"]["form_keys"]
            asked.append((OF_PAGES[stage["name"]], dict.fromkeys(keys, "x")))
            captcha.vk.answer(OF_PAGES[stage["name"]], reply)
        else:
            captcha.vk.answer(stage["name"], reply)
    captcha.page(*asked)

    code, _ = await captcha.probe()

    assert code == (0 if fixture["expected"]["result_kind"] == "resolution" else 1)
    for part in ("provider", "input", "stages"):
        assert captcha.artifact[part] == fixture[part]
    assert captcha.artifact["outcome"] == fixture["expected"]


async def test_the_operator_gives_up(captcha: Scene) -> None:
    captcha.page(captcha.form(PAGE_ANONYM_TOKEN))

    code, program = await captcha.probe("cancel")

    assert code == 1
    assert json.loads(program.out)["code"] == "browser_continuation_failed"


async def test_a_closed_browser_is_told(captcha: Scene) -> None:
    captcha.page()
    async with captcha.run("probe", "--output-dir", captcha.artifacts) as program:
        await captcha.pages.page_done()
        for process in captcha.chromiums():
            os.kill(process, signal.SIGKILL)
        assert await program.ended() == 1
    captcha.check(program)
    assert json.loads(program.out)["code"] == "browser_continuation_failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_takes_the_browser_along(
    captcha: Scene, number: signal.Signals, code: int
) -> None:
    captcha.page(captcha.form(PAGE_ANONYM_TOKEN))
    async with captcha.run("probe", "--output-dir", captcha.artifacts) as program:
        await captcha.pages.page_done()
        # To the whole group, as a terminal does it.
        os.killpg(program.pid, number)
        assert await program.ended() == code
    captcha.check(program)


async def test_a_killed_program_takes_the_browser_along(captcha: Scene) -> None:
    captcha.page(captcha.form(PAGE_ANONYM_TOKEN))
    async with captcha.run("probe", "--output-dir", captcha.artifacts) as program:
        await captcha.pages.page_done()
        left = [os.pidfd_open(process) for process in captcha.belonging()]
        assert len(left) > 3
        os.killpg(program.pid, signal.SIGKILL)
        await program.ended()
        for handle in left:
            with anyio.fail_after(STEP):
                await anyio.wait_readable(handle)
            os.close(handle)
    captcha.check(program)


async def test_without_a_browser_the_advice_is_what_to_install(captcha: Scene) -> None:
    captcha.environment["VK_PROVIDER_BROWSER"] = "/nowhere/chromium"
    async with captcha.run("probe", "--output-dir", captcha.artifacts) as program:
        assert await program.ended() == 1
    captcha.check(program)
    told = json.loads(program.out)
    assert (told["provider_stage"], told["code"]) == (ANONYM_TOKEN, "browser_unavailable")
    assert "VK_PROVIDER_BROWSER" in told["message"]
