"""What this plugin offers; the classes behind it are imported when they are first used."""

from turnlane.api import AdapterDescriptor, Direction, TrafficClass, hookimpl


@hookimpl
def turnlane_ingress_adapters() -> list[AdapterDescriptor]:
    """Offer the ingress `udp`."""
    return [
        AdapterDescriptor(
            id="udp",
            title="UDP",
            summary="Takes datagrams on a local UDP address; every sender is a flow of its own",
            direction=Direction.INGRESS,
            traffic=TrafficClass.DATAGRAM,
            implementation="turnlane_adapters.udp:UdpIngress",
            pairs_with=("udp",),
        )
    ]


@hookimpl
def turnlane_egress_adapters() -> list[AdapterDescriptor]:
    """Offer the egress `udp`."""
    return [
        AdapterDescriptor(
            id="udp",
            title="UDP",
            summary="Sends datagrams to one UDP upstream, from a socket of its own for each flow",
            direction=Direction.EGRESS,
            traffic=TrafficClass.DATAGRAM,
            implementation="turnlane_adapters.udp:UdpEgress",
            pairs_with=("udp",),
        )
    ]
