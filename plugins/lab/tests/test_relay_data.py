"""What the relay's machine does with data: who may send to whom, in which wrapping."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnlane.api import RelayTransport, Secret
from turnlane.proto.channel_data import encode
from turnlane.proto.stun import MessageClass, Method, build, parse_untrusted
from turnlane_lab.config import RelayConfig
from turnlane_lab.relay_machine import RelayMachine

PEER = ("203.0.113.5", 7000)
OTHER_PORT = ("203.0.113.5", 7001)
STRANGER = ("203.0.113.6", 7000)
ON = 0x4001


@pytest.fixture
def talk(dialogue):
    return dialogue(permission_lifetime=50, channel_lifetime=80)


@pytest.fixture
def client(talk):
    client = talk.client()
    client.allocate()
    return client


def test_an_indication_reaches_a_permitted_peer(talk, client):
    client.permit(PEER)
    assert client.exchange(client.indication(PEER, b"hello")) == []
    assert talk.to_peers == [(b"hello", PEER)]
    assert talk.counted["packets_up"] == 1
    assert talk.counted["bytes_up"] == 5


def test_a_permission_is_for_an_ip_address_with_all_its_ports(talk, client):
    client.permit(PEER)
    client.exchange(client.indication(OTHER_PORT, b"hello"))
    assert talk.to_peers == [(b"hello", OTHER_PORT)]


def test_an_indication_without_a_permission_is_dropped(talk, client):
    client.permit(PEER)
    client.exchange(client.indication(STRANGER, b"hello"))
    assert talk.to_peers == []
    assert talk.counted["dropped"] == 1


def test_an_empty_payload_is_a_payload(talk, client):
    client.bind(ON, PEER)
    client.exchange(client.indication(PEER, b""))
    client.exchange(encode(ON, b"", padded=False))
    assert talk.to_peers == [(b"", PEER)] * 2


def test_an_indication_that_must_not_be_fragmented_is_ignored(talk, client):
    client.permit(PEER)
    client.exchange(client.indication(PEER, b"hello", **{"DONT-FRAGMENT": None}))
    assert talk.to_peers == []
    assert talk.counted["malformed"] == 1


@pytest.mark.parametrize("attributes", [{}, {"DATA": b"x"}, {"XOR-PEER-ADDRESS": PEER}])
def test_an_indication_names_its_peer_and_its_data(talk, client, attributes):
    client.permit(PEER)
    client.exchange(build(Method.SEND, MessageClass.INDICATION, bytes(12), attributes))
    assert talk.to_peers == []
    assert talk.counted["malformed"] == 1


def test_a_channel_carries_data_both_ways(talk, client):
    client.bind(ON, PEER)
    client.exchange(encode(ON, b"hello", padded=False))
    assert talk.to_peers == [(b"hello", PEER)]
    assert talk.from_peer(b"world", PEER) == encode(ON, b"world", padded=False)
    assert talk.counted["packets_up"] == talk.counted["packets_down"] == 1
    assert talk.counted["bytes_up"] == talk.counted["bytes_down"] == 5


def test_without_a_channel_a_peer_reaches_the_client_in_an_indication(talk, client):
    client.permit(PEER)
    message = parse_untrusted(talk.from_peer(b"world", PEER))
    assert (message.method, message.message_class) == (Method.DATA, MessageClass.INDICATION)
    assert message.attributes["XOR-PEER-ADDRESS"] == PEER
    assert message.attributes["DATA"] == b"world"


def test_another_port_of_a_channels_peer_comes_in_an_indication(talk, client):
    client.bind(ON, PEER)
    message = parse_untrusted(talk.from_peer(b"world", OTHER_PORT))
    assert message.attributes["XOR-PEER-ADDRESS"] == OTHER_PORT


def test_a_stranger_does_not_reach_the_client(talk, client):
    client.bind(ON, PEER)
    assert talk.from_peer(b"world", STRANGER) is None
    assert talk.counted["dropped"] == 1


def test_on_a_stream_channel_data_is_padded(talk):
    client = talk.client(transport=RelayTransport.TCP)
    client.allocate()
    client.bind(ON, PEER)
    assert talk.from_peer(b"world", PEER) == encode(ON, b"world", padded=True)
    assert len(talk.from_peer(b"world", PEER)) == 12


def test_a_permission_ends_unless_it_is_refreshed(talk, client):
    client.permit(PEER)
    talk.pass_time(49.9)
    assert talk.from_peer(b"1", PEER) is not None
    client.permit(PEER)
    talk.pass_time(49.9)
    assert talk.from_peer(b"2", PEER) is not None
    talk.pass_time(0.1)
    assert talk.from_peer(b"3", PEER) is None
    client.exchange(client.indication(PEER, b"4"))
    assert talk.to_peers == []


def test_a_channel_does_not_keep_its_permission_alive(talk, client):
    client.bind(ON, PEER)
    talk.pass_time(60)
    assert talk.from_peer(b"down", PEER) is None
    client.exchange(encode(ON, b"up", padded=False))
    assert talk.to_peers == [(b"up", PEER)]


def test_a_rebound_channel_brings_its_permission_back(talk, client):
    client.bind(ON, PEER)
    talk.pass_time(60)
    client.bind(ON, PEER)
    assert talk.from_peer(b"down", PEER) == encode(ON, b"down", padded=False)


def test_an_expired_channel_carries_nothing_and_indications_take_over(talk, client):
    client.bind(ON, PEER)
    talk.pass_time(40)
    client.permit(PEER)
    talk.pass_time(40)
    client.exchange(encode(ON, b"up", padded=False))
    assert talk.to_peers == []
    assert parse_untrusted(talk.from_peer(b"down", PEER)).attributes["DATA"] == b"down"


def test_an_expired_allocation_carries_nothing_even_before_the_timer_is_handled(dialogue):
    talk = dialogue(default_lifetime=10)
    client = talk.client()
    client.allocate(LIFETIME=10)
    client.bind(ON, PEER)
    talk.now += 10
    client.exchange(encode(ON, b"up", padded=False))
    client.exchange(client.indication(PEER, b"up"))
    assert talk.to_peers == []
    assert talk.from_peer(b"down", PEER) is None


def test_data_without_an_allocation_is_dropped(dialogue):
    talk = dialogue()
    client = talk.client()
    client.exchange(encode(ON, b"up", padded=False))
    client.exchange(client.indication(PEER, b"up"))
    assert talk.to_peers == []
    assert talk.counted == {"dropped": 2}


def test_one_clients_channel_is_not_anothers(talk, client):
    client.bind(ON, PEER)
    other = talk.client(2000, "bob", "marlin")
    other.allocate()
    other.exchange(encode(ON, b"up", padded=False))
    assert talk.to_peers == []


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x00",
        b"\x40\x01\x00",
        b"\x40\x01\x00\x02x",
        b"\x50\x00\x00\x00",
        b"\xff" * 40,
        bytes(20),
        build(Method.ALLOCATE, MessageClass.RESPONSE, bytes(12), {}),
        build(Method.DATA, MessageClass.INDICATION, bytes(12), {}),
    ],
)
def test_what_makes_no_sense_is_counted_and_ignored(talk, client, message):
    assert client.exchange(message) == []
    assert talk.counted["malformed"] == 1


@pytest.mark.parametrize(
    ("method", "message_class"),
    [(Method.DATA, MessageClass.INDICATION), (Method.SEND, MessageClass.RESPONSE)],
)
def test_only_a_send_indication_carries_data_to_a_peer(talk, client, method, message_class):
    client.permit(PEER)
    attributes = {"XOR-PEER-ADDRESS": PEER, "DATA": b"x"}
    assert client.exchange(build(method, message_class, bytes(12), attributes)) == []
    assert talk.to_peers == []


def test_methods_of_indications_are_not_requests(talk, client):
    answer = client.tell(build(Method.SEND, MessageClass.REQUEST, bytes(12), {}))
    assert answer.error[0] == 400


ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "USERNAME": st.text(max_size=20),
        "REALM": st.text(max_size=20),
        "NONCE": st.binary(max_size=80),
        "LIFETIME": st.integers(0, 2**32 - 1),
        "CHANNEL-NUMBER": st.integers(0, 0xFFFF),
        "XOR-PEER-ADDRESS": st.sampled_from([PEER, STRANGER, ("::1", 9)]),
        "REQUESTED-TRANSPORT": st.integers(0, 2**32 - 1),
        "DATA": st.binary(max_size=40),
        "EVEN-PORT": st.booleans(),
    },
)
REQUESTS = st.builds(
    lambda method, kind, id_, attributes, key: build(method, kind, id_, attributes, key=key),
    st.sampled_from(Method),
    st.sampled_from(MessageClass),
    st.binary(min_size=12, max_size=12),
    ATTRIBUTES,
    st.none() | st.binary(min_size=16, max_size=16),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(REQUESTS | st.binary(max_size=80), max_size=5))
def test_whatever_strangers_send_they_get_at_most_one_answer_and_no_memory(dialogue, messages):
    talk = dialogue()
    five_tuple = talk.five_tuple()
    for message in messages:
        answers = talk.receive(five_tuple, message)
        assert len(answers) <= 1
    assert not talk.opened
    assert not talk.to_peers
    assert not talk.machine._answers


def test_secrets_are_not_in_the_machines_words():
    config = RelayConfig(users={"ada": Secret("swordfish")}, rest_secret=Secret("marlin"))
    machine = RelayMachine(config, random_bytes=bytes, unix_time=lambda: 0.0)
    told = repr(config) + repr(machine)
    assert "swordfish" not in told
    assert "marlin" not in told
