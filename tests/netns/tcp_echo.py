"""A TCP echo and a client that checks what comes back: run on the machines of a test.

`tcp_echo.py serve ADDRESS PORT` echoes every connection until it is ended; it says `listening`.
`tcp_echo.py check ADDRESS PORT BYTES` sends that many random bytes while it reads what comes back,
and ends with 0 only when all of it came back as it was sent.
"""

import random
import socket
import socketserver
import sys
import threading

CHUNK = 65_536
STALLED = 20.0


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while chunk := self.request.recv(CHUNK):
            self.request.sendall(chunk)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def serve(address: tuple[str, int]) -> None:
    with Server(address, Echo) as server:
        say("listening")
        server.serve_forever()


def check(address: tuple[str, int], size: int) -> None:
    sent = random.randbytes(size)
    with socket.create_connection(address, timeout=STALLED) as connection:

        def send() -> None:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received = bytearray()
        while chunk := connection.recv(CHUNK):
            received += chunk
        sender.join()
    if received != sent:
        sys.exit(f"sent {size} bytes, {len(received)} came back, not the same")
    say(f"{size} bytes came back as they were sent")


if __name__ == "__main__":
    what, host, port, *rest = sys.argv[1:]
    if what == "serve":
        serve((host, int(port)))
    else:
        check((host, int(port)), int(rest[0]))
