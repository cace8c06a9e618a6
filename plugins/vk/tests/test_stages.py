"""Stages as values: what goes where, and that all of it can be told otherwise."""

import json
from typing import Any
from uuid import UUID

import pytest

from turnlane.api import Secret
from turnlane_vk import stages
from turnlane_vk.link import Invite
from turnlane_vk.recognition import ANONYM_TOKEN, JOIN, LOGIN, OK_LOGIN
from turnlane_vk.settings import VkSettings
from turnlane_vk.stages import Stage

INVITE = Invite(Secret("token"))
DEVICE = str(UUID(int=0))


def made(settings: VkSettings) -> dict[str, Stage[Any]]:
    access, anonym, key = Secret("access"), Secret("anonym"), Secret("key")
    return {
        each.id: each
        for each in (
            stages.login(settings),
            stages.anonym_token(settings, INVITE, access),
            stages.ok_login(settings, DEVICE),
            stages.join(settings, INVITE, anonym, key),
        )
    }


def test_the_urls_are_those_of_the_settings() -> None:
    elsewhere = VkSettings(
        login_url="https://a.example/",
        anonym_token_url="https://b.example/?x=y",
        ok_url="https://c.example/",
        api_version="6&7",
        client_id="8",
    )
    assert {name: stage.url for name, stage in made(elsewhere).items()} == {
        LOGIN: "https://a.example/",
        ANONYM_TOKEN: "https://b.example/?x=y&v=6%267&client_id=8",
        OK_LOGIN: "https://c.example/",
        JOIN: "https://c.example/",
    }
    usual = made(VkSettings())[ANONYM_TOKEN].url
    assert usual == ("https://api.vk.ru/method/calls.getAnonymousToken?v=5.274&client_id=6287487")


@pytest.mark.parametrize(
    ("given", "stage", "field", "value"),
    [
        ({"client_id": "1"}, LOGIN, "client_id", "1"),
        ({"client_id": "1"}, LOGIN, "app_id", "1"),
        ({"client_secret": Secret("other")}, LOGIN, "client_secret", "other"),
        ({"token_type": "calls"}, LOGIN, "token_type", "calls"),
        ({"login_version": "2"}, LOGIN, "version", "2"),
        ({"name": "Ann"}, ANONYM_TOKEN, "name", "Ann"),
        (
            {"join_url": "https://vk.example/j/"},
            ANONYM_TOKEN,
            "vk_join_link",
            "https://vk.example/j/token",
        ),
        ({"application_key": "KEY"}, OK_LOGIN, "application_key", "KEY"),
        ({"application_key": "KEY"}, JOIN, "application_key", "KEY"),
        ({"protocol_version": "6"}, JOIN, "protocolVersion", "6"),
    ],
)
def test_what_a_form_says_can_be_told_otherwise(
    given: dict[str, Any], stage: str, field: str, value: str
) -> None:
    assert made(VkSettings(**given))[stage].form[field].reveal() == value


def test_a_session_s_data_is_json_in_the_order_of_the_web_client() -> None:
    told = VkSettings(session_version=3, client_version=1.2, client_type="SDK")
    data = made(told)[OK_LOGIN].form["session_data"].reveal()
    assert data == (
        f'{{"version":3,"device_id":"{DEVICE}","client_version":1.2,"client_type":"SDK"}}'
    )
    usual = json.loads(made(VkSettings())[OK_LOGIN].form["session_data"].reveal())
    assert usual == {
        "version": 2,
        "device_id": DEVICE,
        "client_version": 1.1,
        "client_type": "SDK_JS",
    }


def test_no_print_of_a_stage_shows_its_form() -> None:
    assert "form" not in repr(made(VkSettings())[JOIN])
