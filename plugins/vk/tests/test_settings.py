"""Settings: the contract's defaults, and endpoints that nothing secret is sent to in clear."""

import pytest

from turnlane.api import Secret, SettingsError
from turnlane.plugins.settings import validate
from turnlane_vk.settings import VkSettings


def settings(**given: str) -> VkSettings:
    made = validate(VkSettings, given, "the provider vk", text=True)
    assert isinstance(made, VkSettings)
    return made


def test_the_defaults_are_the_public_web_client_s() -> None:
    made = settings()
    assert made.login_url == "https://login.vk.ru/?act=get_anonym_token"
    assert made.anonym_token_url == "https://api.vk.ru/method/calls.getAnonymousToken"
    assert made.ok_url == "https://calls.okcdn.ru/fb.do"
    assert made.join_url == made.invite_page == "https://vk.com/call/join/"
    assert made.start_page == "https://calls.vk.com/"
    assert made.browser_login_url == "https://login.vk.com/?act=get_anonym_token"
    assert made.browser_anonym_token_url == "https://api.vk.com/method/calls.getAnonymousToken"
    assert made.browser_preview_url == "https://api.vk.com/method/calls.getCallPreview"
    assert (made.client_id, made.api_version) == ("6287487", "5.274")
    assert made.client_secret == Secret("QbYic1K3lEV5kTGiqlq2")
    assert made.application_key == "CGMMEJLGDIHBABABA"
    assert "QbYic1K3lEV5kTGiqlq2" not in repr(made)


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example:8443/?act=x",
        "http://localhost/",
        "http://127.0.0.1:8080/fb.do",
        "http://[::1]:8080",
    ],
)
def test_an_endpoint_is_over_tls_or_on_this_machine(url: str) -> None:
    assert settings(ok_url=url).ok_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example/",
        "http://localhost.example/",
        "http://127.0.0.1.example/",
        "http://localhost:8080@login.example/",
        "https://me@login.example/",
        "https://login.example/#part",
        "https://login.example/a b",
        "https://",
        "https://[::zz]/",
        "https://login.example:65536/",
        "https://login.éxample/",
        "ftp://login.example/",
        "login.example",
        "",
    ],
)
def test_any_other_endpoint_is_refused(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(login_url=url)
    assert [each.field for each in caught.value.violations] == ["login_url"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", " Ann"),
        ("timeout", "15"),
        ("challenge_timeout", "781"),
        ("user_agent", "a\nb"),
        ("api_version", "5 274"),
    ],
)
def test_what_cannot_be_sent_or_waited_for_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**{name: value})
    assert [each.field for each in caught.value.violations] == [name]
