"""Links: what is taken, what is refused, and that nothing of it is repeated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import LinkError, Secret
from turnlane.telemetry.redaction import find_leaks
from turnlane_http.link import MAX_LINK, Endpoint, parse_link


def parsed(text: str) -> Endpoint:
    return parse_link(Secret(text))


def refused(text: str) -> LinkError:
    with pytest.raises(LinkError) as caught:
        parsed(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "target"),
    [
        ("https://a.example", "https", "a.example", 443, "/"),
        ("HTTPS://a.example/", "https", "a.example", 443, "/"),
        ("https://a.example:8443/x/y?z=1&w", "https", "a.example", 8443, "/x/y?z=1&w"),
        ("https://a.example?key=%2F", "https", "a.example", 443, "/?key=%2F"),
        ("https://192.0.2.7/a", "https", "192.0.2.7", 443, "/a"),
        ("https://[2001:DB8:0::1]:1", "https", "2001:db8::1", 1, "/"),
        ("http://localhost/x", "http", "localhost", 80, "/x"),
        ("http://LOCALHOST:81", "http", "LOCALHOST", 81, "/"),
        ("http://127.255.0.1", "http", "127.255.0.1", 80, "/"),
        ("http://[::1]:8080/", "http", "::1", 8080, "/"),
    ],
)
def test_a_link_says_where_credentials_are_fetched(
    text: str, scheme: str, host: str, port: int, target: str
) -> None:
    endpoint = parsed(text)

    assert (endpoint.scheme, endpoint.host, endpoint.port) == (scheme, host, port)
    assert endpoint.target.reveal() == target


REFUSED = {
    "": "wrong_scheme",
    "https:a.example": "wrong_scheme",
    "ftp://a.example": "wrong_scheme",
    "generic-turn://u:p@h": "wrong_scheme",
    "https://user:password@a.example/": "userinfo_in_link",
    "https://user@a.example": "userinfo_in_link",
    "https://user:12/34@a.example": "userinfo_in_link",
    "https://a.example/p@q": "userinfo_in_link",
    "https://a.example/#top": "unexpected_fragment",
    "https://": "missing_host",
    "https:///path": "missing_host",
    "https://:443/path": "missing_host",
    "https://?x": "missing_host",
    "https://-a.example": "invalid_host",
    "https://a..example": "invalid_host",
    "https://тест.example": "invalid_host",
    "https://a%2Eexample": "invalid_host",
    "https://a.example\\b": "invalid_host",
    "https://127.1": "invalid_host",
    "https://::1": "missing_host",
    "https://2001:db8::1": "invalid_host",
    "https://[::1": "invalid_host",
    "https://[fe80::1%25eth0]": "invalid_host",
    "https://[a.example]": "invalid_host",
    "https://a.example:": "invalid_port",
    "https://a.example:0": "invalid_port",
    "https://a.example:65536": "invalid_port",
    "https://a.example:x/": "invalid_port",
    "http://a.example": "plain_http",
    "http://localhost.example": "plain_http",
    "http://sub.localhost": "plain_http",
    "http://192.0.2.7": "plain_http",
    "http://0.0.0.0": "plain_http",
    "http://[2001:db8::1]/": "plain_http",
    "https://a.example/%": "invalid_encoding",
    "https://a.example/?q=%zz": "invalid_encoding",
    "https://a.example/ü": "unencoded_character",
    'https://a.example/"': "unencoded_character",
    "https://a.example/a|b": "unencoded_character",
    " https://a.example": "whitespace",
    "https://a.example/\n": "whitespace",
    "https://a.example/\u200b": "invisible_character",
    "https://a.example/\udcff": "invisible_character",
    "https://a.example/" + "x" * MAX_LINK: "link_too_long",
}


@pytest.mark.parametrize(("text", "code"), REFUSED.items(), ids=range(len(REFUSED)))
def test_a_malformed_link_is_refused_with_the_part_named(text: str, code: str) -> None:
    error = refused(text)

    assert error.code == code
    assert error.exit_code == 2
    assert error.provider_stage == "parse_link"
    assert error.message
    assert error.advice


LINK_LIKE = st.lists(
    st.sampled_from(["https://", "http://", "h", "::1", "localhost", *":@[]?=&#/%. ", "%41"]),
    max_size=12,
).map("".join)


@given(st.one_of(st.text(st.characters(codec=None), max_size=60), LINK_LIKE))
def test_any_text_is_a_link_or_a_link_error(text: str) -> None:
    try:
        endpoint = parsed(text)
    except LinkError:
        return

    assert 1 <= endpoint.port <= 65535
    assert endpoint.scheme == "https" or endpoint.loopback
    assert endpoint.target.reveal().startswith("/")
    assert endpoint.target.reveal().isascii()


@given(
    secret=st.text(st.sampled_from("ABCDEFGHJKMN23456789+/=%&;:@?#[] "), min_size=8, max_size=20),
    form=st.sampled_from(
        ["https://h:{}", "https://{}", "https://u:{}@h", "{}", "http://h/{}", "https://h/{}%"]
    ),
)
def test_no_refusal_repeats_what_stands_in_the_link(secret: str, form: str) -> None:
    told = ""
    try:
        parsed(form.format(secret))
    except LinkError as error:
        told = f"{error} {error!r} {error.args} {error.__cause__!r} {error.__context__!r}"

    assert find_leaks(told, [secret]) == []


def test_an_endpoint_shows_its_address_alone() -> None:
    endpoint = parsed("https://[2001:db8::1]/planted-path?planted-query")

    assert endpoint.shown == "https://[2001:db8::1]:443/<redacted:path>"
    assert find_leaks(f"{endpoint} {endpoint!r}", ["planted-path", "planted-query"]) == []
