"""The redactor and the search for leaks, tried against every spelling a secret may take."""

import base64
import json
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import Credentials, RelayEndpoint, Secret
from turnlane.telemetry.redaction import (
    Redactor,
    encode_json,
    find_leaks,
    spellings,
)

SECRET = 'pa/ss+wörd "1%"'

ENCODINGS = {
    "plain": SECRET,
    "strict url": quote(SECRET, safe=""),
    "url": quote(SECRET),
    "form": quote_plus(SECRET),
    "lower-case url": "pa%2fss%2bw%c3%b6rd%20%221%25%22",
    "json": json.dumps(SECRET),
    "json without escapes": json.dumps(SECRET, ensure_ascii=False),
    "json with escaped slashes": json.dumps(SECRET).replace("/", "\\/"),
    "repr": repr(SECRET),
    "repr of bytes": repr(SECRET.encode()),
    "hex": SECRET.encode().hex(),
    "upper-case hex": SECRET.encode().hex().upper(),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 in the middle, shifted by one": base64.b64encode(f"u{SECRET}!".encode()).decode(),
    "base64 in the middle, shifted by two": base64.b64encode(f"u:{SECRET}!!".encode()).decode(),
    "url-safe base64": base64.urlsafe_b64encode(f"??>{SECRET}".encode()).decode(),
}


@pytest.mark.parametrize("text", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_every_spelling_of_a_secret_is_found_and_redacted(text: str) -> None:
    redactor = Redactor()
    redactor.add(Secret(SECRET))

    redacted = redactor.redact(f"before {text} after")

    assert find_leaks(f"before {text} after", [SECRET])
    assert "***" in redacted
    assert find_leaks(redacted, [SECRET]) == []
    assert redacted.startswith("before ")
    assert redacted.endswith(" after")


@given(
    secret=st.text(min_size=6, max_size=40),
    before=st.binary(max_size=5),
    after=st.binary(max_size=5),
)
def test_a_secret_is_found_at_every_alignment_of_base64(
    secret: str, before: bytes, after: bytes
) -> None:
    encoded = base64.b64encode(before + secret.encode() + after).decode()
    redactor = Redactor()
    redactor.add(Secret(secret))

    assert find_leaks(encoded, [secret])
    assert "***" in redactor.redact(encoded)


@given(secret=st.text(min_size=4, max_size=40), before=st.text(), after=st.text())
def test_no_redacted_text_contains_the_secret(secret: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.add(Secret(secret))

    # The marker itself may be the secret ("****" within adjoining marks), which says nothing.
    if set(secret) != {"*"}:
        assert secret not in redactor.redact(before + secret + after).replace("***", "\0")


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(json.dumps({"password": SECRET}).encode()).decode(),
        quote(base64.b64encode(SECRET.encode()).decode(), safe=""),
        json.dumps(json.dumps(SECRET)),
        base64.encodebytes(b"a long line before it, " * 3 + SECRET.encode() * 3).decode(),
        quote(quote(SECRET, safe=""), safe=""),
    ],
    ids=["base64 of json", "url of base64", "json in json", "folded base64", "url twice"],
)
def test_a_leak_inside_two_encodings_is_found(text: str) -> None:
    assert find_leaks(text, [SECRET])


def test_a_leak_is_named_without_the_secret() -> None:
    leaks = find_leaks(f"x={SECRET}", ["something else", Secret(SECRET)])

    assert "secret 1 as plain" in leaks
    assert not any(leak.startswith("secret 0") for leak in leaks)
    assert SECRET not in "".join(leaks)


def test_secret_bytes_are_found_in_output_of_bytes() -> None:
    raw = b"\xff\xfe\x00\x10key"

    assert find_leaks(b"key: " + raw.hex().encode(), [raw])
    assert find_leaks(b"key: " + base64.b64encode(raw), [Secret(raw)])
    assert find_leaks(b"no key here", [raw]) == []


def test_a_search_for_too_short_a_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        find_leaks("abc", ["abc"])


def test_overlapping_secrets_leave_no_rest() -> None:
    redactor = Redactor()
    redactor.add(Secret("abcdef"), Secret("defghi"), Secret("cdef"))

    assert redactor.redact("<abcdefghi>") == "<***>"
    assert redactor.redact("<abcdef> and <defghi>") == "<***> and <***>"


def test_short_secrets_are_ignored_so_that_words_stay_readable() -> None:
    redactor = Redactor()
    redactor.add(Secret("udp"), Secret(b"tcp"))

    assert len(redactor) == 0
    assert redactor.redact("udp to tcp") == "udp to tcp"


def test_the_secret_added_longest_ago_makes_room() -> None:
    redactor = Redactor(capacity=2)
    redactor.add(Secret("first-secret"), Secret("second-secret"))
    redactor.add(Secret("first-secret"))
    redactor.add(Secret("third-secret"))

    assert len(redactor) == 2
    text = redactor.redact("first-secret second-secret third-secret")
    assert text == "*** second-secret ***"


def test_a_secret_is_hidden_until_all_who_added_it_removed_it() -> None:
    redactor = Redactor()
    token = Secret("shared-token")
    redactor.add(token)
    redactor.add(token)

    redactor.remove(token)
    assert redactor.redact("shared-token") == "***"
    redactor.remove(token)
    assert redactor.redact("shared-token") == "shared-token"
    redactor.remove(token)
    assert len(redactor) == 0


def test_a_redactor_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Redactor(capacity=0)


def test_spellings_of_bytes_that_are_text_include_the_text() -> None:
    assert "token" in spellings(b"token")["plain"]
    assert spellings(b"\xff\xff\xff\xff")["plain"] == frozenset()


def test_structs_are_encoded_with_their_secrets_hidden() -> None:
    credentials = Credentials(
        (RelayEndpoint("turn.example", 3478),), Secret("user-name"), Secret("pass-word")
    )

    encoded = encode_json(credentials)

    assert find_leaks(encoded, ["user-name", "pass-word"]) == []
    assert msgspec.json.decode(encoded)["password"] == "***"


def test_other_unknown_types_are_not_encoded() -> None:
    with pytest.raises(NotImplementedError, match="object"):
        encode_json({"value": object()})
