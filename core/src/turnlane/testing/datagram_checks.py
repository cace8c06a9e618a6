"""The checks of datagram adapters alone; those of all adapters are in `adapter_checks`."""

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from turnlane.api import Batch
from turnlane.api.batch import HEADROOM
from turnlane.testing.adapter_bench import AdapterCase, calling, needing
from turnlane.testing.adapter_ends import Wire, opened_datagrams
from turnlane.testing.adapter_peers import UdpPeer
from turnlane.testing.findings import require

FLOOD = 100
"""Batches of 32 datagrams of 1200 bytes, more than the system keeps for who does not read."""

NO_FLOW = 0xABCDEF
"""A flow that no peer of the kit ever has."""


async def carries_datagrams(case: AdapterCase) -> None:
    """Carry datagrams in both directions as they are.

    Each arrives once and unchanged: an empty one, one of a single byte, one of 1200 bytes, and
    several of different sizes in one batch.
    """
    several = [bytes([number]) * (number * 100 + 1) for number in range(8)]
    async with opened_datagrams(case) as end:
        wire = await end.flow()
        for packets in ([b"x"], [b""], [bytes(range(240)) * 5], several, [b"last"]):
            got = [data for data, _ in await wire.inward(*packets)]
            require(sorted(got) == sorted(packets), f"{_told(packets)} received otherwise")
            sent = await wire.outward(*packets)
            require(sorted(sent) == sorted(packets), f"{_told(packets)} sent otherwise")


async def keeps_flows_apart(case: AdapterCase) -> None:
    """Give each local peer a flow, or each flow an upstream socket, of its own.

    At an ingress the datagrams of one peer have one flow and those of another a different one, and
    what is sent reaches the peer that its flow names. An egress sends each flow from an address of
    its own, and writes the flow's number into what it receives.
    """
    async with opened_datagrams(case) as end:
        with needing("carries_datagrams"):
            first, second = await end.flow(), await end.flow()
            received = [await wire.inward(b"again") for wire in (first, second)]
        if not end.made.ingress:
            require(first.address != second.address, "two flows are sent from the same address")
        require(first.flow != second.flow, "two peers have the same flow")
        require(
            [flow for ((_, flow),) in received] == [first.flow, second.flow],
            "datagrams are received with another flow than theirs",
        )
        if end.made.ingress:
            batch = Batch()
            batch.append(b"to the second", second.flow)
            batch.append(b"to the first", first.flow)
            with calling("send"):
                first.socket.send(batch)
            with needing("carries_datagrams"):
                heard = [await wire.heard(1) for wire in (first, second)]
            require(
                heard == [[b"to the first"], [b"to the second"]],
                "what is sent to one peer reaches another",
            )


async def fills_the_batch_it_is_given(case: AdapterCase) -> None:
    """Clear the batch, then fill it with as many datagrams as are there and fit in.

    There are never more than its capacity; those that do not fit are received the next time. Before
    each packet there are `HEADROOM` bytes that are nobody's.
    """
    wanted = [bytes([number]) * 50 for number in range(5)]
    async with opened_datagrams(case) as end:
        with needing("carries_datagrams"):
            wire = await end.flow()
        for packet in wanted:
            wire.peer.send(packet, wire.address)
        got: list[bytes] = []
        batch = Batch(capacity=2)
        batch.append(b"of an earlier time")
        with end.made.within("what does not fit into a batch is not received the next time"):
            while len(got) < len(wanted):
                got += [data for data, _ in await wire.receive(batch)]
                require(0 < len(batch) <= 2, f"a batch for 2 comes back with {len(batch)} packets")
                taken = 0
                for index in range(len(batch)):
                    require(
                        batch.starts[index] >= taken + HEADROOM,
                        f"a packet has less than {HEADROOM} bytes of headroom",
                    )
                    taken = batch.starts[index] + batch.sizes[index]
        require(b"of an earlier time" not in got, "the batch is not cleared")
        require(sorted(got) == wanted, "what is received in several batches is not what was sent")


async def sends_without_waiting(case: AdapterCase) -> None:
    """Let `send` neither wait nor raise, and return how many datagrams the system took.

    Not for a flow that there is not, not when the peer does not read, is gone, or was gone and is
    back, and not once the socket is closed. What happens to one peer harms no other.
    """
    async with opened_datagrams(case) as end:
        with needing("carries_datagrams"):
            wire, other = await end.flow(), await end.flow()
        if end.made.ingress:
            _send(wire, "to a flow that there is not", NO_FLOW, 1)
        for _ in range(FLOOD):
            _send(wire, "to a peer that does not read", wire.flow, 32)
        wire.peer.close()
        for _ in range(3):
            _send(wire, "to a peer that is gone", wire.flow, 1)
            await anyio.lowlevel.checkpoint()
        served = [other]
        if not end.made.ingress:
            wire.peer = other.peer = end.upstream = UdpPeer(*wire.peer.address)
            served = [wire, other]
        for each in served:
            address = each.address
            for _ in range(2):  # the first may be answered with what became of an earlier one
                _send(each, "to a peer that is there", each.flow, 1)
            await each.heard(1)
            each.address = address
            await each.inward(b"back")
        other.socket.close()
        _send(other, "once the socket is closed", other.flow, 1)


def _send(wire: Wire, when: str, flow: int, count: int) -> None:
    batch = Batch()
    for _ in range(count):
        batch.append(bytes(1200), flow)
    began = anyio.current_time()
    with calling(f"send, {when},"):
        taken: object = wire.socket.send(batch)
    waited = anyio.current_time() - began
    require(waited < wire.end.made.case.patience, f"send, {when}, takes {waited:.1f} s")
    require(
        isinstance(taken, int) and 0 <= taken <= count,
        f"send, {when}, does not return how many of {count} datagrams were taken",
    )


CHECKS: tuple[Callable[[AdapterCase], Awaitable[None]], ...] = (
    carries_datagrams,
    keeps_flows_apart,
    fills_the_batch_it_is_given,
    sends_without_waiting,
)
"""The checks of this module, in the order in which they help most when something is wrong."""


def _told(packets: list[bytes]) -> str:
    return "several datagrams are" if len(packets) > 1 else f"one of {len(packets[0])} bytes is"
