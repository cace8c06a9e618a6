"""The udp adapters do what the contract asks of both ends."""

from turnlane.api import Direction
from turnlane.testing.adapters import AdapterCase, AdapterConformance
from turnlane_adapters import plugin

BAD_ADDRESSES = ("", "9000", "localhost", "::1:9000", "127.0.0.1:65536", "[::1:9000")


class TestUdpIngress(AdapterConformance):
    case = AdapterCase(
        plugin=plugin,
        direction=Direction.INGRESS,
        adapter="udp",
        address="127.0.0.1:0",
        bad_addresses=(*BAD_ADDRESSES, "192.0.2.1:9000"),
    )


class TestUdpEgress(AdapterConformance):
    case = AdapterCase(
        plugin=plugin,
        direction=Direction.EGRESS,
        adapter="udp",
        address="127.0.0.1:{port}",
        bad_addresses=(*BAD_ADDRESSES, "127.0.0.1:0"),
    )
