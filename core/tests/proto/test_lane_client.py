"""The client's end of a lane, as dialogues with a server that is written out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import Secret, Stage
from turnlane.proto.frames import Bye, ByeCode, Datagram, Drain, Ping, Pong, parse_untrusted
from turnlane.proto.hello import (
    HelloParameters,
    WelcomeTerms,
    build_hello,
    build_reject,
    build_welcome,
    token_key,
)
from turnlane.proto.lane_client import TRANSITIONS, ClientState, LaneClient
from turnlane.proto.lane_events import (
    LaneEstablished,
    LaneFailed,
    LaneRefused,
    PeerDraining,
    PeerLeft,
)
from turnlane.proto.lane_health import LaneDead
from turnlane.proto.refusals import Refusal, RejectCode, Remedy

TOKEN = token_key(Secret("a token of twenty-two letters"))
EXPORTER = bytes(range(32))
SECRET = Secret(bytes(range(100, 132)))
PARAMETERS = HelloParameters(bytes(16), 0, 2)
TERMS = WelcomeTerms(1168, 1800.0)


def greeting(
    *, token: Secret[bytes] | None = TOKEN, session_secret: Secret[bytes] | None = None
) -> tuple[LaneClient, bytes]:
    """Return a client that has said hello at 0 s, and the hello."""
    client = LaneClient(PARAMETERS, exporter=EXPORTER, token=token, session_secret=session_secret)
    client.start(0.0)
    (hello,) = client.records_to_send()
    return client, hello


def welcome(
    hello: bytes,
    *,
    token: Secret[bytes] | None = TOKEN,
    exporter: bytes = EXPORTER,
    secret: Secret[bytes] | None = SECRET,
    terms: WelcomeTerms = TERMS,
) -> bytes:
    return build_welcome(terms, hello=hello, exporter=exporter, token=token, session_secret=secret)


def established() -> LaneClient:
    """Return a client established at 0 s that has sent its first ping."""
    client, hello = greeting()
    client.receive(welcome(hello), 0.0)
    assert client.next_event() == LaneEstablished(TERMS, SECRET)
    client.handle_timer(0.0)
    assert client.records_to_send() == [Ping(1, 0).encode()]
    return client


def reject(code: RejectCode) -> bytes:
    return build_reject(Refusal(code))


def test_hello_is_said_again_ever_more_slowly_until_the_time_is_up() -> None:
    client = LaneClient(PARAMETERS, exporter=EXPORTER, token=TOKEN)
    assert client.get_timer() is None
    client.start(100.0)
    said: list[float] = []
    now = 100.0
    while client.state is ClientState.GREETING:
        said += [now - 100.0 for _ in client.records_to_send()]
        now = client.get_timer() or 0.0
        client.handle_timer(now)
    assert said == [0, 0.25, 0.75, 1.75, 2.75, 3.75, 4.75, 5.75, 6.75, 7.75, 8.75, 9.75]
    assert now == 110.0
    assert client.next_event() == LaneFailed("hello_timeout")
    assert client.get_timer() is None
    assert client.records_to_send() == []


def test_every_hello_is_the_same_and_the_one_specified() -> None:
    client, hello = greeting()
    client.handle_timer(0.25)
    assert client.records_to_send() == [hello]
    assert hello == build_hello(PARAMETERS, exporter=EXPORTER, token=TOKEN, session_secret=None)
    assert client.hellos_sent == 2


def test_a_welcome_establishes_the_lane_and_is_confirmed_by_a_ping() -> None:
    client, hello = greeting()
    assert client.health is None

    client.receive(welcome(hello), 0.1)

    assert client.next_event() == LaneEstablished(TERMS, SECRET)
    assert client.state is ClientState.ESTABLISHED
    timer = client.get_timer()
    assert timer is not None
    assert timer <= 0.1
    client.handle_timer(0.1)
    assert client.records_to_send() == [Ping(1, 0).encode()]


def test_a_hello_not_yet_sent_is_not_sent_after_its_welcome() -> None:
    client, hello = greeting()
    client.handle_timer(0.25)
    client.receive(welcome(hello), 0.25)
    assert client.records_to_send() == []


def test_a_lane_of_a_session_that_exists_gets_no_secret() -> None:
    client, hello = greeting(session_secret=SECRET)
    client.receive(welcome(hello, secret=None), 0.1)
    assert client.next_event() == LaneEstablished(TERMS, None)


def test_an_open_server_welcomes_a_client_without_a_token() -> None:
    client, hello = greeting(token=None)
    client.receive(welcome(hello, token=None), 0.1)
    assert client.next_event() == LaneEstablished(TERMS, SECRET)


@pytest.mark.parametrize(
    "impostor",
    [
        pytest.param({"token": None}, id="knows no token"),
        pytest.param({"token": token_key(Secret("x" * 22))}, id="knows another token"),
        pytest.param({"exporter": bytes(32)}, id="passes on a welcome of another association"),
    ],
)
def test_a_server_that_cannot_prove_the_token_is_left(
    impostor: dict[str, Secret[bytes] | bytes | None],
) -> None:
    client, hello = greeting()
    client.handle_timer(0.25)
    client.receive(welcome(hello, **impostor), 0.25)  # type: ignore[arg-type]
    assert client.next_event() == LaneFailed("server_proof_mismatch")
    assert client.next_event() is None
    assert client.health is None
    assert client.records_to_send() == []
    assert client.get_timer() is None


@pytest.mark.parametrize("code", ["hello_timeout", "server_proof_mismatch", "protocol_violation"])
def test_every_failure_tells_its_stage_and_what_to_do(code: str) -> None:
    error = LaneFailed(code).error()
    assert (error.stage, error.code) == (Stage.SESSION_HELLO, code)
    assert error.message
    assert error.advice


def test_a_welcome_to_another_hello_proves_nothing() -> None:
    other = build_hello(
        HelloParameters(bytes(16), 1, 2), exporter=EXPORTER, token=TOKEN, session_secret=None
    )
    client, _ = greeting()
    client.receive(welcome(other), 0.1)
    assert client.next_event() == LaneFailed("server_proof_mismatch")


@pytest.mark.parametrize(
    ("mine", "given", "terms"),
    [
        pytest.param(None, None, TERMS, id="a new session without a secret"),
        pytest.param(SECRET, SECRET, TERMS, id="a new secret for a session that has one"),
        pytest.param(None, SECRET, WelcomeTerms(1, 1.0, features=1), id="a feature not offered"),
    ],
)
def test_a_welcome_that_contradicts_the_hello_fails_the_lane(
    mine: Secret[bytes] | None, given: Secret[bytes] | None, terms: WelcomeTerms
) -> None:
    client, hello = greeting(session_secret=mine)
    client.receive(welcome(hello, secret=given, terms=terms), 0.1)
    assert client.next_event() == LaneFailed("protocol_violation")


def test_features_offered_may_be_chosen() -> None:
    parameters = HelloParameters(bytes(16), 0, 1, features=3)
    client = LaneClient(parameters, exporter=EXPORTER, token=TOKEN)
    client.start(0.0)
    (hello,) = client.records_to_send()
    terms = WelcomeTerms(1, 1.0, features=2)
    client.receive(welcome(hello, terms=terms), 0.1)
    assert client.next_event() == LaneEstablished(terms, SECRET)


@pytest.mark.parametrize("code", list(RejectCode))
def test_every_refusal_is_reported_by_its_own_name(code: RejectCode) -> None:
    client, _ = greeting()
    client.handle_timer(0.25)
    client.receive(reject(code), 0.25)
    assert client.records_to_send() == []
    event = client.next_event()
    assert isinstance(event, LaneRefused)
    assert event.code == code.name.lower()
    error = event.error()
    assert (error.stage, error.code) == (Stage.SESSION_HELLO, event.code)
    assert event.reason in error.message
    assert error.advice
    assert client.state is ClientState.REFUSED
    assert client.get_timer() is None


def test_what_a_refused_client_does_next_is_told() -> None:
    assert LaneRefused(RejectCode.UNKNOWN_SESSION, "").remedy is Remedy.NEW_SESSION
    assert LaneRefused(RejectCode.SESSION_EXISTS, "").remedy is Remedy.NEW_SESSION
    assert LaneRefused(RejectCode.DRAINING, "").remedy is Remedy.TRY_LATER
    assert LaneRefused(RejectCode.TOKEN_MISMATCH, "").remedy is Remedy.GIVE_UP


def test_a_refusal_of_a_later_version_is_understood() -> None:
    record = bytearray(reject(RejectCode.UNSUPPORTED_VERSION))
    record[8] = 9
    client, _ = greeting()
    client.receive(bytes(record), 0.1)
    event = client.next_event()
    assert isinstance(event, LaneRefused)
    assert event.code == "unsupported_version"


def test_a_refusal_without_a_known_code_or_a_reason_keeps_its_number() -> None:
    client, _ = greeting()
    client.receive(b"turnlane\x01\x03\x00\x02\x12\x34", 0.1)
    event = client.next_event()
    assert event == LaneRefused(0x1234, "")
    assert "reject_4660" in str(event.error())


def test_frames_before_the_welcome_are_no_payload() -> None:
    client, hello = greeting()
    for frame in (Datagram(0, memoryview(b"early")), Ping(1, 0), Drain(1), Bye(1)):
        client.receive(frame.encode(), 0.1)
    assert client.next_event() is None
    assert client.records_to_send() == []
    assert client.statistics.early_frames == 4
    client.receive(welcome(hello), 0.2)
    assert client.next_event() == LaneEstablished(TERMS, SECRET)


def test_nonsense_and_echoes_do_not_disturb_a_greeting() -> None:
    client, hello = greeting()
    client.receive(b"turnlane", 0.1)
    client.receive(welcome(hello)[:-1], 0.1)
    client.receive(bytes([*welcome(hello)[:8], 2, *welcome(hello)[9:]]), 0.1)
    client.receive(hello, 0.1)
    client.receive(b"", 0.1)
    statistics = client.statistics
    assert (statistics.malformed, statistics.unexpected, statistics.early_frames) == (3, 1, 1)
    assert client.state is ClientState.GREETING
    client.receive(welcome(hello), 0.2)
    assert client.next_event() == LaneEstablished(TERMS, SECRET)


def test_answers_that_come_again_are_counted() -> None:
    client, hello = greeting()
    client.receive(welcome(hello), 0.1)
    client.next_event()
    client.receive(welcome(hello), 0.2)
    client.receive(reject(RejectCode.DRAINING), 0.3)
    assert client.next_event() is None
    assert client.state is ClientState.ESTABLISHED
    assert client.statistics.repeats == 2


def test_an_answer_that_comes_again_shows_that_the_server_lives() -> None:
    client, hello = greeting()
    for second in range(60):
        client.receive(welcome(hello), float(second))
        client.handle_timer(float(second))
    assert client.state is ClientState.ESTABLISHED


def test_pings_are_answered_and_pongs_measured() -> None:
    client = established()
    client.receive(Pong(1, 0).encode(), 0.125)
    assert client.health is not None
    assert client.health.round_trip.smoothed == 0.125
    client.receive(Ping(40, 0).encode(), 0.2)
    assert client.records_to_send() == [Pong(40, 0, 200_000).encode()]


def test_a_draining_server_is_reported_once() -> None:
    client = established()
    client.receive(Drain(30_000).encode(), 1.0)
    client.receive(Drain(29_000).encode(), 2.0)
    assert client.next_event() == PeerDraining(31.0)
    assert client.next_event() is None
    assert client.state is ClientState.ESTABLISHED


@pytest.mark.parametrize(("number", "code"), [(3, "shutdown"), (4, "lane_replaced"), (9, "bye_9")])
def test_a_server_that_leaves_ends_the_lane(number: int, code: str) -> None:
    client = established()
    client.receive(Bye(number).encode(), 1.0)
    event = client.next_event()
    assert event == PeerLeft(number)
    assert event.code == code
    assert client.state is ClientState.ENDED
    assert client.get_timer() is None
    client.receive(Bye(number).encode(), 1.1)
    assert client.next_event() is None
    assert client.statistics.unexpected == 1


def test_a_client_that_leaves_says_bye_once_and_then_nothing() -> None:
    client = established()
    client.receive(Ping(1, 0).encode(), 1.0)
    client.leave(ByeCode.SESSION_CLOSED)
    client.leave(ByeCode.SESSION_CLOSED)
    assert client.records_to_send() == [Bye(ByeCode.SESSION_CLOSED).encode()]
    assert client.state is ClientState.ENDED
    assert client.get_timer() is None
    client.receive(Ping(2, 0).encode(), 1.0)
    client.handle_timer(100.0)
    assert client.records_to_send() == []
    assert client.next_event() is None


def test_a_client_that_leaves_before_it_is_welcome_says_nothing() -> None:
    client, hello = greeting()
    client.handle_timer(0.25)
    client.leave()
    assert client.records_to_send() == []
    assert client.get_timer() is None
    client.receive(welcome(hello), 0.3)
    assert client.next_event() is None
    assert client.state is ClientState.ENDED


def test_leaving_what_was_refused_changes_nothing() -> None:
    client, _ = greeting()
    client.receive(reject(RejectCode.DRAINING), 0.1)
    client.leave()
    assert client.state is ClientState.REFUSED
    assert client.records_to_send() == []


def test_a_dead_lane_ends_with_a_bye_that_may_still_arrive() -> None:
    client = established()
    while (timer := client.get_timer()) is not None:
        client.handle_timer(timer)
    event = client.next_event()
    assert isinstance(event, LaneDead)
    assert parse_untrusted(client.records_to_send()[-1]) == Bye(ByeCode.LANE_DEAD)
    assert client.state is ClientState.ENDED


def test_what_an_established_lane_cannot_use_is_counted_by_kind() -> None:
    client = established()
    client.receive(b"", 1.0)
    client.receive(b"\x30\x01", 1.0)
    client.receive(b"\x20\x00\x00\x00stream", 1.0)
    client.receive(b"\x30\xee\x00\x00", 1.0)
    client.receive(Datagram(1, memoryview(b"payload")).encode(), 1.0)
    statistics = client.statistics
    assert (statistics.malformed, statistics.unknown, statistics.unexpected) == (2, 2, 1)
    assert client.next_event() is None
    assert client.state is ClientState.ESTABLISHED


def test_whatever_arrives_shows_that_the_peer_lives() -> None:
    client = established()
    for second in range(1, 40):
        client.handle_timer(float(second))
        client.receive(b"\x99", second + 0.5)
    assert client.next_event() is None
    assert client.state is ClientState.ESTABLISHED


def test_a_lane_starts_once() -> None:
    client, _ = greeting()
    with pytest.raises(RuntimeError, match="does not become"):
        client.start(1.0)


def test_the_transitions_name_every_state_and_reach_it() -> None:
    assert set(TRANSITIONS) == set(ClientState)
    assert set().union(*TRANSITIONS.values()) == set(ClientState) - {ClientState.IDLE}


@given(st.lists(st.binary(max_size=40)), st.booleans())
def test_no_records_raise(records: list[bytes], is_established: bool) -> None:
    client = established() if is_established else greeting()[0]
    for number, record in enumerate(records):
        for prefix in (b"", b"turnlane", b"0"):
            client.receive(prefix + record, 0.01 * number)
    client.records_to_send()
