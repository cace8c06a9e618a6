"""The TURN client in dialogues: which answers it believes, and what it lets pass."""

from collections.abc import Callable
from typing import Any

import pytest

from turnlane.proto.stun import MessageClass, Method, build
from turnlane.proto.turn_events import (
    AllocationFailed,
    AllocationRefreshed,
    AllocationSucceeded,
)

Make = Callable[..., Any]

INDICATION_ID = bytes(12)


def data_indication(peer: tuple[str, int], payload: bytes) -> bytes:
    return build(
        Method.DATA,
        MessageClass.INDICATION,
        INDICATION_ID,
        {"XOR-PEER-ADDRESS": peer, "DATA": payload},
    )


class TestAuthenticity:
    """What is believed from whom: only the relay, and who reads our datagrams, know our ids."""

    def test_an_unsigned_success_is_ignored_and_the_signed_one_counts(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        lie = {"XOR_RELAYED_ADDRESS": ("192.0.2.66", 666), "LIFETIME": 600}
        talk.says(to=second, key=None, **lie)
        talk.says(to=second, key=b"not the key", **lie)
        assert talk.events() == []
        assert talk.client.statistics.unauthenticated == 2
        talk.grants(second)
        assert talk.events() == [AllocationSucceeded(talk.relayed, talk.mapped, 600.0)]

    @pytest.mark.parametrize("code", [300, 403, 437, 441, 486, 508])
    def test_an_unsigned_error_ends_nothing(self, dialogue: Make, code: int) -> None:
        talk = dialogue()
        talk.allocates()
        talk.passes_until(talk.now + 539)
        ((_, refresh),) = talk.passes_until(talk.now + 1)
        talk.says(to=refresh, error=(code, ""), key=None, ALTERNATE_SERVER=("192.0.2.66", 3478))
        assert talk.events() == []
        assert talk.client.statistics.unauthenticated == 1
        talk.says(to=refresh, LIFETIME=600)
        assert talk.events() == [AllocationRefreshed(600.0)]

    @pytest.mark.parametrize("code", [400, 401])
    def test_a_relay_that_could_not_check_a_signature_need_not_sign(
        self, dialogue: Make, code: int
    ) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.says(to=second, error=(code, "No"), key=None)
        assert talk.events() == [AllocationFailed(code, f"{code} No")]

    def test_when_only_unsigned_answers_came_the_timeout_says_so(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.says(to=second, error=(441, "Wrong"), key=None)
        talk.passes_until(talk.now + 100)
        (event,) = talk.events()
        assert event == AllocationFailed(
            None, "no answer that proves to know the password, only: 441 Wrong"
        )

    def test_on_a_stream_an_unsigned_answer_ends_the_wait(self, dialogue: Make) -> None:
        talk = dialogue(reliable=True)
        talk.client.start(talk.now)
        talk.challenges(talk.hears_one(Method.ALLOCATE, signed=False))
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.says(to=second, key=None, XOR_RELAYED_ADDRESS=talk.relayed, LIFETIME=600)
        assert talk.events() == [
            AllocationFailed(None, "no answer that proves to know the password, only: a success")
        ]

    def test_answers_to_nobodys_question_change_nothing(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        talk.says(build(Method.ALLOCATE, MessageClass.RESPONSE, b"another one.", {"LIFETIME": 600}))
        talk.says(
            build(Method.REFRESH, MessageClass.RESPONSE, first.transaction_id, {"LIFETIME": 600})
        )
        talk.says(build(Method.ALLOCATE, MessageClass.REQUEST, first.transaction_id, {}))
        assert talk.events() == []
        assert talk.client.statistics.unexpected == 3
        talk.challenges(first)
        talk.hears_one(Method.ALLOCATE, signed=True)

    def test_a_duplicate_of_an_answer_is_ignored(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        talk.challenges(first)
        second = talk.hears_one(Method.ALLOCATE, signed=True)
        talk.challenges(first)
        assert talk.hears() == []
        talk.grants(second)
        talk.grants(second)
        talk.says(to=second, error=(486, ""))
        assert talk.events() == [AllocationSucceeded(talk.relayed, talk.mapped, 600.0)]
        assert talk.client.statistics.unexpected == 3

    def test_an_error_without_its_code_is_malformed_and_ignored(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.client.start(talk.now)
        first = talk.hears_one(Method.ALLOCATE, signed=False)
        talk.says(build(first.method, MessageClass.ERROR, first.transaction_id, {}))
        assert talk.client.statistics.malformed == 1
        talk.challenges(first)
        talk.hears_one(Method.ALLOCATE, signed=True)

    @pytest.mark.parametrize(
        "garbage", [b"", b"\0", b"\x80" * 30, b"\xff" * 1200, b"\x40\0\0\x09short", b"\0" * 20]
    )
    def test_garbage_is_counted_and_ignored(self, dialogue: Make, garbage: bytes) -> None:
        talk = dialogue()
        talk.allocates()
        talk.says(garbage)
        assert talk.events() == []
        assert talk.client.statistics.malformed == 1

    def test_the_password_is_in_nothing_that_is_shown(self, dialogue: Make) -> None:
        talk = dialogue()
        talk.allocates()
        shown = repr(vars(talk.client)) + repr(talk.client._credentials._password)
        assert talk.password not in shown
