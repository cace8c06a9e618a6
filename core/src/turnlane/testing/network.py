"""A seeded network on a virtual clock: wires sans-IO machines together in microseconds.

The network loses, duplicates, delays and so reorders datagrams as its seed says; the same seed
gives the same run. Time is a number that `run` moves to the next thing that happens.
"""

import heapq
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

Place = Hashable
"""Names an endpoint of the network; what machines call an address."""


@dataclass(frozen=True)
class Conditions:
    """What a path does to datagrams: probabilities from 0 to 1, delays in seconds."""

    loss: float = 0.0
    duplication: float = 0.0
    min_delay: float = 0.010
    max_delay: float = 0.010


@dataclass(frozen=True)
class Delivery:
    """One datagram that arrives."""

    data: bytes
    source: Place
    destination: Place


class Endpoint(Protocol):
    """A machine with its place in the network."""

    @property
    def place(self) -> Place:
        """Where this endpoint is reached."""
        ...

    def receive(self, data: bytes, source: Place, now: float) -> None:
        """Take one datagram."""
        ...

    def outgoing(self, now: float) -> Iterable[tuple[bytes, Place]]:
        """Give up what is to be sent now, with its destination."""
        ...

    def get_timer(self) -> float | None:
        """Say when `handle_timer` wants to be called, or None."""
        ...

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`."""
        ...


class SimulatedNetwork:
    """Carries datagrams between endpoints under seeded `Conditions`.

    `drop` may be set to a predicate over deliveries: what it says True to is lost, beyond chance.
    """

    def __init__(self, seed: int, conditions: Conditions | None = None) -> None:
        self.conditions = conditions or Conditions()
        self.drop: Callable[[Delivery], bool] | None = None
        self.sent = 0
        self.lost = 0
        self._random = Random(seed)  # noqa: S311 - reproducible on purpose
        self._queue: list[tuple[float, int, Delivery]] = []
        self._order = 0

    def send(self, data: bytes, source: Place, destination: Place, now: float) -> None:
        """Put one datagram on its way."""
        self.sent += 1
        delivery = Delivery(bytes(data), source, destination)
        conditions = self.conditions
        lost = self._random.random() < conditions.loss
        if lost or (self.drop is not None and self.drop(delivery)):
            self.lost += 1
            return
        copies = 2 if self._random.random() < conditions.duplication else 1
        for _ in range(copies):
            delay = self._random.uniform(conditions.min_delay, conditions.max_delay)
            self._order += 1
            heapq.heappush(self._queue, (now + delay, self._order, delivery))

    def next_delivery(self) -> float | None:
        """Say when the next datagram arrives, or None when nothing is under way."""
        return self._queue[0][0] if self._queue else None

    def due(self, now: float) -> list[Delivery]:
        """Give up everything that has arrived by `now`, in order of arrival."""
        arrived = []
        while self._queue and self._queue[0][0] <= now:
            arrived.append(heapq.heappop(self._queue)[2])
        return arrived


def run(
    network: SimulatedNetwork,
    endpoints: Sequence[Endpoint],
    *,
    until: Callable[[], bool],
    now: float = 0.0,
    limit: float = 120.0,
) -> float:
    """Let time pass until `until()` holds; return the time then.

    Raises `TimeoutError` when `limit` seconds of virtual time pass first, or when nothing can
    happen any more.
    """
    deadline = now + limit
    by_place = {endpoint.place: endpoint for endpoint in endpoints}
    while True:
        for endpoint in endpoints:
            for data, destination in endpoint.outgoing(now):
                network.send(data, endpoint.place, destination, now)
        if until():
            return now
        moments = [endpoint.get_timer() for endpoint in endpoints] + [network.next_delivery()]
        upcoming = [moment for moment in moments if moment is not None]
        if not upcoming:
            raise TimeoutError(f"nothing is left to happen at {now:.3f} s")
        now = max(now, min(upcoming))
        if now > deadline:
            raise TimeoutError(f"not reached within {limit:.0f} s of virtual time")
        for delivery in network.due(now):
            receiver = by_place.get(delivery.destination)
            if receiver is not None:
                receiver.receive(delivery.data, delivery.source, now)
        for endpoint in endpoints:
            timer = endpoint.get_timer()
            if timer is not None and timer <= now:
                endpoint.handle_timer(now)
