"""The driver of one allocation, with a relay that answers as a test tells it to."""

from collections.abc import Callable
from dataclasses import replace
from secrets import token_bytes
from typing import Any

import anyio
import pytest

from turnlane.api import (
    Batch,
    Credentials,
    RelayEndpoint,
    RelayTransport,
    Secret,
    Stage,
    TransportError,
)
from turnlane.net import relayed_path as module
from turnlane.net.relay_wire import BrokenWireError
from turnlane.net.relayed_path import MAX_ALTERNATES, PathSettings, RelayedPath, relayed_path
from turnlane.proto.channel_data import encode, messages_untrusted
from turnlane.proto.stun import MessageClass, Method, build, parse_untrusted
from turnlane.proto.turn_client import TurnClient

pytestmark = pytest.mark.anyio

PEER = ("192.0.2.1", 56000)
RELAYED = ("192.0.2.9", 40000)

Answer = Callable[[bytes], bytes | None]


class ScriptedWire:
    """A wire whose far end answers each message with what `answer` makes of it."""

    dropped = 0
    too_large = 0
    largest_payload = None
    backlog = 0

    def __init__(self, answer: Answer, *, reliable: bool = False) -> None:
        self.reliable = reliable
        self.refused = ""
        self.sent: list[bytes] = []
        self.closed = False
        self.broken: BrokenWireError | None = None
        self._answer = answer
        self._waiting: list[bytes] = []
        self._something = anyio.Event()

    def write(self, message: bytes, *, droppable: bool = True) -> bool:
        self.sent.append(message)
        answered = self._answer(message)
        if answered is not None:
            self.arrive(answered)
        return True

    def write_batch(self, batch: Batch) -> int:
        return sum(self.write(bytes(message)) for message in batch)

    def arrive(self, data: bytes) -> None:
        self._waiting.append(data)
        self._something.set()

    def read(self, batch: Batch) -> int:
        if self.broken is not None:
            raise self.broken
        taken, self._waiting = self._waiting, []
        self._something = anyio.Event()
        batch.clear()
        for data in taken:
            if not self.reliable:
                batch.append(data)
                continue
            # What a stream holds is cut into messages by its wire.
            starts, sizes, _ = messages_untrusted(data, 0, len(data), 1000)
            for start, size in zip(starts, sizes, strict=True):
                batch.append(data[start : start + size])
        return batch.count

    async def wait(self) -> None:
        await self._something.wait()

    def close(self) -> None:
        self.closed = True


def error(code: int, **attributes: object) -> Answer:
    def answer(message: bytes) -> bytes:
        request = parse_untrusted(message)
        return build(
            request.method,
            MessageClass.ERROR,
            request.transaction_id,
            {"ERROR-CODE": (code, "Because"), **attributes},
        )

    return answer


def grant(message: bytes) -> bytes | None:
    """Give everything that is asked for, and keep quiet about payload."""
    if message[0] & 0xC0:
        return None
    request = parse_untrusted(message)
    if request.message_class is not MessageClass.REQUEST:
        return None
    granted: dict[str, Any] = {}
    if request.method in (Method.ALLOCATE, Method.REFRESH):
        granted["LIFETIME"] = request.attributes["LIFETIME"]
    if request.method is Method.ALLOCATE:
        granted["XOR-RELAYED-ADDRESS"] = RELAYED
    return build(request.method, MessageClass.RESPONSE, request.transaction_id, granted)


def methods(wire: ScriptedWire) -> list[Method]:
    return [parse_untrusted(message).method for message in wire.sent if not message[0] & 0xC0]


def path_on(wire: ScriptedWire, peer: tuple[str, int] = PEER) -> RelayedPath:
    client = TurnClient("user", "password", reliable=wire.reliable, random_bytes=token_bytes)
    return RelayedPath(wire, client, peer, Batch())


async def test_an_allocation_that_was_refused_is_not_waited_for_on_the_way_out() -> None:
    path = path_on(ScriptedWire(error(508)))
    with pytest.raises(TransportError) as caught:
        await path.allocate()
    assert (caught.value.stage, caught.value.code) == (
        Stage.TURN_ALLOCATE,
        "turn_insufficient_capacity",
    )
    assert caught.value.message == "the relay answered 508 Because"
    began = anyio.current_time()
    await path.release()
    assert anyio.current_time() - began < 1.0


async def test_a_path_carries_datagrams_and_gives_its_allocation_back() -> None:
    wire = ScriptedWire(grant)
    path = path_on(wire)
    await path.allocate()
    await path.permit()
    assert path.relayed == RELAYED
    assert path.send(b"payload")
    assert wire.sent[-1].endswith(b"payload\0") or wire.sent[-1].endswith(b"payload")
    wire.arrive(
        build(
            Method.DATA,
            MessageClass.INDICATION,
            bytes(12),
            {"XOR-PEER-ADDRESS": PEER, "DATA": b"reply"},
        )
    )
    assert path.read(anyio.current_time()) == [b"reply"]
    await path.release()
    assert methods(wire)[-1] is Method.REFRESH
    assert parse_untrusted(wire.sent[-1]).attributes["LIFETIME"] == 0


@pytest.mark.parametrize("stage", [Stage.TURN_ALLOCATE, Stage.PEER_SETUP, Stage.FORWARDING_LOOP])
async def test_a_wire_that_breaks_is_told_with_the_stage_that_it_ended(stage: Stage) -> None:
    wire = ScriptedWire(grant)
    path = path_on(wire)

    def break_at(reached: Stage) -> None:
        if reached is stage:
            wire.broken = BrokenWireError("turn_socket_failed", "broken", "mend it")

    async def use() -> None:
        break_at(Stage.TURN_ALLOCATE)
        await path.allocate()
        break_at(Stage.PEER_SETUP)
        await path.permit()
        path.stage = Stage.FORWARDING_LOOP
        break_at(Stage.FORWARDING_LOOP)
        path.read(anyio.current_time())

    with pytest.raises(TransportError) as caught:
        await use()
    failure = caught.value
    assert (failure.stage, failure.code) == (stage, "turn_socket_failed")
    assert (failure.message, failure.advice) == ("broken", "mend it")
    await path.release()


@pytest.mark.parametrize(
    ("refused", "code"), [("", "turn_timeout"), ("Connection refused", "turn_unreachable")]
)
async def test_a_relay_that_is_silent_is_told_with_what_the_network_says(
    refused: str, code: str
) -> None:
    wire = ScriptedWire(lambda _: None)
    wire.refused = refused
    path = path_on(wire)
    path._client.start(anyio.current_time())
    with pytest.raises(TransportError) as caught:
        await path._until(lambda: False, 0.01)
    assert caught.value.code == code
    assert refused in caught.value.message


async def test_an_answer_that_is_of_no_use_is_not_called_a_timeout() -> None:
    path = path_on(ScriptedWire(lambda _: b"\xff" * 40, reliable=True))
    with pytest.raises(TransportError) as caught:
        await path.allocate()
    assert caught.value.code == "turn_no_usable_answer"
    assert "cannot be followed" in caught.value.message


async def test_a_datagram_too_large_for_an_indication_is_dropped_and_counted() -> None:
    path = path_on(ScriptedWire(lambda _: None), ("2001:db8::1", 56000))
    assert not path.send(bytes(65_527))
    assert path.too_large == 1
    assert path.send(bytes(1200))


async def bound(wire: ScriptedWire) -> RelayedPath:
    """Return a path on `wire` whose channel is bound."""
    path = path_on(wire)
    await path.allocate()
    await path.permit()
    while path.channel is None:
        path.read(anyio.current_time())
    return path


async def test_a_path_that_is_set_up_carries_batches_as_they_are() -> None:
    wire = ScriptedWire(grant)
    path = await bound(wire)
    assert path.channel is not None
    batch, received = Batch(), Batch()
    messages = [encode(path.channel, payload, padded=False) for payload in (b"one", b"")]
    for message in messages:
        batch.append(message)
    wire.sent.clear()
    assert path.send_messages(batch) == 2
    assert wire.sent == messages
    for message in messages:
        wire.arrive(message)
    assert path.read_messages(received) == 2
    assert [bytes(message) for message in received] == messages
    now = anyio.current_time()
    assert [path.receive(bytes(message), now) for message in received] == [[b"one"], [b""]]
    assert path.read_messages(received) == 0


async def test_what_is_no_message_is_told_by_a_batch_of_messages_too() -> None:
    wire = ScriptedWire(grant, reliable=True)
    path = await bound(wire)
    path.stage = Stage.FORWARDING_LOOP
    assert path.padded
    wire.arrive(b"\xff" * 40)
    with pytest.raises(TransportError) as caught:
        path.read_messages(Batch())
    assert (caught.value.stage, caught.value.code) == (
        Stage.FORWARDING_LOOP,
        "turn_no_usable_answer",
    )


async def test_an_allocation_that_the_relay_has_lost_is_told_by_its_message() -> None:
    wire = ScriptedWire(grant)
    path = await bound(wire)
    wire._answer = error(437)
    path.stage = Stage.FORWARDING_LOOP
    path._client.handle_timer(anyio.current_time() + 3600)
    path.flush()
    received = Batch()
    assert path.read_messages(received) > 0
    with pytest.raises(TransportError) as caught:
        path.receive(bytes(received.packet(0)), anyio.current_time() + 3600)
    assert (caught.value.stage, caught.value.code) == (
        Stage.FORWARDING_LOOP,
        "turn_allocation_mismatch",
    )


# Dialling, redirection and release.


def settings(transport: RelayTransport = RelayTransport.UDP, host: str = "relay.example") -> Any:
    endpoint = RelayEndpoint(host, 3478, transport)
    credentials = Credentials((endpoint,), Secret("user"), Secret("password"))
    return PathSettings(endpoint, credentials, *PEER, random_bytes=token_bytes)


class Dialled:
    """Stands in for `dial`: gives wires that answer as told, and remembers them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> None:
        self.endpoints: list[RelayEndpoint] = []
        self.wires: list[ScriptedWire] = []
        self._answers = list(answers)
        monkeypatch.setattr(module, "dial", self)

    async def __call__(self, endpoint: RelayEndpoint, **_: object) -> ScriptedWire:
        self.endpoints.append(endpoint)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        self.wires.append(ScriptedWire(answer))
        return self.wires[-1]


async def test_a_relay_that_sends_elsewhere_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    away = error(300, **{"ALTERNATE-SERVER": ("192.0.2.7", 3479)})
    dialled = Dialled(monkeypatch, away, grant)
    stages: list[Stage] = []
    async with relayed_path(settings(RelayTransport.TLS), stages.append, Batch()) as path:
        assert path.relayed == RELAYED
    first, second = dialled.endpoints
    assert (second.host, second.port, second.transport) == ("192.0.2.7", 3479, first.transport)
    # The certificate is still to bear the name of the relay that was asked for.
    assert second.server_name == "relay.example"
    assert [wire.closed for wire in dialled.wires] == [True, True]
    assert methods(dialled.wires[0]) == [Method.ALLOCATE], "there was nothing to give back"
    assert methods(dialled.wires[1])[-1] is Method.REFRESH
    assert stages == [
        *(Stage.TURN_DIAL, Stage.TURN_ALLOCATE),
        *(Stage.TURN_DIAL, Stage.TURN_ALLOCATE, Stage.PEER_SETUP),
    ]


async def test_the_name_that_an_alternate_server_is_said_to_have_is_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = error(300, **{"ALTERNATE-SERVER": ("192.0.2.7", 3479), "ALTERNATE-DOMAIN": "b.example"})
    dialled = Dialled(monkeypatch, away, grant)
    async with relayed_path(settings(RelayTransport.TLS), lambda _: None, Batch()):
        pass
    assert dialled.endpoints[1].server_name == "b.example"


async def test_relays_that_send_to_each_other_are_not_followed_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled = Dialled(monkeypatch, error(300, **{"ALTERNATE-SERVER": ("192.0.2.7", 3479)}))
    with pytest.raises(TransportError) as caught:
        async with relayed_path(settings(), lambda _: None, Batch()):
            raise AssertionError("there is no allocation")
    assert (caught.value.stage, caught.value.code) == (
        Stage.TURN_ALLOCATE,
        "turn_alternate_server",
    )
    assert len(dialled.wires) == MAX_ALTERNATES + 1
    assert all(wire.closed for wire in dialled.wires)


async def test_what_its_user_raises_passes_and_the_allocation_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled = Dialled(monkeypatch, grant)
    with pytest.raises(ZeroDivisionError):
        async with relayed_path(settings(), lambda _: None, Batch()):
            raise ZeroDivisionError
    (wire,) = dialled.wires
    assert methods(wire)[-1] is Method.REFRESH
    assert wire.closed


async def test_a_cancelled_user_waits_for_a_silent_relay_within_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent = False

    def answer(message: bytes) -> bytes | None:
        return None if silent else grant(message)

    dialled = Dialled(monkeypatch, answer)
    with anyio.fail_after(module.RELEASE_TIMEOUT + 1), anyio.CancelScope() as scope:
        async with relayed_path(settings(), lambda _: None, Batch()):
            silent = True
            scope.cancel()
            await anyio.sleep_forever()
    (wire,) = dialled.wires
    assert methods(wire).count(Method.REFRESH) > 1, "it was asked more than once"
    assert wire.closed


async def test_a_peer_that_the_relay_forbids_ends_the_path_and_gives_the_allocation_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(message: bytes) -> bytes | None:
        peers = (Method.CREATE_PERMISSION, Method.CHANNEL_BIND)
        refused = parse_untrusted(message).method in peers
        return error(403)(message) if refused else grant(message)

    dialled = Dialled(monkeypatch, answer)
    with pytest.raises(TransportError) as caught:
        async with relayed_path(settings(), lambda _: None, Batch()):
            raise AssertionError("there is no way to the peer")
    assert (caught.value.stage, caught.value.code) == (Stage.PEER_SETUP, "turn_forbidden")
    assert methods(dialled.wires[0])[-1] is Method.REFRESH


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (400, "turn_bad_request"),
        (401, "turn_unauthorized"),
        (403, "turn_forbidden"),
        (437, "turn_allocation_mismatch"),
        (440, "turn_address_family_unsupported"),
        (441, "turn_wrong_credentials"),
        (442, "turn_unsupported_transport"),
        (486, "turn_quota_reached"),
        (508, "turn_insufficient_capacity"),
        (499, "turn_error_499"),
    ],
)
async def test_what_a_relay_refuses_an_allocation_with_has_a_code_and_advice(
    number: int, code: str
) -> None:
    path = path_on(ScriptedWire(error(number, REALM="realm", NONCE=b"nonce")))
    with pytest.raises(TransportError) as caught:
        await path.allocate()
    assert (caught.value.stage, caught.value.code) == (Stage.TURN_ALLOCATE, code)
    assert caught.value.message == f"the relay answered {number} Because"
    assert caught.value.advice


async def test_a_relay_that_refuses_every_nonce_of_its_own_is_not_asked_for_ever() -> None:
    nonces = iter(range(1, 100))

    def answer(message: bytes) -> bytes | None:
        known = "NONCE" in parse_untrusted(message).attributes
        fresh = b"nonce-%d" % next(nonces)
        return error(438 if known else 401, REALM="realm", NONCE=fresh)(message)

    path = path_on(ScriptedWire(answer))
    with pytest.raises(TransportError) as caught:
        await path.allocate()
    assert (caught.value.stage, caught.value.code) == (Stage.TURN_ALLOCATE, "turn_stale_nonce")
    assert next(nonces) < 20


async def test_a_peer_of_another_family_than_the_allocation_is_told_as_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(message: bytes) -> bytes | None:
        peers = (Method.CREATE_PERMISSION, Method.CHANNEL_BIND)
        refused = parse_untrusted(message).method in peers
        return error(443)(message) if refused else grant(message)

    Dialled(monkeypatch, answer)
    with pytest.raises(TransportError) as caught:
        async with relayed_path(settings(), lambda _: None, Batch()):
            raise AssertionError("there is no way to the peer")
    told = (caught.value.stage, caught.value.code)
    assert told == (Stage.PEER_SETUP, "turn_peer_family_mismatch")


async def test_a_peer_whose_name_has_no_address_is_found_before_the_relay_is_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled = Dialled(monkeypatch, grant)
    unknown = replace(settings(), peer_host="no-such-host.invalid")
    with pytest.raises(TransportError) as caught:
        async with relayed_path(unknown, lambda _: None, Batch()):
            raise AssertionError("there is no way to the peer")
    assert (caught.value.stage, caught.value.code) == (Stage.PEER_SETUP, "peer_name_unresolved")
    assert "no-such-host.invalid" in caught.value.message
    assert dialled.wires == []
