"""What the relay's machine answers to requests (RFC 8656, RFC 8489), on a virtual clock."""

import hashlib
import hmac

import pytest

from turnlane.api import RelayTransport, Secret
from turnlane.proto.stun import MessageClass, Method, build, parse_untrusted
from turnlane_lab.relay_machine import ANSWER_LIFETIME, MAX_ANSWERS
from turnlane_lab.users import rest_credentials

PEER = ("203.0.113.5", 7000)
OTHER = ("203.0.113.6", 7000)
UDP = 17 << 24


def code(answer):
    return None if answer.error is None else answer.error[0]


def altered(request, key, *, position, value):
    """Change one byte of a signed request and sign it again."""
    unsigned = bytearray(request[:-24])
    unsigned[position] = value
    mac = hmac.new(key, unsigned, hashlib.sha1).digest()
    return bytes(unsigned) + b"\x00\x08\x00\x14" + mac


def test_binding_tells_the_address_without_credentials(dialogue):
    client = dialogue().client(port=1234)
    answer = client.tell(client.request(Method.BINDING, signed=False))
    assert answer.message_class is MessageClass.RESPONSE
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == ("192.0.2.1", 1234)


def test_a_request_without_credentials_is_challenged_and_costs_nothing(dialogue):
    talk = dialogue()
    answer = talk.client().challenged()
    assert code(answer) == 401
    assert answer.attributes["REALM"] == "turnlane.lab"
    assert answer.attributes["NONCE"].startswith(b"obMatJos2AAAA")
    assert answer.signed is None
    assert talk.counted == {"challenges": 1, "errors": 1}
    assert not talk.opened


def test_an_allocation_is_granted_with_its_addresses_and_lifetime(dialogue):
    talk = dialogue()
    answer = talk.client(port=1234).allocate()
    assert answer.message_class is MessageClass.RESPONSE
    assert answer.attributes["XOR-RELAYED-ADDRESS"] == ("127.0.0.1", 50_001)
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == ("192.0.2.1", 1234)
    assert answer.attributes["LIFETIME"] == 600
    assert talk.counted["allocations_alive"] == talk.counted["allocations_made"] == 1


@pytest.mark.parametrize(("asked", "granted"), [(1, 600), (700, 700), (9999, 3600)])
def test_lifetimes_are_granted_between_the_default_and_the_most(dialogue, asked, granted):
    client = dialogue().client()
    assert client.allocate(LIFETIME=asked).attributes["LIFETIME"] == granted
    assert client.refresh(asked).attributes["LIFETIME"] == granted


def test_an_advertised_address_replaces_the_bound_one(dialogue):
    talk = dialogue(hosts=("0.0.0.0", "::"), advertise=("198.51.100.7",))
    assert talk.client(1).allocate().attributes["XOR-RELAYED-ADDRESS"] == ("198.51.100.7", 50_001)
    assert talk.opened[0].host == "0.0.0.0"
    answer = talk.client(2).allocate(**{"REQUESTED-ADDRESS-FAMILY": 2})
    assert answer.attributes["XOR-RELAYED-ADDRESS"] == ("::", 50_002)


def test_the_fingerprint_is_answered_in_kind(dialogue):
    client = dialogue().client()
    client.challenged()
    request = client.request(Method.ALLOCATE, {"REQUESTED-TRANSPORT": UDP}, fingerprint=True)
    assert "FINGERPRINT" in client.tell(request).attributes
    assert "FINGERPRINT" not in client.refresh(600).attributes


# Who may ask.


@pytest.mark.parametrize(("username", "password"), [("ada", "wrong"), ("eve", "swordfish")])
def test_wrong_credentials_are_challenged_again(dialogue, username, password):
    talk = dialogue()
    answer = talk.client(username=username, password=password).allocate()
    assert code(answer) == 401
    assert "NONCE" in answer.attributes
    assert talk.counted["unauthorized"] == 1
    assert not talk.opened


@pytest.mark.parametrize("left_out", ["USERNAME", "REALM", "NONCE"])
def test_a_signed_request_that_does_not_say_who_and_where_is_bad(dialogue, left_out):
    talk = dialogue()
    client = talk.client()
    client.challenged()
    attributes = {"USERNAME": "ada", "REALM": client.realm, "NONCE": client.nonce}
    del attributes[left_out]
    request = build(Method.ALLOCATE, MessageClass.REQUEST, bytes(12), attributes, key=client.key)
    assert code(client.tell(request)) == 400


def test_a_nonce_goes_stale_and_a_new_one_comes_with_the_refusal(dialogue):
    talk = dialogue(nonce_lifetime=30)
    client = talk.client()
    client.allocate()
    talk.pass_time(29.9)
    assert code(client.refresh(600)) is None
    talk.pass_time(0.2)
    answer = client.refresh(600)
    assert code(answer) == 438
    assert answer.attributes["REALM"] == client.realm
    assert answer.attributes["NONCE"] != client.nonce
    client.nonce = answer.attributes["NONCE"]
    assert code(client.refresh(600)) is None
    assert talk.counted["stale_nonces"] == 1


def test_a_nonce_is_good_only_for_the_client_it_was_made_for(dialogue):
    talk = dialogue()
    first, second = talk.client(1), talk.client(2)
    first.challenged()
    second.realm, second.nonce = first.realm, first.nonce
    assert code(second.allocate()) == 438


@pytest.mark.parametrize("nonce", [b"", b"obMatJos2AAAA", b"\xff" * 57, b"x" * 300])
def test_a_made_up_nonce_is_stale(dialogue, nonce):
    client = dialogue().client()
    client.challenged()
    client.nonce = nonce
    assert code(client.tell(client.request(Method.ALLOCATE, {"REQUESTED-TRANSPORT": UDP}))) == 438


def test_rest_credentials_pass_until_the_second_they_name(dialogue):
    secret = Secret("north")
    talk = dialogue(users={}, rest_secret=secret, default_lifetime=5)
    username, password = rest_credentials(secret, "ada", talk.unix_time + 10)
    assert username == "1800000010:ada"
    client = talk.client(username=username, password=password.reveal())
    assert code(client.allocate()) is None
    talk.pass_time(4.5)
    assert code(client.refresh(600)) is None
    talk.pass_time(5.5)
    assert code(client.refresh(600)) == 401


def test_the_password_of_rest_credentials_is_the_hmac_of_the_username():
    # A value computed with OpenSSL: printf '1800000010:ada' | openssl dgst -sha1 -hmac north.
    _, password = rest_credentials(Secret("north"), "ada", 1_800_000_010)
    assert password.reveal() == "HD7p2av6mmVIeGE4GrbY1q4HZ/0="


@pytest.mark.parametrize("username", ["ada", "soon:ada", ":ada", "9" * 20 + ":ada", "\u0661:ada"])
def test_a_username_without_an_expiry_is_no_rest_username(dialogue, username):
    talk = dialogue(users={}, rest_secret=Secret("north"))
    assert code(talk.client(username=username).allocate()) == 401


def test_static_users_and_rest_usernames_pass_side_by_side(dialogue):
    secret = Secret("north")
    talk = dialogue(rest_secret=secret)
    username, password = rest_credentials(secret, "eve", talk.unix_time + 10)
    assert code(talk.client(1).allocate()) is None
    assert code(talk.client(2, username, password.reveal()).allocate()) is None


def test_another_user_cannot_touch_an_allocation(dialogue):
    talk = dialogue()
    talk.client().allocate()
    intruder = talk.client(username="bob", password="marlin")
    assert code(intruder.refresh(0)) == 441
    assert code(intruder.permit(PEER)) == 441
    assert code(intruder.bind(0x4000, PEER)) == 441
    assert talk.counted["allocations_alive"] == 1


# Allocate, refused.


def test_a_client_has_one_allocation_at_most(dialogue):
    client = dialogue().client()
    client.allocate()
    assert code(client.allocate()) == 437


def test_a_retransmitted_request_is_answered_identically_and_does_nothing_again(dialogue):
    talk = dialogue()
    client = talk.client()
    client.challenged()
    request = client.request(Method.ALLOCATE, {"REQUESTED-TRANSPORT": UDP})
    (first,) = client.exchange(request)
    talk.pass_time(ANSWER_LIFETIME - 0.1)
    assert client.exchange(request) == [first]
    assert talk.counted["allocations_made"] == 1
    assert talk.counted["retransmissions"] == 1
    talk.pass_time(0.2)
    (late,) = client.exchange(request)
    assert code(parse_untrusted(late)) == 437


def test_a_retransmitted_deallocation_is_confirmed_again(dialogue):
    talk = dialogue()
    client = talk.client()
    client.allocate()
    request = client.request(Method.REFRESH, {"LIFETIME": 0})
    (first,) = client.exchange(request)
    assert client.exchange(request) == [first]
    assert talk.counted["deallocations"] == 1
    assert talk.counted["allocations_alive"] == 0


def test_the_transaction_id_alone_does_not_make_a_retransmission(dialogue):
    client = dialogue().client()
    client.allocate()
    refresh = client.request(Method.REFRESH, {"LIFETIME": 700})
    other = build(
        Method.REFRESH,
        MessageClass.REQUEST,
        refresh[8:20],
        {"LIFETIME": 800, "USERNAME": "ada", "REALM": client.realm, "NONCE": client.nonce},
        key=client.key,
    )
    assert client.tell(refresh).attributes["LIFETIME"] == 700
    assert client.tell(other).attributes["LIFETIME"] == 800


def test_answers_are_remembered_within_a_bound(dialogue):
    talk = dialogue()
    client = talk.client()
    client.allocate()
    first = client.request(Method.REFRESH, {"LIFETIME": 700})
    client.tell(first)
    for _ in range(MAX_ANSWERS):
        client.tell(client.request(Method.CREATE_PERMISSION))
    assert code(client.tell(first)) is None
    assert "retransmissions" not in talk.counted


def test_a_retransmission_while_the_socket_is_being_opened_waits_for_the_answer(dialogue):
    talk = dialogue()
    client = talk.client()
    client.challenged()
    request = client.request(Method.ALLOCATE, {"REQUESTED-TRANSPORT": UDP})
    five_tuple = talk.five_tuple()
    talk.machine.receive_untrusted(five_tuple, request, talk.now)
    (opening,) = talk.machine.commands()
    talk.machine.receive_untrusted(five_tuple, request, talk.now)
    assert talk.machine.commands() == []
    talk.machine.relay_opened(opening.five_tuple, ("127.0.0.1", 5), talk.now)
    ((_, answer),) = talk.carry_out()
    assert parse_untrusted(answer).attributes["XOR-RELAYED-ADDRESS"] == ("127.0.0.1", 5)


@pytest.mark.parametrize("transport", [6 << 24, 0, 0xFF << 24])
def test_only_udp_is_relayed(dialogue, transport):
    assert code(dialogue().client().ask(Method.ALLOCATE, {"REQUESTED-TRANSPORT": transport})) == 442


def test_an_allocate_request_names_its_transport(dialogue):
    assert code(dialogue().client().ask(Method.ALLOCATE)) == 400


def test_a_family_that_is_not_relayed_is_refused(dialogue):
    client = dialogue().client()
    assert code(client.allocate(**{"REQUESTED-ADDRESS-FAMILY": 2})) == 440
    only_ipv6 = dialogue(relay_hosts=("::1",)).client()
    assert code(only_ipv6.allocate()) == 440
    answer = only_ipv6.allocate(**{"REQUESTED-ADDRESS-FAMILY": 2})
    assert answer.attributes["XOR-RELAYED-ADDRESS"] == ("::1", 50_001)


def test_a_family_that_nobody_knows_is_refused(dialogue):
    client = dialogue().client()
    client.challenged()
    attributes = {"REQUESTED-TRANSPORT": UDP, "REQUESTED-ADDRESS-FAMILY": 1}
    request = client.request(Method.ALLOCATE, attributes)
    assert request[28:33] == b"\x00\x17\x00\x04\x01"
    assert code(client.tell(altered(request, client.key, position=32, value=9))) == 440


@pytest.mark.parametrize(
    ("name", "value", "number"),
    [("DONT-FRAGMENT", None, 0x001A), ("RESERVATION-TOKEN", bytes(8), 0x0022)],
)
def test_what_the_relay_does_not_offer_is_an_unknown_attribute(dialogue, name, value, number):
    answer = dialogue().client().allocate(**{name: value})
    assert code(answer) == 420
    assert answer.attributes["UNKNOWN-ATTRIBUTES"] == (number,)


def test_an_attribute_that_must_be_understood_and_is_not_is_named(dialogue):
    client = dialogue().client()
    client.challenged()
    request = client.request(Method.ALLOCATE, {"REQUESTED-TRANSPORT": UDP})
    assert request[20:22] == b"\x00\x19"
    answer = client.tell(altered(request, client.key, position=20, value=0x7F))
    assert code(answer) == 420
    assert answer.attributes["UNKNOWN-ATTRIBUTES"] == (0x7F19,)


def test_an_even_port_is_asked_of_the_driver_and_a_reserved_pair_is_refused(dialogue):
    talk = dialogue()
    assert code(talk.client(1).allocate(**{"EVEN-PORT": True})) == 508
    assert code(talk.client(2).allocate(**{"EVEN-PORT": False})) is None
    assert code(talk.client(3).allocate()) is None
    assert [opened.even_port for opened in talk.opened] == [True, False]


def test_a_user_has_a_quota(dialogue):
    talk = dialogue(max_allocations_per_user=2)
    first = talk.client(1)
    assert code(first.allocate()) is None
    assert code(talk.client(2).allocate()) is None
    assert code(talk.client(3).allocate()) == 486
    assert code(talk.client(4, "bob", "marlin").allocate()) is None
    assert talk.counted["quota_refusals"] == 1
    first.refresh(0)
    assert code(talk.client(5).allocate()) is None


def test_the_relay_has_a_capacity(dialogue):
    talk = dialogue(max_allocations=1)
    assert code(talk.client(1).allocate()) is None
    assert code(talk.client(2, "bob", "marlin").allocate()) == 508
    assert talk.counted["quota_refusals"] == 1


def test_no_socket_is_insufficient_capacity(dialogue):
    talk = dialogue()
    client = talk.client()
    talk.out_of_sockets = True
    assert code(client.allocate()) == 508
    assert talk.machine.allocations == ()
    talk.out_of_sockets = False
    assert code(client.allocate()) is None


def test_every_allocate_is_sent_to_the_alternate_server(dialogue):
    answer = dialogue(alternate_server=("203.0.113.9", 3478)).client().allocate()
    assert code(answer) == 300
    assert answer.attributes["ALTERNATE-SERVER"] == ("203.0.113.9", 3478)


# Refresh.


def test_there_is_nothing_to_refresh_permit_or_bind_without_an_allocation(dialogue):
    client = dialogue().client()
    assert code(client.refresh(600)) == 437
    assert code(client.refresh(0)) == 437
    assert code(client.permit(PEER)) == 437
    assert code(client.bind(0x4000, PEER)) == 437


def test_a_refreshed_allocation_lives_on_and_another_expires(dialogue):
    talk = dialogue(default_lifetime=10)
    kept, left = talk.client(1), talk.client(2)
    kept.allocate(LIFETIME=10)
    left.allocate(LIFETIME=10)
    talk.pass_time(9)
    assert code(kept.refresh(10)) is None
    talk.pass_time(2)
    assert [each.five_tuple.client[1] for each in talk.machine.allocations] == [1]
    assert [each.five_tuple.client[1] for each in talk.closed] == [2]
    assert code(left.refresh(10)) == 437
    assert talk.counted["expired"] == 1
    assert talk.counted["refreshes"] == 1


def test_a_deallocated_client_may_allocate_again(dialogue):
    talk = dialogue()
    client = talk.client()
    client.allocate()
    answer = client.refresh(0)
    assert code(answer) is None
    assert answer.attributes["LIFETIME"] == 0
    assert len(talk.closed) == 1
    assert code(client.allocate()) is None


def test_an_allocation_that_expired_is_gone_even_before_the_timer_is_handled(dialogue):
    talk = dialogue(default_lifetime=10)
    client = talk.client()
    client.allocate(LIFETIME=10)
    talk.now += 10
    assert code(client.refresh(600)) == 437
    assert talk.counted["expired"] == 1


def test_a_refresh_for_the_other_family_is_a_mismatch(dialogue):
    client = dialogue().client()
    client.allocate()
    attributes = {"LIFETIME": 600, "REQUESTED-ADDRESS-FAMILY": 2}
    assert code(client.ask(Method.REFRESH, attributes)) == 443
    attributes["REQUESTED-ADDRESS-FAMILY"] = 1
    assert code(client.ask(Method.REFRESH, attributes)) is None


# CreatePermission and ChannelBind.


def test_one_request_installs_several_permissions_and_refreshes_the_known(dialogue):
    talk = dialogue()
    client = talk.client()
    client.allocate()
    assert code(client.permit(PEER, OTHER)) is None
    assert code(client.permit(PEER)) is None
    assert talk.counted["permissions_made"] == 2
    assert talk.counted["permission_refreshes"] == 1


@pytest.mark.parametrize("method", [Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
def test_a_request_for_a_peer_names_the_peer(dialogue, method):
    client = dialogue().client()
    client.allocate()
    assert code(client.ask(method, {"CHANNEL-NUMBER": 0x4000})) == 400


def test_a_malformed_peer_spoils_the_request(dialogue):
    talk = dialogue()
    client = talk.client()
    client.allocate()
    request = client.request(Method.CREATE_PERMISSION, {"XOR-PEER-ADDRESS": PEER})
    assert request[20:26] == b"\x00\x12\x00\x08\x00\x01"
    assert code(client.tell(altered(request, client.key, position=25, value=9))) == 400


def test_a_denied_peer_is_forbidden_and_spoils_the_whole_request(dialogue):
    talk = dialogue(denied_peers=("203.0.113.6/32", "2001:db8::/32"))
    client = talk.client()
    client.allocate()
    assert code(client.permit(PEER, OTHER)) == 403
    assert code(client.bind(0x4000, OTHER)) == 403
    assert "permissions_made" not in talk.counted
    assert code(client.permit(PEER)) is None


def test_a_peer_of_the_other_family_is_a_mismatch(dialogue):
    client = dialogue().client()
    client.allocate()
    assert code(client.permit(("2001:db8::1", 7000))) == 443
    assert code(client.bind(0x4000, ("2001:db8::1", 7000))) == 443


def test_permissions_are_bounded_and_expired_ones_make_room(dialogue):
    talk = dialogue(max_permissions=2, permission_lifetime=50)
    client = talk.client()
    client.allocate()
    assert code(client.permit(PEER, OTHER)) is None
    assert code(client.permit(("203.0.113.7", 1))) == 508
    assert code(client.bind(0x4000, ("203.0.113.7", 1))) == 508
    talk.pass_time(30)
    assert code(client.permit(PEER)) is None
    talk.pass_time(20)
    assert code(client.permit(("203.0.113.7", 1))) is None
    assert code(client.permit(OTHER)) == 508


def test_a_channel_is_bound_and_bound_again(dialogue):
    talk = dialogue()
    client = talk.client()
    client.allocate()
    assert code(client.bind(0x4000, PEER)) is None
    assert code(client.bind(0x4000, PEER)) is None
    assert talk.counted["channel_binds"] == 1
    assert talk.counted["channel_rebinds"] == 1


def test_a_channel_has_one_peer_and_a_peer_one_channel(dialogue):
    client = dialogue().client()
    client.allocate()
    client.bind(0x4000, PEER)
    assert code(client.bind(0x4000, OTHER)) == 400
    assert code(client.bind(0x4001, PEER)) == 400
    assert code(client.bind(0x4001, OTHER)) is None
    assert code(client.bind(0x4000, OTHER)) == 400


@pytest.mark.parametrize("number", [0x3FFF, 0x5000, 0x7FFF, 0])
def test_a_channel_number_is_within_its_range(dialogue, number):
    client = dialogue().client()
    client.allocate()
    assert code(client.bind(number, PEER)) == 400


def test_channels_are_bounded_and_expired_ones_make_room(dialogue):
    talk = dialogue(max_channels=1, channel_lifetime=50)
    client = talk.client()
    client.allocate()
    assert code(client.bind(0x4000, PEER)) is None
    assert code(client.bind(0x4001, OTHER)) == 508
    talk.pass_time(50)
    assert code(client.bind(0x4001, PEER)) is None
    assert talk.counted["channel_binds"] == 2


# Ends.


def test_a_lost_connection_takes_its_allocation_along(dialogue):
    talk = dialogue()
    client = talk.client(transport=RelayTransport.TCP)
    client.allocate()
    talk.machine.connection_lost(talk.five_tuple(transport=RelayTransport.TCP))
    talk.carry_out()
    assert len(talk.closed) == 1
    assert talk.counted["allocations_alive"] == 0
    assert talk.counted["disconnected"] == 1


def test_a_socket_that_comes_after_its_connection_was_lost_is_not_wanted(dialogue):
    talk = dialogue()
    client = talk.client(transport=RelayTransport.TCP)
    client.challenged()
    five_tuple = talk.five_tuple(transport=RelayTransport.TCP)
    request = client.request(Method.ALLOCATE, {"REQUESTED-TRANSPORT": UDP})
    talk.machine.receive_untrusted(five_tuple, request, talk.now)
    talk.machine.connection_lost(five_tuple)
    assert talk.machine.relay_opened(five_tuple, ("127.0.0.1", 5), talk.now) is None
    talk.machine.relay_not_opened(five_tuple)
    assert talk.machine.allocations == ()


def test_a_restart_forgets_allocations_answers_and_nonces(dialogue):
    talk = dialogue()
    client = talk.client()
    client.allocate()
    refresh = client.request(Method.REFRESH, {"LIFETIME": 600})
    client.tell(refresh)
    talk.machine.restart()
    talk.carry_out()
    assert talk.counted["allocations_alive"] == 0
    assert len(talk.closed) == 1
    answer = client.tell(refresh)
    assert code(answer) == 438
    client.nonce = answer.attributes["NONCE"]
    assert code(client.refresh(600)) == 437
    assert code(client.allocate()) is None


def test_a_single_allocation_may_be_forgotten(dialogue):
    talk = dialogue()
    lost, kept = talk.client(1), talk.client(2)
    relayed = lost.allocate().attributes["XOR-RELAYED-ADDRESS"]
    kept.allocate()
    talk.machine.lose(relayed)
    talk.carry_out()
    assert [each.relayed for each in talk.closed] == [relayed]
    assert talk.counted["allocations_alive"] == 1
    assert code(lost.refresh(600)) == 437
    assert code(kept.refresh(600)) is None
    with pytest.raises(LookupError):
        talk.machine.lose(relayed)


# Errors on demand.


def test_a_fault_refuses_a_method_as_often_as_it_was_told(dialogue):
    talk = dialogue()
    talk.faults.answer(Method.ALLOCATE, 486, times=2)
    client = talk.client()
    assert code(client.allocate()) == 486
    assert code(client.allocate()) == 486
    assert code(client.allocate()) is None


def test_a_retransmission_does_not_use_up_a_fault(dialogue):
    talk = dialogue()
    talk.faults.answer(Method.ALLOCATE, 508)
    client = talk.client()
    client.challenged()
    request = client.request(Method.ALLOCATE, {"REQUESTED-TRANSPORT": UDP})
    assert code(client.tell(request)) == 508
    assert code(client.tell(request)) == 508
    assert code(client.allocate()) is None


def test_a_fault_without_end_lasts_until_it_is_cleared(dialogue):
    talk = dialogue()
    client = talk.client()
    client.allocate()
    talk.faults.answer(Method.CREATE_PERMISSION, 403, times=None)
    assert [code(client.permit(PEER)) for _ in range(5)] == [403] * 5
    assert code(client.refresh(600)) is None
    talk.faults.clear()
    assert code(client.permit(PEER)) is None


@pytest.mark.parametrize("wanted", [401, 438])
def test_a_fault_that_challenges_brings_realm_and_nonce(dialogue, wanted):
    talk = dialogue()
    talk.faults.answer(Method.ALLOCATE, wanted)
    answer = talk.client().allocate()
    assert code(answer) == wanted
    assert answer.attributes["REALM"] == "turnlane.lab"
    assert answer.signed is None


def test_a_fault_may_send_a_client_elsewhere(dialogue):
    talk = dialogue()
    talk.faults.answer(Method.ALLOCATE, 300, alternate_server=("203.0.113.9", 1))
    answer = talk.client().allocate()
    assert code(answer) == 300
    assert answer.attributes["ALTERNATE-SERVER"] == ("203.0.113.9", 1)


@pytest.mark.parametrize(
    ("wanted", "options"),
    [(200, {}), (700, {}), (300, {}), (486, {"alternate_server": PEER}), (486, {"times": 0})],
)
def test_a_fault_that_makes_no_sense_is_refused(dialogue, wanted, options):
    with pytest.raises(ValueError):
        dialogue().faults.answer(Method.ALLOCATE, wanted, **options)
