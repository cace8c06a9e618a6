"""A flight: the handshake messages that one side sends in a row, as datagrams (RFC 6347, 4.2.4)."""

from turnlane.proto.dtls_records import MAX_SEQUENCE, Record, encode_record


class FlightPacker:
    """Numbers the plaintext records of one side and packs them into datagrams.

    A number is used once (RFC 6347, section 4.1), and receivers hold to that: one that could make
    no use of a ChangeCipherSpec because it overtook its flight drops every copy of it too. So a
    plaintext record gets a new number each time it is sent. Numbers of encrypted records are
    authenticated and stay.
    """

    def __init__(self, mtu: int) -> None:
        self._mtu = mtu
        self._next_sequence = 0

    def take_sequence(self) -> int:
        """Return the number for the next plaintext record."""
        sequence = self._next_sequence
        self._next_sequence = (sequence + 1) & MAX_SEQUENCE
        return sequence

    def start_at(self, sequence: int) -> None:
        """Continue from `sequence`: a server's numbers follow its client's (RFC 6347, 4.2.1)."""
        self._next_sequence = sequence

    def pack(self, records: list[Record]) -> list[bytes]:
        """Return the records as few datagrams of at most `mtu` bytes each, in their order."""
        datagrams: list[bytes] = []
        datagram = bytearray()
        for record in records:
            data = record.data
            if record.epoch == 0:
                data = encode_record(
                    record.content_type,
                    0,
                    self.take_sequence(),
                    record.body,
                    version=data[1:3],
                )
            if datagram and len(datagram) + len(data) > self._mtu:
                datagrams.append(bytes(datagram))
                datagram.clear()
            datagram += data
        if datagram:
            datagrams.append(bytes(datagram))
        return datagrams
