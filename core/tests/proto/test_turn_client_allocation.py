"""The TURN client in dialogues: how an allocation is asked for, believed, kept and lost."""

import hmac
import struct
from collections.abc import Callable
from typing import Any

import pytest

from turnlane.proto.stun import MessageClass, Method, build
from turnlane.proto.turn_client import MAX_STALE_NONCES
from turnlane.proto.turn_events import (
    AllocationFailed,
    AllocationLost,
    AllocationRefreshed,
    AllocationSucceeded,
    AlternateServer,
    ChannelBound,
    Deallocated,
    PermissionInstalled,
)
from turnlane.proto.turn_state import TRANSITIONS, AllocationState, Step

Make = Callable[..., Any]

INDICATION_ID = bytes(12)


def data_indication(peer: tuple[str, int], payload: bytes) -> bytes:
    return build(
        Method.DATA,
        MessageClass.INDICATION,
        INDICATION_ID,
        {"XOR-PEER-ADDRESS": peer, "DATA": payload},
    )


class TestAllocating:
    def test_the_relay_challenges_and_then_grants(self, dialogue: Make) -> None:
        talk = dialogue(lifetime=900)
        talk.client.start(talk.now)

        first = talk.hears_one(Method.ALLOCATE, signed=False)
        assert first.attributes["REQUESTED-TRANSPORT"] == 17 << 24
        assert first.attributes["LIFETIME"] == 900
        assert first.attributes["SOFTWARE"] == "turnlane"
        assert not {"USERNAME", "REALM", "NONCE", "REQUESTED-ADDRESS-FAMILY"} & set(
            first.attributes
        )
        talk.challenges(first)

        second = talk.hears_one(Method.ALLOCATE, signed=True)
        assert second.transaction_id != first.transaction_id
        assert second.attributes["USERNAME"] == talk.username
        assert second.attributes["REALM"] == talk.realm
        assert second.attributes["NONCE"] == talk.nonce
        assert second.attributes["REQUESTED-TRANSPORT"] == 17 << 24
        assert "FINGERPRINT" in second.attributes
        talk.grants(second, lifetime=800)

        assert talk.events() == [AllocationSucceeded(talk.relayed, talk.mapped, 800.0)]
        assert talk.client.state is AllocationState.ALLOCATED
        assert talk.hears() == []

    @pytest.mark.parametrize(("family", "number"), [(4, 1), (6, 2)])
    def test_a_family_is_asked_for_when_given(
        self, dialogue: Make, family: int, number: int
    ) -> None:
        talk = dialogue(family=family)
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        assert first.attributes["REQUESTED-ADDRESS-FAMILY"] == number
        talk.challenges(first)
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        assert second.attributes["REQUESTED-ADDRESS-FAMILY"] == number

    def test_an_address_of_another_family_is_no_success_and_is_given_back(
        self, dialogue: Make
    ) -> None:
        talk = dialogue(family=6)
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        talk.grants(talk.hears_one(Method.ALLOCATE, signed=True))
        reason = f"the relayed address {talk.relayed[0]} is not IPv6"
        assert talk.events() == [AllocationFailed(None, reason)]
        release = talk.hears_one(Method.REFRESH, signed=True)
        assert release.attributes["LIFETIME"] == 0

    def test_software_can_be_kept_quiet(self, dialogue: Make) -> None:
        talk = dialogue(software="")
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        assert "SOFTWARE" not in first.attributes

    def test_a_wrong_password_fails_at_the_second_401(self, dialogue: Make) -> None:
        talk = dialogue(password="wrong")
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        second = talk.hears_one(Method.ALLOCATE, signed=False)  # not with the relay's key, that is
        assert second.attributes["USERNAME"] == talk.username
        talk.challenges(second, nonce=b"another nonce")
        assert talk.events() == [AllocationFailed(401, "401 Unauthenticated")]
        assert talk.client.finished
        assert talk.hears() == []
        assert talk.client.get_timer() is None

    @pytest.mark.parametrize("missing", ["REALM", "NONCE"])
    def test_a_challenge_without_realm_or_nonce_cannot_be_answered(
        self, dialogue: Make, missing: str
    ) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        challenge = {"REALM": talk.realm, "NONCE": talk.nonce}
        del challenge[missing]
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        talk.says(to=first, error=(401, "Unauthorized"), key=None, **challenge)
        reason = f"401 Unauthorized, without a {missing.lower()}"
        assert talk.events() == [AllocationFailed(401, reason)]

    @pytest.mark.parametrize("code", [400, 403, 420, 437, 440, 441, 442, 486, 500, 508])
    def test_errors_are_reported_as_themselves(self, dialogue: Make, code: int) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.says(to=second, error=(code, "Because"))
        assert talk.events() == [AllocationFailed(code, f"{code} Because")]
        assert talk.client.state is AllocationState.FAILED
        assert talk.hears() == []

    def test_an_error_before_the_challenge_is_reported_too(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        talk.says(to=first, error=(403, ""), key=None)
        assert talk.events() == [AllocationFailed(403, "403 Forbidden")]

    def test_unknown_attributes_are_named(self, dialogue: Make) -> None:
        talk = dialogue(family=6)
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        talk.says(to=first, error=(420, ""), key=None, UNKNOWN_ATTRIBUTES=(0x17,))
        assert talk.events() == [AllocationFailed(420, "420 Unknown Attribute (0x0017)")]

    def test_a_relay_without_authentication_is_taken_as_it_is(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        talk.says(to=first, key=None, XOR_RELAYED_ADDRESS=talk.relayed, LIFETIME=600)
        assert talk.events() == [AllocationSucceeded(talk.relayed, None, 600.0)]
        for request in talk.introduces():
            assert "USERNAME" not in request.attributes
            talk.says(to=request, key=None)
        assert talk.client.channel(talk.peer) is not None

    @pytest.mark.parametrize(
        ("attributes", "reason"),
        [
            ({"LIFETIME": 600}, "has no XOR-RELAYED-ADDRESS"),
            ({"XOR-RELAYED-ADDRESS": ("192.0.2.1", 5)}, "has no LIFETIME"),
            ({"XOR-RELAYED-ADDRESS": ("192.0.2.1", 5), "LIFETIME": 0}, "granted no lifetime"),
        ],
    )
    def test_a_success_that_lacks_something_is_a_failure(
        self, dialogue: Make, attributes: dict[str, Any], reason: str
    ) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        talk.says(to=talk.hears_one(Method.ALLOCATE, signed=True), **attributes)
        (event,) = talk.events()
        assert isinstance(event, AllocationFailed)
        assert event.code is None
        assert reason in event.reason
        # There may be an allocation all the same.
        assert talk.hears_one(Method.REFRESH, signed=True).attributes["LIFETIME"] == 0

    @pytest.mark.parametrize(
        ("attribute", "reason"),
        [
            (b"\0\x16\0\4\0\3\0\0", "malformed XOR-RELAYED-ADDRESS"),
            (b"\x70\x01\0\0", "unknown attribute 0x7001"),
        ],
    )
    def test_an_authentic_success_that_makes_no_sense_is_a_failure(
        self, dialogue: Make, attribute: bytes, reason: str
    ) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        granted = {"LIFETIME": 600}
        if "unknown" in reason:
            granted["XOR-RELAYED-ADDRESS"] = talk.relayed
        message = build(second.method, MessageClass.RESPONSE, second.transaction_id, granted)
        message += attribute
        # The signature counts itself in the length that it signs (RFC 8489, section 14.5).
        length = struct.pack("!H", len(message) - 20 + 24)
        message = message[:2] + length + message[4:]
        signature = hmac.new(talk.key, message, "sha1").digest()
        talk.says(message + b"\0\x08\0\x14" + signature)
        (event,) = talk.events()
        assert isinstance(event, AllocationFailed)
        assert reason in event.reason


class TestStaleNonces:
    def test_each_method_is_asked_again_with_the_new_nonce(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=True), 438, b"nonce-2")
        again = talk.hears_one(Method.ALLOCATE, signed=True)
        assert again.attributes["NONCE"] == b"nonce-2"
        talk.grants(again)
        talk.events()

        permission, binding = talk.introduces()
        assert permission.attributes["NONCE"] == b"nonce-2"
        talk.challenges(permission, 438, b"nonce-3")
        talk.challenges(binding, 438, b"nonce-4")
        permission, binding = talk.hears()
        assert permission.attributes["NONCE"] == b"nonce-3"
        assert binding.attributes["NONCE"] == b"nonce-4"
        assert permission.verify(talk.key)
        talk.says(to=permission)
        talk.says(to=binding)
        assert talk.events() == [
            PermissionInstalled(talk.peer),
            ChannelBound(talk.peer, talk.client.channel(talk.peer)),
        ]

        talk.client.close(talk.now)
        release = talk.hears_one(Method.REFRESH, signed=True)
        talk.challenges(release, 438, b"nonce-5")
        release = talk.hears_one(Method.REFRESH, signed=True)
        assert release.attributes["NONCE"] == b"nonce-5"
        assert release.attributes["LIFETIME"] == 0
        talk.says(to=release, LIFETIME=0)
        assert talk.events() == [Deallocated()]

    def test_the_realm_of_a_stale_nonce_makes_no_new_key(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.says(to=second, error=(438, ""), key=None, REALM="evil.example", NONCE=b"n")
        again = talk.hears_one(Method.ALLOCATE, signed=True)
        assert again.attributes["REALM"] == talk.realm

    def test_a_relay_that_never_likes_a_nonce_is_given_up(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        for number in range(MAX_STALE_NONCES + 1):
            request = talk.hears_one(Method.ALLOCATE, signed=True)
            talk.challenges(request, 438, b"%d" % number)
        assert talk.hears() == []
        assert talk.events() == [AllocationFailed(438, "438 Stale Nonce, 5 times in a row")]

    def test_a_stale_nonce_without_a_fresh_one_is_a_failure(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.says(to=second, error=(438, ""), key=None)
        assert talk.events() == [AllocationFailed(438, "438 Stale Nonce, without a nonce")]


class TestAlternateServer:
    def test_before_the_challenge_it_need_not_be_signed(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        talk.says(
            to=first,
            error=(300, ""),
            key=None,
            ALTERNATE_SERVER=("192.0.2.9", 3479),
            ALTERNATE_DOMAIN="relay.example",
        )
        assert talk.events() == [AlternateServer(("192.0.2.9", 3479), "relay.example")]
        assert talk.client.finished
        assert talk.hears() == []

    def test_after_the_challenge_it_must_be_signed(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.says(to=second, error=(300, ""), key=None, ALTERNATE_SERVER=("192.0.2.66", 1))
        assert talk.events() == []
        talk.says(to=second, error=(300, ""), ALTERNATE_SERVER=("192.0.2.9", 3479))
        assert talk.events() == [AlternateServer(("192.0.2.9", 3479), None)]

    def test_without_an_address_it_is_a_failure(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        talk.says(to=first, error=(300, ""), key=None)
        assert talk.events() == [AllocationFailed(300, "sent elsewhere, but not told where")]


class TestRetransmission:
    def test_over_udp_it_doubles_from_half_a_second_and_ends_after_39_5(
        self, dialogue: Make
    ) -> None:
        talk = dialogue()
        began = talk.now
        talk.client.start(began)
        said = talk.passes_until(began + 39.4)
        assert [moment - began for moment, _ in said] == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
        assert len({message.transaction_id for _, message in said}) == 1
        assert talk.events() == []
        assert talk.client.get_timer() == began + 39.5
        assert talk.passes_until(began + 1000) == []
        assert talk.events() == [AllocationFailed(None, "no answer within 39.5 s")]
        assert talk.client.statistics.retransmissions == 6
        assert talk.client.get_timer() is None

    def test_over_streams_nothing_is_said_twice(self, dialogue: Make) -> None:
        talk = dialogue(reliable=True)
        began = talk.now
        talk.client.start(began)
        assert [moment - began for moment, _ in talk.passes_until(began + 39.4)] == [0]
        assert talk.events() == []
        talk.passes_until(began + 39.5)
        assert talk.events() == [AllocationFailed(None, "no answer within 39.5 s")]
        assert talk.client.statistics.retransmissions == 0

    def test_an_answer_ends_it_and_the_next_question_starts_anew(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        first = talk.passes_until(talk.now + 5)[0][1]
        talk.challenges(first)
        began = talk.now
        said = talk.passes_until(began + 2)
        assert [moment - began for moment, _ in said] == [0, 0.5, 1.5]
        assert {message.verify(talk.key) for _, message in said} == {True}

    def test_when_no_answer_to_a_signed_question_came_the_allocation_is_released_blindly(
        self, dialogue: Make
    ) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        said = talk.passes_until(talk.now + 100)
        assert [message.method for _, message in said] == [Method.ALLOCATE] * 7 + [Method.REFRESH]
        assert said[-1][1].attributes["LIFETIME"] == 0

    def test_after_a_long_sleep_nothing_comes_in_a_burst(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.hears()
        talk.now += 10_000
        talk.client.handle_timer(talk.now)
        assert len(talk.hears()) == 1
        assert talk.client.get_timer() == talk.now + 1.0


class TestRefreshing:
    def test_a_long_lifetime_is_refreshed_a_minute_before_its_end(self, dialogue: Make) -> None:
        talk = dialogue()
        began = talk.now
        talk.allocates(600)
        for number in range(1, 4):
            ((moment, refresh),) = talk.passes_until(began + 540 * number)
            assert moment == began + 540 * number
            assert refresh.method is Method.REFRESH
            assert refresh.verify(talk.key)
            assert refresh.attributes["LIFETIME"] == 600
            talk.says(to=refresh, LIFETIME=600)
            assert talk.events() == [AllocationRefreshed(600.0)]

    def test_a_short_lifetime_is_refreshed_at_its_half(self, dialogue: Make) -> None:
        talk = dialogue()
        began = talk.now
        talk.allocates(5)
        ((moment, refresh),) = talk.passes_until(began + 2.9)
        assert moment == began + 2.5
        talk.says(to=refresh, LIFETIME=3)
        # Reckoned from when it was asked for, not from when the answer came.
        assert talk.client.get_timer() == began + 2.5 + 1.5

    def test_a_grant_that_came_late_is_refreshed_at_once(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        talk.now += 20
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.grants(second, lifetime=10)
        assert talk.client.get_timer() == talk.now

    @pytest.mark.parametrize("code", [401, 437, 441])
    def test_a_relay_that_knows_nothing_of_it_ends_it_at_once(
        self, dialogue: Make, code: int
    ) -> None:
        talk = dialogue()
        talk.allocates()
        ((_, refresh),) = talk.passes_until(talk.now + 540)
        talk.says(to=refresh, error=(code, "Gone"))
        assert talk.events() == [AllocationLost(code, f"{code} Gone")]
        assert talk.client.finished
        assert talk.hears() == []

    def test_an_unsigned_401_says_that_the_credentials_have_changed(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        ((_, refresh),) = talk.passes_until(talk.now + 540)
        talk.challenges(refresh)
        assert talk.events() == [AllocationLost(401, "401 Unauthenticated")]

    def test_silence_loses_it(self, dialogue: Make) -> None:
        talk = dialogue()
        began = talk.now
        talk.allocates()
        talk.passes_until(began + 579)
        assert talk.events() == []
        talk.passes_until(began + 580)
        assert talk.events() == [AllocationLost(None, "no answer within 39.5 s")]

    def test_other_errors_are_tried_three_times_more(self, dialogue: Make) -> None:
        talk = dialogue()
        began = talk.now + 540
        talk.allocates()
        moments = []
        for _ in range(4):
            ((moment, refresh),) = talk.passes_until(talk.client.get_timer())
            moments.append(moment - began)
            talk.says(to=refresh, error=(500, ""))
        assert moments == [0, 1, 3, 7]
        assert talk.events() == [AllocationLost(500, "500 Server Error")]
        # The allocation itself may live on.
        assert talk.hears_one(Method.REFRESH, signed=True).attributes["LIFETIME"] == 0

    def test_one_bad_answer_is_survived(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        ((_, refresh),) = talk.passes_until(talk.now + 540)
        talk.says(to=refresh, error=(508, ""))
        ((_, refresh),) = talk.passes_until(talk.now + 1)
        talk.says(to=refresh, LIFETIME=600)
        assert talk.events() == [AllocationRefreshed(600.0)]

    def test_each_refresh_has_its_own_three_tries(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        for _ in range(5):
            ((_, refresh),) = talk.passes_until(talk.client.get_timer())
            talk.says(to=refresh, error=(508, ""))
            ((_, refresh),) = talk.passes_until(talk.client.get_timer())
            talk.says(to=refresh, LIFETIME=600)
            assert talk.events() == [AllocationRefreshed(600.0)]

    def test_a_live_allocation_is_not_sent_elsewhere(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        for _ in range(4):
            ((_, refresh),) = talk.passes_until(talk.client.get_timer())
            talk.says(to=refresh, error=(300, ""), ALTERNATE_SERVER=("192.0.2.9", 3479))
        assert talk.events() == [AllocationLost(300, "300 Try Alternate")]

    @pytest.mark.parametrize("attributes", [{}, {"LIFETIME": 0}])
    def test_a_refresh_that_grants_nothing_loses_it(
        self, dialogue: Make, attributes: dict[str, int]
    ) -> None:
        talk = dialogue()
        talk.allocates()
        ((_, refresh),) = talk.passes_until(talk.now + 540)
        talk.says(to=refresh, **attributes)
        (event,) = talk.events()
        assert isinstance(event, AllocationLost)
        assert event.code is None


class TestStates:
    def test_starting_twice_is_a_mistake(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        with pytest.raises(RuntimeError, match="START does not follow ALLOCATING"):
            talk.client.start(talk.now)

    def test_from_everywhere_a_close_leads_to_closed(self) -> None:
        for state in AllocationState:
            if state is not AllocationState.CLOSED:
                closing = TRANSITIONS.get((state, Step.CLOSE), state)
                assert TRANSITIONS.get((closing, Step.RELEASE), closing) is AllocationState.CLOSED

    def test_nothing_leads_out_of_closed_and_every_state_is_reached(self) -> None:
        assert not [state for state, _ in TRANSITIONS if state is AllocationState.CLOSED]
        assert set(TRANSITIONS.values()) | {AllocationState.IDLE} == set(AllocationState)
