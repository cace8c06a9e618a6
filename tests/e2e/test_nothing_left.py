"""What a failure, a cancellation, a restart or an ordered end leaves behind: nothing."""

import errno
import socket
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from turnlane.api import PolicyError, RelayTransport, Secret, Stage, TurnlaneError
from turnlane.net import native, relayed_path
from turnlane.net.dtls import DtlsAssociation
from turnlane.net.identity import Identity
from turnlane.net.relayed_path import RelayedPath
from turnlane.plugins.manager import PluginManager
from turnlane.proto.lane_client import LaneClient
from turnlane.proto.stun import Method
from turnlane.runtime import server_ports
from turnlane.runtime.events import CredentialsResolved, Event, LaneReady, PeerLost, StageReached
from turnlane.runtime.host import Host
from turnlane.runtime.peer_link import PeerLink, join_host_port, new_token
from turnlane.runtime.profiles import ClientProfile, PeerMode, ProviderProfile, ServerProfile
from turnlane_generic_turn.provider import GenericTurn
from turnlane_lab.faults import Direction
from turnlane_lab.stand import Stand
from turnlane_tests.leaks import Held, nothing_left, open_sockets
from turnlane_tests.local_peers import EventLog, local_peers
from turnlane_tests.timeouts import shorten

pytestmark = pytest.mark.anyio

LIMIT = 10.0
"""Seconds that anything may take here."""

STAGES = (
    Stage.POLICY_VALIDATE,
    Stage.PROVIDER_RESOLVE,
    Stage.LOCAL_BIND,
    Stage.TURN_DIAL,
    Stage.TURN_ALLOCATE,
    Stage.PEER_SETUP,
    Stage.DTLS_HANDSHAKE,
    Stage.SESSION_HELLO,
)
"""What a startup passes until it is ready."""

BEFORE_THE_RELAY = STAGES[:3]
"""Where a restart of the relay or of the server is nothing to a startup."""

WIRES = (RelayTransport.UDP, RelayTransport.TCP)


@pytest.fixture(autouse=True)
def _short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, DtlsAssociation.client, handshake_timeout=2.5)
    shorten(monkeypatch, LaneClient.__init__, timeout=2.5)
    monkeypatch.setattr(relayed_path, "RELEASE_TIMEOUT", 0.3)
    monkeypatch.setattr(server_ports, "DRAIN", 0.2)


class Trigger:
    """Keeps the events of a host, and does something when a startup reaches a stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.log = EventLog()
        self.act: Callable[[], object] | None = None

    def __call__(self, event: Event) -> None:
        self.log(event)
        if isinstance(event, StageReached) and event.stage is self.stage and self.act is not None:
            act, self.act = self.act, None
            act()


def link_of(stand: Stand) -> PeerLink:
    return PeerLink.parse(stand.peer)


def stages_of(log: EventLog) -> list[Stage]:
    return [
        event.stage
        for event in log.events
        if isinstance(event, StageReached) and event.session != "server"
    ]


async def failed_client(stand: Stand, **overrides: Any) -> TurnlaneError:
    """Start a client that is expected to fail.

    When the error is raised, all that belongs to the client is released already: what is still
    open beyond it are the relay's ends, which the relay counts.
    """
    before = Held.now()
    with anyio.fail_after(LIMIT), pytest.raises(TurnlaneError) as caught:
        await stand.connect(**overrides)
    relay = stand.relay.counters
    held_by_relay = relay["allocations_alive"] + relay["tcp_connections_alive"]
    assert len(before.new_sockets()) <= held_by_relay
    return caught.value


async def forgotten(stand: Stand) -> None:
    """Wait until the server has no session any more."""
    with anyio.fail_after(LIMIT):
        while stand.server.sessions:
            await anyio.lowlevel.checkpoint()


async def assert_serves(stand: Stand) -> None:
    """Show that a client that follows finds everything as before."""
    client = await stand.connect(2)
    async with local_peers(client.listen, "ann") as [peer]:
        await peer.echoed(peer.send())
    await client.stop()


# A startup that fails.


POLICY_FAILURES: dict[str, tuple[dict[str, Any], str, int]] = {
    "no connection": ({"connections": 0}, "invalid_connections", 2),
    "too many connections": ({"connections": 65}, "invalid_connections", 2),
    "a name for an address": ({"bind_interface": "eth0"}, "invalid_bind_interface", 2),
    "no listen port": ({"listen": "127.0.0.1"}, "invalid_listen", 2),
    "relay port": ({"turn_port": 0}, "invalid_turn_port", 2),
    "pin and insecure": ({"insecure_peer": True}, "pin_and_insecure", 2),
    "plain with a pin": ({"mode": PeerMode.PLAIN}, "no_dtls_with_identity", 2),
    "legacy with a token": ({"mode": PeerMode.LEGACY}, "legacy_with_token", 2),
    "no pin": ({"peer": PeerLink("127.0.0.1", 9)}, "missing_pin", 2),
    "unknown adapter": ({"ingress": "carrier-pigeon"}, "unknown_adapter", 3),
    "unknown provider": (
        {"provider": ProviderProfile(provider="nobody", link=Secret("nobody://"))},
        "unknown_provider",
        3,
    ),
}


@pytest.mark.parametrize("case", POLICY_FAILURES)
async def test_what_policy_refuses_asks_no_provider_binds_no_socket_and_sends_no_packet(
    case: str, event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides, code, exit_code = POLICY_FAILURES[case]

    async def never(*_: object) -> None:
        raise AssertionError("the provider was asked")

    monkeypatch.setattr(GenericTurn, "resolve", never)
    async with Stand(on_event=event_log) as stand, nothing_left(stand.relay) as before:
        counted = dict(stand.relay.counters)
        bound = count_binds(monkeypatch)
        with pytest.raises(TurnlaneError) as caught:
            await stand.connect(**overrides)
        assert before.new_sockets() == set()
        assert bound == []
        assert (caught.value.stage, caught.value.code) == (Stage.POLICY_VALIDATE, code)
        assert caught.value.exit_code == exit_code
        assert stages_of(event_log) == [Stage.POLICY_VALIDATE, Stage.SHUTDOWN]
        assert dict(stand.relay.counters) == counted


def count_binds(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that grows by one with every socket that is made from now on."""
    made: list[object] = []
    original = socket.socket.__init__

    def remember(self: socket.socket, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        if self.family in (socket.AF_INET, socket.AF_INET6) and not named.get("fileno"):
            made.append(self.type)

    monkeypatch.setattr(socket.socket, "__init__", remember)
    return made


@pytest.mark.parametrize(
    ("link", "code"),
    [
        ("generic-turn://user@127.0.0.1:9", None),
        ("https://example.org/", None),
        ("generic-turn://1600000000%3Aann:password@127.0.0.1:9", "expired_credentials"),
    ],
)
async def test_a_provider_that_fails_leaves_nothing(
    link: str, code: str | None, event_log: EventLog
) -> None:
    async with Stand(on_event=event_log) as stand, nothing_left(stand.relay):
        counted = dict(stand.relay.counters)
        error = await failed_client(
            stand, provider=ProviderProfile(provider="generic-turn", link=Secret(link))
        )
        assert error.stage is Stage.PROVIDER_RESOLVE
        assert error.exit_code == (2 if code is None else 1)
        assert code in (None, error.code)
        assert stages_of(event_log)[-2:] == [Stage.PROVIDER_RESOLVE, Stage.SHUTDOWN]
        assert event_log.of(CredentialsResolved) == []
        assert dict(stand.relay.counters) == counted


async def test_a_local_port_that_is_taken_leaves_nothing(event_log: EventLog) -> None:
    async with Stand(on_event=event_log) as stand, nothing_left(stand.relay):
        counted = dict(stand.relay.counters)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            error = await failed_client(stand, listen=join_host_port(*taken.getsockname()))
        assert (error.stage, error.code) == (Stage.LOCAL_BIND, "local_bind_failed")
        assert error.exit_code == 1
        assert dict(stand.relay.counters) == counted


async def test_a_relay_that_refuses_the_connection_leaves_nothing() -> None:
    async with Stand() as stand, nothing_left(stand.relay):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as deaf:
            deaf.bind(("127.0.0.1", 0))
            error = await failed_client(
                stand,
                connections=3,
                transport=RelayTransport.TCP,
                turn_port=deaf.getsockname()[1],
            )
        assert (error.stage, error.code) == (Stage.TURN_DIAL, "turn_unreachable")
        assert error.exit_code == 1


@pytest.mark.parametrize("transport", WIRES)
async def test_an_address_that_cannot_be_bound_leaves_nothing(transport: RelayTransport) -> None:
    async with Stand() as stand, nothing_left(stand.relay):
        error = await failed_client(
            stand, connections=2, transport=transport, bind_interface="192.0.2.1"
        )
        assert (error.stage, error.code) == (Stage.TURN_DIAL, "bind_failed")


@pytest.mark.parametrize("transport", WIRES)
async def test_a_wrong_password_leaves_nothing(transport: RelayTransport) -> None:
    async with Stand() as stand, nothing_left(stand.relay):
        link = stand.relay.link(password=Secret("guessed"), transport=transport)
        error = await failed_client(
            stand,
            connections=2,
            transport=transport,
            provider=ProviderProfile(provider="generic-turn", link=link),
        )
        assert (error.stage, error.code) == (Stage.TURN_ALLOCATE, "turn_unauthorized")
        assert stand.relay.counters["allocations_made"] == 0


@pytest.mark.parametrize("transport", WIRES)
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (403, "turn_forbidden"),
        (437, "turn_allocation_mismatch"),
        (441, "turn_wrong_credentials"),
        (442, "turn_unsupported_transport"),
        (486, "turn_quota_reached"),
        (508, "turn_insufficient_capacity"),
    ],
)
async def test_an_allocation_that_is_refused_leaves_nothing(
    number: int, code: str, transport: RelayTransport
) -> None:
    async with Stand() as stand, nothing_left(stand.relay):
        stand.relay.faults.answer(Method.ALLOCATE, number, times=None)
        error = await failed_client(stand, connections=2, transport=transport)
        assert (error.stage, error.code) == (Stage.TURN_ALLOCATE, code)
        assert stand.relay.counters["allocations_made"] == 0


async def test_a_quota_that_not_all_lanes_fit_in_leaves_nothing() -> None:
    async with Stand(relay={"max_allocations_per_user": 2}) as stand, nothing_left(stand.relay):
        error = await failed_client(stand, connections=4)
        assert (error.stage, error.code) == (Stage.TURN_ALLOCATE, "turn_quota_reached")
        assert stand.relay.counters["allocations_made"] > 0


@pytest.mark.parametrize("transport", WIRES)
async def test_a_relay_that_is_silent_leaves_nothing(
    transport: RelayTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, RelayedPath._until, timeout=0.3)
    async with Stand() as stand, nothing_left(stand.relay):
        stand.relay.pause()
        error = await failed_client(stand, connections=2, transport=transport)
        assert (error.stage, error.code) == (Stage.TURN_ALLOCATE, "turn_timeout")


@pytest.mark.parametrize("transport", WIRES)
async def test_a_peer_that_the_relay_denies_leaves_nothing(transport: RelayTransport) -> None:
    async with (
        Stand(relay={"denied_peers": ("127.0.0.0/8",)}) as stand,
        nothing_left(stand.relay),
    ):
        error = await failed_client(stand, connections=2, transport=transport)
        assert (error.stage, error.code) == (Stage.PEER_SETUP, "turn_forbidden")
        assert stand.relay.counters["allocations_made"] > 0


@pytest.mark.parametrize("transport", WIRES)
async def test_a_server_of_another_pin_leaves_nothing(transport: RelayTransport) -> None:
    async with Stand() as stand, nothing_left(stand.relay):
        wrong = replace(link_of(stand), pin=Identity.generate(0.0).pin)
        error = await failed_client(stand, connections=2, transport=transport, peer=wrong)
        assert (error.stage, error.code) == (Stage.DTLS_HANDSHAKE, "pin_mismatch")


async def test_a_server_that_is_absent_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, DtlsAssociation.client, handshake_timeout=0.3)
    async with Stand() as stand, nothing_left(stand.relay):
        peer = link_of(stand)
        await stand.server.stop()
        error = await failed_client(stand, connections=2, peer=peer)
        assert (error.stage, error.code) == (Stage.DTLS_HANDSHAKE, "dtls_timeout")
        assert "server" in error.advice


@pytest.mark.parametrize("transport", WIRES)
async def test_a_wrong_token_leaves_nothing(transport: RelayTransport) -> None:
    async with Stand() as stand, nothing_left(stand.relay):
        wrong = replace(link_of(stand), token=new_token())
        error = await failed_client(stand, connections=2, transport=transport, peer=wrong)
        assert (error.stage, error.code) == (Stage.SESSION_HELLO, "token_mismatch")
        assert stand.server.sessions == 0


# A startup that is cancelled.


@pytest.mark.parametrize("transport", WIRES)
@pytest.mark.parametrize("stage", STAGES)
async def test_a_startup_cancelled_at_any_stage_leaves_nothing(
    stage: Stage, transport: RelayTransport
) -> None:
    trigger = Trigger(stage)
    async with Stand(on_event=trigger) as stand:
        async with nothing_left(stand.relay) as before:
            with anyio.fail_after(LIMIT), anyio.CancelScope() as scope:
                trigger.act = scope.cancel
                await stand.connect(2, transport=transport)
            assert scope.cancelled_caught
            relay = stand.relay.counters
            held_by_relay = relay["allocations_alive"] + relay["tcp_connections_alive"]
            assert len(before.new_sockets()) <= held_by_relay
            assert stages_of(trigger.log)[-1] is Stage.SHUTDOWN
            assert stand.clients == []
        await forgotten(stand)
        await assert_serves(stand)


async def test_a_startup_cancelled_while_its_allocation_is_on_the_way_leaves_nothing() -> None:
    """The relay has made the allocation, its answer is lost: it is given back all the same."""
    async with Stand() as stand, nothing_left(stand.relay):
        stand.relay.faults.drop_if = lambda direction, data: (
            direction is Direction.RELAY_TO_CLIENT and is_success_of(Method.ALLOCATE, data)
        )
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stand.connect)
                await stand.relay.counters.reached("allocations_made", 1)
                tasks.cancel_scope.cancel()
        stand.relay.faults.clear()


def is_success_of(method: Method, data: bytes) -> bool:
    return int.from_bytes(data[:2], "big") == 0x0100 | method


@pytest.mark.parametrize("stage", [Stage.POLICY_VALIDATE, Stage.SERVER_INIT, Stage.LISTEN])
async def test_a_server_startup_cancelled_at_any_stage_leaves_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    trigger = Trigger(stage)
    before = Held.now()
    async with Host(PluginManager.load(), on_event=trigger) as host:
        with anyio.fail_after(LIMIT), anyio.CancelScope() as scope:
            trigger.act = scope.cancel
            await host.start_server(server_profile(tmp_path))
        assert scope.cancelled_caught
        assert before.new_sockets() == set()
    await before.settled()


async def test_a_server_startup_that_waits_for_its_upstream_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnlane_adapters.udp.UdpEgress.prepare", wait_forever)
    trigger = Trigger(Stage.SERVER_INIT)
    before = Held.now()
    async with Host(PluginManager.load(), on_event=trigger) as host:
        with anyio.fail_after(LIMIT), anyio.CancelScope() as scope:
            trigger.act = scope.cancel
            await host.start_server(server_profile(tmp_path))
        assert scope.cancelled_caught
    await before.settled()


async def wait_forever(*_: object) -> None:
    await anyio.sleep_forever()


def server_profile(folder: Path, **changes: Any) -> ServerProfile:
    profile = ServerProfile(
        listen="127.0.0.1:0", connect="127.0.0.1:9", identity=folder, token=new_token()
    )
    return msgspec.structs.replace(profile, **changes)


# A server startup that fails.


async def test_a_server_whose_second_port_is_taken_leaves_nothing(tmp_path: Path) -> None:
    before = Held.now()
    async with Host(PluginManager.load()) as host:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            profile = server_profile(tmp_path, legacy_listen=join_host_port(*taken.getsockname()))
            with anyio.fail_after(LIMIT), pytest.raises(TurnlaneError) as caught:
                await host.start_server(profile)
        assert (caught.value.stage, caught.value.code) == (Stage.LISTEN, "listen_failed")
        assert before.new_sockets() == set()
    await before.settled()


async def test_what_policy_refuses_a_server_touches_no_file_and_binds_no_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "identity"
    async with Host(PluginManager.load()) as host:
        bound = count_binds(monkeypatch)
        for changes in (
            {"token": None},
            {"open_access": True},
            {"max_sessions": 0},
            {"idle_timeout": 0.0},
            {"handshake_timeout": -1.0},
            {"connect": "127.0.0.1:0"},
            {"legacy_listen": "nowhere"},
        ):
            with pytest.raises(PolicyError):
                await host.start_server(server_profile(folder, **changes))
        assert bound == []
        assert not folder.exists()


# A relay or a server that restarts in the middle of a startup.


@pytest.mark.parametrize("restarted", ["relay", "server"])
async def test_a_restart_at_any_stage_of_a_startup_ends_in_success_or_a_staged_failure(
    restarted: str,
) -> None:
    """All cases run side by side: most of them wait for a timeout."""
    before = Held.now()
    outcomes: dict[tuple[Stage, RelayTransport], TurnlaneError | None] = {}

    async def start_with_restart_at(stage: Stage, transport: RelayTransport) -> None:
        trigger = Trigger(stage)
        async with Stand(on_event=trigger) as stand:
            async with anyio.create_task_group() as tasks:
                restart = stand.restart_relay if restarted == "relay" else stand.restart_server
                trigger.act = lambda: tasks.start_soon(restart)
                try:
                    with anyio.fail_after(LIMIT):
                        client = await stand.connect(2, transport=transport)
                except TurnlaneError as error:
                    outcomes[stage, transport] = error
                else:
                    outcomes[stage, transport] = None
                    await client.stop()
                assert trigger.act is None
            await stand.relay.counters.settled("allocations_alive", 0)
            await stand.relay.counters.settled("tcp_connections_alive", 0)
            await forgotten(stand)
            await assert_serves(stand)

    async with anyio.create_task_group() as tasks:
        for case in product(STAGES, WIRES):
            tasks.start_soon(start_with_restart_at, *case)
    assert outcomes.keys() == set(product(STAGES, WIRES))
    for (stage, _), error in outcomes.items():
        assert error is None or (stage not in BEFORE_THE_RELAY and error.stage in STAGES)
        assert error is None or error.advice
    await before.settled()


# The ordered end.


@pytest.mark.parametrize("transport", WIRES)
async def test_a_session_that_is_stopped_leaves_nothing(
    transport: RelayTransport, event_log: EventLog
) -> None:
    async with Stand(on_event=event_log) as stand, nothing_left(stand.relay) as before:
        client = await stand.connect(4, transport=transport)
        async with local_peers(client.listen, "ann", "ben") as peers:
            for peer in peers:
                await peer.echoed(peer.send())
        with anyio.fail_after(LIMIT):
            await client.stop()
        held_by_relay = stand.relay.counters["tcp_connections_alive"]
        held_by_server = stand.server.sessions * len(stand.echo.sources)
        assert len(before.new_sockets()) <= held_by_relay + held_by_server
        await forgotten(stand)
        assert stages_of(event_log)[-1] is Stage.SHUTDOWN
        reasons = {event.reason for event in event_log.events if isinstance(event, PeerLost)}
        assert "session_closed" in reasons
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as freed:
            freed.bind(client.listen)


async def test_a_session_may_be_stopped_twice_and_by_many(event_log: EventLog) -> None:
    async with Stand(on_event=event_log) as stand, nothing_left(stand.relay):
        client = await stand.connect(2)
        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(client.stop)
                tasks.start_soon(client.wait)
            await client.stop()
        await forgotten(stand)


async def test_a_session_stopped_while_its_relay_is_silent_leaves_nothing_here() -> None:
    async with Stand() as stand:
        before = Held.now()
        client = await stand.connect(4)
        stand.relay.pause()
        with anyio.fail_after(LIMIT):
            await client.stop()
        # What is open now is the relay's, which has not heard of the end.
        assert len(before.new_sockets()) == stand.relay.counters["allocations_alive"] == 4


async def test_a_session_stopped_while_its_lanes_come_back_leaves_nothing(
    event_log: EventLog,
) -> None:
    async with Stand(on_event=event_log) as stand, nothing_left(stand.relay):
        client = await stand.connect(3, transport=RelayTransport.TCP)
        mark = len(event_log.events)
        await stand.restart_relay()
        await event_log.wait_for(lambda event: isinstance(event, LaneReady), after=mark)
        with anyio.fail_after(LIMIT):
            await client.stop()
        await forgotten(stand)


async def test_a_session_whose_local_end_breaks_ends_by_itself_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(native.DATAPLANE_VARIABLE, "portable")
    receive = socket.socket.recvfrom_into

    async with Stand() as stand, nothing_left(stand.relay):
        client = await stand.connect(2)

        def fail(opened: socket.socket, buffer: memoryview) -> tuple[int, object]:
            if opened.getsockname() == client.listen:
                raise OSError(errno.ENETDOWN, "down")
            return receive(opened, buffer)

        async with local_peers(client.listen, "ann") as [peer]:
            monkeypatch.setattr(socket.socket, "recvfrom_into", fail)
            peer.send()
            with anyio.fail_after(LIMIT), pytest.raises(TurnlaneError) as caught:
                await client.wait()
        assert (caught.value.stage, caught.value.code) == (
            Stage.FORWARDING_LOOP,
            "local_socket_failed",
        )
        await forgotten(stand)


async def test_a_host_that_is_left_ends_its_sessions_and_leaves_nothing(tmp_path: Path) -> None:
    async with Stand() as stand, nothing_left(stand.relay):
        profile = ClientProfile(
            provider=ProviderProfile(provider="generic-turn", link=stand.link),
            peer=link_of(stand),
            listen="127.0.0.1:0",
            connections=3,
        )
        async with Host(PluginManager.load()) as host:
            await host.start_client(profile)
            await host.start_client(profile)
            await host.start_server(server_profile(tmp_path))
            assert stand.relay.counters["allocations_alive"] == 6
        await forgotten(stand)


async def test_a_host_that_an_exception_leaves_passes_it_on_and_leaves_nothing() -> None:
    async with Stand() as stand, nothing_left(stand.relay):
        profile = ClientProfile(
            provider=ProviderProfile(provider="generic-turn", link=stand.link),
            peer=link_of(stand),
            listen="127.0.0.1:0",
        )

        async def use_and_fail() -> None:
            async with Host(PluginManager.load()) as host:
                await host.start_client(profile)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await use_and_fail()
        await forgotten(stand)


async def test_a_server_that_stops_closes_its_upstream_sockets(event_log: EventLog) -> None:
    async with Stand(on_event=event_log) as stand:
        client = await stand.connect(2)
        async with local_peers(client.listen, "ann", "ben", "cy") as peers:
            for peer in peers:
                await peer.echoed(peer.send())
            upstream = str(stand.echo.address)
            assert sum(one.peer == upstream for one in open_sockets()) == 3
            with anyio.fail_after(LIMIT):
                await stand.server.stop()
            assert sum(one.peer == upstream for one in open_sockets()) == 0
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as freed:
                freed.bind(stand.server.listen)
            with anyio.fail_after(LIMIT):
                await client.stop()
