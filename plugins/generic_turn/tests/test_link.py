"""Links: what they say, what is refused, and that no refusal repeats a secret."""

from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import LinkError, RelayTransport, Secret, Stage
from turnlane.telemetry.redaction import find_leaks
from turnlane_generic_turn.link import MAX_LINK, RestLink, StaticLink, parse_link


def parsed(text: str) -> StaticLink | RestLink:
    return parse_link(Secret(text))


def refused(text: str) -> LinkError:
    with pytest.raises(LinkError) as caught:
        parsed(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "host", "port", "transport", "server_name"),
    [
        ("generic-turn://u:p@turn.example.org:3479", "turn.example.org", 3479, "udp", None),
        ("generic-turn://u:p@turn.example.org", "turn.example.org", 3478, "udp", None),
        ("generic-turn://u:p@turn.example.org/", "turn.example.org", 3478, "udp", None),
        ("generic-turn://u:p@turn.example.org?", "turn.example.org", 3478, "udp", None),
        ("generic-turn://u:p@turn.example.org.", "turn.example.org.", 3478, "udp", None),
        ("generic-turn://u:p@localhost:1?transport=tcp", "localhost", 1, "tcp", None),
        ("generic-turn://u:p@192.0.2.7:65535?transport=udp", "192.0.2.7", 65535, "udp", None),
        ("generic-turn://u:p@[2001:db8::1]:443?transport=tls", "2001:db8::1", 443, "tls", None),
        ("generic-turn://u:p@[2001:DB8:0::1]", "2001:db8::1", 3478, "udp", None),
        ("generic-turn://u:p@h?transport=tls", "h", 5349, "tls", None),
        (
            "generic-turn://u:p@10.0.0.1?transport=tls&server_name=a.b",
            "10.0.0.1",
            5349,
            "tls",
            "a.b",
        ),
        ("generic-turn://u:p@h?server_name=a_1.b-2&transport=tls", "h", 5349, "tls", "a_1.b-2"),
        ("GENERIC-TURN://u:p@h", "h", 3478, "udp", None),
    ],
)
def test_a_link_says_where_the_server_is(
    text: str, host: str, port: int, transport: str, server_name: str | None
) -> None:
    link = parsed(text)

    assert isinstance(link, StaticLink)
    assert (link.endpoint.host, link.endpoint.port) == (host, port)
    assert link.endpoint.transport is RelayTransport(transport)
    assert link.endpoint.server_name == server_name
    assert (link.username.reveal(), link.password.reveal()) == ("u", "p")


@pytest.mark.parametrize(
    ("text", "label", "secret", "lifetime"),
    [
        ("generic-turn+rest://alice:north@h", "alice", "north", 3600),
        ("generic-turn+rest://:north@h?lifetime=60", "", "north", 60),
        ("generic-turn+rest://a%3Ab:n%2F%3D@h?lifetime=1&transport=tcp", "a:b", "n/=", 1),
    ],
)
def test_a_rest_link_says_what_credentials_are_minted_from(
    text: str, label: str, secret: str, lifetime: int
) -> None:
    link = parsed(text)

    assert isinstance(link, RestLink)
    assert link.label.reveal() == label
    assert link.shared_secret.reveal() == secret
    assert link.lifetime == lifetime


REFUSED = {
    "": "wrong_scheme",
    "generic-turn": "wrong_scheme",
    "generic-turn:u:p@h": "wrong_scheme",
    "turn://u:p@h": "wrong_scheme",
    "https://u:p@h": "wrong_scheme",
    "generic-turn://": "missing_username",
    "generic-turn://h:3478": "missing_username",
    "generic-turn://:p@h": "missing_username",
    "generic-turn://@h": "missing_username",
    "generic-turn://u@h": "missing_password",
    "generic-turn://u:@h": "missing_password",
    "generic-turn+rest://h": "missing_password",
    "generic-turn+rest://label@h": "missing_password",
    "generic-turn+rest://label:@h": "missing_password",
    "generic-turn+rest://@h": "missing_password",
    "generic-turn://u:p@": "missing_host",
    "generic-turn://u:p@:3478": "missing_host",
    "generic-turn://u:p@?transport=udp": "missing_host",
    "generic-turn://u:p@2001:db8::1:3478": "invalid_host",
    "generic-turn://u:p@[2001:db8::1": "invalid_host",
    "generic-turn://u:p@[2001:db8::1]3478": "invalid_host",
    "generic-turn://u:p@[fe80::1%25eth0]:3478": "invalid_host",
    "generic-turn://u:p@[turn.example]:3478": "invalid_host",
    "generic-turn://u:p@[]:3478": "invalid_host",
    "generic-turn://u:p@-turn.example": "invalid_host",
    "generic-turn://u:p@turn..example": "invalid_host",
    "generic-turn://u:p@.": "invalid_host",
    "generic-turn://u:p@turn!": "invalid_host",
    "generic-turn://u:p@t%75rn": "invalid_host",
    "generic-turn://u:p@тест.example": "invalid_host",
    "generic-turn://u:p@999.1.1.1": "invalid_host",
    "generic-turn://u:p@1.2.3": "invalid_host",
    "generic-turn://u:p@" + "a" * 64: "invalid_host",
    "generic-turn://u:p@" + "a.b" * 90: "invalid_host",
    "generic-turn://u:p@h:": "invalid_port",
    "generic-turn://u:p@h:0": "invalid_port",
    "generic-turn://u:p@h:65536": "invalid_port",
    "generic-turn://u:p@h:-1": "invalid_port",
    "generic-turn://u:p@h:+1": "invalid_port",
    "generic-turn://u:p@h:1_0": "invalid_port",
    "generic-turn://u:p@h:٣٤": "invalid_port",
    "generic-turn://u:p@h:34x": "invalid_port",
    "generic-turn://u:p@[::1]:x": "invalid_port",
    "generic-turn://u:p@h:" + "9" * 5000: "invalid_port",
    "generic-turn://u:p@h?transport=": "invalid_transport",
    "generic-turn://u:p@h?transport": "invalid_transport",
    "generic-turn://u:p@h?transport=sctp": "invalid_transport",
    "generic-turn://u:p@h?transport=UDP": "invalid_transport",
    "generic-turn://u:p@h?transport=tcp&transport=udp": "duplicate_parameter",
    "generic-turn://u:p@h?server_name=a": "invalid_server_name",
    "generic-turn://u:p@h?server_name=a&transport=tcp": "invalid_server_name",
    "generic-turn://u:p@h?server_name=&transport=tls": "invalid_server_name",
    "generic-turn://u:p@h?server_name=a%2Eb&transport=tls": "invalid_server_name",
    "generic-turn://u:p@h?lifetime=60": "unknown_parameter",
    "generic-turn://u:p@h?transport=udp&": "unknown_parameter",
    "generic-turn+rest://u:p@h?lifetime=0": "invalid_lifetime",
    "generic-turn+rest://u:p@h?lifetime=-5": "invalid_lifetime",
    "generic-turn+rest://u:p@h?lifetime=1h": "invalid_lifetime",
    "generic-turn+rest://u:p@h?lifetime=99999999": "invalid_lifetime",
    "generic-turn://u:p@h/path": "unexpected_path",
    "generic-turn://u:p@h#top": "unexpected_fragment",
    "generic-turn://u:p@h?transport=udp#top": "unexpected_fragment",
    " generic-turn://u:p@h": "whitespace",
    "generic-turn://u:p@h\n": "whitespace",
    "generic-turn://u:p q@h": "whitespace",
    "generic-turn://u:p\u200b@h": "invisible_character",
    "generic-turn://u:p\x00@h": "invisible_character",
    "generic-turn://u:p\udcff@h": "invisible_character",
    "generic-turn://u:p@q@h": "unencoded_character",
    "generic-turn://u:p/q@h": "unencoded_character",
    "generic-turn://u:p?q@h": "unencoded_character",
    "generic-turn://u:p#q@h": "unencoded_character",
    "generic-turn://1700000000:u:p@h": "unencoded_character",
    "generic-turn://u%zz:p@h": "invalid_encoding",
    "generic-turn://u:p%@h": "invalid_encoding",
    "generic-turn://u:100%25%f@h": "invalid_encoding",
    "generic-turn://u:%ff%fe@h": "invalid_encoding",
    "generic-turn://u%0A:p@h": "invalid_username",
    "generic-turn://u:p%00@h": "invalid_password",
    "generic-turn://u:p%C2%85@h": "invalid_password",
    "generic-turn://" + "u" * 509 + ":p@h": "username_too_long",
    "generic-turn+rest://" + "u" * 498 + ":p@h": "username_too_long",
    "generic-turn://u:" + "p" * MAX_LINK + "@h": "link_too_long",
}


@pytest.mark.parametrize(("text", "code"), REFUSED.items(), ids=range(len(REFUSED)))
def test_a_malformed_link_is_refused_with_the_part_named(text: str, code: str) -> None:
    error = refused(text)

    assert error.code == code
    assert error.exit_code == 2
    assert error.stage is Stage.PROVIDER_RESOLVE
    assert error.provider_stage == "parse_link"
    assert error.message
    assert error.advice


def test_the_longest_user_name_that_turn_can_carry_is_taken() -> None:
    assert isinstance(parsed("generic-turn://" + "u" * 508 + ":p@h"), StaticLink)
    assert isinstance(parsed("generic-turn+rest://" + "u" * 497 + ":p@h"), RestLink)


def test_an_unknown_parameter_is_named_when_it_is_a_word_and_hidden_when_it_may_be_a_secret() -> (
    None
):
    assert "unknown parameter verify" in refused("generic-turn://u:p@h?verify=no").message
    assert "transport, server_name" in refused("generic-turn://u:p@h?verify=no").advice
    assert "lifetime" in refused("generic-turn+rest://u:p@h?verify=no").advice
    assert "Xy7Qk" not in str(refused("generic-turn://u:p@h?Xy7Qk=1"))


def text_without_controls(min_size: int = 1) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=min_size, max_size=60)


@given(username=text_without_controls(), password=text_without_controls())
def test_credentials_survive_the_way_through_a_link(username: str, password: str) -> None:
    link = parsed(f"generic-turn://{quote(username, safe='')}:{quote(password, safe='')}@h")

    assert isinstance(link, StaticLink)
    assert link.username.reveal() == username
    assert link.password.reveal() == password


@given(label=text_without_controls(min_size=0), secret=text_without_controls())
def test_labels_and_secrets_survive_the_way_through_a_link(label: str, secret: str) -> None:
    link = parsed(f"generic-turn+rest://{quote(label, safe='')}:{quote(secret, safe='')}@h")

    assert isinstance(link, RestLink)
    assert link.label.reveal() == label
    assert link.shared_secret.reveal() == secret


ANY_TEXT = st.text(st.characters(codec=None), max_size=80)
SCHEMES = ["generic-turn://", "generic-turn+rest://"]
WORDS = ["u", "p", "h", "::1", "3478", "transport", "tls", "lifetime"]
LINK_LIKE = st.lists(
    st.sampled_from([*SCHEMES, *WORDS, *":@[]?=&#/%. ", "%41", "\udc80"]), max_size=20
).map("".join)


@given(st.one_of(ANY_TEXT, LINK_LIKE, ANY_TEXT.map("generic-turn://".__add__)))
def test_any_text_is_a_link_or_a_link_error(text: str) -> None:
    link: StaticLink | RestLink | None = None
    with suppress(LinkError):
        link = parsed(text)

    if link is not None:
        assert 1 <= link.endpoint.port <= 65535
        assert link.endpoint.host


SECRET_TEXT = st.text(
    st.sampled_from("ABCDEFGHJKMNPQRSTVWXYZ23456789+/=%&;:@?#[] "), min_size=8, max_size=30
)


@given(
    scheme=st.sampled_from(["generic-turn", "generic-turn+rest", "turn", ""]),
    username=SECRET_TEXT,
    password=SECRET_TEXT,
    tail=st.sampled_from(["@h", "@h:x", "@", "", "@[::1", "@h?a=1", "@h/x", "@h#y", "@h ", "@%"]),
)
def test_no_refusal_repeats_a_secret(scheme: str, username: str, password: str, tail: str) -> None:
    try:
        parsed(f"{scheme}://{username}:{password}{tail}")
    except LinkError as error:
        told = f"{error} {error!r} {error.args} {error.__cause__!r} {error.__context__!r}"
        pieces = {username, password} | {
            piece for whole in (username, password) for piece in whole.split("@") if len(piece) > 5
        }
        assert find_leaks(told, pieces) == []


def test_a_link_does_not_print_its_secrets() -> None:
    static = parsed("generic-turn://planted-user:planted-password@h")
    rest = parsed("generic-turn+rest://planted-user:planted-password@h")

    assert find_leaks(f"{static} {static!r} {rest}", ["planted-user", "planted-password"]) == []
