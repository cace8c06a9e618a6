"""The checks of stream adapters alone; those of all adapters are in `adapter_checks`."""

from array import array
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from turnlane.api import ByteStream, PolicyError, StreamDestination
from turnlane.testing.adapter_bench import AdapterCase, calling, needing
from turnlane.testing.adapter_ends import ASKED, StreamEnd, beside, opened_streams, together
from turnlane.testing.adapter_peers import TcpPeer
from turnlane.testing.findings import NotJudgedError, fail, require

LARGE = array("I", range(2**18)).tobytes()
"""A transfer of 1 MiB, in which each four bytes tell their place."""

BOUND = 64 * 1024 * 1024
"""Bytes that system and adapter together may keep for a side that does not read."""

STILL = 0.05
"""Seconds without a byte more, after which a sender waits."""

STILL_ROUNDS = 5
"""Such times in a row: on a busy machine another thread may rest for one of them."""


async def carries_bytes(case: AdapterCase) -> None:
    """Carry bytes in both directions, at once, in order and unchanged.

    `receive` gives no more than `max_bytes` at a time, and keeps the rest for the next time.
    """
    async with opened_streams(case) as end:
        line = await end.line()
        with end.made.within("what the other side sends is not received"):
            await line.far.send(b"0123456789")
            got = b""
            while len(got) < 10:
                with calling("receive"):
                    piece = await line.near.receive(3)
                require(0 < len(piece) <= 3, f"receive(3) gives {len(piece)} bytes")
                got += piece
        require(got == b"0123456789", "what the other side sends is received otherwise")
        inward, outward = bytearray(), bytearray()
        with end.made.within("a large transfer in both directions does not come to its end"):
            await together(
                partial(line.far.send, LARGE),
                partial(_send, line.near, LARGE),
                partial(_gather, line.near, inward),
                partial(_gather, line.far, outward),
            )
        require(inward == LARGE, "a large transfer is received otherwise than it was sent")
        require(outward == LARGE, "a large transfer is sent otherwise than it was given")


async def ends_one_half_at_a_time(case: AdapterCase) -> None:
    """Let one half of a stream end while the other stays open, in both directions.

    After `send_eof` the other side sees the end and can still send; when the other side has ended
    its half, `receive` raises `anyio.EndOfStream` and `send` still works.
    """
    async with opened_streams(case) as end:
        with needing("carries_bytes"):
            first, second = await end.line(), await end.line()
        with end.made.within("the end of one half does not come through"):
            with calling("send_eof"):
                await first.near.send_eof()
            require(await _ended(first.far), "the other side does not see the end of a half")
            await first.far.send(b"after")
            with calling("receive, after send_eof,"):
                require(
                    await first.near.receive() == b"after", "after send_eof nothing is received"
                )
            await second.far.send_eof()
            try:
                more = await second.near.receive()
            except anyio.EndOfStream:
                more = b""
            except (Exception, SystemExit) as error:
                fail(f"at the end of a half, receive raises {type(error).__name__}")
            require(not more, "receive gives bytes where the other side has ended its half")
            with calling("send, after the other side has ended its half,"):
                await second.near.send(b"after")
            require(
                await second.far.receive() == b"after", "after the end of a half nothing is sent"
            )


async def waits_for_the_slower_side(case: AdapterCase) -> None:
    """Keep no more than a bounded number of bytes for a side that does not read.

    `send` waits while the other side takes nothing; where nobody receives here, the other side
    cannot go on sending.
    """
    async with opened_streams(case) as end:
        with needing("carries_bytes"):
            near, far = await end.line(), await end.line()
        await _require_waiting(near.near, "send takes all there is for a side that does not read")
        await _require_waiting(far.far, "the adapter reads all there is though nobody receives")


async def streams_stand_alone(case: AdapterCase) -> None:
    """Let each stream be its own: when one is closed, its other side sees it, and no other ends."""
    async with opened_streams(case) as end:
        with needing("carries_bytes"):
            first, second = await end.line(), await end.line()
        with calling("aclose"):
            await first.near.aclose()
        with end.made.within("the other side of a stream that is closed does not see it"):
            require(await _ended(first.far), "a stream that is closed goes on")
        with end.made.within("when one stream is closed, another ends"):
            await second.far.send(b"more")
            with calling("receive, once another stream is closed,"):
                got = await second.near.receive()
            require(got == b"more", "when one stream is closed, another carries something else")
            with needing("carries_bytes"):
                await end.line()


async def answers_each_application(case: AdapterCase) -> None:
    """Make an offer of each application that asks, and let go the one that is refused.

    The offer names the destination that was asked for, None where the protocol has none.
    Applications that hang up, and with a protocol those that say nothing or nonsense, harm no
    other.
    """
    async with opened_streams(case) as end:
        if not end.made.ingress:
            raise NotJudgedError("the adapter is no ingress")
        with needing("carries_bytes"):
            await end.line()
        far = await end.dial()
        offer = await end.offer(far)
        asked = offer.destination
        with end.made.within("an application that is refused is not let go"):
            with calling("refuse"):
                await offer.refuse(PolicyError("refused", "the kit refuses it", "try another"))
            require(await _ended(far), "an application that is refused is not let go")
        if case.talk is None:
            fine = asked is None or isinstance(asked, StreamDestination)
            require(fine, "the destination is no StreamDestination")
        else:
            require(asked == ASKED, "the destination is not the one that was asked for")
        await _others_harm_nobody(end)


async def _others_harm_nobody(end: StreamEnd) -> None:
    silent = await end.dial() if end.made.case.talk is not None else None
    (await end.dial()).close()
    if silent is not None:
        nonsense = await end.dial()
        await nonsense.send(b"\0\xff\r\n" * 64)
        await nonsense.send_eof()
    await end.line()


CHECKS: tuple[Callable[[AdapterCase], Awaitable[None]], ...] = (
    carries_bytes,
    ends_one_half_at_a_time,
    waits_for_the_slower_side,
    streams_stand_alone,
    answers_each_application,
)
"""The checks of this module, in the order in which they help most when something is wrong."""


async def _send(near: ByteStream, data: bytes) -> None:
    with calling("send"):
        await near.send(data)


async def _gather(side: ByteStream, into: bytearray) -> None:
    while len(into) < len(LARGE):
        with calling("receive"):
            into += await side.receive()


async def _ended(far: TcpPeer) -> bool:
    """Whether the far side sees the end, after whatever else it is told."""
    try:
        while True:
            await far.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return True


async def _require_waiting(side: ByteStream, message: str) -> None:
    piece = bytes(256 * 1024)
    taken = 0

    async def fill() -> None:
        nonlocal taken
        while taken < BOUND:
            with calling("send"):
                await side.send(piece)
            taken += len(piece)

    async with beside(fill):
        still = 0
        while still < STILL_ROUNDS and taken < BOUND:
            before = taken
            await anyio.sleep(STILL)
            still = still + 1 if taken == before else 0
    require(taken < BOUND, message)
