"""Planted secrets: whatever runs and whatever fails, none of them is in what is written."""

import json
import logging
import secrets
import signal
import stat
import textwrap
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest

from turnlane.api import Artifact, ChallengePort, ResolveRequest, Secret, TurnlaneError
from turnlane.runtime.peer_link import PeerLink, new_token
from turnlane.runtime.profiles import ClientProfile, ProviderProfile
from turnlane.telemetry.redaction import encode_json, find_leaks
from turnlane_generic_turn.provider import GenericTurn
from turnlane_generic_turn.turn_rest import mint
from turnlane_lab.stand import Stand
from turnlane_tests.local_peers import EventLog, local_peers
from turnlane_tests.programs import Program, Shell

pytestmark = pytest.mark.anyio

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])

AT_ONCE = 3
"""Programs that run at the same time."""

ODD = ' "ü/+%\\&=?#'
"""What is written differently in a URL, in JSON, in a repr and in a TOML file."""

CRASHING = """
    from base64 import b64encode
    from urllib.parse import quote
    from turnlane.api import ProviderDescriptor, hookimpl

    @hookimpl
    def turnlane_providers():
        return [ProviderDescriptor(
            id="crashing", title="Crashing", summary="For tests.",
            implementation="crashing_provider:Crashing")]

    class Crashing:
        def __init__(self, context):
            pass
        async def resolve(self, request, challenges):
            link = request.link.reveal()
            encoded = b64encode(link.encode()).decode()
            try:
                raise ValueError(link)
            except ValueError as error:
                told = (link, quote(link, safe=""), encoded, link.encode().hex())
                raise RuntimeError(*told) from error
"""


@dataclass
class Planted:
    """Secrets that nobody else knows, and where they are meant to be."""

    user: str = field(default_factory=lambda: f"user-{secrets.token_hex(8)}{ODD}")
    password: str = field(default_factory=lambda: f"{secrets.token_urlsafe(12)}{ODD}")
    wrong_password: str = field(default_factory=lambda: f"{secrets.token_urlsafe(12)}{ODD}")
    rest: str = field(default_factory=lambda: f"{secrets.token_urlsafe(12)}{ODD}")
    wrong_rest: str = field(default_factory=lambda: f"{secrets.token_urlsafe(12)}{ODD}")
    token: Secret[str] = field(default_factory=new_token)
    wrong_token: Secret[str] = field(default_factory=new_token)
    more: list[Secret[str]] = field(default_factory=list)

    def all(self) -> list[Secret[str]]:
        known = [self.user, self.password, self.wrong_password, self.rest, self.wrong_rest]
        return [*map(Secret, known), self.token, self.wrong_token, *self.more]

    def leaks(self, *texts: str | bytes) -> list[str]:
        return [leak for text in texts for leak in find_leaks(text, self.all())]

    def link(self, stand: Stand, password: str | None = None) -> str:
        who = f"{quote(self.user, safe='')}:{quote(password or self.password, safe='')}"
        return self.kept(f"generic-turn://{who}@127.0.0.1:{stand.relay.udp_port}")

    def rest_link(self, stand: Stand, secret: str | None = None) -> str:
        shared = quote(secret or self.rest, safe="")
        return self.kept(f"generic-turn+rest://ann:{shared}@127.0.0.1:{stand.relay.udp_port}")

    def peer(self, peer: PeerLink, token: Secret[str] | None = None) -> str:
        return self.kept(
            PeerLink(peer.host, peer.port, peer.pin, token or self.token).text().reveal()
        )

    def kept(self, text: str) -> str:
        self.more.append(Secret(text))
        return text


def stand_for(planted: Planted, log: EventLog | None = None) -> Stand:
    """Return a stand whose relay takes both kinds of credentials, whose server takes the token."""
    relay = {
        "users": {planted.user: Secret(planted.password)},
        "rest_secret": Secret(planted.rest),
    }
    return Stand(relay=relay, server={"token": planted.token}, on_event=log)


def text_of(path: Path) -> str:
    return path.read_text().strip()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# As processes, at the most talkative level.


@dataclass
class Run:
    """A command line, how it is expected to end, and what it said."""

    name: str
    arguments: tuple[object, ...]
    code: int
    environment: dict[str, str] = field(default_factory=dict)
    on_command_line: bool = False
    told: str = ""
    program: Program | None = None

    async def execute(self, shell: Shell, planted: Planted, log_format: str) -> None:
        logs = ("--log-level", "debug", "--log-format", log_format)
        async with shell.start(*self.arguments, *logs, environment=self.environment) as program:
            self.program = program
            if self.code == 0 and self.arguments[0] == "client":
                await program.ready()
                if not self.on_command_line:
                    assert planted.leaks(command_line_of(program.pid)) == []
                assert await program.signalled(signal.SIGTERM) == 0
            assert await program.ended() == self.code, (self.name, program.err)

    def check(self, planted: Planted) -> None:
        assert self.program is not None
        assert planted.leaks(self.program.out, self.program.err) == [], self.name
        assert self.told in self.program.err, (self.name, self.program.err)
        assert "Traceback" not in self.program.err, (self.name, self.program.err)


def command_line_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def files_below(folder: Path, *, but: Iterable[Path]) -> Iterable[Path]:
    allowed = set(but)
    return (path for path in folder.rglob("*") if path.is_file() and path not in allowed)


def plant_crashing_provider(shell: Shell) -> str:
    """Install a plugin for the programs of `shell`; return its folder."""
    site = shell.folder / "site"
    metadata = site / "turnlane_crashing-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: turnlane-crashing\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[turnlane.plugins.v1]\ncrashing = crashing_provider\n"
    )
    (site / "crashing_provider.py").write_text(textwrap.dedent(CRASHING))
    return str(site)


def write_inputs(shell: Shell, planted: Planted, stand: Stand, peer: PeerLink) -> list[Path]:
    """Write the files that are meant to hold secrets."""
    link, peer_text = planted.link(stand), planted.peer(peer)
    bare = f"{peer.host}:{peer.port}"
    toml = f"""
        [client]
        provider = "generic-turn"
        link = {json.dumps(link)}
        peer = {json.dumps(bare)}
        pin = "{peer.pin}"
        token = {json.dumps(planted.token.reveal())}
        listen = "127.0.0.1:0"
        json = true
    """
    return [
        shell.write("link", link),
        shell.write("peer", peer_text),
        shell.write("token-file", planted.token.reveal()),
        shell.write("turnlane.toml", textwrap.dedent(toml)),
        shell.write("rest", planted.rest_link(stand)),
    ]


def runs(shell: Shell, planted: Planted, stand: Stand, peer: PeerLink, site: str) -> list[Run]:
    link, peer_text = planted.link(stand), planted.peer(peer)
    bare, pin = f"{peer.host}:{peer.port}", str(peer.pin)
    client = ("client", "--listen", "127.0.0.1:0", "--json")
    generic = ("--provider", "generic-turn")
    probe = ("probe", "--json", "--output-dir")
    artifacts = shell.folder / "artifacts"
    crashing = {"PYTHONPATH": site}
    crash_link = planted.kept(f"crashing://{quote(planted.user)}:{quote(planted.password)}@host")
    malformed = {
        "a port that is none": link + "0x",
        "another scheme": link.replace("generic-turn", "generic-turm"),
        "an unknown parameter": f"{link}?{quote(planted.password, safe='')}=1",
        "an unescaped secret": f"generic-turn://{planted.user}:{planted.password}@127.0.0.1",
        "no host": link.rpartition("@")[0],
    }
    wrong_token = planted.peer(peer, planted.wrong_token)
    return [
        Run(
            "all on the command line",
            (*client, *generic, "--link", link, "--peer", bare, "--pin", pin,
             "--token", planted.token.reveal()),
            0,
            on_command_line=True,
        ),
        Run(
            "all in files",
            (*client, *generic, "--link-file", "rest", "--peer", bare, "--pin", pin,
             "--token-file", "token-file"),
            0,
        ),
        Run("a peer file", (*client, *generic, "--link-file", "link", "--peer-file", "peer"), 0),
        Run(
            "all in the environment",
            client,
            0,
            {
                "TURNLANE_CLIENT_PROVIDER": "generic-turn",
                "TURNLANE_CLIENT_LINK": link,
                "TURNLANE_CLIENT_PEER": peer_text,
            },
        ),
        Run("all in the configuration", ("client", "--config", "turnlane.toml"), 0),
        Run(
            "a wrong password",
            (*client, *generic, "--link", planted.link(stand, planted.wrong_password),
             "--peer", peer_text),
            1,
            told="turn_unauthorized",
        ),
        Run(
            "a wrong shared secret",
            (*client, *generic, "--link", planted.rest_link(stand, planted.wrong_rest),
             "--peer", peer_text),
            1,
            told="turn_unauthorized",
        ),
        Run(
            "a wrong token",
            (*client, *generic, "--link-file", "link"),
            1,
            {"TURNLANE_CLIENT_PEER": wrong_token},
            told="token_mismatch",
        ),
        Run(
            "two tokens that contradict each other",
            (*client, *generic, "--link-file", "link", "--peer", peer_text,
             "--token", planted.wrong_token.reveal()),
            2,
            told="contradicting_tokens",
        ),
        Run(
            "a link in place of a peer",
            (*client, *generic, "--link", peer_text, "--peer", link),
            2,
            told="invalid_peer",
        ),
        Run(
            "a provider that crashes",
            (*client, "--provider", "crashing", "--link", crash_link, "--peer", peer_text),
            1,
            crashing,
            told="provider_crashed",
        ),
        Run(
            "a probe that crashes",
            (*probe, artifacts / "crash", "--provider", "crashing"),
            1,
            {**crashing, "TURNLANE_PROBE_LINK": crash_link},
            told="provider_crashed",
        ),
        Run("a probe", (*probe, artifacts / "static", *generic, "--link", link), 0),
        Run("a probe of REST", (*probe, artifacts / "rest", *generic, "--link-file", "rest"), 0),
        *(
            Run(
                name,
                (*probe, artifacts / name, *generic, "--link", planted.kept(text)),
                2,
                told="stage=provider_resolve",
            )
            for name, text in malformed.items()
        ),
    ]  # fmt: skip


@ASYNCIO
async def test_no_program_writes_a_planted_secret_but_where_it_belongs(tmp_path: Path) -> None:
    planted = Planted()
    shell = Shell(tmp_path)
    site = plant_crashing_provider(shell)
    identity = tmp_path / "identity"
    identity.mkdir(mode=0o700)
    token_file = shell.write("identity/token", planted.token.reveal())
    server = ("server", "--listen", "127.0.0.1:0", "--identity", identity)
    logs = ("--log-level", "debug", "--log-format", "json")
    async with stand_for(planted) as stand:
        connect = ("--connect", f"127.0.0.1:{stand.echo.port}")
        async with shell.start(*server, *connect, "--json", *logs) as serving:
            ready = await serving.ready()
            peer_file = Path(ready["peer_link_file"])
            peer = PeerLink.parse(Secret(text_of(peer_file)))
            assert peer.token == planted.token
            inputs = write_inputs(shell, planted, stand, peer)
            all_runs = runs(shell, planted, stand, peer, site)
            limiter = anyio.CapacityLimiter(AT_ONCE)

            async def execute(run: Run, log_format: str) -> None:
                async with limiter:
                    await run.execute(shell, planted, log_format)

            async with anyio.create_task_group() as tasks:
                # Neighbours in the list, which are alike, differ in how they log.
                for run, log_format in zip(all_runs, cycle(["json", "console"]), strict=False):
                    tasks.start_soon(execute, run, log_format)
            assert planted.leaks(command_line_of(serving.pid)) == []
            assert await serving.signalled(signal.SIGTERM) == 0
        for run in all_runs:
            run.check(planted)
        plant_what_was_minted(planted, all_runs)
        assert planted.leaks(serving.out, serving.err) == []
        assert "token_mismatch" in serving.err
    # Only the files that are meant to hold secrets do.
    secret_files = [*inputs, token_file, peer_file]
    for path in files_below(tmp_path, but=secret_files):
        assert planted.leaks(path.read_bytes()) == [], path
    artifacts = list((tmp_path / "artifacts").rglob("*.json"))
    assert len(artifacts) == sum(run.arguments[0] == "probe" for run in all_runs)
    for path in (token_file, peer_file, identity / "identity.pem"):
        assert mode_of(path) == 0o600, path
    assert mode_of(identity) == 0o700


def plant_what_was_minted(planted: Planted, all_runs: list[Run]) -> None:
    """Look for the credentials that a probe has minted, too."""
    [program] = [run.program for run in all_runs if run.name == "a probe of REST"]
    assert program is not None
    expires_at = json.loads(program.out)["expires_at"]
    username, password = mint(Secret(planted.rest), Secret("ann"), int(expires_at))
    planted.more += [username, password]
    assert planted.leaks(program.out, program.err) == []


@ASYNCIO
async def test_the_peer_link_is_shown_where_it_was_asked_for_and_in_no_log(
    tmp_path: Path,
) -> None:
    planted = Planted()
    shell = Shell(tmp_path)
    identity = tmp_path / "identity"
    token_file = shell.write("token-file", planted.token.reveal())
    options = ("--connect", "127.0.0.1:9", "--token-file", token_file, "--log-level", "debug")
    server = ("server", "--identity", identity, "--listen", "127.0.0.1:0", *options)
    async with shell.start(*server, "--show-link", "--json") as serving:
        ready = await serving.ready()
        peer_file = Path(ready["peer_link_file"])
        link = text_of(peer_file)
        assert ready["peer_link"] == link
        assert planted.token.reveal() in link
        planted.more.append(Secret(link))
        async with shell.start("server", "--identity", identity, "link") as showing:
            assert await showing.ended() == 0
        assert showing.out.strip() == link
        assert await serving.signalled(signal.SIGTERM) == 0
    assert planted.leaks(serving.err, showing.err) == []
    for path in (peer_file, identity / "identity.pem"):
        assert mode_of(path) == 0o600, path
    assert mode_of(identity) == 0o700


@ASYNCIO
async def test_a_token_that_the_server_makes_is_in_its_file_and_nowhere_else(
    tmp_path: Path,
) -> None:
    shell = Shell(tmp_path)
    token_file = tmp_path / "secret" / "token"
    server = ("server", "--identity", tmp_path / "id", "--listen", "127.0.0.1:0")
    options = ("--connect", "127.0.0.1:9", "--token-file", token_file, "--log-level", "debug")
    async with shell.start(*server, *options, "--json") as serving:
        ready = await serving.ready()
        assert await serving.signalled(signal.SIGTERM) == 0
    token = Secret(text_of(token_file))
    assert find_leaks(serving.out + serving.err, [token]) == []
    assert mode_of(token_file) == 0o600
    assert token.reveal() in text_of(Path(ready["peer_link_file"]))


# In this process: what events, errors and objects say of themselves.


async def test_no_event_error_or_object_tells_a_planted_secret(
    event_log: EventLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted()
    caplog.set_level(logging.DEBUG)
    async with stand_for(planted, event_log) as stand:
        peer = PeerLink.parse(stand.peer)
        planted.more.append(stand.peer)
        client = await stand.connect(2)
        async with local_peers(client.listen, "ann") as [local]:
            await local.echoed(local.send())
        await stand.restart_relay()
        objects: list[object] = [client, *client.lanes, stand, stand.host, stand.server, peer]
        objects += [slot.lane for slot in client.lanes]
        objects += [slot.lane.plan for slot in client.lanes if slot.lane is not None]
        await client.stop()
        # To a relay the names of its users are no secrets.
        told_by_relay = repr(stand.relay.config)
        assert find_leaks(told_by_relay, [planted.password, planted.rest]) == []

        good = ProviderProfile(provider="generic-turn", link=Secret(planted.link(stand)))
        rest = ProviderProfile(provider="generic-turn", link=Secret(planted.rest_link(stand)))
        for profile in (good, rest):
            resolution = await stand.host.probe(profile)
            planted.more.append(resolution.credentials.password)
            objects += [profile, resolution, resolution.credentials, resolution.artifact]
            objects.append(encode_json(resolution).decode())
        objects.append(ClientProfile(provider=good, peer=peer))

        for profile in (
            ProviderProfile(
                provider="generic-turn", link=Secret(planted.link(stand, planted.wrong_password))
            ),
            ProviderProfile(
                provider="generic-turn", link=Secret(planted.rest_link(stand, planted.wrong_rest))
            ),
            ProviderProfile(provider="generic-turn", link=Secret(planted.link(stand) + "0x")),
        ):
            objects.append(await failure(stand, provider=profile))
        wrong = PeerLink(peer.host, peer.port, peer.pin, planted.wrong_token)
        objects += [await failure(stand, peer=wrong), wrong]
        await event_log.wait_for(lambda event: getattr(event, "code", "") == "token_mismatch")
        monkeypatch.setattr(GenericTurn, "resolve", crash)
        objects.append(await failure(stand, provider=good))
    told = [caplog.text]
    for each in (*objects, *event_log.events):
        told += [repr(each), str(each)]
        if isinstance(each, TurnlaneError):
            told += [*traceback.format_exception(each), repr(vars(each))]
            artifact: Artifact | None = getattr(each, "artifact", None)
            told.append(encode_json(artifact).decode())
    assert planted.leaks("\n\n".join(told)) == []


async def crash(_: GenericTurn, request: ResolveRequest, challenges: ChallengePort) -> None:
    raise RuntimeError(request.link.reveal())


async def failure(stand: Stand, **overrides: Any) -> TurnlaneError:
    with pytest.raises(TurnlaneError) as caught:
        await stand.connect(**overrides)
    return caught.value
