"""One TURN allocation with one peer: the driver of the sans-IO TURN client on a wire."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

import anyio

from turnlane.api.batch import Batch
from turnlane.api.credentials import Credentials, RelayEndpoint
from turnlane.api.errors import TransportError
from turnlane.api.stages import Stage
from turnlane.net.relay_wire import BrokenWireError, RelayWire, dial
from turnlane.net.system import is_address, plain_address, resolve
from turnlane.proto import turn_client as turn
from turnlane.proto.channel_data import FramingError
from turnlane.proto.turn_client import TurnClient

MAX_ALTERNATES = 3
"""ALTERNATE-SERVER answers that are followed before the relay is given up (RFC 8489, 10)."""

ALLOCATE_TIMEOUT = 10.0
"""Seconds for the allocation, and again for the peer's permission."""

RELEASE_TIMEOUT = 2.0
"""Seconds that the deallocation may take on the way out."""

_CODES: dict[int | None, tuple[str, str]] = {
    None: ("turn_no_usable_answer", "check that it is a TURN server that answers at that address"),
    300: ("turn_alternate_server", "the relay sends clients elsewhere: use the other address"),
    400: ("turn_bad_request", "the relay does not understand this client; see its log"),
    401: (
        "turn_unauthorized",
        "check the user name and password of the link; TURN REST credentials also expire",
    ),
    403: ("turn_forbidden", "the relay's policy forbids it; ask who runs the relay"),
    437: ("turn_allocation_mismatch", "the relay has lost the allocation, perhaps restarted"),
    438: ("turn_stale_nonce", "the relay keeps refusing its own nonces; see its log"),
    440: ("turn_address_family_unsupported", "use a peer address of the relay's address family"),
    441: ("turn_wrong_credentials", "the allocation was made with other credentials"),
    442: ("turn_unsupported_transport", "the relay does not relay UDP"),
    443: ("turn_peer_family_mismatch", "use a peer address of the allocation's address family"),
    486: ("turn_quota_reached", "use fewer --connections, or wait until old allocations expire"),
    508: ("turn_insufficient_capacity", "the relay is full: try later or another relay"),
}


@dataclass(frozen=True)
class PathSettings:
    """How to reach a relay and through it a peer.

    `bind` is a local IP address, `ca_file` verifies a TLS relay, `random_bytes` gives randomness.
    """

    endpoint: RelayEndpoint
    credentials: Credentials
    peer_host: str
    peer_port: int
    random_bytes: Callable[[int], bytes]
    bind: str | None = None
    ca_file: str | None = None


class RelayedPath:
    """Datagrams to and from one peer through one allocation.

    Whoever owns the path calls `wait`, `read` and `handle_timer` in a loop, so that no task of its
    own is needed; or, once a channel is bound, `pump` with a function that takes whole batches by
    `read_messages`. `stage` is where the owner is: failures of the path carry it.
    """

    def __init__(
        self, wire: RelayWire, client: TurnClient, peer: tuple[str, int], received: Batch
    ) -> None:
        self._wire = wire
        self._client = client
        self._peer = peer
        self._received = received
        self.stage = Stage.TURN_ALLOCATE
        self._unwrapped = 0
        self.relayed: tuple[str, int] | None = None
        self.permitted = False
        self.alternate: turn.AlternateServer | None = None

    def send(self, payload: bytes) -> bool:
        """Send one datagram to the peer now; False when it was dropped."""
        try:
            message = self._client.wrap(self._peer, payload)
        except ValueError:
            # Until the channel is bound, a header of more than 20 bytes takes room, too.
            self._unwrapped += 1
            return False
        return self._wire.write(message)

    @property
    def channel(self) -> int | None:
        """The channel under which datagrams travel, None while none is bound."""
        return self._client.channel(self._peer)

    @property
    def padded(self) -> bool:
        """Whether messages are filled up to multiples of four bytes, as streams need it."""
        return self._wire.reliable

    @property
    def too_large(self) -> int:
        """Datagrams and other messages that the way to the relay does not bear."""
        return self._unwrapped + self._wire.too_large

    @property
    def largest_payload(self) -> int | None:
        """Bytes of the largest message to the relay, as far as known; None without a bound."""
        return self._wire.largest_payload

    @property
    def backlog(self) -> int:
        """Bytes that wait until the connection to the relay takes them."""
        return self._wire.backlog

    def send_messages(self, batch: Batch) -> int:
        """Send what is ChannelData already; return how many messages were not dropped."""
        return self._wire.write_batch(batch)

    def read_messages(self, batch: Batch) -> int:
        """Put messages from the relay, as they came, into `batch`; return how many.

        Raises `TransportError` when the wire is lost.
        """
        try:
            return self._wire.read(batch)
        except BrokenWireError as error:
            raise TransportError(self.stage, error.code, error.message, error.advice) from None
        except FramingError as error:
            self._client.lose_stream(str(error))
            self._events()
            return 0

    def receive(self, message: bytes, now: float) -> list[bytes]:
        """Take one message from the relay; return the peer's datagrams in it.

        Raises `TransportError` when the allocation is lost.
        """
        self._client.receive_datagram(message, now)
        return self._events()

    def read(self, now: float) -> list[bytes]:
        """Take the datagrams that have come from the peer.

        Raises `TransportError` when the allocation or the wire is lost.
        """
        payloads: list[bytes] = []
        self.read_messages(self._received)
        for message in self._received:
            payloads += self.receive(bytes(message), now)
        self.flush()
        return payloads

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due."""
        return self._client.get_timer()

    def handle_timer(self, now: float) -> None:
        """Retransmit and refresh what is due; raises `TransportError` when that was in vain."""
        self._client.handle_timer(now)
        self._events()
        self.flush()

    def flush(self) -> None:
        """Send what the TURN client has to say."""
        for message in self._client.datagrams_to_send():
            self._wire.write(message, droppable=False)

    async def pump(self, on_readable: Callable[[], int]) -> NoReturn:
        """Call `on_readable` whenever there may be messages, until it raises."""
        await self._wire.pump(on_readable)

    def interrupt(self, error: Exception) -> None:
        """Make a `pump` that is under way raise `error`."""
        self._wire.interrupt(error)

    async def wait(self, deadline: float | None) -> None:
        """Wait until something may be read, or until `deadline` (monotonic seconds)."""
        with anyio.CancelScope(deadline=float("inf") if deadline is None else deadline):
            await self._wire.wait()

    async def allocate(self) -> None:
        """Make the allocation; raises `TransportError` at `turn_allocate`.

        Leaves `alternate` set, and no allocation, when the relay names another server.
        """
        self._client.start(anyio.current_time())
        await self._until(lambda: self.relayed is not None or self.alternate is not None)

    async def permit(self) -> None:
        """Have the relay let the peer's datagrams pass; raises `TransportError` at `peer_setup`."""
        self.stage = Stage.PEER_SETUP
        self._client.add_peer(*self._peer, anyio.current_time())
        await self._until(lambda: self.permitted)

    async def release(self) -> None:
        """Delete the allocation at the relay, as far as it still listens."""
        self._client.close(anyio.current_time())
        # Whatever fails now: the relay forgets the allocation in time.
        with suppress(TransportError):
            await self._until(lambda: self._client.finished, RELEASE_TIMEOUT)

    async def _until(self, done: Callable[[], bool], timeout: float = ALLOCATE_TIMEOUT) -> None:
        give_up = anyio.current_time() + timeout
        self.flush()
        while not done():
            now = anyio.current_time()
            if now >= give_up:
                raise self._silence()
            timer = self.get_timer()
            await self.wait(give_up if timer is None else min(timer, give_up))
            now = anyio.current_time()
            self.read(now)
            due = self.get_timer()
            if due is not None and due <= now:
                self.handle_timer(now)

    def _silence(self) -> TransportError:
        if self._wire.refused:
            return TransportError(
                self.stage,
                "turn_unreachable",
                f"the relay does not answer, and the network says: {self._wire.refused}",
                "check the relay's address and port, that it runs, and that no firewall forbids it",
            )
        return TransportError(
            self.stage,
            "turn_timeout",
            "the relay does not answer",
            "check the address and that UDP passes, or try another --mode",
        )

    def _events(self) -> list[bytes]:
        payloads: list[bytes] = []
        while (event := self._client.next_event()) is not None:
            if isinstance(event, turn.DataReceived):
                payloads.append(event.payload)
            elif isinstance(event, turn.AllocationSucceeded):
                self.relayed = event.relayed
            elif isinstance(event, (turn.PermissionInstalled, turn.ChannelBound)):
                self.permitted = True
            elif isinstance(event, turn.AlternateServer):
                self.alternate = event
            elif isinstance(event, (turn.AllocationFailed, turn.PeerRefused, turn.AllocationLost)):
                raise refusal(self.stage, event.code, event.reason)
        return payloads


@asynccontextmanager
async def relayed_path(
    settings: PathSettings, on_stage: Callable[[Stage], None], received: Batch
) -> AsyncIterator[RelayedPath]:
    """Open a path to the peer and release it on every way out.

    `received` is for what `RelayedPath.read` takes, and free otherwise. `on_stage` hears each stage
    as it begins. Raises `TransportError` with the stage that failed.
    """
    endpoint = settings.endpoint
    peer = await _peer_address(settings)
    for _ in range(MAX_ALTERNATES + 1):
        on_stage(Stage.TURN_DIAL)
        wire = await dial(endpoint, bind=settings.bind, ca_file=settings.ca_file)
        try:
            client = TurnClient(
                settings.credentials.username.reveal(),
                settings.credentials.password.reveal(),
                reliable=wire.reliable,
                random_bytes=settings.random_bytes,
                family=6 if ":" in peer[0] else None,
            )
            path = RelayedPath(wire, client, peer, received)
            try:
                on_stage(Stage.TURN_ALLOCATE)
                await path.allocate()
                if path.alternate is None:
                    on_stage(Stage.PEER_SETUP)
                    await path.permit()
                    yield path
                    return
            finally:
                if path.alternate is None:
                    with anyio.CancelScope(shield=True):
                        await path.release()
        finally:
            wire.close()
        endpoint = RelayEndpoint(
            host=path.alternate.address[0],
            port=path.alternate.address[1],
            transport=endpoint.transport,
            # Without a word on that, it is the name of before that is verified (RFC 8489, 14.16).
            server_name=path.alternate.domain
            or endpoint.server_name
            or (None if is_address(endpoint.host) else endpoint.host),
        )
    raise refusal(Stage.TURN_ALLOCATE, 300, "the relays name each other as alternatives")


async def _peer_address(settings: PathSettings) -> tuple[str, int]:
    _, address = await resolve(
        settings.peer_host,
        settings.peer_port,
        socket.SOCK_DGRAM,
        stage=Stage.PEER_SETUP,
        code="peer_name_unresolved",
    )
    return plain_address(address)


def refusal(stage: Stage, code: int | None, text: str) -> TransportError:
    """Say what the relay answered, with its number, in one of our stable codes.

    `code` None is for no answer and for one that is of no use, which `text` tells.
    """
    name, advice = _CODES.get(code, (f"turn_error_{code}", "see the relay's log"))
    shown = "".join(character for character in text if character.isprintable())[:120]
    if code is not None:
        told = shown if shown.startswith(f"{code} ") else f"{code} ({shown})"
        shown = f"the relay answered {told}"
    return TransportError(stage, name, shown, advice)
