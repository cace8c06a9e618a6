"""The stand: everything a client needs, up and down again, on both backends."""

import socket
import tempfile
from contextlib import closing
from importlib.util import find_spec

import anyio
import pytest

from turnlane.api import RelayTransport, Secret, Stage, TurnlaneError, UnavailableError
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.events import PeerAccepted, ServerReady, SessionReady
from turnlane.runtime.peer_link import PeerLink, new_token
from turnlane_lab.echo import EchoTarget
from turnlane_lab.stand import Stand

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        find_spec("turnlane_adapters") is None or find_spec("turnlane_generic_turn") is None,
        reason="a stand needs the plugins generic-turn and adapters",
    ),
]


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    """Where the stand's folder appears; it is empty again after every test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


async def ask(address, payload=b"ping", *, timeout=5.0):
    """Send one datagram and return what comes back."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as opened, anyio.fail_after(timeout):
        opened.connect(address)
        opened.setblocking(False)
        opened.send(payload)
        await anyio.wait_readable(opened)
        return opened.recv(65_535)


def bindable(kind, address):
    """Say whether nobody listens on an address any more."""
    with socket.socket(socket.AF_INET, kind) as opened:
        try:
            opened.bind(address)
        except OSError:
            return False
    return True


@pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
async def test_a_client_of_the_stand_reaches_its_echo(transport):
    async with Stand() as stand:
        client = await stand.connect(2, transport=transport)
        assert client.ready_lanes == 2
        assert await ask(client.listen) == b"ping"
        assert stand.echo.counters["received"] == 1
        assert stand.relay.counters["allocations_alive"] == 2
        alive = 2 if transport is RelayTransport.TCP else 0
        assert stand.relay.counters["tcp_connections_alive"] == alive
        assert stand.server.sessions == 1


async def test_leaving_ends_clients_then_server_then_relay_and_frees_every_port(temporary_folder):
    async with Stand() as stand:
        client = await stand.connect()
        (folder,) = temporary_folder.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        places = [
            (socket.SOCK_DGRAM, ("127.0.0.1", stand.relay.udp_port)),
            (socket.SOCK_STREAM, ("127.0.0.1", stand.relay.tcp_port)),
            (socket.SOCK_DGRAM, stand.server.listen),
            (socket.SOCK_DGRAM, stand.echo.address),
            (socket.SOCK_DGRAM, client.listen),
        ]
        assert not any(bindable(*place) for place in places)
    await client.wait()
    await stand.server.wait()
    assert stand.relay.counters["allocations_alive"] == 0
    assert stand.relay.counters["deallocations"] == 1
    assert all(bindable(*place) for place in places)


async def test_a_cancelled_block_leaves_nothing_behind_either():
    with anyio.CancelScope() as scope:
        async with Stand() as stand:
            client = await stand.connect()
            listen = client.listen
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert bindable(socket.SOCK_DGRAM, listen)
    assert bindable(socket.SOCK_DGRAM, stand.server.listen)


async def test_a_cancellation_leaves_the_block_without_being_its_own_context():
    """anyio follows the contexts of an exception when a task ends, and would never come back."""
    circles = []

    async def use():
        try:
            async with Stand() as stand:
                await stand.connect()
                started.set()
                await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as error:
            seen, context = [], error
            while context is not None and context not in seen:
                seen.append(context)
                context = context.__context__
            circles.append(context)
            for one in seen if context is not None else ():
                one.__context__ = None
            raise

    started = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        await started.wait()
        tasks.cancel_scope.cancel()
    assert circles == [None]


async def test_what_the_block_raises_arrives_as_it_was_raised():
    async def broken():
        async with Stand() as stand:
            await stand.connect()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken()


async def test_a_restarted_server_keeps_its_port_identity_and_token():
    async with Stand() as stand:
        before = stand.server
        listen, peer = before.listen, stand.peer
        await stand.restart_server()
        assert stand.server is not before
        assert (stand.server.listen, stand.peer) == (listen, peer)
        await before.wait()
        client = await stand.connect(peer=PeerLink.parse(peer))
        assert await ask(client.listen) == b"ping"


async def test_a_server_that_was_stopped_by_hand_can_be_started_again():
    async with Stand() as stand:
        await stand.server.stop()
        assert bindable(socket.SOCK_DGRAM, stand.server.listen)
        await stand.restart_server()
        assert await ask((await stand.connect()).listen) == b"ping"


async def test_a_restarted_relay_has_forgotten_its_allocations():
    async with Stand() as stand:
        await stand.connect(transport=RelayTransport.TCP)
        port = stand.relay.udp_port
        assert len(stand.relay.allocations) == 1
        await stand.restart_relay()
        assert stand.relay.allocations == ()
        assert stand.relay.udp_port == port


async def test_the_relay_the_server_and_the_upstream_can_be_other_than_usual():
    stand = Stand(
        relay={"max_allocations_per_user": 1},
        server={"legacy_listen": "127.0.0.1:0"},
        echo=EchoTarget(prefix=b"echo:"),
    )
    async with stand:
        assert stand.server.legacy_listen is not None
        with pytest.raises(TurnlaneError) as failed:
            await stand.connect(2)
        assert failed.value.stage is Stage.TURN_ALLOCATE
        await stand.relay.counters.settled("allocations_alive", 0)
        assert stand.clients == []
        assert await ask((await stand.connect()).listen) == b"echo:ping"


async def test_a_client_can_be_other_than_usual():
    async with Stand() as stand:
        peer = PeerLink.parse(stand.peer)
        stranger = PeerLink(peer.host, peer.port, peer.pin, new_token())
        with pytest.raises(TurnlaneError) as failed:
            await stand.connect(peer=stranger)
        assert failed.value.stage is Stage.SESSION_HELLO
        with pytest.raises(TypeError, match="colour"):
            await stand.connect(colour="blue")


async def test_events_of_the_server_and_the_clients_are_told():
    told = []
    async with Stand(on_event=told.append) as stand:
        await stand.connect()
    kinds = [type(event) for event in told]
    assert kinds.count(ServerReady) == kinds.count(PeerAccepted) == kinds.count(SessionReady) == 1


async def test_links_carry_the_advertised_address():
    async with Stand(relay={"hosts": ("0.0.0.0",), "advertise": ("127.0.0.1",)}) as stand:
        assert stand.address == "127.0.0.1"
        assert "@127.0.0.1:" in stand.link.reveal()
        assert PeerLink.parse(stand.peer).host == "127.0.0.1"
        assert await ask((await stand.connect()).listen) == b"ping"


async def test_it_stands_on_ipv6_as_well():
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    with closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
    async with Stand(relay={"hosts": ("::1",)}) as stand:
        assert stand.server.listen[0] == "::1"
        assert await ask((await stand.connect()).listen) == b"ping"


async def test_it_needs_its_plugins_and_says_so():
    with pytest.raises(UnavailableError) as failed:
        async with Stand(plugins=PluginManager.from_modules([])):
            raise AssertionError("it started without plugins")
    assert failed.value.code == "unknown_adapter"


async def test_an_address_that_is_taken_is_told_and_everything_released():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        stand = Stand(server={"listen": listen})
        with pytest.raises(TurnlaneError) as failed:
            await stand.__aenter__()
    assert failed.value.stage is Stage.LISTEN
    assert bindable(socket.SOCK_DGRAM, stand.echo.address)


async def test_fields_that_do_not_exist_are_refused():
    with pytest.raises(TypeError, match="colour"):
        Stand(relay={"colour": "blue"})
    with pytest.raises(TypeError, match="colour"):
        async with Stand(server={"colour": "blue"}):
            raise AssertionError("it started with a field that a server has not")


async def test_every_stand_has_a_password_and_a_token_of_its_own():
    async with Stand() as one, Stand() as other:
        assert "***" == str(one.link) == str(one.peer)
        passwords = {next(iter(stand.relay.config.users.values())) for stand in (one, other)}
        tokens = {PeerLink.parse(stand.peer).token for stand in (one, other)}
        assert len(passwords) == len(tokens) == 2
        assert all(isinstance(secret, Secret) for secret in passwords | tokens)
