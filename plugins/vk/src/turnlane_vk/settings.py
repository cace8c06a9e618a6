"""What the provider can be told: where VK is, what its web client says of itself, how to wait.

The defaults are what was observed of the public web client in April 2026. The live service may
have changed since, which is why all of it is settings.
"""

# ruff: noqa: S105 settings of tokens are no passwords

import re
from typing import Annotated

import msgspec

from turnlane.api import AuthorityError, Secret, SettingsError, Violation, parse_authority, setting

_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?:[/?][!\"$-~]*)?")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_WORD = r"[!-~]{1,256}"
_LINE = r"[ -~]{1,512}"


class VkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the provider `vk`."""

    name: Annotated[
        str, setting("The name under which the call sees the guest.", pattern=r"\S(?:.{0,62}\S)?")
    ] = "Guest"
    timeout: Annotated[float, setting("Seconds for each request.", minimum=1, maximum=14)] = 10.0
    """Four of the longest stay below the 60 s that a resolution without a human may take."""
    challenge_timeout: Annotated[
        float, setting("Seconds that a human has in the browser.", minimum=10, maximum=780)
    ] = 300.0
    """With the requests around it the longest stays below the 900 s of an interactive one."""

    login_url: Annotated[str, setting("Where the first token comes from.")] = (
        "https://login.vk.ru/?act=get_anonym_token"
    )
    anonym_token_url: Annotated[str, setting("Where the call's anonymous token comes from.")] = (
        "https://api.vk.ru/method/calls.getAnonymousToken"
    )
    ok_url: Annotated[str, setting("Where calls are logged into, joined and started.")] = (
        "https://calls.okcdn.ru/fb.do"
    )
    join_url: Annotated[str, setting("What an invite begins with, for VK to read.")] = (
        "https://vk.com/call/join/"
    )
    api_version: Annotated[str, setting("The version of VK's API.", pattern=_WORD)] = "5.274"
    client_id: Annotated[str, setting("The web client's id.", pattern=_WORD)] = "6287487"
    client_secret: Annotated[
        Secret[str], setting("The web client's public secret.", write_only=True)
    ] = Secret("QbYic1K3lEV5kTGiqlq2")
    application_key: Annotated[str, setting("The web client's key for calls.", pattern=_WORD)] = (
        "CGMMEJLGDIHBABABA"
    )
    token_type: Annotated[str, setting("The kind of the first token.", pattern=_WORD)] = "messages"
    login_version: Annotated[str, setting("The version of the first request.", pattern=_WORD)] = "1"
    session_version: Annotated[int, setting("The version of a session's data.", minimum=0)] = 2
    client_version: Annotated[float, setting("The version of the calls SDK.", minimum=0)] = 1.1
    client_type: Annotated[str, setting("The kind of the calls SDK.", pattern=_WORD)] = "SDK_JS"
    protocol_version: Annotated[str, setting("The version of calls.", pattern=_WORD)] = "5"
    user_agent: Annotated[str, setting("The browser to appear as.", pattern=_LINE)] = (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/146.0.0.0 Safari/537.36"
    )

    invite_page: Annotated[str, setting("What the page of an invite begins with.")] = (
        "https://vk.com/call/join/"
    )
    start_page: Annotated[str, setting("The page from which a call is hosted.")] = (
        "https://calls.vk.com/"
    )
    browser_login_url: Annotated[str, setting("The first token, as the page asks for it.")] = (
        "https://login.vk.com/?act=get_anonym_token"
    )
    browser_anonym_token_url: Annotated[
        str, setting("The anonymous token, as the page asks for it.")
    ] = "https://api.vk.com/method/calls.getAnonymousToken"
    browser_preview_url: Annotated[
        str, setting("The preview of a call, as the page asks for it.")
    ] = "https://api.vk.com/method/calls.getCallPreview"

    def __post_init__(self) -> None:
        """Check the endpoints and pages; raises `SettingsError` with all violations."""
        told = "it is no URL with https://, or with http:// to this machine; without user or #"
        found = [
            Violation(name, "pattern", told)
            for name in self.__struct_fields__
            if name.endswith(("_url", "_page")) and not _is_endpoint(getattr(self, name))
        ]
        if found:
            raise SettingsError("the provider vk", tuple(sorted(found)))


def _is_endpoint(url: str) -> bool:
    """Whether it is a URL over TLS, or of this machine by its very name."""
    parts = _URL.fullmatch(url)
    if parts is None:
        return False
    try:
        host, _ = parse_authority(parts["authority"])
    except AuthorityError:
        return False
    return parts["scheme"] == "https" or host in _LOOPBACK
