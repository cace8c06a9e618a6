"""Allocations of the benchmark's own: what is left of the path when Turnlane is taken out of it."""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from turnlane.api import Secret, Stage, TransportError
from turnlane.proto.stun import Address, MessageClass, Method, build
from turnlane.proto.turn_client import (
    AllocationFailed,
    AllocationSucceeded,
    ChannelBound,
    Deallocated,
    PeerRefused,
    TurnClient,
    TurnEvent,
)

TIMEOUT = 10.0


def listens(relay: Address) -> bool:
    """Say whether a relay answers a Binding request within a moment (RFC 8489, section 3)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.05)
        try:
            asking.connect(relay)
            asking.send(build(Method.BINDING, MessageClass.REQUEST, os.urandom(12), {}))
            return bool(asking.recv(1500))
        except OSError:
            # A refusal comes at once; the caller asks again and shall not turn in circles.
            time.sleep(0.02)
            return False


@contextmanager
def channel(opened: socket.socket, link: Secret[str], peer: Address) -> Iterator[int]:
    """Connect a socket to the relay of a `generic-turn` link and bind a channel to `peer`.

    Yields the channel's number; the allocation, its permission and the channel are as long-lived as
    the relay grants, and given back at the end. Raises `TransportError`.
    """
    parts = urlsplit(link.reveal())
    opened.connect((parts.hostname or "", parts.port or 3478))
    client = TurnClient(
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        reliable=False,
        random_bytes=os.urandom,
    )
    client.start(time.monotonic())
    _until(client, opened, AllocationSucceeded)
    client.add_peer(*peer, time.monotonic())
    bound = _until(client, opened, ChannelBound)
    assert isinstance(bound, ChannelBound)
    try:
        yield bound.number
    finally:
        client.close(time.monotonic())
        _until(client, opened, Deallocated)


def _until(client: TurnClient, opened: socket.socket, kind: type[TurnEvent]) -> TurnEvent:
    """Drive a client until it tells of `kind`."""
    deadline = time.monotonic() + TIMEOUT
    while (now := time.monotonic()) < deadline:
        timer = client.get_timer()
        if timer is not None and timer <= now:
            client.handle_timer(now)
        for message in client.datagrams_to_send():
            opened.send(message)
        while (event := client.next_event()) is not None:
            if isinstance(event, kind):
                return event
            if isinstance(event, AllocationFailed | PeerRefused):
                raise _refused(event.reason)
        if select.select([opened], [], [], 0.05)[0]:
            client.receive_datagram(opened.recv(65_535), time.monotonic())
    raise _refused("the relay did not answer")


def _refused(reason: str) -> TransportError:
    return TransportError(
        Stage.TURN_ALLOCATE,
        "bench_relay_refused",
        f"an allocation for the benchmark itself: {reason}",
        "this is a fault of the benchmark: report it",
    )
