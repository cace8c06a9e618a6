"""The stages of the anonymous invite flow, each as a value: where, what is sent, what is taken.

Their order: `login`, `anonym_token`, `ok_login`, `join`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NoReturn, TypeVar
from urllib.parse import urlencode

import msgspec

from turnlane.api import Secret
from turnlane_vk.answers import (
    CAPTCHA_NEEDED,
    Document,
    access_token_untrusted,
    anonym_token_untrusted,
    error_code_untrusted,
    session_key_untrusted,
)
from turnlane_vk.errors import DRIFT, StageError
from turnlane_vk.link import Invite
from turnlane_vk.recognition import ANONYM_TOKEN, JOIN, LOGIN, OK_LOGIN
from turnlane_vk.settings import VkSettings
from turnlane_vk.turn_server import TurnServer, read_turn_server_untrusted

T = TypeVar("T")


@dataclass(frozen=True)
class Stage(Generic[T]):
    """A request: its id, where it goes, the form in its order, and what is taken of the answer.

    `take` raises `StageError` for an answer that does not have it.
    """

    id: str
    url: str
    form: dict[str, Secret[str]] = field(repr=False)
    take: Callable[[Document], T]


def login(settings: VkSettings) -> Stage[Secret[str]]:
    """Return the stage that gets the first access token."""
    form = _form(
        client_id=settings.client_id,
        token_type=settings.token_type,
        client_secret=settings.client_secret,
        version=settings.login_version,
        app_id=settings.client_id,
    )

    def take(document: Document) -> Secret[str]:
        return access_token_untrusted(document) or _missing(
            "missing_access_token", "access token", LOGIN, document
        )

    return Stage(LOGIN, settings.login_url, form, take)


def anonym_token(
    settings: VkSettings, invite: Invite, access_token: Secret[str]
) -> Stage[Secret[str]]:
    """Return the stage that gets the call's anonymous token, or a challenge."""
    separator = "&" if "?" in settings.anonym_token_url else "?"
    query = urlencode({"v": settings.api_version, "client_id": settings.client_id})
    form = _form(
        vk_join_link=invite_url(settings, invite), name=settings.name, access_token=access_token
    )

    def take(document: Document) -> Secret[str]:
        token = anonym_token_untrusted(document)
        if token is None and error_code_untrusted(document) == CAPTCHA_NEEDED:
            raise StageError(
                "captcha_required",
                "VK wants a human to solve a captcha",
                "allow it with --interactive-provider, or try again later or from another network",
                provider_stage=ANONYM_TOKEN,
            )
        return token or _missing(
            "missing_anonymous_token", "anonymous token", ANONYM_TOKEN, document
        )

    return Stage(ANONYM_TOKEN, f"{settings.anonym_token_url}{separator}{query}", form, take)


def ok_login(settings: VkSettings, device_id: str) -> Stage[Secret[str]]:
    """Return the stage that logs into the service of calls as an anonymous device."""
    session_data = {
        "version": settings.session_version,
        "device_id": device_id,
        "client_version": settings.client_version,
        "client_type": settings.client_type,
    }
    form = _form(
        session_data=msgspec.json.encode(session_data).decode(),
        method="auth.anonymLogin",
        format="JSON",
        application_key=settings.application_key,
    )

    def take(document: Document) -> Secret[str]:
        return session_key_untrusted(document) or _missing(
            "missing_session_key", "session key", OK_LOGIN, document
        )

    return Stage(OK_LOGIN, settings.ok_url, form, take)


def join(
    settings: VkSettings, invite: Invite, token: Secret[str], session_key: Secret[str]
) -> Stage[TurnServer]:
    """Return the stage that joins the call, whose answer names the relays."""
    form = _form(
        joinLink=invite.token,
        isVideo="false",
        protocolVersion=settings.protocol_version,
        anonymToken=token,
        method="vchat.joinConversationByLink",
        format="JSON",
        application_key=settings.application_key,
        session_key=session_key,
    )
    return Stage(
        JOIN, settings.ok_url, form, lambda document: read_turn_server_untrusted(document, JOIN)
    )


def invite_url(settings: VkSettings, invite: Invite) -> Secret[str]:
    """Return the URL of an invite in its one form."""
    return Secret(settings.join_url + invite.token.reveal())


def _form(**fields: str | Secret[str]) -> dict[str, Secret[str]]:
    return {
        name: value if isinstance(value, Secret) else Secret(value)
        for name, value in fields.items()
    }


def _missing(code: str, what: str, stage: str, document: Document) -> NoReturn:
    refusal = error_code_untrusted(document)
    because = "" if refusal is None else f": it is the error {refusal}"
    advice = "check that the invite is still good" if refusal is not None else DRIFT
    raise StageError(code, f"the answer has no {what}{because}", advice, provider_stage=stage)
