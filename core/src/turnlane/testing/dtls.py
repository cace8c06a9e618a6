"""Both ends of DTLS as endpoints of the simulated network, keeping what happened to them."""

from collections.abc import Iterable
from typing import cast

from turnlane.net.dtls import DtlsAssociation
from turnlane.net.dtls_server import Accepted, Address, DtlsServer, ServerEvent
from turnlane.net.dtls_state import DtlsEvent
from turnlane.testing.network import Place


class ClientEndpoint:
    """A client association at `place` that talks to `server`."""

    def __init__(self, association: DtlsAssociation, place: Address, server: Address) -> None:
        self.association = association
        self.events: list[DtlsEvent] = []
        self.payloads: list[bytes] = []
        self._place = place
        self._server = server

    @property
    def place(self) -> Place:
        """Where this endpoint is reached."""
        return self._place

    def receive(self, data: bytes, source: Place, now: float) -> None:
        """Take one datagram; those from elsewhere than the server are ignored."""
        if source == self._server:
            self.payloads += self.association.receive_datagram(data, now)
            self._collect()

    def outgoing(self, now: float) -> Iterable[tuple[bytes, Place]]:  # noqa: ARG002
        """Give up what is to be sent."""
        self._collect()
        return [(datagram, self._server) for datagram in self.association.datagrams_to_send()]

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due."""
        return self.association.get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self.association.handle_timer(now)
        self._collect()

    def _collect(self) -> None:
        while (event := self.association.next_event()) is not None:
            self.events.append(event)


class ServerEndpoint:
    """A listening server at `place`."""

    def __init__(self, server: DtlsServer, place: Address) -> None:
        self.server = server
        self.events: list[ServerEvent] = []
        self.payloads: list[tuple[Address, bytes]] = []
        self._place = place

    @property
    def place(self) -> Place:
        """Where this endpoint is reached."""
        return self._place

    @property
    def accepted(self) -> list[DtlsAssociation]:
        """Every association that was accepted so far, in order."""
        return [event.association for event in self.events if isinstance(event, Accepted)]

    def receive(self, data: bytes, source: Place, now: float) -> None:
        """Take one datagram."""
        address = cast(Address, source)
        payloads = self.server.receive_datagram(data, address, now)
        self._collect()
        self.payloads += [(address, payload) for payload in payloads]

    def outgoing(self, now: float) -> Iterable[tuple[bytes, Place]]:  # noqa: ARG002
        """Give up what is to be sent."""
        self._collect()
        return list(self.server.datagrams_to_send())

    def get_timer(self) -> float | None:
        """Say when `handle_timer` is due."""
        return self.server.get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self.server.handle_timer(now)
        self._collect()

    def _collect(self) -> None:
        while (event := self.server.next_event()) is not None:
            self.events.append(event)
