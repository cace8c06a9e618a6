"""A UDP echo, and a client that says which sizes of datagrams come back.

udp_echo.py serve HOST PORT
udp_echo.py ask HOST PORT SIZE...
"""

import socket
import sys

ATTEMPTS = 3
TIMEOUT = 1.0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def serve(host: str, port: int) -> None:
    """Answer for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((host, port))
        say("listening")
        while True:
            data, source = opened.recvfrom(65_535)
            opened.sendto(data, source)


def ask(host: str, port: int, sizes: list[int]) -> None:
    """Print the sizes that came back whole, in a line."""
    came_back = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect((host, port))
        opened.settimeout(TIMEOUT)
        for size in sizes:
            for attempt in range(ATTEMPTS):
                question = (size * ATTEMPTS + attempt).to_bytes(4) * (size // 4 + 1)
                opened.send(question[:size])
                try:
                    answer = opened.recv(65_535)
                except TimeoutError:
                    continue
                if answer == question[:size]:
                    came_back.append(size)
                    break
    say(" ".join(map(str, came_back)))


if __name__ == "__main__":
    action, host, port, *sizes = sys.argv[1:]
    if action == "serve":
        serve(host, int(port))
    else:
        ask(host, int(port), [int(size) for size in sizes])
