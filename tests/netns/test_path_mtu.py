"""Runs of datagrams on a path with a small MTU: a loopback device of another network namespace."""

import json
import subprocess
import sys

import pytest

from turnlane_tests.real import require

pytestmark = pytest.mark.real

MTU = 1400
FITTING = MTU - 28
"""Bytes of the largest datagram that is not fragmented: an IPv4 and a UDP header go before it."""

PROGRAM = f"""
import json, socket
from turnlane.api.batch import Batch
from turnlane.net import native
from turnlane.net.datagrams import FastDatagrams, datagrams_of

calls = []
send = native.SendVectors.send

def counted(vectors, descriptor, pieces, segment):
    calls.append(segment)
    return send(vectors, descriptor, pieces, segment)

far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
far.bind(("127.0.0.1", 0))
far.setblocking(False)
near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
near.connect(far.getsockname())
near.setblocking(False)
datagrams = datagrams_of(near)
native.SendVectors.send = counted
told = []
for size in ({FITTING}, {FITTING + 1}, {FITTING}):
    batch = Batch()
    for number in range(5):
        batch.append(bytes([number]) * size)
    calls.clear()
    taken = datagrams.send(batch, 0, 5)
    arrived = [far.recv(65_535) for _ in range(taken)]
    assert arrived == [bytes([number]) * size for number in range(5)]
    told.append([taken, datagrams.dropped, calls[:1]])
print(json.dumps([isinstance(datagrams, FastDatagrams), told]))
"""


def test_a_run_of_segments_above_the_mtu_arrives_singly_and_the_next_leaves_as_one() -> None:
    require("unshare", "ip")
    inner = f'ip link set lo mtu {MTU} up && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", inner, sys.executable, PROGRAM],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fast, told = json.loads(done.stdout)
    if not fast:
        pytest.skip("nothing is sent as runs here")
    assert told == [[5, 0, [FITTING]], [5, 0, [FITTING + 1]], [5, 0, [FITTING]]]
