"""A server of several processes: one session over all of them, and what the end of one costs."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from turnlane.runtime.events import (
    LaneLost,
    LaneReady,
    PeerAccepted,
    PeerLost,
    WorkerLost,
    WorkerReplaced,
)
from turnlane.runtime.host import ClientHandle
from turnlane.runtime.worker_pool import WorkerPool
from turnlane_lab.stand import Stand
from turnlane_tests.backends import ASYNCIO, EACH_BACKEND
from turnlane_tests.local_peers import EventLog, LocalPeer, local_peers
from turnlane_tests.programs import STEP, Shell, children

pytestmark = pytest.mark.anyio

WORKERS = 4
LANES = 8
BACK_WITHIN = 15.0
"""Seconds in which a session must be whole again."""

TRIES = 20
"""The system spreads lanes by chance: 6 of 10 sessions of 8 lanes reach all of 4 workers."""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


async def eventually(holds: Callable[[], object], timeout: float = STEP) -> None:
    """Wait for something of which nobody tells when it changes."""
    with anyio.fail_after(timeout):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.02)


class Spread:
    """A stand whose server has four workers, and which of them does what."""

    def __init__(self, stand: Stand, log: EventLog) -> None:
        self.stand = stand
        self.log = log
        pool = stand.server._server
        assert isinstance(pool, WorkerPool)
        self.pool = pool

    async def connect(self, lanes: int, *, avoid: int | None = None) -> tuple[ClientHandle, int]:
        """Return a client with lanes at all workers, or one not at `avoid`, and its owner."""
        for _ in range(TRIES):
            before = self._handshakes()
            client = await self.stand.connect(lanes)
            wanted = sum(before) + lanes
            await eventually(lambda wanted=wanted: sum(self._handshakes()) >= wanted)
            new = [now - then for now, then in zip(self._handshakes(), before, strict=True)]
            session = self._session_of(client)
            (owner,) = [
                index
                for index, worker in self.pool.workers.items()
                if any(name == session for name, _ in worker.lanes)
            ]
            if all(new) if avoid is None else owner != avoid:
                return client, owner
            await client.stop()
        raise AssertionError(f"no lanes as wanted in {TRIES} tries")

    def _session_of(self, client: ClientHandle) -> str:
        ready = [
            event
            for event in self.log.of(LaneReady)
            if isinstance(event, LaneReady) and event.session == client.session_id
        ]
        return ready[-1].peer_session

    def _handshakes(self) -> list[int]:
        workers = self.pool.workers
        return [workers[index].counters.get("handshakes_completed", 0) for index in range(WORKERS)]

    async def kill(self, index: int) -> None:
        """Kill a worker, and wait until another is in its place."""
        pid = self.pool.workers[index].pid
        assert pid is not None
        mark = len(self.log.events)
        os.kill(pid, signal.SIGKILL)
        for kind in (WorkerLost, WorkerReplaced):
            await self.log.wait_for(
                lambda event, kind=kind: isinstance(event, kind) and event.worker == index,
                after=mark,
            )


@asynccontextmanager
async def spread(log: EventLog) -> AsyncIterator[Spread]:
    async with Stand(server={"workers": WORKERS}, on_event=log) as stand:
        yield Spread(stand, log)


def lost_lanes(log: EventLog, client: ClientHandle, mark: int) -> list[int]:
    return [
        event.lane
        for event in log.events[mark:]
        if isinstance(event, LaneLost) and event.session == client.session_id
    ]


async def whole(client: ClientHandle, lanes: int) -> None:
    await eventually(lambda: client.ready_lanes == lanes, BACK_WITHIN)


async def echoed(peers: list[LocalPeer]) -> None:
    """Have every peer's datagram come back, however many are lost on the way."""
    with anyio.fail_after(BACK_WITHIN):
        for peer in peers:
            first = peer.sent + 1
            while not any(int(reply.split(b":")[1]) >= first for reply in peer.replies):
                peer.send(200)
                await anyio.sleep(0.02)


@EACH_BACKEND
async def test_one_session_over_all_workers_outlives_any_that_does_not_own_it(
    event_log: EventLog,
) -> None:
    async with spread(event_log) as run:
        client, owner = await run.connect(LANES)
        assert run.stand.server.sessions == 1
        names = [f"peer{number}" for number in range(LANES)]
        async with local_peers(client.listen, *names) as peers:
            for _ in range(3):
                for peer in peers:
                    await peer.echoed(peer.send(1100))
            assert len(run.stand.echo.sources) == LANES

            mark = len(event_log.events)
            victim = (owner + 1) % WORKERS
            await run.kill(victim)
            await event_log.wait_for(
                lambda event: isinstance(event, PeerLost) and event.reason == "worker_lost",
                after=mark,
            )
            await echoed(peers)
            await event_log.wait_for(lambda event: isinstance(event, LaneLost), after=mark)
            await whole(client, LANES)
            assert 0 < len(lost_lanes(event_log, client, mark)) < LANES
            assert not any(
                isinstance(event, PeerAccepted) and event.new_session
                for event in event_log.events[mark:]
            )
            await echoed(peers)
            assert len(run.stand.echo.sources) == LANES  # the upstream saw nothing of it
            assert not any(peer.strays for peer in peers)
        again = LANES + len(lost_lanes(event_log, client, mark))
        await eventually(lambda: run.stand.server.counters["handshakes_completed"] == again)
        await client.stop()
        await eventually(lambda: run.stand.server.sessions == 0)


@ASYNCIO
async def test_the_end_of_a_sessions_owner_concerns_no_session_of_another(
    event_log: EventLog,
) -> None:
    async with spread(event_log) as run:
        client, owner = await run.connect(LANES)
        bystander, _ = await run.connect(1, avoid=owner)
        names = ("ann", "ben", "cy")
        async with (
            local_peers(client.listen, *names) as peers,
            local_peers(bystander.listen, "dee") as [dee],
        ):
            await echoed([*peers, dee])
            mark, silent = len(event_log.events), dee.sent - len(dee.replies)
            await run.kill(owner)
            for _ in range(50):
                await dee.echoed(dee.send())
            assert dee.sent - len(dee.replies) == silent  # not one was lost
            assert lost_lanes(event_log, bystander, mark) == []

            lost = [event for event in event_log.events[mark:] if isinstance(event, PeerLost)]
            assert [event.reason for event in lost] == ["worker_lost"] * LANES
            await event_log.wait_for(
                lambda event: isinstance(event, PeerAccepted) and event.new_session, after=mark
            )
            await whole(client, LANES)
            await eventually(
                lambda: set(lost_lanes(event_log, client, mark)) == set(range(LANES)), BACK_WITHIN
            )
            await whole(client, LANES)
            await echoed([*peers, dee])
            assert lost_lanes(event_log, bystander, mark) == []
            assert run.stand.server.sessions == 2
            assert not any(peer.strays for peer in [*peers, dee])


@ASYNCIO
async def test_a_limit_of_sessions_is_that_of_all_workers(event_log: EventLog) -> None:
    fields = {"workers": WORKERS, "max_sessions": 3}
    async with Stand(server=fields, on_event=event_log) as stand:
        for _ in range(3):
            await stand.connect()
        with pytest.raises(Exception, match="session_limit"):
            await stand.connect()
        assert stand.server.sessions == 3


# As programs.


@contextmanager
def upstream() -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{opened.getsockname()[1]}"


def arguments(shell: Shell, connect: str, *options: object) -> tuple[object, ...]:
    return (
        "server", "--connect", connect, "--identity", shell.folder / "id", "--json",
        "--log-format", "json", "--listen", "127.0.0.1:0", *options,
    )  # fmt: skip


def token_of(shell: Shell) -> bytes:
    return (shell.folder / "id" / "token").read_bytes().strip()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def told_at_its_start(pid: int) -> bytes:
    """Return the command line and the environment of a process."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


async def gone(pids: list[int], listen: str) -> None:
    """Wait until processes have ended, and then for the port to be free."""
    await eventually(lambda: not any(map(is_alive, pids)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", int(listen.rpartition(":")[2])))


@ASYNCIO
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_no_process_and_no_socket_outlives_a_server(
    number: signal.Signals, shell: Shell
) -> None:
    with upstream() as connect:
        async with shell.start(*arguments(shell, connect, "--workers", 3)) as program:
            ready = await program.ready()
            workers = children(program.pid)
            assert len(workers) == 3
            for pid in workers:  # as a terminal does: the whole group is signalled
                if number is not signal.SIGKILL:
                    os.kill(pid, number)
            code = await program.signalled(number)
            assert code == (-number if number is signal.SIGKILL else 0)
            await gone(workers, ready["listen"])
            assert "Traceback" not in program.err
            if code == 0:
                assert program.entries[-1]["event"] == "server_ended"
                assert program.entries[-1]["result"] == "stopped"
                assert not [entry for entry in program.entries if entry["event"] == "worker_lost"]


@ASYNCIO
async def test_one_worker_is_no_process_of_its_own(shell: Shell) -> None:
    with upstream() as connect:
        async with shell.start(*arguments(shell, connect, "--workers", 1)) as program:
            await program.ready()
            assert children(program.pid) == []
            assert await program.signalled(signal.SIGTERM) == 0


@ASYNCIO
async def test_unless_told_there_is_a_worker_for_each_processor(shell: Shell) -> None:
    processors = len(os.sched_getaffinity(0))
    with upstream() as connect:
        async with shell.start(*arguments(shell, connect)) as program:
            await program.ready()
            assert len(children(program.pid)) == (processors if processors > 1 else 0)
            assert await program.signalled(signal.SIGTERM) == 0


@ASYNCIO
async def test_secrets_reach_no_command_line_and_no_environment(shell: Shell) -> None:
    with upstream() as connect:
        async with shell.start(*arguments(shell, connect, "--workers", 2)) as program:
            await program.ready()
            told = [told_at_its_start(pid) for pid in children(program.pid)]
            assert all(b"worker_entry" in each for each in told)
            for secret in (token_of(shell), b"PRIVATE KEY"):
                assert not any(secret in each for each in told)
            assert await program.signalled(signal.SIGTERM) == 0


@ASYNCIO
@pytest.mark.parametrize(
    ("broken", "stage", "code"),
    [("identity", "server_init", "identity_invalid"), ("port", "listen", "listen_failed")],
)
async def test_what_keeps_a_server_from_starting_is_told_once(
    broken: str, stage: str, code: str, shell: Shell
) -> None:
    options: list[Any] = ["--workers", 3]
    with upstream() as used:
        if broken == "identity":
            (shell.folder / "id").mkdir(mode=0o700)
            shell.write("id/identity.pem", "nonsense")
        else:
            options += ["--listen", used]
        async with shell.start(*arguments(shell, "127.0.0.1:9", *options)) as program:
            assert await program.ended() == 1
            assert program.out == ""
            assert program.err.count(f"stage={stage} code={code}") == 1
            assert "Traceback" not in program.err


@ASYNCIO
async def test_a_worker_that_cannot_start_ends_the_server_with_its_reason(shell: Shell) -> None:
    trap = shell.folder / "trap"
    trap.mkdir()
    shell.write(
        "trap/sitecustomize.py",
        "import os, sys\nif 'turnlane.runtime.worker_entry' in sys.orig_argv: os._exit(7)\n",
    )
    path = os.pathsep.join(filter(None, [str(trap), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": path}
    given = arguments(shell, "127.0.0.1:9", "--workers", 2)
    async with shell.start(*given, environment=environment) as program:
        assert await program.ended() == 1
        assert program.out == ""
        assert program.err.count("code=worker_died") == 1
        assert "exit code 7" in program.err
