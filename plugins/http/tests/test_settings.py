"""Settings: the schema, and what goes together."""

from typing import Any

import pytest

from turnlane.api import SettingsError
from turnlane.plugins.settings import describe, validate
from turnlane.telemetry.redaction import find_leaks
from turnlane_http.settings import HttpSettings


def made(*, text: bool = False, **given: Any) -> HttpSettings:
    settings = validate(HttpSettings, given, "the provider http", text=text)
    assert isinstance(settings, HttpSettings)
    return settings


@pytest.mark.parametrize(
    ("given", "violations"),
    [
        ({"methud": "GET"}, [("methud", "unknown")]),
        ({"method": "PUT"}, [("method", "enum")]),
        ({"timeout": 0.5}, [("timeout", "range")]),
        ({"timeout": 121}, [("timeout", "range")]),
        ({"trust_env": "maybe"}, [("trust_env", "type")]),
        ({"bearer_token": 3}, [("bearer_token", "type")]),
        ({"user": "u"}, [("password", "required")]),
        ({"password": "p"}, [("user", "required")]),
        ({"api_key": "k"}, [("api_key_header", "required")]),
        ({"api_key_header": "X-Key"}, [("api_key", "required")]),
        ({"user": "u", "password": "p", "bearer_token": "b"}, [("user", "unknown")]),
        ({"request_body": "{}"}, [("request_body", "unknown")]),
        ({"method": "POST", "request_body": "{"}, [("request_body", "type")]),
        ({"method": "POST", "request_body": "[" * 9999}, [("request_body", "type")]),
        ({"method": "POST", "request_body": '"' + "x" * 65536}, [("request_body", "range")]),
        ({"bearer_token": ""}, [("bearer_token", "pattern")]),
        ({"bearer_token": "planted\r\nX: y"}, [("bearer_token", "pattern")]),
        ({"bearer_token": "two words"}, [("bearer_token", "pattern")]),
        ({"api_key_header": "X-Key", "api_key": "ключ"}, [("api_key", "pattern")]),
        ({"api_key_header": "X-Key", "api_key": " k"}, [("api_key", "pattern")]),
        ({"api_key_header": "X Key", "api_key": "k"}, [("api_key_header", "pattern")]),
        ({"api_key_header": "Host", "api_key": "k"}, [("api_key_header", "enum")]),
        ({"api_key_header": "authorization", "api_key": "k"}, [("api_key_header", "enum")]),
        ({"user": "", "password": "p"}, [("user", "pattern")]),
        ({"user": "a:b", "password": "p"}, [("user", "pattern")]),
        ({"user": "u", "password": "p\n"}, [("password", "pattern")]),
        ({"user": "u", "password": "\udc80"}, [("password", "pattern")]),
        ({"ca_file": ""}, [("ca_file", "pattern")]),
        ({"ca_file": "a\0b"}, [("ca_file", "pattern")]),
        (
            {"api_key": "\n", "user": "a:b", "request_body": "{"},
            [
                ("api_key", "pattern"),
                ("api_key_header", "required"),
                ("password", "required"),
                ("request_body", "type"),
                ("request_body", "unknown"),
                ("user", "pattern"),
            ],
        ),
    ],
)
def test_settings_that_do_not_fit_are_all_told_by_field_and_code(
    given: dict[str, Any], violations: list[tuple[str, str]]
) -> None:
    with pytest.raises(SettingsError) as caught:
        made(**given)

    assert [(each.field, each.code) for each in caught.value.violations] == violations
    assert "planted" not in str(caught.value)


def test_settings_come_as_texts_too() -> None:
    settings = made(text=True, timeout="5", trust_env="true", bearer_token="b")

    assert (settings.timeout, settings.trust_env) == (5.0, True)


@pytest.mark.parametrize(
    ("body", "lifetime"),
    [
        ('{"ttl": 60}', 60.0),
        ('{"ttl": 0.5, "x": 1}', 0.5),
        ('{"ttl": "60"}', None),
        ('{"ttl": true}', None),
        ('{"ttl": 0}', None),
        ('{"ttl": 1e300}', None),
        ("{}", None),
        ("[60]", None),
    ],
)
def test_a_request_body_may_ask_for_a_lifetime(body: str, lifetime: float | None) -> None:
    assert made(method="POST", request_body=body).asked_lifetime == lifetime


def test_a_user_may_have_an_empty_password() -> None:
    assert made(user="key", password="").sent_secrets == ("user", "password")


def test_what_is_secret_is_write_only_and_prints_as_nothing() -> None:
    secrets = {"bearer_token", "user", "password", "api_key", "request_body"}
    hidden = {each["name"] for each in describe(HttpSettings) if each["write_only"]}
    given = {name: f"planted-{name}" for name in secrets - {"bearer_token", "request_body"}}
    basic = made(api_key_header="X-Key", **given)
    bearer = made(bearer_token="planted-bearer", request_body='"planted-body"', method="POST")

    assert hidden == secrets
    assert find_leaks(f"{basic!r} {bearer!r}", ["planted"]) == []


def test_every_setting_is_described() -> None:
    assert all(each["description"] for each in describe(HttpSettings))
