"""The TURN client in dialogues: how the allocation is given back."""

from collections.abc import Callable
from typing import Any

import pytest

from turnlane.proto import channel_data
from turnlane.proto.stun import MessageClass, Method, build
from turnlane.proto.turn_events import (
    Deallocated,
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


class TestClosing:
    def test_the_allocation_is_given_back(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        talk.connects()
        talk.client.close(talk.now)
        assert talk.client.state is AllocationState.CLOSING
        release = talk.hears_one(Method.REFRESH, signed=True)
        assert release.attributes["LIFETIME"] == 0
        talk.says(to=release, LIFETIME=0)
        assert talk.events() == [Deallocated()]
        assert talk.client.state is AllocationState.CLOSED
        assert talk.client.get_timer() is None

    def test_a_silent_relay_is_told_four_times_within_a_second_and_a_half(
        self, dialogue: Make
    ) -> None:
        talk = dialogue()
        talk.allocates()
        talk.introduces()
        began = talk.now
        talk.client.close(began)
        said = talk.passes_until(began + 1.4)
        assert [round(moment - began, 3) for moment, _ in said] == [0, 0.1, 0.3, 0.7]
        assert {message.method for _, message in said} == {Method.REFRESH}
        assert talk.events() == []
        assert talk.passes_until(began + 1.5) == []
        assert talk.events() == [Deallocated()]

    def test_over_a_stream_it_is_said_once_and_waited_for_two_seconds(self, dialogue: Make) -> None:
        talk = dialogue(reliable=True)
        talk.allocates()
        began = talk.now
        talk.client.close(began)
        assert len(talk.passes_until(began + 1.9)) == 1
        assert talk.events() == []
        talk.passes_until(began + 2.0)
        assert talk.events() == [Deallocated()]

    def test_a_relay_that_keeps_asking_for_nonces_does_not_hold_it_up(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        began = talk.now
        talk.client.close(began)
        for number in range(3):
            release = talk.passes_until(talk.now + 0.4)[-1][1]
            talk.challenges(release, 438, b"%d" % number)
        talk.passes_until(began + 1.5)
        assert talk.events() == [Deallocated()]

    def test_a_nonce_that_comes_late_does_not_prolong_the_wait(self, dialogue: Make) -> None:
        talk = dialogue(reliable=True)
        talk.allocates()
        began = talk.now
        talk.client.close(began)
        release = talk.hears_one(Method.REFRESH, signed=True)
        talk.passes_until(began + 1.9)
        talk.challenges(release, 438, b"nonce-2")
        talk.hears_one(Method.REFRESH, signed=True)
        assert talk.events() == []
        talk.passes_until(began + 2.0)
        assert talk.events() == [Deallocated()]

    @pytest.mark.parametrize("code", [400, 401, 437, 500])
    def test_any_refusal_is_the_end_too(self, dialogue: Make, code: int) -> None:
        talk = dialogue()
        talk.allocates()
        talk.client.close(talk.now)
        talk.says(to=talk.hears_one(Method.REFRESH, signed=True), error=(code, ""))
        assert talk.events() == [Deallocated()]

    def test_before_the_start_there_is_nothing_to_give_back(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.close(talk.now)
        assert talk.events() == [Deallocated()]
        assert talk.hears() == []
        with pytest.raises(RuntimeError):
            talk.client.start(talk.now)

    def test_before_the_challenge_it_waits_for_the_answer_but_asks_no_more(
        self, dialogue: Make
    ) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        began = talk.now
        talk.client.close(began)
        assert talk.passes_until(began + 1.4) == []
        assert talk.events() == []
        talk.challenges(first)
        assert talk.events() == [Deallocated()]
        assert talk.hears() == []

    def test_before_the_challenge_it_does_not_wait_for_ever(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.hears()
        began = talk.now
        talk.client.close(began)
        assert talk.passes_until(began + 1.5) == []
        assert talk.events() == [Deallocated()]

    def test_an_allocation_under_way_is_given_back_at_once(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        talk.hears_one(Method.ALLOCATE, signed=True)
        talk.client.close(talk.now)
        release = talk.hears_one(Method.REFRESH, signed=True)
        talk.says(to=release, LIFETIME=0)
        assert talk.events() == [Deallocated()]

    def test_an_allocation_that_overtakes_its_release_is_given_back_again(
        self, dialogue: Make
    ) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        allocate = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.client.close(talk.now)
        talk.says(to=talk.hears_one(Method.REFRESH, signed=True), error=(437, ""))
        assert talk.events() == []
        talk.grants(allocate)
        assert talk.events() == []
        release = talk.hears_one(Method.REFRESH, signed=True)
        assert release.attributes["LIFETIME"] == 0
        talk.says(to=release, LIFETIME=0)
        assert talk.events() == [Deallocated()]

    def test_an_allocation_that_is_refused_meanwhile_needs_no_release(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        allocate = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.client.close(talk.now)
        talk.says(to=talk.hears_one(Method.REFRESH, signed=True), error=(437, ""))
        talk.says(to=allocate, error=(486, ""))
        assert talk.events() == [Deallocated()]

    def test_after_a_failure_it_is_immediate(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        ((_, refresh),) = talk.passes_until(talk.now + 540)
        talk.says(to=refresh, error=(437, ""))
        talk.events()
        talk.client.close(talk.now)
        assert talk.events() == [Deallocated()]
        assert talk.client.state is AllocationState.CLOSED

    def test_closing_twice_is_closing_once(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        talk.client.close(talk.now)
        release = talk.hears_one(Method.REFRESH, signed=True)
        talk.client.close(talk.now)
        assert talk.hears() == []
        talk.says(to=release, LIFETIME=0)
        talk.client.close(talk.now)
        assert talk.events() == [Deallocated()]

    def test_what_comes_afterwards_changes_nothing(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        number = talk.connects()
        talk.client.close(talk.now)
        release = talk.hears_one(Method.REFRESH, signed=True)
        talk.says(to=release, LIFETIME=0)
        talk.events()
        talk.says(to=release, LIFETIME=0)
        talk.says(channel_data.encode(number, b"late", padded=False))
        talk.client.add_peer("192.0.2.77", 1, talk.now)
        talk.client.handle_timer(talk.now + 1000)
        assert talk.events() == []
        assert talk.hears() == []
