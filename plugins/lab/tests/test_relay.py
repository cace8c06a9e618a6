"""The relay on real loopback sockets, on both backends."""

import errno
import gc
import socket
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from turnlane.api import RelayTransport, Secret, Stage, TurnlaneError
from turnlane.proto.channel_data import encode
from turnlane.proto.stun import Method
from turnlane.proto.turn_client import (
    AllocationFailed,
    AllocationLost,
    AllocationRefreshed,
    AllocationSucceeded,
    ChannelBound,
    Deallocated,
    PeerRefused,
    PermissionInstalled,
)
from turnlane_lab import relay as relay_module
from turnlane_lab.config import RelayConfig
from turnlane_lab.echo import EchoTarget, SilentTarget
from turnlane_lab.faults import Direction, Impairment
from turnlane_lab.relay import Relay, _bind, _bind_relay
from turnlane_lab.users import rest_credentials

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("transport", [RelayTransport.UDP, RelayTransport.TCP])
USERS = {"ada": Secret("swordfish")}


def configured(**settings):
    return RelayConfig(users=USERS, **settings)


@BOTH
async def test_datagrams_cross_the_relay_and_come_back(live_client, transport):
    async with Relay(configured()) as relay, EchoTarget(prefix=b"echo:") as echo:
        with live_client(relay, transport) as client:
            client.start(echo.address)
            granted = await client.until(AllocationSucceeded)
            assert granted.mapped == client.address
            await client.until(ChannelBound)
            for payload in (b"", b"1", b"22", b"333", b"4444", b"5" * 1400):
                client.send(echo.address, payload)
                assert await client.payload() == b"echo:" + payload
            assert echo.sources == [granted.relayed]
            client.machine.close(anyio.current_time())
            await client.until(Deallocated)
            assert relay.allocations == ()
            assert relay.counters["deallocations"] == 1
            assert relay.counters["packets_up"] == relay.counters["packets_down"] == 6
            assert relay.counters["bytes_up"] == 1410
            assert relay.counters["bytes_down"] == 1440
            assert relay.counters["dropped"] == 0


@BOTH
async def test_indications_carry_what_comes_before_the_channel(live_client, transport):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        relay.faults.answer(Method.CHANNEL_BIND, 508, times=None)
        with live_client(relay, transport) as client:
            client.start(echo.address)
            await client.until(PermissionInstalled)
            client.send(echo.address, b"early")
            assert await client.payload() == b"early"
            assert client.machine.channel(echo.address) is None


@BOTH
async def test_a_target_may_speak_first_to_whom_it_is_permitted(live_client, transport):
    async with (
        Relay(configured()) as relay,
        EchoTarget() as known,
        EchoTarget("127.0.0.2") as stranger,
    ):
        with live_client(relay, transport) as client:
            client.start(known.address)
            granted = await client.until(AllocationSucceeded)
            await client.until(ChannelBound)
            await stranger.speak(granted.relayed, b"let me in")
            await relay.counters.reached("dropped", 1)
            await known.speak(granted.relayed, b"first")
            assert await client.payload() == b"first"


@BOTH
async def test_ipv6_is_listened_on_and_relayed(live_client, transport):
    config = configured(hosts=("127.0.0.1", "::1"))
    async with Relay(config) as relay, EchoTarget("::1") as echo:
        with live_client(relay, transport, host="::1", family=6) as client:
            client.start(echo.address)
            granted = await client.until(AllocationSucceeded)
            assert granted.relayed[0] == "::1"
            assert granted.mapped == client.address
            await client.until(ChannelBound)
            client.send(echo.address, b"six")
            assert await client.payload() == b"six"


async def test_an_ipv4_client_may_have_an_ipv6_allocation(live_client):
    config = configured(relay_hosts=("::1",))
    async with Relay(config) as relay, EchoTarget("::1") as echo:
        with live_client(relay, family=6) as client:
            client.start(echo.address)
            assert (await client.until(AllocationSucceeded)).relayed[0] == "::1"
            await client.until(ChannelBound)
            client.send(echo.address, b"mixed")
            assert await client.payload() == b"mixed"
        with live_client(relay) as client:
            client.start()
            assert (await client.until(AllocationFailed)).code == 440


async def test_many_packets_of_several_clients_all_come_back_to_their_own(live_client):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        with (
            live_client(relay) as first,
            live_client(relay) as second,
            live_client(relay, RelayTransport.TCP) as third,
        ):
            clients = (first, second, third)
            for client in clients:
                client.start(echo.address)
                await client.until(ChannelBound)
            for turn in range(20):
                for number, client in enumerate(clients):
                    client.send(echo.address, *(b"%d %d %d" % (number, turn, i) for i in range(32)))
                for number, client in enumerate(clients):
                    got = [await client.payload() for _ in range(32)]
                    assert got == [b"%d %d %d" % (number, turn, i) for i in range(32)]
            assert relay.counters["packets_down"] == 20 * 32 * 3
            assert len(echo.sources) == 3


async def test_an_even_port_is_even():
    async with Relay(configured()) as relay:
        for _ in range(8):
            with _bind_relay(relay.host, even_port=True) as opened:
                assert opened.getsockname()[1] % 2 == 0


async def test_a_search_for_a_port_ends(monkeypatch):
    monkeypatch.setattr(relay_module, "_PORT_ATTEMPTS", 0)
    with pytest.raises(OSError, match="in use"):
        _bind_relay("127.0.0.1", even_port=True)


async def test_hosts_share_a_port_even_if_the_first_choice_is_taken_on_one(monkeypatch):
    taken = []

    def bind(host, port, kind):
        if host == "::1" and len(taken) < 3:
            taken.append(port)
            raise OSError(errno.EADDRINUSE, "taken")
        return _bind(host, port, kind)

    monkeypatch.setattr(relay_module, "_bind", bind)
    async with Relay(configured(hosts=("127.0.0.1", "::1"))) as relay:
        assert list(relay._udp) == [("127.0.0.1", relay.udp_port), ("::1", relay.udp_port)]
        assert list(relay._tcp) == [("127.0.0.1", relay.tcp_port), ("::1", relay.tcp_port)]
        assert len(taken) == 3
        assert relay.udp_port not in taken


async def test_a_host_that_cannot_be_relayed_from_is_insufficient_capacity(live_client):
    async with Relay(configured(relay_hosts=("192.0.2.1",))) as relay:
        with live_client(relay) as client:
            client.start()
            assert (await client.until(AllocationFailed)).code == 508


async def test_what_the_system_does_not_take_is_counted(live_client):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        relay.faults.answer(Method.CHANNEL_BIND, 508, times=None)
        with live_client(relay) as client:
            client.start(echo.address)
            relayed = (await client.until(AllocationSucceeded)).relayed
            await client.until(PermissionInstalled)
            client.send(("127.0.0.1", 0), b"to nowhere")
            await relay.counters.reached("dropped", 1)
            await echo.speak(relayed, bytes(65_507))
            await relay.counters.reached("dropped", 2)
            client.send(echo.address, b"still there")
            assert await client.payload() == b"still there"


# Lifetimes.


async def test_an_allocation_that_is_not_refreshed_expires_and_its_socket_is_closed(live_client):
    config = configured(default_lifetime=1, max_lifetime=1)
    async with Relay(config) as relay, SilentTarget() as target:
        with live_client(relay) as client:
            client.start(target.address)
            granted = await client.until(AllocationSucceeded)
            assert granted.lifetime == 1
            await relay.counters.reached("expired", 1)
            assert relay.counters["allocations_alive"] == 0
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
                again.bind(granted.relayed)


async def test_a_client_that_keeps_refreshing_outlives_every_lifetime(live_client):
    config = configured(default_lifetime=1, max_lifetime=1, nonce_lifetime=0.7)
    async with Relay(config) as relay, EchoTarget() as echo:
        with live_client(relay) as client:
            client.start(echo.address)
            await client.until(ChannelBound)
            for _ in range(3):
                await client.until(AllocationRefreshed)
            client.send(echo.address, b"alive")
            assert await client.payload() == b"alive"
            assert relay.counters["refreshes"] >= 3
            assert relay.counters["stale_nonces"] >= 1
            assert relay.counters["expired"] == 0


# Refusals.


async def test_errors_reach_the_client_as_themselves(live_client):
    async with Relay(configured(max_allocations_per_user=1)) as relay:
        with live_client(relay, password="wrong") as client:
            client.start()
            assert (await client.until(AllocationFailed)).code == 401
        with live_client(relay) as client, live_client(relay) as another:
            client.start()
            await client.until(AllocationSucceeded)
            another.start()
            assert (await another.until(AllocationFailed)).code == 486
        assert relay.counters["unauthorized"] == 1
        assert relay.counters["quota_refusals"] == 1


async def test_a_denied_peer_is_refused(live_client):
    async with Relay(configured(denied_peers=("127.0.0.0/8",))) as relay:
        with live_client(relay) as client:
            client.start(("127.0.0.1", 9))
            assert (await client.until(PeerRefused)).code == 403


async def test_rest_credentials_pass_until_they_expire(live_client):
    secret = Secret("north")
    now = [1_800_000_000.0]
    config = RelayConfig(rest_secret=secret)
    async with Relay(config, unix_time=lambda: now[0]) as relay:
        username, password = rest_credentials(secret, "ada", now[0] + 60)
        settings = {"username": username, "password": password.reveal()}
        with live_client(relay, **settings) as client:
            client.start()
            await client.until(AllocationSucceeded)
        now[0] += 60
        with live_client(relay, **settings) as client:
            client.start()
            assert (await client.until(AllocationFailed)).code == 401


async def test_rest_usernames_are_measured_by_the_wall_clock(live_client):
    secret = Secret("north")
    async with Relay(RelayConfig(rest_secret=secret)) as relay:
        for minutes, passes in ((5, True), (-5, False)):
            expiry = datetime.now(UTC) + timedelta(minutes=minutes)
            username, password = rest_credentials(secret, "ada", expiry.timestamp())
            with live_client(relay, username=username, password=password.reveal()) as client:
                client.start()
                event = await client.until(AllocationSucceeded if passes else AllocationFailed)
                assert passes or event.code == 401


# TCP.


async def test_closing_a_connection_frees_its_allocation(live_client):
    async with Relay(configured()) as relay:
        with live_client(relay, RelayTransport.TCP) as client:
            client.start()
            await client.until(AllocationSucceeded)
            assert relay.counters["tcp_connections_alive"] == 1
            assert relay.counters["allocations_alive"] == 1
        await relay.counters.settled("tcp_connections_alive", 0)
        await relay.counters.settled("allocations_alive", 0)
        assert relay.counters["disconnected"] == 1


async def test_a_stream_may_come_in_single_bytes(live_client):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        with live_client(relay, RelayTransport.TCP) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.start(echo.address)
            await client.until(ChannelBound)
            number = client.machine.channel(echo.address)
            for byte in encode(number, b"hello", padded=True) * 2:
                client.socket.send(bytes([byte]))
                await anyio.lowlevel.checkpoint()
            assert await client.payload() == b"hello"
            assert await client.payload() == b"hello"


@pytest.mark.parametrize("garbage", [b"SSH-2.0-OpenSSH\r\n", b"\x00\x01\x00\x00\x00\x00\x00\x00"])
async def test_a_connection_that_speaks_something_else_is_closed(live_client, garbage):
    async with Relay(configured()) as relay:
        with live_client(relay, RelayTransport.TCP) as client:
            client.socket.send(garbage)
            await client.end()
        await relay.counters.settled("tcp_connections_alive", 0)
        assert relay.counters["malformed"] == 1


async def test_connections_are_bounded(live_client):
    async with Relay(configured(max_connections=1)) as relay:
        with live_client(relay, RelayTransport.TCP) as kept:
            await relay.counters.reached("tcp_connections_made", 1)
            with live_client(relay, RelayTransport.TCP) as refused:
                await refused.end()
            assert relay.counters["tcp_connections_refused"] == 1
            kept.start()
            await kept.until(AllocationSucceeded)


async def test_a_client_that_does_not_read_loses_data_and_keeps_its_allocation(live_client):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        client = live_client(relay, RelayTransport.TCP)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with client:
            client.start(echo.address)
            relayed = (await client.until(AllocationSucceeded)).relayed
            await client.until(ChannelBound)
            spoken = 0
            while not relay.counters["dropped"]:
                spoken += 1
                await echo.speak(relayed, b"%06d" % spoken + bytes(50_000))
                await relay.counters.reached("packets_down", spoken)
                assert spoken < 2000
            # What the connection did take arrives whole and in order.
            for count in range(1, spoken):
                assert await client.payload() == b"%06d" % count + bytes(50_000)
            await echo.speak(relayed, b"after")
            assert await client.payload() == b"after"
            assert relay.counters["tcp_connections_alive"] == 1


# Faults.


async def test_a_client_survives_the_loss_of_any_one_message(live_client):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        relay.faults.lose(Direction.CLIENT_TO_RELAY)
        with live_client(relay) as client:
            client.start(echo.address)
            await relay.counters.reached("lost_to_faults", 1)
            relay.faults.lose(Direction.RELAY_TO_CLIENT)
            await client.until(ChannelBound)
            assert relay.counters["lost_to_faults"] == 2
            assert relay.counters["allocations_made"] == 1


@pytest.mark.parametrize("direction", Direction)
async def test_a_packet_is_lost_in_the_direction_it_is_lost_in(live_client, direction):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        with live_client(relay) as client:
            client.start(echo.address)
            await client.until(ChannelBound)
            relay.faults.lose(direction)
            client.send(echo.address, b"lost")
            await relay.counters.reached("lost_to_faults", 1)
            client.send(echo.address, b"found")
            assert await client.payload() == b"found"
            reached = direction in (Direction.PEER_TO_RELAY, Direction.RELAY_TO_CLIENT)
            assert echo.counters["received"] == 2 if reached else 1
            assert relay.counters["lost_to_faults"] == 1


@BOTH
@pytest.mark.parametrize("direction", Direction)
async def test_a_packet_is_doubled_in_every_direction(live_client, direction, transport):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        with live_client(relay, transport) as client:
            client.start(echo.address)
            await client.until(ChannelBound)
            relay.faults.impair(direction, impairment=Impairment(duplicate=1.0))
            client.send(echo.address, b"twice")
            assert await client.payload() == b"twice"
            assert await client.payload() == b"twice"


async def test_delayed_packets_arrive_later_and_reordered_ones_after_the_next(live_client):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        with live_client(relay) as client:
            client.start(echo.address)
            await client.until(ChannelBound)
            relay.faults.impair(Direction.RELAY_TO_PEER, impairment=Impairment(delay=0.03))
            started = anyio.current_time()
            client.send(echo.address, b"slow")
            assert await client.payload() == b"slow"
            assert anyio.current_time() - started >= 0.03
            relay.faults.clear()
            relay.faults.impair(Direction.PEER_TO_RELAY, impairment=Impairment(reorder=1.0))
            client.send(echo.address, b"1", b"2", b"3", b"4")
            assert [await client.payload() for _ in range(4)] == [b"2", b"1", b"4", b"3"]


async def test_tcp_loses_data_to_faults_but_no_requests(live_client):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        relay.faults.impair(impairment=Impairment(drop=1.0))
        with live_client(relay, RelayTransport.TCP) as client:
            client.start(echo.address)
            await client.until(ChannelBound)
            client.send(echo.address, b"lost")
            await relay.counters.reached("lost_to_faults", 1)
            assert echo.counters["received"] == 0


async def test_faults_may_look_at_what_they_lose(live_client):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        with live_client(relay) as client:
            client.start(echo.address)
            await client.until(ChannelBound)
            relay.faults.drop_if = lambda where, data: (
                where is Direction.RELAY_TO_PEER and data == b"odd"
            )
            client.send(echo.address, b"odd", b"even")
            assert await client.payload() == b"even"


async def test_a_packet_held_back_for_an_allocation_that_is_gone_is_nobodys(live_client):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        with live_client(relay) as client:
            client.start(echo.address)
            await client.until(ChannelBound)
            delay = Impairment(delay=0.05)
            relay.faults.impair(Direction.RELAY_TO_PEER, Direction.PEER_TO_RELAY, impairment=delay)
            client.send(echo.address, b"late")
            await relay.counters.reached("packets_up", 1)
            relayed = relay.allocations[0].relayed
            await echo.speak(relayed, b"late too")
            client.machine.close(anyio.current_time())
            await client.until(Deallocated)
            relay.faults.clear()
            with live_client(relay) as next_client:
                next_client.start(echo.address)
                await next_client.until(ChannelBound)
                relay.faults.impair(Direction.RELAY_TO_PEER, impairment=delay)
                next_client.send(echo.address, b"own")
                assert await next_client.payload() == b"own"
            assert echo.counters["received"] == 1


@BOTH
async def test_a_paused_relay_is_silent_and_a_resumed_one_answers(live_client, transport):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        with live_client(relay, transport) as client:
            client.start(echo.address)
            granted = await client.until(AllocationSucceeded)
            await client.until(ChannelBound)
            relay.pause()
            client.send(echo.address, b"lost")
            await relay.counters.reached("dropped", 1)
            await echo.speak(granted.relayed, b"lost")
            await relay.counters.reached("dropped", 2)
            relay.resume()
            client.send(echo.address, b"back")
            assert await client.payload() == b"back"


async def test_packets_held_back_do_not_arrive_during_a_pause(live_client):
    async with Relay(configured()) as relay, EchoTarget() as echo:
        with live_client(relay) as client:
            client.start(echo.address)
            await client.until(ChannelBound)
            relay.faults.impair(Direction.RELAY_TO_PEER, impairment=Impairment(delay=0.02))
            client.send(echo.address, b"lost")
            await relay.counters.reached("packets_up", 1)
            relay.pause()
            await relay.counters.reached("dropped", 1)
            relay.resume()
            client.send(echo.address, b"back")
            assert await client.payload() == b"back"
            assert echo.counters["received"] == 1


@BOTH
async def test_a_restarted_relay_knows_nobody_and_serves_on_the_same_ports(live_client, transport):
    async with Relay(configured(default_lifetime=1, max_lifetime=1)) as relay:
        ports = relay.udp_port, relay.tcp_port
        with live_client(relay, transport) as client:
            client.start()
            relayed = (await client.until(AllocationSucceeded)).relayed
            await relay.restart()
            assert relay.allocations == ()
            assert relay.counters["allocations_alive"] == 0
            assert relay.counters["tcp_connections_alive"] == 0
            assert (relay.udp_port, relay.tcp_port) == ports
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
                again.bind(relayed)
            if transport is RelayTransport.TCP:
                await client.end()
            else:
                assert (await client.until(AllocationLost)).code == 437
                assert relay.counters["stale_nonces"] == 1
        with live_client(relay, transport) as client:
            client.start()
            await client.until(AllocationSucceeded)
        assert relay.counters["allocations_made"] == 2


@BOTH
async def test_a_lost_allocation_is_silent_until_its_client_refreshes(live_client, transport):
    config = configured(default_lifetime=1, max_lifetime=1)
    async with Relay(config) as relay, EchoTarget() as echo:
        with live_client(relay, transport) as client:
            client.start(echo.address)
            relayed = (await client.until(AllocationSucceeded)).relayed
            await client.until(ChannelBound)
            relay.lose(relayed)
            assert relay.counters["allocations_alive"] == 0
            client.send(echo.address, b"lost")
            await relay.counters.reached("dropped", 1)
            assert (await client.until(AllocationLost)).code == 437
            with pytest.raises(LookupError):
                relay.lose(relayed)


# What it tells, and how it ends.


async def test_a_link_names_everything_percent_encoded():
    users = {"1800000000:ad@": Secret("p/ss:w%rd")}
    async with Relay(RelayConfig(users=users, hosts=("::1",))) as relay:
        link = relay.link()
        assert link.reveal() == (
            f"generic-turn://1800000000%3Aad%40:p%2Fss%3Aw%25rd@[::1]:{relay.udp_port}?transport=udp"
        )
        assert "w%" not in str(link)
        other = relay.link("bob", Secret("marlin"), RelayTransport.TCP, host="relay.example")
        assert other.reveal() == (
            f"generic-turn://bob:marlin@relay.example:{relay.tcp_port}?transport=tcp"
        )
        with pytest.raises(ValueError, match="user"):
            relay.link("bob")
        with pytest.raises(ValueError, match="TLS"):
            relay.link(transport=RelayTransport.TLS)


async def test_an_address_that_is_taken_is_told():
    async with Relay(configured()) as relay:
        for setting in ({"udp_port": relay.udp_port}, {"tcp_port": relay.tcp_port}):
            with pytest.raises(TurnlaneError) as refused:
                async with Relay(configured(**setting)):
                    pass
            assert refused.value.stage is Stage.LISTEN
            assert refused.value.code == "listen_failed"
        with pytest.raises(TurnlaneError):
            async with EchoTarget(port=relay.udp_port):
                pass


async def test_what_the_block_raises_is_raised_as_it_is():
    with pytest.raises(KeyError):
        async with Relay(configured()), EchoTarget():
            raise KeyError("mine")


async def test_a_failure_inside_ends_the_block(live_client, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    async def enter():
        async with Relay(configured()) as relay:
            monkeypatch.setattr(relay._machine, "receive_untrusted", broken)
            with live_client(relay) as client:
                client.start()
                await client.until(AllocationSucceeded)

    with pytest.raises(ExceptionGroup) as failed:
        await enter()
    assert failed.group_contains(ZeroDivisionError)


@BOTH
async def test_leaving_closes_every_socket_and_keeps_the_last_numbers(live_client, transport):
    with anyio.CancelScope() as scope:
        async with Relay(configured()) as relay, EchoTarget() as echo:
            sockets = [*relay._udp.values(), *relay._tcp.values(), echo._socket]
            with live_client(relay, transport) as client:
                client.start(echo.address)
                await client.until(ChannelBound)
                sockets += relay._relayed.values()
                sockets += [each._socket for each in relay._connections.values()]
                assert len(sockets) == (4 if transport is RelayTransport.UDP else 5)
                scope.cancel()
                await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert [each.fileno() for each in sockets] == [-1] * len(sockets)
    assert relay.counters["allocations_alive"] == 1
    gc.collect()


async def test_leaving_closes_what_no_task_has_taken_up_yet(live_client):
    async with Relay(configured()) as relay:
        with live_client(relay, RelayTransport.TCP) as client:
            await relay.counters.reached("tcp_connections_made", 1)
            (connection,) = relay._connections.values()
            assert client.machine.get_timer() is None
            relay._tasks.cancel_scope.cancel()
    assert connection._socket.fileno() == -1
    gc.collect()


def test_a_relay_may_be_made_before_there_is_an_event_loop(anyio_backend):
    async def enter(relay):
        async with relay:
            return relay.udp_port

    assert anyio.run(enter, Relay(configured()), backend=anyio_backend) > 0
