"""The driver of one allocation: what it does on its way out."""

from collections.abc import Callable

import anyio
import pytest

from turnlane.api import Stage, TransportError
from turnlane.net.relayed_path import RelayedPath
from turnlane.proto.stun import MessageClass, build, parse_untrusted
from turnlane.proto.turn_client import TurnClient

pytestmark = pytest.mark.anyio

PEER = ("192.0.2.1", 56000)


class ScriptedWire:
    """A wire whose far end answers each message with what `answer` makes of it."""

    reliable = False
    dropped = 0
    refused = 0

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self._answer = answer
        self._waiting: list[bytes] = []

    def write(self, message: bytes, *, droppable: bool = True) -> bool:
        answered = self._answer(message)
        if answered is not None:
            self._waiting.append(answered)
        return True

    def read(self) -> list[bytes]:
        taken, self._waiting = self._waiting, []
        return taken

    async def wait(self) -> None:
        if not self._waiting:
            await anyio.sleep_forever()

    def close(self) -> None:
        """Nothing to release."""


def refuse(message: bytes) -> bytes:
    request = parse_untrusted(message)
    return build(
        request.method,
        MessageClass.ERROR,
        request.transaction_id,
        {"ERROR-CODE": (508, "Insufficient Capacity")},
    )


async def test_an_allocation_that_was_refused_is_not_waited_for_on_the_way_out() -> None:
    client = TurnClient("user", "password", reliable=False, random_bytes=bytes)
    path = RelayedPath(ScriptedWire(refuse), client, PEER)
    with pytest.raises(TransportError) as caught:
        await path.allocate()
    assert (caught.value.stage, caught.value.code) == (
        Stage.TURN_ALLOCATE,
        "turn_insufficient_capacity",
    )
    assert caught.value.message == "the relay answered 508 Insufficient Capacity"
    began = anyio.current_time()
    await path.release()
    assert anyio.current_time() - began < 1.0
