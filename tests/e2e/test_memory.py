"""Memory: what a client and a server take does not grow with what they carry."""

import gc
import resource
import socket
from pathlib import Path

import anyio
import pytest

from turnlane_lab.stand import Stand

pytestmark = pytest.mark.anyio

BURST = 32
SIZE = 1200
WARM_UP = 100
"""Bursts until every buffer and pool has the size that it keeps."""

MORE = 600
"""Bursts after that: 19,200 datagrams, 23 MB there and back."""

TOLERANCE = 2 * 1024 * 1024
"""Bytes: far less than what was carried, more than the allocator's habits."""

_STATM = Path("/proc/self/statm")


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    gc.collect()
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()


async def carry(application: socket.socket, bursts: int) -> int:
    """Send bursts, each when replies to the last have come; return how many replies came."""
    replies = 0
    for number in range(bursts):
        for index in range(BURST):
            application.send((number * BURST + index).to_bytes(4) * (SIZE // 4))
        expected = replies + BURST
        with anyio.move_on_after(0.5):  # any of them may be lost
            while replies < expected:
                await anyio.wait_readable(application)
                try:
                    while True:
                        application.recv(65_535)
                        replies += 1
                except BlockingIOError:
                    continue
    return replies


@pytest.mark.skipif(not _STATM.exists(), reason="memory is read from /proc")
async def test_many_batches_leave_memory_as_it_was_after_the_first_ones() -> None:
    async with Stand() as stand:
        client = await stand.connect(2)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
            application.setblocking(False)
            application.connect(client.listen)
            await carry(application, WARM_UP)
            before = resident()
            replies = await carry(application, MORE)
            assert replies > 0.95 * MORE * BURST
            assert resident() - before < TOLERANCE
