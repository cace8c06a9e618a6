"""What datagrams take from the generator to the sink: a tunnel, a relay alone, nothing at all."""

import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Literal

from turnlane.api import Secret, Stage, TransportError, UnavailableError
from turnlane_lab.bench import turn
from turnlane_lab.bench.processes import START_TIMEOUT, TURNLANE, Part
from turnlane_lab.bench.wire import BUFFER

RelayKind = Literal["coturn", "lab"]

HOST = "127.0.0.1"
PYTHON_PEER = (sys.executable, "-P", "-m", "turnlane_lab.bench.peer")
OPEN_TIMEOUT = 10.0

_COTURN = """\
listening-ip={host}
relay-ip={host}
listening-port={port}
no-tls
no-dtls
no-cli
allow-loopback-peers
lt-cred-mech
realm=bench
user=bench:{password}
no-rfc5780
log-file=stdout
simple-log
pidfile={folder}/coturn.pid
userdb={folder}/coturn.db
"""


@dataclass(frozen=True)
class RunningRelay:
    """A relay that listens, and the `generic-turn` link to it."""

    part: Part
    link: Secret[str]


@dataclass(frozen=True)
class Route:
    """Two peers with something in between; `parts` are all processes whose CPU time counts.

    Datagrams go up from `near` to `far`; either is generator or sink.

    `pinger` is a third peer with a flow of its own, to measure round trips beside a load.
    `startup` are the seconds from the start of each command to its ready line.
    """

    near: Part
    far: Part
    parts: Mapping[str, Part]
    pinger: Part | None = None
    startup: Mapping[str, float] = field(default_factory=dict)


class Site:
    """Where a measurement takes place: a private folder, and the program that peers run.

    `buffers` are the bytes that the system granted to the peers' sockets, to receive and to send.
    """

    def __init__(self, folder: Path, peer: Sequence[str] = PYTHON_PEER) -> None:
        self.folder = folder
        self.buffers = (0, 0)
        self._peer = peer
        self._files = 0

    # Relays

    @contextmanager
    def relay(self, kind: RelayKind) -> Iterator[RunningRelay]:
        """Run a relay; raises `UnavailableError` where coturn is wanted and not installed."""
        with self._coturn() if kind == "coturn" else self._lab() as running:
            yield running

    @contextmanager
    def _coturn(self) -> Iterator[RunningRelay]:
        program = coturn()
        if program is None:
            raise UnavailableError(
                "coturn_missing",
                "the program turnserver is not installed",
                "install coturn, or measure with --relay lab",
            )
        port, password = _free_port(), token_hex(16)
        settings = self._file("coturn.conf")
        settings.touch(0o600)
        settings.write_text(
            _COTURN.format(host=HOST, port=port, password=password, folder=self.folder)
        )
        command = [program, "-c", str(settings)]
        with Part("relay", command, self._file("log"), answers=False) as part:
            while not turn.listens((HOST, port)):
                part.check()
                if part.age > START_TIMEOUT:
                    raise part.failure("it does not listen")
            yield RunningRelay(part, Secret(f"generic-turn://bench:{password}@{HOST}:{port}"))

    @contextmanager
    def _lab(self) -> Iterator[RunningRelay]:
        command = [*TURNLANE, "lab", "run", "--json"]
        with Part("relay", command, self._file("log")) as part:
            yield RunningRelay(part, Secret(part.answer()["link"]))

    # Routes

    @contextmanager
    def tunnel(
        self,
        relay: RunningRelay,
        *,
        lanes: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Route]:
        """Run the shipped server and client in front of a sink, one flow for each lane."""
        with ExitStack() as stack:
            far, far_address, acks = self._far(stack)
            server = stack.enter_context(
                Part(
                    "server",
                    [
                        *(*TURNLANE, "server", "--json", "--listen", f"{HOST}:0"),
                        *("--identity", str(self._file("identity"))),
                        *("--connect", _joined(far_address)),
                    ],
                    self._file("log"),
                    environment=environment,
                )
            )
            peer = server.answer()["peer_link_file"]
            startup = {"server": server.age}
            link = self._file("link")
            link.touch(0o600)
            link.write_text(relay.link.reveal())
            client = stack.enter_context(
                Part(
                    "client",
                    [
                        *(*TURNLANE, "client", "--json", "--listen", f"{HOST}:0"),
                        *("--provider", "generic-turn", "--link-file", str(link)),
                        *("--peer-file", peer, "--connections", str(lanes)),
                    ],
                    self._file("log"),
                    environment=environment,
                )
            )
            listen = _split(client.answer()["listen"])
            startup["client"] = client.age
            near = self._near(stack, [listen] * lanes, acks)
            open_flows(near, far)
            # It says no hello: what is sent down goes to the generator's flows alone.
            pinger = self._near(stack, [listen], None)
            parts = {
                "near": near,
                "client": client,
                "relay": relay.part,
                "server": server,
                "far": far,
            }
            yield Route(near, far, parts, pinger, startup)

    @contextmanager
    def direct(self) -> Iterator[Route]:
        """Let the generator send straight to the sink."""
        with ExitStack() as stack:
            far, address, acks = self._far(stack)
            near = self._near(stack, [address], acks)
            open_flows(near, far)
            yield Route(near, far, {"near": near, "far": far})

    @contextmanager
    def relayed(self, relay: RunningRelay) -> Iterator[Route]:
        """Let the generator be a TURN client itself, and nothing else be there but the relay."""
        with ExitStack() as stack:
            far, address, acks = self._far(stack)
            opened = stack.enter_context(self._socket())
            number = stack.enter_context(turn.channel(opened, relay.link, address))
            near = self._peer_of(stack, [opened], acks, channel=number)
            open_flows(near, far)
            parts = {"near": near, "relay": relay.part, "far": far}
            yield Route(near, far, parts)

    @contextmanager
    def through(self, program: str, relay: RunningRelay | None = None) -> Iterator[Route]:
        """Put another program in place of Turnlane: `program --inner FD --outer FD --channel N`.

        It passes on what comes to a bound socket and a connected one, to a relay's channel where
        there is a relay, else straight to the sink.
        """
        with ExitStack() as stack:
            far, address, acks = self._far(stack)
            inner, outer = (stack.enter_context(self._socket(own=False)) for _ in range(2))
            inner.bind((HOST, 0))
            if relay is None:
                outer.connect(address)
                number = 0
            else:
                number = stack.enter_context(turn.channel(outer, relay.link, address))
            sockets = [inner.fileno(), outer.fileno()]
            options = ["--inner", str(sockets[0]), "--outer", str(sockets[1])]
            passing = stack.enter_context(
                Part(
                    "forwarder",
                    [program, *options, "--channel", str(number)],
                    self._file("log"),
                    ends_with_input=True,
                    sockets=sockets,
                )
            )
            near = self._near(stack, [inner.getsockname()], acks)
            open_flows(near, far)
            parts = {"near": near, "forwarder": passing, "far": far}
            if relay is not None:
                parts["relay"] = relay.part
            yield Route(near, far, parts)

    # Peers

    def _socket(self, *, own: bool = True) -> socket.socket:
        """Open a UDP socket; with the buffers of a peer unless it is another program's."""
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if own:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            # Linux tells twice what it granted, its own bookkeeping included.
            self.buffers = (
                opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2,
                opened.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2,
            )
        return opened

    def _far(self, stack: ExitStack) -> tuple[Part, tuple[str, int], socket.socket]:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs, self._socket() as bound:
            bound.bind((HOST, 0))
            descriptors = ["--far", str(bound.fileno()), "--acks", str(theirs.fileno())]
            part = Part(
                "far peer",
                [*self._peer, *descriptors],
                self._file("log"),
                ends_with_input=True,
                sockets=[bound.fileno(), theirs.fileno()],
            )
            return stack.enter_context(part), bound.getsockname(), ours

    def _near(
        self, stack: ExitStack, targets: Sequence[tuple[str, int]], acks: socket.socket | None
    ) -> Part:
        with ExitStack() as opened:
            sockets = [opened.enter_context(self._socket()) for _ in targets]
            for each, target in zip(sockets, targets, strict=True):
                each.connect(target)
            return self._peer_of(stack, sockets, acks)

    def _peer_of(
        self,
        stack: ExitStack,
        sockets: Sequence[socket.socket],
        acks: socket.socket | None,
        channel: int = 0,
    ) -> Part:
        descriptors = [each.fileno() for each in sockets]
        command = [*self._peer, "--near", ",".join(map(str, descriptors))]
        if acks is not None:
            command += ["--acks", str(acks.fileno())]
            descriptors.append(acks.fileno())
        command += ["--channel", str(channel)]
        return stack.enter_context(
            Part(
                "near peer",
                command,
                self._file("log"),
                ends_with_input=True,
                sockets=descriptors,
            )
        )

    def _file(self, name: str) -> Path:
        self._files += 1
        return self.folder / f"{self._files}-{name}"


def coturn() -> str | None:
    """Return the path of coturn, or None where it is not installed."""
    return shutil.which("turnserver")


def open_flows(near: Part, far: Part) -> None:
    """Say hello on every flow until the far end knows them all.

    Raises `TransportError` where no hello arrives.
    """
    deadline = time.perf_counter() + OPEN_TIMEOUT
    while True:
        wanted = near.ask("hello")["flows"]
        for _ in range(10):
            if far.ask("hello")["flows"] >= wanted:
                return
            time.sleep(0.01)
        if time.perf_counter() > deadline:
            raise TransportError(
                Stage.FORWARDING_LOOP,
                "bench_nothing_arrives",
                "no datagram comes through",
                "try `turnlane demo`, which says more about a single tunnel",
            )


def _free_port() -> int:
    """Return a port that is free for UDP and TCP; coturn would share one that is in use."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return int(tcp.getsockname()[1])


def _joined(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def _split(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
