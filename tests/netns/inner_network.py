"""A network inside the tunnel, and TCP over it: run on the machines of a test.

`inner_network.py near ADDRESS HOST PORT` makes a TUN device with ADDRESS and sends what the system
sends there to HOST:PORT, from a socket of its own for each TCP connection: a flow of the tunnel.
`inner_network.py far ADDRESS HOST PORT` is the other end, which listens on HOST:PORT.

`inner_network.py serve ADDRESS PORT` accepts connections and does as each of them asks.
`inner_network.py up|down ADDRESS PORT FLOWS WARMUP SECONDS` lets that many TCP connections send all
they can that way. It tells, in JSON, the bytes per second that each of them brought in each of
three times SECONDS that begin WARMUP seconds after the start. Congestion control is CUBIC.
"""

import fcntl
import itertools
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

MTU = 1200
FLOWS = 64
WINDOWS = 3
FIRST_PORT = 20_000
CHUNK = 65_536
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: what is not sent when a connection is closed is nobody's."""

# linux/tcp.h: where these fields of tcp_info are.
BYTES_ACKED = 120
BYTES_RECEIVED = 128

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def open_tun(address: str) -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"inner", IFF_TUN_NO_PI))
    for setting in (
        ("address", "add", f"{address}/24", "dev", "inner"),
        ("link", "set", "inner", "up", "mtu", str(MTU)),
    ):
        subprocess.run(("ip", *setting), check=True)
    return tun


def near(address: str, peer: tuple[str, int]) -> None:
    tun = open_tun(address)
    poll = select.poll()
    poll.register(tun, select.POLLIN)
    sockets: list[socket.socket] = []
    for _ in range(FLOWS):
        opened = socket.socket(type=socket.SOCK_DGRAM)
        opened.connect(peer)
        poll.register(opened, select.POLLIN)
        sockets.append(opened)
    by_number = {opened.fileno(): opened for opened in sockets}
    say("up")
    while True:
        for descriptor, _ in poll.poll():
            try:
                if descriptor != tun:
                    os.write(tun, by_number[descriptor].recv(CHUNK))
                    continue
                packet = os.read(tun, CHUNK)
                if packet[0] == 0x45 and packet[9] == socket.IPPROTO_TCP:
                    sockets[int.from_bytes(packet[20:22]) % FLOWS].send(packet)
            except ConnectionRefusedError:
                pass


def far(address: str, listen: tuple[str, int]) -> None:
    tun = open_tun(address)
    listener = socket.socket(type=socket.SOCK_DGRAM)
    listener.bind(listen)
    sources: dict[bytes, tuple[str, int]] = {}
    poll = select.poll()
    poll.register(tun, select.POLLIN)
    poll.register(listener, select.POLLIN)
    say("up")
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == tun:
                packet = os.read(tun, CHUNK)
                source = sources.get(packet[22:24])
                if source is not None:
                    listener.sendto(packet, source)
            else:
                packet, source = listener.recvfrom(CHUNK)
                sources[packet[20:22]] = source
                os.write(tun, packet)


def send(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    data = bytes(CHUNK)
    try:
        while True:
            connection.sendall(data)
    except OSError:
        return


def drain(connection: socket.socket) -> None:
    while connection.recv(CHUNK):
        pass


def answer(connection: socket.socket) -> None:
    if connection.recv(1) == b"d":
        send(connection)
    else:
        drain(connection)


def start(work: Callable[[socket.socket], None], connection: socket.socket) -> None:
    threading.Thread(target=work, args=(connection,), daemon=True).start()


def serve(address: tuple[str, int]) -> None:
    listener = socket.create_server(address, backlog=FLOWS)
    say("listening")
    while True:
        start(answer, listener.accept()[0])


def carried(connection: socket.socket, offset: int) -> int:
    """Return what the kernel has counted: bytes that were acknowledged, or that came in order."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(info[offset : offset + 8], sys.byteorder)


def counters(connections: list[socket.socket], offset: int) -> tuple[float, list[int]]:
    return time.monotonic(), [carried(connection, offset) for connection in connections]


def measure(way: str, address: tuple[str, int], flows: int, warm_up: float, seconds: float) -> None:
    offset = BYTES_ACKED if way == "up" else BYTES_RECEIVED
    connections = []
    # Ports of its own for each run: those of one before may linger.
    first = FIRST_PORT + FLOWS * (os.getpid() % 512)
    for number in range(flows):
        local = ("", first + number)
        connection = socket.create_connection(address, source_address=local)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        connections.append(connection)
    for connection in connections:
        connection.send(way[:1].encode())
        start(send if way == "up" else drain, connection)
    time.sleep(warm_up)
    moments = []
    for _ in range(WINDOWS):
        moments.append(counters(connections, offset))
        time.sleep(seconds)
    moments.append(counters(connections, offset))
    windows = []
    for (began, before), (ended, after) in itertools.pairwise(moments):
        pairs = zip(before, after, strict=True)
        windows.append([(now - then) / (ended - began) for then, now in pairs])
    say(json.dumps(windows))
    # The threads go with the process, and nobody waits for what they have not sent.
    os._exit(0)


if __name__ == "__main__":
    what, host, *rest = sys.argv[1:]
    if what == "near":
        near(host, (rest[0], int(rest[1])))
    elif what == "far":
        far(host, (rest[0], int(rest[1])))
    elif what == "serve":
        serve((host, int(rest[0])))
    else:
        port, flows, warm_up, seconds = rest
        measure(what, (host, int(port)), int(flows), float(warm_up), float(seconds))
