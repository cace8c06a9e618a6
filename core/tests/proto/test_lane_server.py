"""The server's end of a lane, as dialogues with a client that is written out by hand."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import Secret, TrafficClass
from turnlane.proto.frames import Bye, ByeCode, Datagram, Drain, Ping, Pong, parse_untrusted
from turnlane.proto.hello import (
    Hello,
    HelloParameters,
    Reject,
    Welcome,
    WelcomeTerms,
    build_hello,
    build_reject,
    parse_message_untrusted,
    token_key,
)
from turnlane.proto.lane_events import (
    LaneAccepted,
    LaneFailed,
    LaneRejected,
    LaneReleased,
    PeerLeft,
    ServerEvent,
)
from turnlane.proto.lane_health import LaneDead
from turnlane.proto.lane_server import (
    LINGER,
    MAX_OUTGOING,
    TRANSITIONS,
    LaneServer,
    ServerState,
)
from turnlane.proto.refusals import Refusal, RejectCode

TOKEN = token_key(Secret("a token of twenty-two letters"))
OTHER_TOKEN = token_key(Secret("some other token of a server"))
EXPORTER = bytes(range(32))
OTHER_EXPORTER = bytes(range(1, 33))
SECRET = Secret(bytes(range(100, 132)))
OTHER_SECRET = Secret(bytes(range(101, 133)))
SESSION_ID = bytes(range(16))
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TERMS = WelcomeTerms(1168, 1800.0, features=0b101)


class Directory:
    """Sessions by id; says `refusal` to every lane and `full` to every new session, if set."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, Secret[bytes]] = {}
        self.refusal: Refusal | None = None
        self.full: Refusal | None = None
        self.asked = 0

    def refuse(self, hello: Hello) -> Refusal | None:
        self.asked += 1
        return self.refusal

    def secret(self, session_id: bytes) -> Secret[bytes] | None:
        self.asked += 1
        return self.sessions.get(session_id)

    def create(self, hello: Hello) -> Secret[bytes] | Refusal:
        self.asked += 1
        if self.full is not None:
            return self.full
        self.sessions[hello.session_id] = SECRET
        return SECRET


def waiting(
    directory: Directory | None = None, *, token: Secret[bytes] | None = TOKEN
) -> LaneServer:
    server = LaneServer(
        exporter=EXPORTER, token=token, directory=directory or Directory(), terms=TERMS
    )
    server.start(0.0)
    return server


def hello(
    *,
    token: Secret[bytes] | None = TOKEN,
    exporter: bytes = EXPORTER,
    secret: Secret[bytes] | None = None,
    lane: int = 0,
    session_id: bytes = SESSION_ID,
) -> bytes:
    parameters = HelloParameters(session_id, lane, 4, features=0b110, traceparent=TRACEPARENT)
    return build_hello(parameters, exporter=exporter, token=token, session_secret=secret)


def accepted(directory: Directory | None = None) -> LaneServer:
    """Return a server that has accepted a lane at 0 s and sent its welcome."""
    server = waiting(directory)
    server.receive(hello(), 0.0)
    assert isinstance(server.next_event(), LaneAccepted)
    assert len(server.records_to_send()) == 1
    return server


def refused(server: LaneServer) -> tuple[str, ServerEvent | None]:
    """Return the name of the refusal, the same in the reject and in the event, and the event."""
    event = server.next_event()
    assert isinstance(event, LaneRejected)
    (record,) = server.records_to_send()
    told = parse_message_untrusted(record)
    assert isinstance(told, Reject)
    assert (told.code, told.reason) == (event.refusal.code, event.reason)
    assert server.state is ServerState.REJECTED
    assert server.health is None
    return event.code, event


def test_a_first_lane_makes_a_session_and_is_given_its_secret() -> None:
    directory = Directory()
    server = waiting(directory)
    question = hello()

    server.receive(question, 0.0)

    assert server.next_event() == LaneAccepted(
        session_id=SESSION_ID,
        lane=0,
        lanes=4,
        new_session=True,
        traffic=TrafficClass.DATAGRAM,
        features=0b100,
        traceparent=TRACEPARENT,
    )
    (record,) = server.records_to_send()
    welcome = parse_message_untrusted(record)
    assert isinstance(welcome, Welcome)
    assert welcome.answers(question, EXPORTER, TOKEN)
    assert welcome.session_secret == SECRET
    assert welcome.terms == WelcomeTerms(1168, 1800.0, features=0b100)
    assert directory.sessions == {SESSION_ID: SECRET}


def test_another_lane_proves_the_session_and_gets_no_secret() -> None:
    directory = Directory()
    directory.sessions[SESSION_ID] = SECRET
    server = waiting(directory)

    server.receive(hello(secret=SECRET, lane=3), 0.0)

    event = server.next_event()
    assert isinstance(event, LaneAccepted)
    assert (event.new_session, event.lane) == (False, 3)
    welcome = parse_message_untrusted(server.records_to_send()[0])
    assert isinstance(welcome, Welcome)
    assert welcome.session_secret is None


def test_the_same_hello_gets_the_same_answer_and_makes_no_second_session() -> None:
    directory = Directory()
    server = waiting(directory)
    server.receive(hello(), 0.0)
    (first,) = server.records_to_send()
    asked = directory.asked

    server.receive(hello(), 0.3)
    server.receive(memoryview(hello()), 0.8)

    assert server.records_to_send() == [first, first]
    assert directory.asked == asked
    assert server.statistics.repeats == 2
    assert isinstance(server.next_event(), LaneAccepted)
    assert server.next_event() is None


def test_another_hello_on_the_same_association_is_ignored() -> None:
    server = accepted()
    server.receive(hello(secret=SECRET, lane=1), 1.0)
    server.receive(hello(lane=2), 1.0)
    server.receive(b"turnlane", 1.0)
    assert server.records_to_send() == []
    assert server.next_event() is None
    assert server.statistics.unexpected == 3
    assert server.state is ServerState.ESTABLISHED


@pytest.mark.parametrize(
    ("question", "server_token", "code"),
    [
        pytest.param(hello(token=OTHER_TOKEN), TOKEN, "token_mismatch", id="wrong token"),
        pytest.param(hello(token=None), TOKEN, "token_required", id="no token"),
        pytest.param(hello(), None, "token_unexpected", id="token for an open server"),
        pytest.param(
            hello(exporter=OTHER_EXPORTER), TOKEN, "association_mismatch", id="replayed elsewhere"
        ),
        pytest.param(
            hello(token=None, exporter=OTHER_EXPORTER),
            None,
            "association_mismatch",
            id="replayed at an open server",
        ),
        pytest.param(
            bytes([*hello()[:8], 2, *hello()[9:]]), TOKEN, "unsupported_version", id="version"
        ),
        pytest.param(hello()[:-1], TOKEN, "malformed", id="cut"),
        pytest.param(build_reject(Refusal(RejectCode.DRAINING)), TOKEN, "malformed", id="reject"),
        pytest.param(b"", TOKEN, "malformed", id="empty"),
        pytest.param(
            b"\x01\x00\x00\x00" + bytes(144), TOKEN, "malformed", id="a raw peer's WireGuard"
        ),
        pytest.param(Datagram(0, memoryview(b"x")).encode(), TOKEN, "malformed", id="payload"),
    ],
)
def test_without_the_token_each_refusal_has_its_code_and_no_session_is_asked_for(
    question: bytes, server_token: Secret[bytes] | None, code: str
) -> None:
    directory = Directory()
    directory.sessions[SESSION_ID] = SECRET
    directory.refusal = Refusal(RejectCode.DRAINING)
    server = waiting(directory, token=server_token)

    server.receive(question, 0.0)

    assert refused(server)[0] == code
    assert directory.asked == 0


def with_forged_binding(question: bytes, genuine: bytes) -> bytes:
    """Return `question` with the 16 bytes that tell whose association it is taken over."""
    offset = 12 + 26
    return question[:offset] + genuine[offset : offset + 16] + question[offset + 16 :]


def test_a_hello_dressed_up_for_another_association_fails_its_proof() -> None:
    server = waiting()
    server.receive(with_forged_binding(hello(exporter=OTHER_EXPORTER), hello()), 0.0)
    assert refused(server)[0] == "token_mismatch"


@pytest.mark.parametrize(
    ("question", "code"),
    [
        pytest.param(
            hello(secret=SECRET, session_id=bytes(16)), "unknown_session", id="server restarted"
        ),
        pytest.param(hello(), "session_exists", id="someone else's session"),
        pytest.param(hello(secret=OTHER_SECRET), "session_proof_mismatch", id="wrong secret"),
    ],
)
def test_with_the_token_a_foreign_session_is_still_refused(question: bytes, code: str) -> None:
    directory = Directory()
    directory.sessions[SESSION_ID] = SECRET
    server = waiting(directory)
    server.receive(question, 0.0)
    name, event = refused(server)
    assert name == code
    assert isinstance(event, LaneRejected)
    assert (event.lane, event.traceparent) == (0, TRACEPARENT)
    assert directory.sessions == {SESSION_ID: SECRET}


def test_a_session_proof_of_another_association_is_refused() -> None:
    directory = Directory()
    directory.sessions[SESSION_ID] = SECRET
    server = waiting(directory)
    mine, foreign = hello(secret=OTHER_SECRET), hello(secret=SECRET, exporter=OTHER_EXPORTER)
    stolen = mine[:-64] + foreign[-64:-32]
    question = stolen + hmac.digest(
        TOKEN.reveal(), b"turnlane/1 client\0" + EXPORTER + stolen, "sha256"
    )
    server.receive(question, 0.0)
    assert refused(server)[0] == "session_proof_mismatch"


@pytest.mark.parametrize("code", [RejectCode.DRAINING, RejectCode.LANE_LIMIT])
def test_the_directory_may_refuse_any_lane(code: RejectCode) -> None:
    for secret in (None, SECRET):
        directory = Directory()
        directory.sessions[SESSION_ID] = SECRET
        directory.refusal = Refusal(code, "not now")
        server = waiting(directory)
        server.receive(hello(secret=secret), 0.0)
        name, event = refused(server)
        assert name == code.name.lower()
        assert isinstance(event, LaneRejected)
        assert event.reason == "not now"


def test_the_directory_may_refuse_a_new_session() -> None:
    directory = Directory()
    directory.full = Refusal(RejectCode.SESSION_LIMIT)
    server = waiting(directory)
    server.receive(hello(), 0.0)
    assert refused(server)[0] == "session_limit"


def test_traffic_that_this_version_cannot_name_is_refused() -> None:
    record = bytearray(hello()[:-32])
    record[12 + 24] = 77
    proof = hmac.digest(TOKEN.reveal(), b"turnlane/1 client\0" + EXPORTER + bytes(record), "sha256")
    server = waiting()
    server.receive(bytes(record) + proof, 0.0)
    assert refused(server)[0] == "unsupported_traffic"


def test_an_open_server_takes_a_client_without_a_token() -> None:
    server = waiting(token=None)
    server.receive(hello(token=None), 0.0)
    assert isinstance(server.next_event(), LaneAccepted)


def test_a_refusal_is_repeated_to_the_same_hello_only_and_then_released() -> None:
    server = waiting()
    wrong = hello(token=OTHER_TOKEN)
    server.receive(wrong, 1.0)
    (first,) = server.records_to_send()
    assert isinstance(server.next_event(), LaneRejected)

    server.receive(wrong, 1.5)
    server.receive(hello(), 1.5)

    assert server.records_to_send() == [first]
    assert server.get_timer() == 1.0 + LINGER == 11.0
    server.handle_timer(10.9)
    assert server.next_event() is None
    server.handle_timer(1.0 + LINGER)
    assert server.next_event() == LaneReleased()
    assert server.state is ServerState.ENDED
    assert server.get_timer() is None
    server.receive(wrong, 19.0)
    assert server.records_to_send() == []
    assert server.statistics.unexpected == 2


def test_a_raw_peer_is_refused_for_good() -> None:
    server = waiting()
    for number in range(5):
        server.receive(b"\x04datagram %d" % number, 0.0)
    assert refused(server)[0] == "malformed"
    server.receive(hello(), 0.1)
    assert server.records_to_send() == []
    assert server.next_event() is None


def test_a_hello_that_does_not_come_fails_the_lane() -> None:
    server = LaneServer(
        exporter=EXPORTER, token=TOKEN, directory=Directory(), terms=TERMS, timeout=7.0
    )
    assert server.get_timer() is None
    server.start(3.0)
    assert server.get_timer() == 10.0
    server.handle_timer(9.9)
    assert server.next_event() is None
    server.handle_timer(10.0)
    assert server.next_event() == LaneFailed("hello_timeout")
    assert server.get_timer() is None
    server.receive(hello(), 10.1)
    assert server.records_to_send() == []


def test_the_first_frame_after_the_welcome_confirms_it() -> None:
    server = accepted()
    assert not server.confirmed
    server.receive(hello(), 0.3)
    assert not server.confirmed
    server.receive(Ping(1, 0).encode(), 0.4)
    assert server.confirmed


def test_payload_told_to_its_health_confirms_the_welcome() -> None:
    server = accepted()
    assert server.health is not None
    server.health.note_received(1, 0.4)
    assert server.confirmed


def test_pings_are_answered() -> None:
    server = accepted()
    server.receive(Ping(9, 0).encode(), 0.4)
    assert server.records_to_send() == [Pong(9, 0, 400_000).encode()]


def test_a_server_that_drains_says_so_until_the_client_leaves() -> None:
    server = accepted()
    server.receive(Ping(1, 0).encode(), 10.0)
    server.records_to_send()

    server.drain(40.0, 10.0)

    said = []
    for now in (10.0, 10.5, 11.0, 12.0):
        server.handle_timer(now)
        said += [parse_untrusted(record) for record in server.records_to_send()]
    assert said == [Drain(30_000), Drain(29_000), Drain(28_000)]
    assert server.get_timer() == 13.0
    server.receive(Bye(ByeCode.SESSION_CLOSED).encode(), 12.5)
    assert server.next_event() == PeerLeft(ByeCode.SESSION_CLOSED)
    assert server.get_timer() is None
    server.drain(50.0, 12.5)
    assert server.records_to_send() == []


def test_a_drain_past_its_deadline_is_said_once() -> None:
    server = accepted()
    server.drain(0.0, 5.0)
    assert server.records_to_send() == [Drain(0).encode()]
    server.handle_timer(6.0)
    assert server.records_to_send() == []


def test_a_deadline_beyond_the_wire_is_said_as_the_longest() -> None:
    server = accepted()
    server.drain(1e12, 0.0)
    assert server.records_to_send() == [Drain(2**32 - 1).encode()]


def test_a_lane_not_yet_accepted_is_not_told_of_a_drain() -> None:
    server = waiting()
    server.drain(30.0, 0.0)
    assert server.records_to_send() == []


def test_a_client_does_not_drain_a_server() -> None:
    server = accepted()
    server.receive(Drain(1).encode(), 1.0)
    assert server.next_event() is None
    assert server.statistics.unexpected == 1


def test_a_server_that_leaves_says_bye_and_nothing_else() -> None:
    server = accepted()
    server.receive(hello(), 0.1)
    server.receive(Ping(1, 0).encode(), 0.1)
    server.drain(9.0, 0.1)
    server.leave(ByeCode.LANE_REPLACED)
    assert server.records_to_send() == [Bye(ByeCode.LANE_REPLACED).encode()]
    assert server.state is ServerState.ENDED
    assert server.get_timer() is None


def test_a_server_that_leaves_whom_it_refused_still_says_so() -> None:
    server = waiting()
    server.receive(hello(token=OTHER_TOKEN), 0.0)
    server.leave()
    (answer,) = server.records_to_send()
    assert isinstance(parse_message_untrusted(answer), Reject)
    assert server.state is ServerState.ENDED
    assert server.get_timer() is None


def test_a_hello_said_again_shows_that_the_client_lives() -> None:
    server = accepted()
    for second in range(60):
        server.receive(hello(), float(second))
        server.handle_timer(float(second))
    assert server.state is ServerState.ESTABLISHED
    assert not server.confirmed


def test_a_server_that_leaves_before_a_hello_says_nothing() -> None:
    server = waiting()
    server.leave()
    assert server.records_to_send() == []
    assert server.state is ServerState.ENDED
    server.receive(hello(), 0.1)
    assert server.next_event() is None


def test_a_client_that_is_gone_is_found_out() -> None:
    server = accepted()
    while (timer := server.get_timer()) is not None:
        server.handle_timer(timer)
        assert timer <= 12.0
    assert server.next_event() == LaneDead(12.0)
    assert parse_untrusted(server.records_to_send()[-1]) == Bye(ByeCode.LANE_DEAD)


def test_answers_that_nobody_fetches_are_bounded() -> None:
    server = accepted()
    for _ in range(100):
        server.receive(hello(), 0.1)
    assert len(server.records_to_send()) == MAX_OUTGOING


def test_the_transitions_name_every_state_and_reach_it() -> None:
    assert set(TRANSITIONS) == set(ServerState)
    assert set().union(*TRANSITIONS.values()) == set(ServerState) - {ServerState.IDLE}


def test_a_lane_starts_once() -> None:
    server = waiting()
    with pytest.raises(RuntimeError, match="does not become"):
        server.start(1.0)


def test_an_exporter_of_the_wrong_size_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        LaneServer(exporter=b"", token=TOKEN, directory=Directory(), terms=TERMS)


@given(st.binary(max_size=300), st.lists(st.binary(max_size=40)))
def test_no_first_record_is_accepted_by_chance_and_none_raises(
    first: bytes, others: list[bytes]
) -> None:
    for prefix in (b"", b"turnlane\x01\x01"):
        server = waiting()
        server.receive(prefix + first, 0.0)
        assert isinstance(server.next_event(), LaneRejected)
        for record in others:
            server.receive(record, 0.1)
    server = accepted()
    for record in [first, *others]:
        for prefix in (b"", b"0", b"turnlane"):
            server.receive(prefix + record, 0.1)


@given(st.data())
def test_no_mutated_hello_is_accepted(data: st.DataObject) -> None:
    directory = Directory()
    directory.sessions[SESSION_ID] = SECRET
    record = bytearray(hello(secret=SECRET))
    record[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
    server = waiting(directory)
    server.receive(bytes(record), 0.0)
    assert isinstance(server.next_event(), LaneRejected)
