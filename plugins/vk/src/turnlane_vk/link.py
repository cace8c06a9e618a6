"""Links: the invite of a call, or the page from which a call is hosted.

    https://vk.com/call/join/TOKEN      also http://, without scheme, www., and with more behind it
    TOKEN
    https://calls.vk.com/

Whoever has the token is in the call: it is a secret, and of a malformed link nothing is shown.
"""

import re
from dataclasses import dataclass

from turnlane.api import LinkError, Secret
from turnlane_vk.errors import RESOLVE

MAX_LINK = 4096
MAX_TOKEN = 512

INVITE_HOSTS = frozenset({"vk.com", "www.vk.com"})
INVITE_PATH = "/call/join/"
START_HOST = "calls.vk.com"

_FORM = "write https://vk.com/call/join/TOKEN as VK shows it, or the token alone"
_START_FORM = "write https://calls.vk.com/ to host a call, or the call's invite link"
_TOKEN = re.compile(r"[A-Za-z0-9._~=+-]+")
_BARE_TOKEN = re.compile(r"[A-Za-z0-9_~=+-]+")
"""Without the dot, which makes it look like a host."""


@dataclass(frozen=True)
class Invite:
    """An invite, as its token."""

    token: Secret[str]


@dataclass(frozen=True)
class HostedCall:
    """A call that the operator makes in VK's own page."""


def read_link_untrusted(link: Secret[str]) -> Invite | HostedCall:
    """Read a link; raises `LinkError` whose code names what is wrong with it."""
    text = link.reveal()
    if len(text) > MAX_LINK:
        raise _refusal("link_too_long", f"the link has over {MAX_LINK} characters")
    if any(character.isspace() for character in text):
        raise _refusal("whitespace", "the link contains white space")
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() not in ("https", "http"):
        raise _refusal("wrong_scheme", "the link begins with something else than https://")
    if not separator and not re.search(r"[/?#:@.]", text):
        return Invite(_token(text, _BARE_TOKEN))
    host, path, query = _parts(rest if separator else text)
    if host == START_HOST:
        if scheme.lower() != "https" or path not in ("", "/") or query:
            raise LinkError(
                "wrong_path",
                "on calls.vk.com only the start page itself is taken",
                _START_FORM,
                provider_stage=RESOLVE,
            )
        return HostedCall()
    if host not in INVITE_HOSTS:
        raise _refusal("wrong_host", "the link leads to another host than vk.com")
    if not path.startswith(INVITE_PATH):
        raise _refusal("wrong_path", "the link is not one that joins a call")
    return Invite(_token(path.removeprefix(INVITE_PATH).partition("/")[0], _TOKEN))


def _parts(text: str) -> tuple[str, str, str]:
    """Return host in lower case, path, and whatever stands behind it."""
    end = re.search(r"[?#]", text)
    place, tail = (text[: end.start()], text[end.start() :]) if end else (text, "")
    host, slash, path = place.partition("/")
    return host.lower(), slash + path, tail


def _token(text: str, form: re.Pattern[str]) -> Secret[str]:
    if not text:
        raise _refusal("missing_token", "the link has no token")
    if len(text) > MAX_TOKEN or form.fullmatch(text) is None:
        raise _refusal("invalid_token", "what stands in the token's place is none")
    return Secret(text)


def _refusal(code: str, message: str) -> LinkError:
    return LinkError(code, message, _FORM, provider_stage=RESOLVE)
