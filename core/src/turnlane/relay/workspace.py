"""What everything in one loop shares: batches, each used up before anybody waits, and a clock."""

from collections.abc import Callable

import anyio

from turnlane.api.batch import Batch
from turnlane.net.datagrams import receive_batch
from turnlane.net.reactor import loop_clock

MAX_PACKETS = 4096
"""Packets that a batch of payload, or of sealed records, holds; more go in the next one."""

MAX_OPENED_BYTES = 512 * 1024
MAX_SEALED_BYTES = 256 * 1024


class Workspace:
    """`received` takes what comes off a wire, `opened` its payload, `sealed` what leaves.

    One of these serves all lanes, flows and sessions of a loop: memory does not grow with them,
    and what is in the processor's cache stays there. `clock` gives what `anyio.current_time` does;
    `enter_loop` makes it the loop's own, which costs a tenth.
    """

    def __init__(self) -> None:
        self.clock: Callable[[], float] = anyio.current_time
        self.received = receive_batch()
        self.opened = Batch(MAX_PACKETS, MAX_OPENED_BYTES)
        self.sealed = Batch(MAX_PACKETS, MAX_SEALED_BYTES)

    def enter_loop(self) -> None:
        """Take the clock of the running loop."""
        self.clock = loop_clock()
