"""VK calls from end to end: an invite, a stand-in for VK, a relay, a tunnel server, an echo."""

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import pytest

from turnlane.api import Secret
from turnlane.telemetry.redaction import find_leaks
from turnlane_lab.stand import Stand
from turnlane_tests.json_schema import violations
from turnlane_tests.local_peers import local_peers
from turnlane_tests.programs import Program, Shell
from turnlane_tests.vk_stand_in import ANONYM_TOKEN, JOIN, LOGIN, OK_LOGIN, Reply, VkStandIn

# The programs choose their backend themselves; the stand beside them needs only one.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

SCHEMA = json.loads((files("turnlane_vk") / "artifact.schema.json").read_text())
LOGS = ("--log-level", "debug", "--log-format", "json")


class Call:
    """A call at the stand-in whose relay is the stand's, and programs that join it."""

    def __init__(self, vk: VkStandIn, stand: Stand, shell: Shell) -> None:
        self.vk = vk
        self.stand = stand
        self.shell = shell
        port, tcp = stand.relay.udp_port, stand.relay.tcp_port
        vk.turn_urls = [
            "stun:127.0.0.1:3478",
            f"turn:127.0.0.1:{port}?transport=udp",
            f"turn:127.0.0.1:{tcp}?transport=tcp",
        ]
        self.peer = shell.write("peer", stand.peer.reveal())
        self.link = shell.write("link", vk.link)

    @asynccontextmanager
    async def start(self, command: str, *arguments: object) -> AsyncIterator[Program]:
        """Start a command with the provider, the link and the way to the stand-in."""
        settings = [f"--set={name}={value}" for name, value in self.vk.settings.items()]
        given = ("--provider", "vk", "--link-file", self.link, "--json", *LOGS)
        async with self.shell.start(command, *given, *settings, *arguments) as program:
            yield program

    @asynccontextmanager
    async def client(self, *arguments: object) -> AsyncIterator[Program]:
        """Start a client."""
        given = ("--peer-file", self.peer, "--listen", "127.0.0.1:0", "--connections", 2)
        async with self.start("client", *given, *arguments) as program:
            yield program

    async def echoed(self, program: Program) -> None:
        """Let a datagram go through a client to the echo and back."""
        host, _, port = (await program.ready())["listen"].rpartition(":")
        async with local_peers((host, int(port)), "ann") as [peer]:
            await peer.echoed(peer.send())

    def check(self, program: Program) -> None:
        """Check that nothing planted was written, by the program or into a file."""
        planted = self.vk.planted.all()
        assert find_leaks(program.out, planted) == []
        assert find_leaks(program.err, planted) == []
        for path in self.shell.folder.rglob("*"):
            if path.is_file() and path not in (self.link, self.peer):
                assert find_leaks(path.read_bytes(), planted) == [], path
        for path in self.shell.folder.rglob("probe-artifact.json"):
            assert list(violations(SCHEMA, json.loads(path.read_text()))) == []
        assert self.vk.faults == []


@pytest.fixture
def vk() -> Iterator[VkStandIn]:
    with VkStandIn() as stand_in:
        yield stand_in


@pytest.fixture
async def call(vk: VkStandIn, tmp_path: Path) -> AsyncIterator[Call]:
    users = {vk.username: Secret(vk.planted.password)}
    async with Stand(relay={"users": users}) as stand:
        yield Call(vk, stand, Shell(tmp_path))


@pytest.mark.parametrize("mode", ["auto", "tcp"])
async def test_an_invite_carries_datagrams_to_the_echo(call: Call, mode: str) -> None:
    async with call.client("--mode", mode) as program:
        await call.echoed(program)
        assert await program.signalled(signal.SIGTERM) == 0
    call.check(program)
    assert call.vk.stages == [LOGIN, ANONYM_TOKEN, OK_LOGIN, JOIN]


async def test_a_probe_writes_what_it_did(call: Call) -> None:
    artifacts = call.shell.folder / "artifacts"
    async with call.start("probe", "--output-dir", artifacts) as program:
        assert await program.ended() == 0
    told = json.loads(program.out)
    assert told["turn_address"] == f"127.0.0.1:{call.stand.relay.udp_port}"
    assert [each["transport"] for each in told["endpoints"]] == ["udp", "tcp"]
    assert told["expires_at"] == call.vk.expiry
    artifact = json.loads((artifacts / "vk" / "probe-artifact.json").read_text())
    assert artifact["resolution_method"] == "staged_http"
    assert artifact["outcome"]["result_kind"] == "resolution"
    call.check(program)


async def test_a_captcha_without_a_human_ends_a_client_and_a_probe(call: Call) -> None:
    call.vk.answer(ANONYM_TOKEN, Reply(call.vk.captcha()))
    async with call.client() as program:
        assert await program.ended() == 1
    assert "stage=provider_resolve code=captcha_required" in program.err
    assert f"({ANONYM_TOKEN})" in program.err
    call.check(program)

    artifacts = call.shell.folder / "artifacts"
    async with call.start("probe", "--output-dir", artifacts) as program:
        assert await program.ended() == 1
    told = json.loads(program.out)
    assert (told["code"], told["provider_stage"]) == ("captcha_required", ANONYM_TOKEN)
    artifact = json.loads((artifacts / "vk" / "probe-artifact.json").read_text())
    failure = {"stage": ANONYM_TOKEN, "code": "captcha_required"}
    assert artifact["outcome"]["provider_error"] == failure
    call.check(program)


async def test_a_hosted_call_without_a_human_ends_a_probe(call: Call) -> None:
    call.link.write_text("https://calls.vk.com/")
    artifacts = call.shell.folder / "artifacts"
    async with call.start("probe", "--output-dir", artifacts) as program:
        assert await program.ended() == 1
    assert json.loads(program.out)["code"] == "authenticated_browser_start_required"
    assert (artifacts / "vk" / "probe-artifact.json").exists()
    assert call.vk.seen == []
    call.check(program)


async def test_another_link_is_bad_input(call: Call) -> None:
    call.link.write_text(f"https://vk.com/{call.vk.planted.join_token}")
    async with call.client() as program:
        assert await program.ended() == 2
    assert "code=wrong_path" in program.err
    assert call.vk.seen == []
    call.check(program)
