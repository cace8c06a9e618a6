"""The batches that everything in one loop shares: each is used up before anybody waits again."""

from turnlane.api.batch import Batch
from turnlane.net.datagrams import receive_batch


class Workspace:
    """`received` takes what comes off a wire, `opened` its payload, `sealed` what leaves.

    One of these serves all lanes, flows and sessions of a loop: memory does not grow with them,
    and what is in the processor's cache stays there.
    """

    def __init__(self) -> None:
        self.received = receive_batch()
        self.opened = Batch(4096, 512 * 1024)
        self.sealed = Batch(4096, 256 * 1024)
