"""The arithmetic of a path."""

import pytest

from turnlane.net.dtls import CHACHA20_OVERHEAD, OVERHEAD
from turnlane.proto.path_mtu import (
    AES_GCM_RECORD,
    BASE_DATAGRAM,
    MIN_DATAGRAM,
    largest_datagram,
    udp_payload,
    wireguard_mtu,
)


@pytest.mark.parametrize(
    ("ipv6", "channel", "record", "framed", "fits"),
    [
        (False, True, OVERHEAD, True, 1427),
        (True, True, OVERHEAD, True, 1407),
        (False, True, CHACHA20_OVERHEAD, True, 1435),
        (False, False, OVERHEAD, True, 1431),
        (True, False, OVERHEAD, True, 1411),
        (False, True, OVERHEAD, False, 1431),
        (False, True, 0, False, 1468),
    ],
)
def test_what_fits_an_ethernet_is_known_to_the_byte(
    ipv6: bool, channel: bool, record: int, framed: bool, fits: int
) -> None:
    payload = udp_payload(1500, ipv6=ipv6)
    assert largest_datagram(payload, channel=channel, record=record, framed=framed) == fits


def test_the_sizes_a_search_counts_on_are_those_of_the_smallest_paths() -> None:
    assert AES_GCM_RECORD == OVERHEAD >= CHACHA20_OVERHEAD
    assert BASE_DATAGRAM == 1280 - 40 - 8 - 4 - 37 - 4
    assert MIN_DATAGRAM == 576 - 20 - 8 - 4 - 37 - 4


def test_wireguards_inner_mtu_leaves_room_for_its_own_header_and_tag_only() -> None:
    assert wireguard_mtu(1427) == 1395
