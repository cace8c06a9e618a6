"""Both ends of lanes against each other over a network that loses, doubles and reorders."""

import hashlib
from collections.abc import Iterable, Sequence
from random import Random

import pytest

from turnlane.api import Secret
from turnlane.proto.frames import (
    HEADER_SIZE,
    Probe,
    ProbeAnswer,
    datagram_flow,
    write_datagram_header,
)
from turnlane.proto.hello import (
    Hello,
    HelloParameters,
    Reject,
    WelcomeTerms,
    build_welcome,
    is_handshake,
    parse_message_untrusted,
    token_key,
)
from turnlane.proto.lane_client import ClientState, LaneClient
from turnlane.proto.lane_events import (
    ClientEvent,
    LaneAccepted,
    LaneEstablished,
    LaneFailed,
    LaneRefused,
    LaneRejected,
    ServerEvent,
)
from turnlane.proto.lane_server import LaneServer, ServerState
from turnlane.proto.refusals import Refusal, Remedy
from turnlane.testing.network import Conditions, Place, SimulatedNetwork, run

TOKEN = token_key(Secret("a token of twenty-two letters"))
TERMS = WelcomeTerms(1168, 1800.0)
ROUGH = Conditions(loss=0.25, duplication=0.1, min_delay=0.005, max_delay=0.4)


def exporter_of(association: str) -> bytes:
    return hashlib.sha256(association.encode()).digest()


class Directory:
    """A server's sessions, with secrets that a seed gives."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.sessions: dict[bytes, Secret[bytes]] = {}

    def refuse(self, hello: Hello) -> Refusal | None:
        return None

    def secret(self, session_id: bytes) -> Secret[bytes] | None:
        return self.sessions.get(session_id)

    def create(self, hello: Hello) -> Secret[bytes] | Refusal:
        assert hello.session_id not in self.sessions
        self.sessions[hello.session_id] = Secret(self.random.randbytes(32))
        return self.sessions[hello.session_id]


class End:
    """One end of a lane in the network; its data path counts datagrams."""

    def __init__(self, machine: LaneClient | LaneServer, place: Place, peer: Place) -> None:
        self.machine = machine
        self.place = place
        self.peer = peer
        self.events: list[ClientEvent | ServerEvent] = []
        self.handshake: set[bytes] = set()
        self.received = 0
        self._payload: list[bytes] = []

    def receive(self, data: bytes, source: Place, now: float) -> None:
        health = self.machine.health
        if health is not None and datagram_flow(data) >= 0:
            health.note_received(1, now)
            self.received += 1
        else:
            self.machine.receive(data, now)
        self.collect()

    def outgoing(self, now: float) -> Iterable[tuple[bytes, Place]]:
        records = self.machine.records_to_send() + self._payload
        self._payload = []
        self.handshake |= {record for record in records if is_handshake(record)}
        return [(record, self.peer) for record in records]

    def get_timer(self) -> float | None:
        return self.machine.get_timer()

    def handle_timer(self, now: float) -> None:
        self.machine.handle_timer(now)
        self.collect()

    def send_payload(self, count: int, now: float) -> None:
        assert self.machine.health is not None
        record = bytearray(HEADER_SIZE + 8)
        write_datagram_header(record, 0, 7)
        self._payload += [bytes(record)] * count
        self.machine.health.note_sent(count, now)

    def collect(self) -> None:
        while (event := self.machine.next_event()) is not None:
            self.events.append(event)


class Lane:
    """A client's end and a server's end with one association between them."""

    def __init__(
        self,
        name: str,
        parameters: HelloParameters,
        directory: Directory,
        secret: Secret[bytes] | None,
    ) -> None:
        exporter = exporter_of(name)
        client = LaneClient(parameters, exporter=exporter, token=TOKEN, session_secret=secret)
        server = LaneServer(exporter=exporter, token=TOKEN, directory=directory, terms=TERMS)
        self.client = End(client, f"{name} client", f"{name} server")
        self.server = End(server, f"{name} server", f"{name} client")

    def start(self, now: float) -> None:
        for end in (self.client, self.server):
            assert isinstance(end.machine, LaneClient | LaneServer)
            end.machine.start(now)

    @property
    def ends(self) -> list[End]:
        return [self.client, self.server]

    @property
    def confirmed(self) -> bool:
        assert isinstance(self.server.machine, LaneServer)
        return self.server.machine.confirmed

    @property
    def alive(self) -> bool:
        return (
            self.client.machine.state is ClientState.ESTABLISHED
            and self.server.machine.state is ServerState.ESTABLISHED
        )


def establish(
    network: SimulatedNetwork, directory: Directory, seed: int, count: int
) -> tuple[list[Lane], float]:
    """Establish a session of `count` lanes, the first one first; return them and the time."""
    session_id = Random(seed).randbytes(16)
    first = Lane("0", HelloParameters(session_id, 0, count), directory, None)
    first.start(0.0)
    now = run(network, first.ends, until=lambda: first.confirmed)
    event = first.client.events[0]
    assert isinstance(event, LaneEstablished)
    assert event.session_secret == directory.sessions[session_id]
    lanes = [first]
    for index in range(1, count):
        parameters = HelloParameters(session_id, index, count)
        lanes.append(Lane(str(index), parameters, directory, event.session_secret))
        lanes[-1].start(now)
    ends = [end for lane in lanes for end in lane.ends]
    now = run(network, ends, until=lambda: all(lane.confirmed for lane in lanes), now=now)
    return lanes, now


class Alarm:
    """An endpoint that only has a timer, so that virtual time passes up to it."""

    def __init__(self, at: float) -> None:
        self.place = "alarm"
        self.at: float | None = at

    def receive(self, data: bytes, source: Place, now: float) -> None:
        raise AssertionError("nobody writes to an alarm")

    def outgoing(self, now: float) -> Iterable[tuple[bytes, Place]]:
        return ()

    def get_timer(self) -> float | None:
        return self.at

    def handle_timer(self, now: float) -> None:
        self.at = None


def pass_time(network: SimulatedNetwork, ends: Sequence[End], now: float, seconds: float) -> float:
    alarm = Alarm(now + seconds)
    return run(network, [*ends, alarm], until=lambda: alarm.at is None, now=now, limit=seconds + 1)


@pytest.mark.parametrize("block", range(20))
def test_every_lane_of_a_session_is_established_over_a_rough_path(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        network = SimulatedNetwork(seed, ROUGH)
        directory = Directory(seed)

        lanes, now = establish(network, directory, seed, 4)

        assert now < 20.0
        assert len(directory.sessions) == 1
        for index, lane in enumerate(lanes):
            (accepted,) = [e for e in lane.server.events if isinstance(e, LaneAccepted)]
            assert (accepted.lane, accepted.new_session) == (index, index == 0)
            assert isinstance(lane.client.events[0], LaneEstablished)
            assert len(lane.client.handshake) == len(lane.server.handshake) == 1


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("direction", ["client", "server"])
def test_any_of_the_first_handshake_messages_may_be_lost(lost: int, direction: str) -> None:
    network = SimulatedNetwork(0)
    dropped: list[bytes] = []

    def drop(delivery: object) -> bool:
        source, data = getattr(delivery, "source", ""), getattr(delivery, "data", b"")
        if source == f"0 {direction}" and is_handshake(data) and len(dropped) < lost:
            dropped.append(data)
            return True
        return False

    network.drop = drop
    lanes, _ = establish(network, Directory(0), 0, 1)
    assert len(dropped) == lost
    assert len(set(dropped)) == 1
    assert isinstance(lanes[0].client.machine, LaneClient)
    assert lanes[0].client.machine.hellos_sent == lost + 1


def test_lanes_live_and_measure_a_lossy_path_while_they_carry_payload() -> None:
    conditions = Conditions(loss=0.1, min_delay=0.020, max_delay=0.030)
    network = SimulatedNetwork(5, conditions)
    (lane,), now = establish(network, Directory(5), 5, 1)
    for _ in range(1200):
        for end in lane.ends:
            end.send_payload(10, now)
        now = pass_time(network, lane.ends, now, 0.05)
    assert lane.alive
    for end in lane.ends:
        health = end.machine.health
        assert health is not None
        assert health.round_trip.smoothed == pytest.approx(0.05, abs=0.01)
        assert health.round_trip.minimum == pytest.approx(0.041, abs=0.005)
        assert health.send_loss.ratio == pytest.approx(0.1, abs=0.05)
        assert health.receive_loss.ratio == pytest.approx(0.1, abs=0.05)
        assert end.received == health.frames_received


def test_quiet_lanes_stay_alive_on_a_lossy_path() -> None:
    network = SimulatedNetwork(9, Conditions(loss=0.05, min_delay=0.05, max_delay=0.3))
    lanes, now = establish(network, Directory(9), 9, 4)
    ends = [end for lane in lanes for end in lane.ends]
    pass_time(network, ends, now, 600.0)
    for lane in lanes:
        assert lane.alive
        assert len(lane.client.events) == len(lane.server.events) == 1


def test_a_lane_replaced_on_a_new_association_belongs_to_the_same_session() -> None:
    network = SimulatedNetwork(3, ROUGH)
    directory = Directory(3)
    (old, _), now = establish(network, directory, 3, 2)
    event = old.client.events[0]
    assert isinstance(event, LaneEstablished)
    (session_id,) = directory.sessions

    new = Lane("0 again", HelloParameters(session_id, 0, 2), directory, event.session_secret)
    new.start(now)
    run(network, new.ends, until=lambda: new.confirmed, now=now)

    accepted = new.server.events[0]
    assert isinstance(accepted, LaneAccepted)
    assert (accepted.session_id, accepted.new_session) == (session_id, False)
    assert len(directory.sessions) == 1


def test_after_a_restart_of_the_server_a_new_session_is_asked_for_and_made() -> None:
    network = SimulatedNetwork(4, ROUGH)
    directory = Directory(4)
    (old,), now = establish(network, directory, 4, 1)
    event = old.client.events[0]
    assert isinstance(event, LaneEstablished)
    restarted = Directory(5)

    known = Lane("known", HelloParameters(bytes(16), 0, 1), restarted, event.session_secret)
    known.start(now)
    now = run(network, known.ends, until=lambda: bool(known.client.events), now=now)
    refused = known.client.events[0]
    assert isinstance(refused, LaneRefused)
    assert (refused.code, refused.remedy) == ("unknown_session", Remedy.NEW_SESSION)

    fresh = Lane("fresh", HelloParameters(b"f" * 16, 0, 1), restarted, None)
    fresh.start(now)
    run(network, fresh.ends, until=lambda: fresh.confirmed, now=now)
    assert list(restarted.sessions) == [b"f" * 16]


@pytest.mark.parametrize("seed", range(50))
def test_a_refusal_survives_the_loss_of_its_first_answers(seed: int) -> None:
    network = SimulatedNetwork(seed, ROUGH)
    lane = Lane("refused", HelloParameters(bytes(16), 0, 1), Directory(seed), Secret(b"s" * 32))
    lane.start(0.0)
    run(network, lane.ends, until=lambda: bool(lane.client.events))
    (event,) = lane.client.events
    assert isinstance(event, LaneRefused)
    assert event.code == "unknown_session"


class Middleman:
    """Between a client that checks no pin and a server: an association with each, no token."""

    def __init__(self) -> None:
        self.directory = Directory(0)
        self.client = LaneClient(
            HelloParameters(bytes(16), 0, 1), exporter=exporter_of("outer"), token=TOKEN
        )
        self.server = LaneServer(
            exporter=exporter_of("inner"), token=TOKEN, directory=self.directory, terms=TERMS
        )
        self.client.start(0.0)
        self.server.start(0.0)

    def passed_on(self, hello: bytes) -> str:
        """Pass a hello on to the server; return the name of its refusal."""
        self.server.receive(hello, 0.0)
        event = self.server.next_event()
        assert isinstance(event, LaneRejected)
        assert not self.directory.sessions
        return event.code


def test_a_hello_relayed_by_a_man_in_the_middle_fails_at_the_server() -> None:
    middle = Middleman()
    (hello,) = middle.client.records_to_send()
    assert middle.passed_on(hello) == "association_mismatch"
    (answer,) = middle.server.records_to_send()
    assert isinstance(parse_message_untrusted(answer), Reject)
    middle.client.receive(answer, 0.1)
    assert isinstance(middle.client.next_event(), LaneRefused)


def test_a_hello_that_a_man_in_the_middle_adapts_fails_at_the_server() -> None:
    middle = Middleman()
    (hello,) = middle.client.records_to_send()
    own = LaneClient(HelloParameters(bytes(16), 0, 1), exporter=exporter_of("inner"), token=None)
    own.start(0.0)
    (adapted,) = own.records_to_send()
    binding = slice(12 + 26, 12 + 42)
    assert (
        middle.passed_on(hello[: binding.start] + adapted[binding] + hello[binding.stop :])
        == "token_mismatch"
    )


def test_nothing_a_man_in_the_middle_can_say_is_a_welcome_to_the_client() -> None:
    hello_to_outer = Middleman().client.records_to_send()[0]
    honest = LaneClient(
        HelloParameters(bytes(16), 0, 1), exporter=exporter_of("inner"), token=TOKEN
    )
    honest.start(0.0)
    middle = Middleman()
    middle.server.receive(honest.records_to_send()[0], 0.0)
    assert isinstance(middle.server.next_event(), LaneAccepted)
    (genuine,) = middle.server.records_to_send()
    secret = Secret(b"m" * 32)
    forged = [
        build_welcome(
            TERMS, hello=hello_to_outer, exporter=exporter, token=token, session_secret=secret
        )
        for exporter in (exporter_of("outer"), exporter_of("inner"))
        for token in (None, Secret(b""), Secret(b"guessed token of the middle"))
    ]
    for welcome in (genuine, *forged):
        client = Middleman().client
        client.receive(welcome, 0.1)
        assert client.next_event() == LaneFailed("server_proof_mismatch")


def test_ends_that_agree_on_probes_find_the_path_and_others_are_never_probed() -> None:
    for offered, served in ((1, 1), (1, 0), (0, 1)):
        network = SimulatedNetwork(6)
        network.drop = lambda delivery: len(getattr(delivery, "data", b"")) > 1304
        lane = Lane("0", HelloParameters(bytes(16), 0, 1, features=offered), Directory(6), None)
        assert isinstance(lane.server.machine, LaneServer)
        lane.server.machine = LaneServer(
            exporter=exporter_of("0"),
            token=TOKEN,
            directory=Directory(6),
            terms=WelcomeTerms(16_380, 1800.0, served),
        )
        lane.start(0.0)
        now = run(network, lane.ends, until=lambda lane=lane: lane.confirmed)
        for end in lane.ends:
            assert end.machine.path is not None
            end.machine.path.begin(1427, now)
        pass_time(network, lane.ends, now, 10.0)
        for end in lane.ends:
            path, statistics = end.machine.path, end.machine.statistics
            assert path is not None
            assert path.settled
            assert path.max_datagram == (1300 if offered and served else 1427)
            assert bool(path.probes_sent) is bool(offered and served)
            assert (statistics.unknown, statistics.unexpected) == (0, 0)


def test_a_probe_that_was_not_agreed_on_is_counted_and_not_answered() -> None:
    (lane,), now = establish(SimulatedNetwork(7), Directory(7), 7, 1)
    for end in lane.ends:
        end.machine.records_to_send()
        end.machine.receive(Probe(1, 1300, 1200, False, 100).encode(), now)
        end.machine.receive(ProbeAnswer(1, 100).encode(), now)
        assert end.machine.statistics.unexpected == 2
        assert end.machine.records_to_send() == []
