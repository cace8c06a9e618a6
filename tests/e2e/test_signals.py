"""Signals and the command line: what is in progress ends in order and leaves nothing behind."""

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from turnlane.api import RelayTransport
from turnlane_lab.stand import Stand
from turnlane_tests.leaks import entries
from turnlane_tests.local_peers import local_peers
from turnlane_tests.programs import STEP, Entry, Program, Shell, children

# The programs choose their backend themselves; the stand beside them needs only one.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

JSON = ("--json", "--log-format", "json")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


class Clients:
    """Starts clients of a stand, with the link and the peer in files."""

    def __init__(self, shell: Shell, stand: Stand, peer: str | None = None) -> None:
        self.shell = shell
        self.stand = stand
        self.peer = shell.write("peer", peer or stand.peer.reveal())

    @asynccontextmanager
    async def start(
        self,
        listen: str = "127.0.0.1:0",
        connections: int = 2,
        transport: RelayTransport = RelayTransport.UDP,
    ) -> AsyncIterator[Program]:
        link = self.shell.write("link", self.stand.relay_link(transport).reveal())
        async with self.shell.start(
            "client", "--provider", "generic-turn", "--link-file", link, "--peer-file", self.peer,
            "--listen", listen, "--connections", connections, *JSON,
        ) as program:  # fmt: skip
            yield program


async def assert_nothing_left(shell: Shell, stand: Stand) -> None:
    await stand.relay.counters.settled("allocations_alive", 0)
    await stand.relay.counters.settled("tcp_connections_alive", 0)
    assert entries(shell.temporary) == []


async def echo_through(listen: str, name: str) -> None:
    host, _, port = listen.rpartition(":")
    async with local_peers((host.strip("[]"), int(port)), name) as [peer]:
        with anyio.fail_after(STEP):
            while not peer.replies:
                peer.send()
                with anyio.move_on_after(0.1):
                    peer.heard = anyio.Event()
                    await peer.heard.wait()
        assert peer.strays == []


def sockets_of(pid: int) -> int:
    """Count the sockets that a process and its workers have open."""
    count = 0
    for each in (pid, *children(pid)):
        for name in os.listdir(f"/proc/{each}/fd"):
            try:
                count += os.readlink(f"/proc/{each}/fd/{name}").startswith("socket:")
            except FileNotFoundError:
                continue
    return count


@pytest.mark.parametrize(
    ("number", "transport"),
    [
        (signal.SIGINT, RelayTransport.UDP),
        (signal.SIGTERM, RelayTransport.TCP),
        (signal.SIGHUP, RelayTransport.UDP),
    ],
)
async def test_a_client_that_is_ready_ends_in_order_and_another_can_start_at_once(
    number: signal.Signals, transport: RelayTransport, shell: Shell
) -> None:
    async with Stand() as stand:
        clients = Clients(shell, stand)
        async with clients.start(transport=transport) as program:
            ready = await program.ready()
            assert ready["lanes"] == 2
            await echo_through(ready["listen"], "ann")
            assert stand.relay.counters["allocations_alive"] == 2
            assert await program.signalled(number) == 0
            assert len(program.out.splitlines()) == 1
            assert "Traceback" not in program.err
            said = [entry["event"] for entry in program.entries]
            assert said[-1] == "session_ended"
            assert program.entries[-1]["result"] == "stopped"
            assert "stop_requested" in said
        await assert_nothing_left(shell, stand)
        async with clients.start(ready["listen"], transport=transport) as again:
            assert (await again.ready())["listen"] == ready["listen"]
            await echo_through(ready["listen"], "ben")
            assert await again.signalled(signal.SIGTERM) == 0
        await assert_nothing_left(shell, stand)
        assert stand.server.sessions == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["turn_allocate", "dtls_handshake"])
async def test_a_client_that_is_not_ready_yet_ends_with_its_stage_and_the_signal(
    stage: str, number: signal.Signals, shell: Shell
) -> None:
    async with AsyncExitStack() as opened:
        stand = await opened.enter_async_context(Stand())
        peer = stand.peer.reveal()
        if stage == "turn_allocate":
            stand.relay.pause()
        else:
            deaf = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            deaf.bind(("127.0.0.1", 0))
            _, port = deaf.getsockname()
            peer = peer.replace(f":{stand.server.listen[1]}", f":{port}")
        async with Clients(shell, stand, peer).start() as program:
            await program.logged("stage_reached", stage=stage)
            assert await program.signalled(number) == 128 + number
            assert program.out == ""
            assert program.err.splitlines()[-1] == (
                f"stage={stage} code=interrupted: {number.name} came before it was ready"
            )
        stand.relay.resume()
        await assert_nothing_left(shell, stand)


async def test_a_server_that_is_told_to_end_drains_and_its_clients_come_back_by_themselves(
    shell: Shell,
) -> None:
    async with Stand() as stand:
        server = ("server", "--connect", address_of(stand), "--identity", shell.folder / "id")
        async with shell.start(*server, "--listen", "127.0.0.1:0", *JSON) as first:
            ready = await first.ready()
            peer = peer_of(ready)
            async with Clients(shell, stand, peer).start() as client:
                listen = (await client.ready())["listen"]
                await echo_through(listen, "ann")
                assert await first.signalled(signal.SIGTERM) == 0
                assert first.entries[-1]["event"] == "server_ended"
                assert first.entries[-1]["result"] == "stopped"
                await client.logged("peer_drained")
                await client.logged("lane_lost", result="restarting")
                mark = len(client.entries)
                async with shell.start(*server, "--listen", ready["listen"], *JSON) as second:
                    again = await second.ready()
                    assert (again["listen"], again["pin"]) == (ready["listen"], ready["pin"])
                    for lane in range(2):
                        await client.logged("lane_ready", after=mark, lane=lane)
                    await echo_through(listen, "ben")
                    assert await client.signalled(signal.SIGINT) == 0
                    await second.logged("peer_lost", reason="session_closed")
                    assert await second.signalled(signal.SIGINT) == 0
        await assert_nothing_left(shell, stand)
        assert sorted(entries(shell.folder / "id")) == ["identity.pem", "peer-link", "token"]


async def test_a_server_forgets_the_session_of_a_client_that_was_killed(shell: Shell) -> None:
    async with Stand() as stand:
        server = ("server", "--connect", address_of(stand), "--identity", shell.folder / "id")
        options = ("--listen", "127.0.0.1:0", "--idle-timeout", "1s")
        async with shell.start(*server, *options, *JSON) as running:
            ready = await running.ready()
            peer = peer_of(ready)
            clients = Clients(shell, stand, peer)
            async with clients.start(transport=RelayTransport.TCP) as client:
                listen = (await client.ready())["listen"]
                held = sockets_of(running.pid)
                await echo_through(listen, "ann")
                assert sockets_of(running.pid) == held + 1
                accepted = await running.logged("peer_accepted")
                mark = len(running.entries)
                assert await client.signalled(signal.SIGKILL) == -signal.SIGKILL
            # Another takes the same place at once; the dead one's is cleared meanwhile.
            async with clients.start(listen) as another:
                assert (await another.ready())["listen"] == listen
                await running.logged(
                    "peer_lost", after=mark, session_id=accepted["session_id"], reason="idle"
                )
                assert await another.signalled(signal.SIGTERM) == 0
            assert sockets_of(running.pid) == held
            assert await running.signalled(signal.SIGTERM) == 0
        await assert_nothing_left(shell, stand)


def peer_of(ready: Entry) -> str:
    """Return the peer link of a server that is ready."""
    return Path(ready["peer_link_file"]).read_text()


def address_of(stand: Stand) -> str:
    host, port = stand.echo.address
    return f"{host}:{port}"
