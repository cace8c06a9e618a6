"""What a demo found: as data with stable fields, and as text for people."""

from collections.abc import Iterable, Iterator
from typing import Literal, Self, TextIO

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from turnlane.api import RelayTransport, Stage, TurnlaneError


class StageTime(msgspec.Struct, frozen=True):
    """How long a stage took, in milliseconds; of a client the first lane to enter it counts."""

    runtime: Literal["server", "client"]
    stage: Stage
    ms: float


class LaneReport(msgspec.Struct, frozen=True):
    """A lane that carried traffic, and the address that its relay gave it."""

    lane: int
    relayed: str


class Datagrams(msgspec.Struct, frozen=True):
    """The traffic, counted in datagrams at three places, and who sent it.

    `sent` into and `returned` from the client's local end by `peers` local sockets, `echoed` by
    the upstream, which saw them come from `sources` addresses. Each has `bytes` of payload.
    `unexpected` ones came to a socket that had not sent them, or a second time.
    """

    bytes: int
    peers: int
    sent: int
    echoed: int
    returned: int
    unexpected: int
    sources: int


class RoundTrip(msgspec.Struct, frozen=True):
    """Percentiles of the time from sending a datagram to having it back, in milliseconds."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Self | None:
        """Take the percentiles (nearest rank) of round trips; None where there are none."""
        ordered = sorted(seconds)
        if not ordered:
            return None
        return cls(*(_ms(ordered[-(-len(ordered) * percent // 100) - 1]) for percent in (50, 99)))


class Failure(msgspec.Struct, frozen=True):
    """What went wrong, with the stage and the code that the command line tells too."""

    stage: Stage
    code: str
    message: str
    advice: str

    @classmethod
    def of(cls, error: TurnlaneError) -> Self:
        """Tell an error as data."""
        return cls(error.stage, error.code, error.message, error.advice)


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one demo. `allocations_left` is None where it did not come that far."""

    result: Literal["ok", "failed"]
    transport: RelayTransport
    connections: int
    seconds: float
    stages: tuple[StageTime, ...]
    lanes: tuple[LaneReport, ...]
    datagrams: Datagrams
    round_trip: RoundTrip | None
    allocations_left: int | None
    failure: Failure | None

    def json(self) -> str:
        """Return the report as a JSON document, indented."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    def show(self, stream: TextIO) -> None:
        """Write the report for people."""
        console = Console(file=stream, highlight=False)
        console.print(self._stages())
        console.print()
        for name, value in self._facts():
            console.print(f"{name:<13}{value}", soft_wrap=True)

    def _stages(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column("RUNTIME")
        table.add_column("STAGE")
        table.add_column("TIME", justify="right")
        for each in self.stages:
            table.add_row(each.runtime, each.stage, f"{each.ms:.1f} ms")
        return table

    def _facts(self) -> Iterator[tuple[str, str]]:
        for lane in self.lanes:
            yield f"lane {lane.lane}", f"relayed by {lane.relayed}, TURN over {self.transport}"
        counted = self.datagrams
        if counted.sent:
            peers, sources = _count(counted.peers, "socket"), _count(counted.sources, "socket")
            yield "local end", f"{peers}, which the upstream saw as {sources}"
            ways = f"{counted.sent} sent, {counted.echoed} echoed, {counted.returned} returned"
            yield "datagrams", f"{ways}, of {counted.bytes} bytes"
        if self.round_trip is not None:
            trip = self.round_trip
            yield "round trip", f"p50 {trip.p50_ms:.2f} ms, p99 {trip.p99_ms:.2f} ms"
        if self.allocations_left is not None:
            yield "left behind", _count(self.allocations_left, "allocation")
        if self.failure is None:
            yield "result", f"[green]ok[/green], in {self.seconds:.1f} s"
        else:
            yield "result", f"[red]failed[/red] at {self.failure.stage}: {self.failure.code}"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
