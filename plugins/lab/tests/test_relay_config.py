"""The settings of a relay: what they refuse, what they tell."""

import pytest

from turnlane.api import Secret
from turnlane_lab.config import RelayConfig

USERS = {"ada": Secret("swordfish")}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"users": {}}, "users or rest_secret"),
        ({"hosts": ()}, "hosts"),
        ({"hosts": ("localhost",)}, "hosts: 'localhost'"),
        ({"hosts": ("127.0.0.1", "127.0.0.2")}, "hosts"),
        ({"relay_hosts": ("::1", "::2")}, "relay_hosts"),
        ({"advertise": ("relay.example",)}, "advertise"),
        ({"udp_port": 65_536}, "udp_port"),
        ({"tcp_port": -1}, "tcp_port"),
        ({"default_lifetime": 0}, "default_lifetime"),
        ({"permission_lifetime": 0}, "permission_lifetime"),
        ({"channel_lifetime": -1.0}, "channel_lifetime"),
        ({"nonce_lifetime": 0}, "nonce_lifetime"),
        ({"max_lifetime": 599}, "max_lifetime"),
        ({"max_allocations": -1}, "max_allocations"),
        ({"max_connections": -1}, "max_connections"),
        ({"denied_peers": ("10.0.0.1/8",)}, "denied_peers"),
        ({"denied_peers": ("everyone",)}, "denied_peers: 'everyone'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        RelayConfig(**{"users": USERS, **settings})


def test_it_relays_from_where_it_listens_unless_told_otherwise():
    assert RelayConfig(users=USERS).relayed_hosts == {4: "127.0.0.1"}
    config = RelayConfig(users=USERS, hosts=("127.0.0.1", "::1"))
    assert config.relayed_hosts == {4: "127.0.0.1", 6: "::1"}
    config = RelayConfig(users=USERS, relay_hosts=("::1",))
    assert config.relayed_hosts == {6: "::1"}


def test_an_advertised_address_is_told_for_its_family_only():
    config = RelayConfig(users=USERS, advertise=("192.0.2.1",))
    assert config.told(("127.0.0.1", 5)) == ("192.0.2.1", 5)
    assert config.told(("::1", 5)) == ("::1", 5)


def test_no_secret_is_in_its_words():
    told = repr(RelayConfig(users=USERS, rest_secret=Secret("north")))
    assert "swordfish" not in told
    assert "north" not in told
