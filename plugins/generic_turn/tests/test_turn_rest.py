"""TURN REST credentials, against values that `openssl dgst -sha1 -hmac` computed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api import Secret
from turnlane_generic_turn.turn_rest import expiry_of, mint

NOW = 1_700_000_000.75
DAY = 86400


@pytest.mark.parametrize(
    ("secret", "label", "username", "password"),
    [
        # printf %s '1700003600:alice' | openssl dgst -sha1 -hmac 'north' -binary | base64
        ("north", "alice", "1700003600:alice", "wjwSXO2ch1B6VaLTLMy2Avn5O9o="),
        # printf %s '1700003600' | openssl dgst -sha1 -hmac 'north' -binary | base64
        ("north", "", "1700003600", "xF4I6gruVt/PjGbjajGu2UlidPk="),
        # printf '1700003600:zo\xc3\xab' | openssl dgst -sha1 -hmac $'cl\xc3\xa9/+=' -binary | ...
        ("clé/+=", "zoë", "1700003600:zoë", "4AWxWnAvX+03ARsCm67DspkugeE="),
    ],
)
def test_minted_credentials_are_those_that_openssl_computes(
    secret: str, label: str, username: str, password: str
) -> None:
    minted = mint(Secret(secret), Secret(label), 1_700_003_600)

    assert (minted[0].reveal(), minted[1].reveal()) == (username, password)


@pytest.mark.parametrize(
    ("username", "expiry"),
    [
        ("1700003600:alice", 1_700_003_600),
        ("1700003600:", 1_700_003_600),
        ("1700003600:a:b\n", 1_700_003_600),
        ("1600000000:long ago", 1_600_000_000),
        ("1262304000:first of 2010", 1_262_304_000),
        ("1262303999:before 2010", None),
        ("4102444799:last of 2099", 4_102_444_799),
        ("4102444800:2100", None),
        ("1700003600", 1_700_003_600),
        ("1699999999", 1_699_999_999),
        (str(1_700_000_000 - 30 * DAY + 1), 1_700_000_000 - 30 * DAY + 1),
        (str(1_700_000_000 - 30 * DAY), None),
        (str(1_700_000_000 + 366 * DAY), 1_700_000_000 + 366 * DAY),
        (str(1_700_000_000 + 366 * DAY + 1), None),
        ("1234567890", None),
        ("4915112345", None),
        ("42", None),
        ("42:alice", None),
        ("17000036000:alice", None),
        ("170000360:alice", None),
        ("alice:1700003600", None),
        ("alice", None),
        ("1700003600x", None),
        ("1700003600\n", None),
        ("١٧٠٠٠٠٣٦٠٠:alice", None),
        ("", None),
    ],
)
def test_a_user_name_says_its_expiry_only_where_it_is_plausible(
    username: str, expiry: int | None
) -> None:
    assert expiry_of(Secret(username), NOW) == expiry


@given(label=st.text(max_size=20), lifetime=st.integers(1, 366 * DAY - 1))
def test_what_was_minted_is_recognised(label: str, lifetime: int) -> None:
    expires_at = int(NOW) + lifetime

    username, _ = mint(Secret("north"), Secret(label), expires_at)

    assert expiry_of(username, NOW) == expires_at


@given(st.text())
def test_any_user_name_is_read_without_an_error(username: str) -> None:
    expires_at = expiry_of(Secret(username), NOW)

    assert expires_at is None or str(expires_at) == username[:10]
