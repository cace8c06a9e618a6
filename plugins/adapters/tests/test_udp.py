"""The udp adapters: what they ask of their context, and nothing else."""

import pkgutil
from typing import Any

import pytest

from turnlane.api import AdapterError, Direction, Stage, TrafficClass
from turnlane_adapters import plugin
from turnlane_adapters.udp import UdpEgress, UdpIngress

pytestmark = pytest.mark.anyio


async def test_the_ingress_binds_its_address(context: Any) -> None:
    socket = await UdpIngress(context, "[::1]:9000", None).open()

    assert context.calls == [("bind_udp", "::1", 9000)]
    assert socket is context.opened[0]
    assert [each.closed for each in context.opened] == [False]


async def test_the_ingress_lets_the_system_choose_a_port(context: Any) -> None:
    await UdpIngress(context, "127.0.0.1:0").open()

    assert context.calls == [("bind_udp", "127.0.0.1", 0)]


async def test_an_ingress_with_a_malformed_address_binds_nothing(context: Any) -> None:
    with pytest.raises(AdapterError) as caught:
        await UdpIngress(context, "9000").open()

    assert caught.value.stage is Stage.LOCAL_BIND
    assert context.calls == []


async def test_the_egress_connects_a_socket_for_each_flow(context: Any) -> None:
    egress = UdpEgress(context, "upstream.example:51820", None)

    first, second = await egress.connect(7), await egress.connect(8)

    assert context.calls == [
        ("connect_udp", "upstream.example", 51820, 7),
        ("connect_udp", "upstream.example", 51820, 8),
    ]
    assert first is not second
    assert not any(socket.closed for socket in context.opened)


async def test_the_egress_is_tried_once_and_leaves_nothing_open(context: Any) -> None:
    await UdpEgress(context, "upstream.example:51820").prepare()

    assert context.calls == [("connect_udp", "upstream.example", 51820, 0)]
    assert [socket.closed for socket in context.opened] == [True]


async def test_an_upstream_that_cannot_be_reached_is_told_before_the_server_is_ready(
    refusing_context: Any,
) -> None:
    with pytest.raises(AdapterError, match="no_route"):
        await UdpEgress(refusing_context, "upstream.example:51820").prepare()


@pytest.mark.parametrize("address", ["upstream.example", "upstream.example:0"])
async def test_an_egress_with_a_malformed_address_connects_nothing(
    context: Any, address: str
) -> None:
    egress = UdpEgress(context, address)

    for attempt in (egress.prepare(), egress.connect(1)):
        with pytest.raises(AdapterError) as caught:
            await attempt
        assert caught.value.stage is Stage.UPSTREAM_DIAL
    assert context.calls == []


def test_the_plugin_offers_udp_at_both_ends_as_a_pair() -> None:
    (ingress,) = plugin.turnlane_ingress_adapters()
    (egress,) = plugin.turnlane_egress_adapters()

    assert (ingress.id, ingress.direction) == ("udp", Direction.INGRESS)
    assert (egress.id, egress.direction) == ("udp", Direction.EGRESS)
    assert ingress.traffic is egress.traffic is TrafficClass.DATAGRAM
    assert egress.id in ingress.pairs_with
    assert ingress.id in egress.pairs_with
    assert not egress.dials_client_choice
    assert pkgutil.resolve_name(ingress.implementation) is UdpIngress
    assert pkgutil.resolve_name(egress.implementation) is UdpEgress
