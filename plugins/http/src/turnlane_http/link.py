"""Links: the URL of the endpoint that gives credentials.

    https://HOST[:PORT][/PATH][?QUERY]

The syntax is RFC 3986's, taken strictly. Path and query may hold a key and are secret as a whole;
of a link only scheme, host and port are ever shown, and of a malformed one nothing.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from turnlane.api import AuthorityError, LinkError, Secret, parse_authority
from turnlane_http.errors import LINK_STAGE

MAX_LINK = 8192

_DEFAULT_PORTS = {"https": 443, "http": 80}
_FORM = "write https://HOST/PATH"
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TARGET = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:/?%]*")


@dataclass(frozen=True)
class Endpoint:
    """Where credentials are fetched; `target` is path and query, as they are sent."""

    scheme: str
    host: str
    port: int
    target: Secret[str]

    @property
    def address(self) -> str:
        """`host:port`, with brackets around an IPv6 address; safe to show."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def shown(self) -> str:
        """The link with a placeholder for everything that may be a secret."""
        return f"{self.scheme}://{self.address}/<redacted:path>"

    @property
    def loopback(self) -> bool:
        """Whether the endpoint is this machine itself."""
        return _is_loopback(self.host)


def parse_link(link: Secret[str]) -> Endpoint:
    """Read a link; raises `LinkError` whose code names the part that is missing or malformed."""
    text = link.reveal()
    _check_characters(text)
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _DEFAULT_PORTS:
        raise _refusal("wrong_scheme", "the link does not begin with https://", _FORM)
    if "@" in rest:
        raise _refusal(
            "userinfo_in_link",
            "the link contains an @, as in front of a host stand a user and a password",
            "give them with the settings user and password; an @ of a path is written %40",
        )
    if "#" in rest:
        raise _refusal("unexpected_fragment", "the link has a fragment (#...)", "remove it")
    end = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
    host, port = _address(rest[:end])
    target = _target(rest[end:])
    if scheme == "http" and not _is_loopback(host):
        raise _refusal(
            "plain_http",
            "the link begins with http://, and the credentials would travel unprotected",
            "write https://; http:// is for localhost, 127.0.0.1 and [::1] only",
        )
    return Endpoint(scheme, host, port or _DEFAULT_PORTS[scheme], target)


def _refusal(code: str, message: str, advice: str) -> LinkError:
    return LinkError(code, message, advice, provider_stage=LINK_STAGE)


def _check_characters(text: str) -> None:
    if len(text) > MAX_LINK:
        raise _refusal(
            "link_too_long",
            f"the link has over {MAX_LINK} characters",
            "check that nothing else was pasted with it",
        )
    if any(character.isspace() for character in text):
        raise _refusal(
            "whitespace",
            "the link contains white space",
            "remove it; a space that belongs to the path is written %20",
        )
    if not text.isprintable():
        raise _refusal(
            "invisible_character",
            "the link contains a character that does not print",
            "copy the link again, or type it",
        )


def _address(text: str) -> tuple[str, int | None]:
    try:
        return parse_authority(text)
    except AuthorityError as error:
        code, told = error.code, str(error)
    advice = "leave it out for 443" if code == "invalid_port" else _FORM
    raise _refusal(code, f"in the link, {told}", advice)


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very name or address; nothing is looked up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _target(text: str) -> Secret[str]:
    if _STRAY_PERCENT.search(text):
        raise _refusal(
            "invalid_encoding",
            "the path or the query of the link has a % without two hexadecimal digits behind it",
            "write a % that belongs there as %25",
        )
    if _TARGET.fullmatch(text) is None:
        raise _refusal(
            "unencoded_character",
            "the path or the query of the link has a character that a URL cannot hold",
            "percent-encode it as UTF-8",
        )
    return Secret(text if text.startswith("/") else "/" + text)
