"""coturn, the TURN server from Debian's packages: started for one test, read through its log."""

import re
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import anyio
from anyio.abc import Process, TaskGroup

from turnlane.api import Secret
from turnlane.net.system import family_of
from turnlane_tests.certificates import Certificate

USER = "operator"
PASSWORD = "p@ss:word/1"
REALM = "coturn.test"

START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
SHOWN_LINES = 120

_SESSION = re.compile(r"session (\d+): (.*)")
_PROCESSED = re.compile(
    r"realm <.*> user <.*>: incoming packet (\w+) processed, (?:success|error (\d+): .*)"
)
_NEW = re.compile(r"new, realm=<.*>, username=<(.*)>, lifetime=(\d+).*")
_REFRESHED = re.compile(r"refreshed, realm=<.*>, username=<.*>, lifetime=(\d+).*")
_CLOSED = re.compile(r"closed \(.*\), user <.*, local .*, remote \[?(.*?)\]?:\d+, reason: (.*)")


@dataclass
class RelaySession:
    """What coturn's log says about one client address: its requests and its allocation, if any.

    `processed` counts successes by method and errors by code. `given_back` says that the client
    asked for the end, `deleted` that coturn has forgotten the allocation.
    """

    username: str | None = None
    lifetime: int = 0
    refreshes: int = 0
    processed: Counter[str] = field(default_factory=Counter)
    errors: Counter[int] = field(default_factory=Counter)
    given_back: bool = False
    deleted: bool = False
    client: str | None = None
    reason: str | None = None

    @property
    def allocated(self) -> bool:
        """Whether there ever was an allocation."""
        return self.username is not None


class Coturn:
    """A coturn on free loopback ports, alive while its `async with` block lasts.

    `users` are static; with `secret` it takes TURN REST credentials instead. With a certificate it
    also speaks TLS. `options` are further arguments of `turnserver`. Whatever the block raises
    carries the end of coturn's log as a note.
    """

    def __init__(
        self,
        *options: str,
        hosts: Sequence[str] = ("127.0.0.1",),
        relay_hosts: Sequence[str] | None = None,
        users: Mapping[str, str] | None = None,
        secret: str | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.host = hosts[0]
        self.port = 0
        self.tls_port = 0
        self.lines: list[str] = []
        self.sessions: dict[tuple[int, int], RelaySession] = {}
        self._options = options
        self._hosts = hosts
        self._relay_hosts = hosts if relay_hosts is None else relay_hosts
        self._users = {USER: PASSWORD} if users is None else users
        self._secret = secret
        self._certificate = certificate
        self._runs = 0
        self._changed = anyio.Event()
        self._process: Process | None = None
        self._running = False
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup | None = None
        self._directory = Path()

    # What a test asks of it

    def link(
        self, transport: str = "udp", username: str = USER, password: str = PASSWORD
    ) -> Secret[str]:
        """Return the `generic-turn` link to this relay."""
        login = f"{quote(username, safe='')}:{quote(password, safe='')}"
        return Secret(f"generic-turn://{login}@{self._address(transport)}?transport={transport}")

    def rest_link(self, secret: str, lifetime: int = 600, transport: str = "udp") -> Secret[str]:
        """Return the link from which a client mints TURN REST credentials."""
        return Secret(
            f"generic-turn+rest://label:{quote(secret, safe='')}@{self._address(transport)}"
            f"?transport={transport}&lifetime={lifetime}"
        )

    @property
    def allocations(self) -> list[RelaySession]:
        """The sessions that had an allocation, oldest first, over all restarts."""
        return [session for session in self.sessions.values() if session.allocated]

    @property
    def given_back(self) -> bool:
        """Whether every allocation was given back by its client."""
        return all(session.given_back for session in self.allocations)

    @property
    def forgotten(self) -> bool:
        """Whether every allocation is deleted, which follows its end by a second."""
        return all(session.deleted for session in self.allocations)

    @property
    def clients(self) -> list[str]:
        """The addresses of the clients whose sessions are over, oldest first, without ports."""
        return [session.client for session in self.sessions.values() if session.client]

    @property
    def requests(self) -> int:
        """How many requests there were, taken and refused."""
        return sum(
            session.processed.total() + session.errors.total() for session in self.sessions.values()
        )

    def refusals(self, code: int) -> int:
        """Return how many requests were answered with an error `code`."""
        return sum(session.errors[code] for session in self.sessions.values())

    async def until(self, holds: Callable[[], bool], what: str, *, timeout: float = 10.0) -> None:
        """Wait until `holds`, which is asked after every line of the log.

        Raises `AssertionError` that names `what` was waited for.
        """
        try:
            with anyio.fail_after(timeout):
                while not holds():
                    if not self._running:
                        raise AssertionError(f"coturn ended before {what}")
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"coturn's log did not show {what} in {timeout:g} s") from None

    async def restart(self) -> None:
        """End it with SIGTERM, as a service manager does, and start it on the same ports."""
        await self._stop()
        await self._start()

    # Its life

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        try:
            self._directory = Path(
                self._stack.enter_context(tempfile.TemporaryDirectory(prefix="coturn-"))
            )
            self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
            self._stack.push_async_callback(self._stop)
            self.port = free_port(self._hosts)
            self.tls_port = free_port(self._hosts)
            await self._start()
        except BaseException as error:
            self._tell(error)
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._tell(error)
        # The block's own exception is not shown to the task group, which would wrap it.
        await self._stack.aclose()

    async def _start(self) -> None:
        assert self._tasks is not None
        self._runs += 1
        process = await anyio.open_process(
            ["turnserver", *self._arguments()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._process = process
        self._running = True
        self._tasks.start_soon(self._read, process)
        first = len(self.lines)
        expected = [f"UDP listener opened on: {host}:{self.port}" for host in self._hosts]
        expected += [f"TCP listener opened on : {host}:{self.port}" for host in self._hosts]
        if self._certificate is not None:
            expected += [f"TCP listener opened on : {host}:{self.tls_port}" for host in self._hosts]

        def listens() -> bool:
            said = self.lines[first:]
            return all(any(line.endswith(end) for line in said) for end in expected)

        await self.until(listens, "all its listeners", timeout=START_TIMEOUT)

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
            with anyio.move_on_after(STOP_TIMEOUT):
                while self._running:
                    await self._changed.wait()
                await process.wait()
            if process.returncode is None:
                process.kill()
            await process.aclose()

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        rest = b""
        with suppress(anyio.ClosedResourceError):
            async for chunk in process.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._take(line.decode("utf-8", "replace").rstrip())
                self._wake()
        self._running = False
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _take(self, line: str) -> None:
        self.lines.append(line)
        found = _SESSION.search(line)
        if found is None:
            return
        session = self.sessions.setdefault((self._runs, int(found[1])), RelaySession())
        said = found[2]
        if processed := _PROCESSED.fullmatch(said):
            if processed[2] is None:
                session.processed[processed[1]] += 1
            elif processed[1] == "message":
                # A refusal by a method is logged for that, and once more for the message.
                session.errors[int(processed[2])] += 1
        elif new := _NEW.fullmatch(said):
            session.username, session.lifetime = new[1], int(new[2])
        elif refreshed := _REFRESHED.fullmatch(said):
            if refreshed[1] == "0":
                session.given_back = True
            else:
                session.refreshes += 1
        elif closed := _CLOSED.fullmatch(said):
            session.client, session.reason = closed[1], closed[2]
        elif said.startswith("delete: "):
            session.deleted = True

    def _tell(self, error: BaseException) -> None:
        shown = "\n".join(self.lines[-SHOWN_LINES:])
        error.add_note(f"--- coturn, the last {SHOWN_LINES} lines ---\n{shown}")

    def _address(self, transport: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.tls_port if transport == 'tls' else self.port}"

    def _arguments(self) -> Iterable[str]:
        yield from (
            "-n",
            "--verbose",
            "--log-file=stdout",
            "--simple-log",
            "--no-cli",
            "--no-dtls",
            "--no-rfc5780",
            "--relay-threads=1",
            "--allow-loopback-peers",
            f"--realm={REALM}",
            f"--pidfile={self._directory / 'pid'}",
            f"--userdb={self._directory / 'users'}",
            f"--listening-port={self.port}",
            f"--tls-listening-port={self.tls_port}",
        )
        yield from (f"--listening-ip={host}" for host in self._hosts)
        yield from (f"--relay-ip={host}" for host in self._relay_hosts)
        if self._secret is None:
            yield "--lt-cred-mech"
            yield from (f"--user={name}:{password}" for name, password in self._users.items())
        else:
            yield from ("--use-auth-secret", f"--static-auth-secret={self._secret}")
        if self._certificate is None:
            yield "--no-tls"
        else:
            yield f"--cert={self._certificate.certificate}"
            yield f"--pkey={self._certificate.key}"
        yield from self._options


def free_port(hosts: Sequence[str]) -> int:
    """Return a port that is free on all `hosts`, for UDP and TCP.

    coturn shares a port with whoever shares it too, so a port that is in use must not be named.
    """
    while True:
        port = 0
        with ExitStack() as held, suppress(OSError):
            for host in hosts:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    tried = held.enter_context(socket.socket(family_of(host), kind))
                    tried.bind((host, port))
                    port = tried.getsockname()[1]
            return port
