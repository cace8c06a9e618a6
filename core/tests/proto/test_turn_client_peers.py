"""The TURN client in dialogues: permissions, channels, and what passes through them."""

from collections.abc import Callable
from typing import Any

import pytest

from turnlane.proto import channel_data
from turnlane.proto.stun import MessageClass, Method, build, parse_untrusted
from turnlane.proto.turn_client import MAX_PEERS, MAX_QUEUED_PAYLOADS
from turnlane.proto.turn_events import (
    AllocationFailed,
    AllocationLost,
    ChannelBound,
    DataReceived,
    Deallocated,
    PeerRefused,
    PermissionInstalled,
)
from turnlane.proto.turn_state import AllocationState

Make = Callable[..., Any]

INDICATION_ID = bytes(12)


def data_indication(peer: tuple[str, int], payload: bytes) -> bytes:
    return build(
        Method.DATA,
        MessageClass.INDICATION,
        INDICATION_ID,
        {"XOR-PEER-ADDRESS": peer, "DATA": payload},
    )


class TestPeers:
    def test_a_peer_gets_a_permission_and_a_channel(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        permission, binding = talk.introduces()
        assert permission.verify(talk.key)
        assert permission.peer_addresses == (talk.peer,)
        assert binding.verify(talk.key)
        assert binding.attributes["XOR-PEER-ADDRESS"] == talk.peer
        assert binding.attributes["CHANNEL-NUMBER"] == 0x4000
        talk.says(to=permission)
        assert talk.events() == [PermissionInstalled(talk.peer)]
        assert talk.client.channel(talk.peer) is None
        talk.says(to=binding)
        assert talk.events() == [ChannelBound(talk.peer, 0x4000)]
        assert talk.client.channel(talk.peer) == 0x4000

    def test_a_channel_brings_its_permission_along(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        permission, binding = talk.introduces()
        talk.says(to=binding)
        assert talk.events() == [PermissionInstalled(talk.peer), ChannelBound(talk.peer, 0x4000)]
        talk.says(to=permission)
        assert talk.events() == []

    def test_a_peer_added_early_waits_for_the_allocation(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.add_peer(*talk.peer, talk.now)
        assert talk.hears() == []
        talk.client.start(talk.now)
        talk.client.add_peer("2001:db8::1", 7, talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        talk.grants(talk.hears_one(Method.ALLOCATE, signed=True))
        asked = [(message.method, message.peer_addresses[0]) for message in talk.hears()]
        assert asked == [
            (Method.CREATE_PERMISSION, talk.peer),
            (Method.CHANNEL_BIND, talk.peer),
            (Method.CREATE_PERMISSION, ("2001:db8::1", 7)),
            (Method.CHANNEL_BIND, ("2001:db8::1", 7)),
        ]

    def test_peers_have_numbers_of_their_own(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        assert talk.connects() == 0x4000
        assert talk.connects(("192.0.2.55", 56001)) == 0x4001

    def test_a_peer_is_added_once_however_it_is_spelled(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        talk.client.add_peer("2001:DB8:0::1", 7, talk.now)
        assert len(talk.hears()) == 2
        talk.client.add_peer("2001:db8::1", 7, talk.now)
        assert talk.hears() == []

    @pytest.mark.parametrize(
        "peer", [("relay.example", 1), ("", 1), ("192.0.2.1", 0), ("192.0.2.1", 65536)]
    )
    def test_only_addresses_are_peers(self, dialogue: Make, peer: tuple[str, int]) -> None:
        talk = dialogue()
        talk.allocates()
        with pytest.raises(ValueError):
            talk.client.add_peer(*peer, talk.now)
        assert talk.hears() == []

    def test_their_number_is_bounded(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        for port in range(1, MAX_PEERS + 1):
            talk.client.add_peer("192.0.2.1", port, talk.now)
        with pytest.raises(ValueError):
            talk.client.add_peer("192.0.2.1", MAX_PEERS + 1, talk.now)
        assert len(talk.hears()) == 2 * MAX_PEERS
        assert len(talk.client._transactions) == 2 * MAX_PEERS

    @pytest.mark.parametrize("code", [403, 443])
    @pytest.mark.parametrize("refused_first", [0, 1])
    def test_a_peer_that_the_relay_does_not_want_is_refused_once(
        self, dialogue: Make, code: int, refused_first: int
    ) -> None:
        talk = dialogue()
        talk.allocates()
        requests = talk.introduces()
        talk.says(to=requests[refused_first], error=(code, "Never"))
        assert talk.events() == [PeerRefused(talk.peer, code, f"{code} Never")]
        talk.says(to=requests[1 - refused_first], error=(code, "Never"))
        assert talk.events() == []
        assert talk.client.state is AllocationState.ALLOCATED
        assert talk.client.channel(talk.peer) is None
        # Nothing more is asked for it; the allocation is kept.
        assert [m.method for _, m in talk.passes_until(talk.now + 541)][:1] == [Method.REFRESH]

    def test_a_refused_peer_is_not_heard_any_more(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        number = talk.connects()
        said = talk.passes_until(talk.now + 240)
        talk.says(to=said[0][1], error=(403, ""))
        assert talk.events() == [PeerRefused(talk.peer, 403, "403 Forbidden")]
        assert talk.client.channel(talk.peer) is None
        talk.says(channel_data.encode(number, b"x", padded=False))
        talk.says(data_indication(talk.peer, b"x"))
        assert talk.events() == []
        assert talk.client.statistics.unexpected == 2
        # Nor is its channel asked for again, which would be due at the same time.
        asked = {message.method for _, message in talk.passes_until(talk.now + 310)}
        assert asked == {Method.REFRESH}

    def test_other_refusals_of_a_permission_are_tried_again_then_lose_the_allocation(
        self, dialogue: Make
    ) -> None:
        talk = dialogue()
        talk.allocates()
        permission, binding = talk.introduces()
        talk.says(to=binding)
        talk.events()
        for _ in range(3):
            talk.says(to=permission, error=(508, ""))
            assert talk.events() == []
            ((_, permission),) = talk.passes_until(talk.client.get_timer())
        talk.says(to=permission, error=(508, ""))
        assert talk.events() == [AllocationLost(508, "508 Insufficient Capacity")]
        assert talk.hears_one(Method.REFRESH, signed=True).attributes["LIFETIME"] == 0

    @pytest.mark.parametrize("code", [401, 437, 441])
    @pytest.mark.parametrize("which", [0, 1])
    def test_a_relay_without_the_allocation_ends_it(
        self, dialogue: Make, code: int, which: int
    ) -> None:
        talk = dialogue()
        talk.allocates()
        talk.says(to=talk.introduces()[which], error=(code, ""))
        (event,) = talk.events()
        assert isinstance(event, AllocationLost)
        assert event.code == code

    def test_silence_about_a_permission_loses_the_allocation(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        talk.introduces()
        talk.passes_until(talk.now + 39.5)
        assert talk.events() == [AllocationLost(None, "no answer within 39.5 s")]

    def test_it_is_lost_once_however_many_requests_are_under_way(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        talk.introduces()
        talk.introduces(("192.0.2.56", 56000))
        said = talk.passes_until(talk.now + 39.5)
        assert talk.events() == [AllocationLost(None, "no answer within 39.5 s")]
        assert said[-1][1].method is Method.REFRESH
        talk.client.handle_timer(talk.now + 1000)
        assert talk.hears() == []

    def test_after_a_loss_nothing_is_sent_again(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        permission, _ = talk.introduces()
        talk.says(to=permission, error=(437, ""))
        talk.client.handle_timer(talk.now + 1)
        assert talk.hears() == []


class TestKeepingPeers:
    def test_permission_and_channel_are_each_refreshed_a_minute_early(self, dialogue: Make) -> None:
        talk = dialogue(lifetime=3600)
        began = talk.now
        talk.allocates(3600)
        talk.connects()
        asked = []
        while talk.now < began + 1200:
            for moment, request in talk.passes_until(talk.client.get_timer()):
                asked.append((moment - began, request.method))
                talk.says(to=request)
        assert asked == [
            (240, Method.CREATE_PERMISSION),
            (480, Method.CREATE_PERMISSION),
            (540, Method.CHANNEL_BIND),
            (720, Method.CREATE_PERMISSION),
            (960, Method.CREATE_PERMISSION),
            (1080, Method.CHANNEL_BIND),
            (1200, Method.CREATE_PERMISSION),
        ]
        assert talk.events() == []
        assert talk.client.channel(talk.peer) == 0x4000

    def test_lifetimes_can_be_shortened_for_laboratories(self, dialogue: Make) -> None:
        talk = dialogue(permission_lifetime=4.0, channel_lifetime=6.0)
        began = talk.now
        talk.allocates()
        talk.connects()
        said = talk.passes_until(began + 3)
        assert [(m - began, r.method) for m, r in said if m in (began + 2, began + 3)][:2] == [
            (2.0, Method.CREATE_PERMISSION),
            (3.0, Method.CHANNEL_BIND),
        ]

    def test_a_refused_channel_is_tried_again_then_done_without(self, dialogue: Make) -> None:
        talk = dialogue(lifetime=3600)
        talk.allocates(3600)
        permission, binding = talk.introduces()
        talk.says(to=permission)
        for _ in range(3):
            talk.says(to=binding, error=(400, "No channels here"))
            ((_, binding),) = talk.passes_until(talk.client.get_timer())
        talk.says(to=binding, error=(400, "No channels here"))
        assert talk.events() == [PermissionInstalled(talk.peer)]
        assert talk.client.channel(talk.peer) is None
        wrapped = parse_untrusted(talk.client.wrap(talk.peer, b"hello"))
        assert wrapped.method is Method.SEND
        for _ in range(5):
            ((_, request),) = talk.passes_until(talk.client.get_timer())
            assert request.method is Method.CREATE_PERMISSION
            talk.says(to=request)
        assert talk.events() == []

    def test_a_channel_that_is_met_with_silence_is_done_without(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        permission, _ = talk.introduces()
        talk.says(to=permission)
        talk.passes_until(talk.now + 100)
        assert talk.events() == [PermissionInstalled(talk.peer)]
        assert talk.client.state is AllocationState.ALLOCATED

    def test_a_bound_channel_that_cannot_be_kept_loses_the_allocation(self, dialogue: Make) -> None:
        talk = dialogue(lifetime=3600, permission_lifetime=1e6)
        talk.allocates(3600)
        talk.connects()
        for _ in range(4):
            ((_, binding),) = talk.passes_until(talk.client.get_timer())
            assert binding.method is Method.CHANNEL_BIND
            assert binding.attributes["CHANNEL-NUMBER"] == 0x4000
            talk.says(to=binding, error=(400, ""))
        assert talk.events() == [AllocationLost(400, "400 Bad Request")]


class TestPayload:
    def test_until_the_channel_is_bound_it_goes_as_indications(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        _, binding = talk.introduces()
        message = parse_untrusted(talk.client.wrap(talk.peer, b"hello"))
        assert (message.method, message.message_class) == (Method.SEND, MessageClass.INDICATION)
        assert message.attributes == {"XOR-PEER-ADDRESS": talk.peer, "DATA": b"hello"}
        talk.says(to=binding)
        assert talk.client.wrap(talk.peer, b"hello") == b"\x40\0\0\5hello"
        assert talk.client.wrap(talk.peer, memoryview(b"hello")) == b"\x40\0\0\5hello"

    def test_on_streams_channel_data_is_padded(self, dialogue: Make) -> None:
        talk = dialogue(reliable=True)
        talk.allocates()
        talk.connects()
        assert talk.client.wrap(talk.peer, b"hello") == b"\x40\0\0\5hello\0\0\0"

    def test_another_spelling_of_a_peer_is_the_same_peer(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        talk.connects(("2001:db8::1", 7))
        assert talk.client.wrap(("2001:DB8:0::1", 7), b"hello") == b"\x40\0\0\5hello"

    def test_what_is_no_address_is_refused(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        with pytest.raises(ValueError):
            talk.client.wrap(("relay.example", 1), b"hello")

    def test_it_comes_as_channel_data_and_as_indications(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        number = talk.connects()
        talk.says(channel_data.encode(number, b"one", padded=False))
        talk.says(data_indication(talk.peer, b"two"))
        talk.says(channel_data.encode(number, b"", padded=True))
        assert talk.events() == [
            DataReceived(talk.peer, b"one"),
            DataReceived(talk.peer, b"two"),
            DataReceived(talk.peer, b""),
        ]

    def test_a_channel_is_good_before_its_answer_has_come(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        talk.introduces()
        talk.says(channel_data.encode(0x4000, b"early", padded=False))
        assert talk.events() == [DataReceived(talk.peer, b"early")]

    def test_a_reused_buffer_does_not_change_what_was_received(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        number = talk.connects()
        buffer = bytearray(channel_data.encode(number, b"one", padded=False))
        talk.says(memoryview(buffer))
        buffer[4:] = b"two"
        assert talk.events() == [DataReceived(talk.peer, b"one")]

    @pytest.mark.parametrize(
        "message",
        [
            channel_data.encode(0x4001, b"x", padded=False),
            data_indication(("192.0.2.66", 56000), b"x"),
            data_indication(("192.0.2.55", 56001), b"x"),
            build(Method.DATA, MessageClass.INDICATION, INDICATION_ID, {"DATA": b"x"}),
            build(
                Method.DATA,
                MessageClass.INDICATION,
                INDICATION_ID,
                {"XOR-PEER-ADDRESS": ("192.0.2.55", 56000)},
            ),
            build(
                Method.SEND,
                MessageClass.INDICATION,
                INDICATION_ID,
                {"XOR-PEER-ADDRESS": ("192.0.2.55", 56000), "DATA": b"x"},
            ),
        ],
    )
    def test_what_is_from_nobody_we_know_is_dropped_and_counted(
        self, dialogue: Make, message: bytes
    ) -> None:
        talk = dialogue()
        talk.allocates()
        talk.connects()
        talk.says(message)
        assert talk.events() == []
        assert talk.client.statistics.unexpected == 1

    def test_an_indication_that_makes_no_sense_is_malformed(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        talk.connects()
        good = data_indication(talk.peer, b"x")
        broken = good.replace(b"\0\x12\0\x08\0\x01", b"\0\x12\0\x08\0\x09")
        assert broken != good
        talk.says(broken)
        assert talk.events() == []
        assert talk.client.statistics.malformed == 1

    def test_what_nobody_fetches_is_dropped_and_counted(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        number = talk.connects()
        for _ in range(MAX_QUEUED_PAYLOADS + 3):
            talk.says(channel_data.encode(number, b"x", padded=False))
        assert talk.client.statistics.dropped == 3
        assert len(talk.events()) == MAX_QUEUED_PAYLOADS


class TestStreams:
    def test_messages_may_come_in_single_bytes(self, dialogue: Make) -> None:
        talk = dialogue(reliable=True)
        talk.allocates()
        number = talk.connects()
        stream = channel_data.encode(number, b"hello", padded=True)
        stream += data_indication(talk.peer, b"world")
        for position in range(len(stream)):
            talk.streams(stream[position : position + 1])
        assert talk.events() == [
            DataReceived(talk.peer, b"hello"),
            DataReceived(talk.peer, b"world"),
        ]

    def test_a_stream_that_cannot_be_followed_loses_the_allocation(self, dialogue: Make) -> None:
        talk = dialogue(reliable=True)
        talk.allocates()
        talk.says(b"\xff\xff\xff\xff")
        (event,) = talk.events()
        assert isinstance(event, AllocationLost)
        assert event.code is None
        assert "cannot be followed" in event.reason
        assert talk.hears() == []
        assert talk.client.get_timer() is None

    def test_while_allocating_it_is_a_failure(self, dialogue: Make) -> None:
        talk = dialogue(reliable=True)
        talk.client.start(talk.now)
        talk.says(b"SSH-2.0-OpenSSH\r\n")
        (event,) = talk.events()
        assert isinstance(event, AllocationFailed)

    def test_while_closing_it_ends_the_wait(self, dialogue: Make) -> None:
        talk = dialogue(reliable=True)
        talk.allocates()
        talk.client.close(talk.now)
        talk.says(b"\xff\xff\xff\xff")
        assert talk.events() == [Deallocated()]
