"""Turnlane's TURN client and the lab's relay, both without I/O, over a seeded network."""

from random import Random

import pytest

from turnlane.api import RelayTransport
from turnlane.proto.turn_client import (
    AllocationSucceeded,
    ChannelBound,
    DataReceived,
    Deallocated,
    TurnClient,
)
from turnlane.testing.network import Conditions, SimulatedNetwork, run
from turnlane_lab.allocations import FiveTuple

PEER = ("203.0.113.5", 7000)
CLIENT = ("192.0.2.1", 1000)
SERVER = ("198.51.100.1", 3478)


class ClientEndpoint:
    """A TURN client in the network."""

    place = CLIENT

    def __init__(self, client: TurnClient) -> None:
        self.client = client
        self.events = []
        self.to_send = []

    def receive(self, data, source, now):
        self.client.receive_datagram(data, now)
        self._collect()

    def outgoing(self, now):
        waiting, self.to_send = self.to_send, []
        return [(data, SERVER) for data in (*self.client.datagrams_to_send(), *waiting)]

    def get_timer(self):
        return self.client.get_timer()

    def handle_timer(self, now):
        self.client.handle_timer(now)
        self._collect()

    def _collect(self):
        while (event := self.client.next_event()) is not None:
            self.events.append(event)

    def seen(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class RelayEndpoint:
    """The relay's machine in the network, with an echo behind it that never fails."""

    place = SERVER

    def __init__(self, talk) -> None:
        self.talk = talk
        self.waiting = []

    def receive(self, data, source, now):
        self.talk.now = now
        five_tuple = FiveTuple(RelayTransport.UDP, source, SERVER)
        self.waiting += [(each, source) for each in self.talk.receive(five_tuple, data)]
        while self.talk.to_peers:
            payload, peer = self.talk.to_peers.pop()
            message = self.talk.from_peer(payload, peer)
            if message is not None:
                self.waiting.append((message, source))

    def outgoing(self, now):
        waiting, self.waiting = self.waiting, []
        return waiting

    def get_timer(self):
        return self.talk.machine.get_timer()

    def handle_timer(self, now):
        self.talk.machine.handle_timer(now)
        self.talk.carry_out()


class Alarm:
    """Something that happens at a time of its own, so that time passes until then."""

    place = "alarm"

    def __init__(self, moment: float) -> None:
        self.moment = moment
        self.rung = False

    def receive(self, data, source, now):
        raise AssertionError("nobody sends here")

    def outgoing(self, now):
        return []

    def get_timer(self):
        return None if self.rung else self.moment

    def handle_timer(self, now):
        self.rung = True


@pytest.mark.parametrize("seed", range(40))
def test_a_lossy_path_costs_time_and_never_an_allocation(dialogue, seed):
    talk = dialogue(
        default_lifetime=60,
        max_lifetime=60,
        nonce_lifetime=45,
        permission_lifetime=40,
        channel_lifetime=50,
    )
    client = TurnClient(
        "ada",
        "swordfish",
        reliable=False,
        random_bytes=Random(seed).randbytes,
        permission_lifetime=40,
        channel_lifetime=50,
    )
    network = SimulatedNetwork(
        seed, Conditions(loss=0.1, duplication=0.1, min_delay=0.005, max_delay=0.2)
    )
    here, there = ClientEndpoint(client), RelayEndpoint(talk)
    client.start(0.0)
    client.add_peer(*PEER, 0.0)
    now = run(network, [here, there], until=lambda: bool(here.seen(ChannelBound)))
    assert len(here.seen(AllocationSucceeded)) == 1

    for count in (1, 2, 3):
        alarm = Alarm(now + 70.0)
        now = run(network, [here, there, alarm], until=lambda alarm=alarm: alarm.rung, now=now)
        here.to_send += [client.wrap(PEER, b"%d" % count)] * 20
        echo = DataReceived(PEER, b"%d" % count)
        now = run(network, [here, there], until=lambda echo=echo: echo in here.events, now=now)

    client.close(now)
    run(network, [here, there], until=lambda: Deallocated() in here.events, now=now)
    assert talk.counted["allocations_made"] == 1
    assert talk.counted["refreshes"] >= 3
    assert talk.counted["permission_refreshes"] >= 3
    assert talk.counted["channel_rebinds"] >= 3
    assert talk.counted["stale_nonces"] >= 3
    assert "expired" not in talk.counted
