"""What the provider can be told besides the link: how to ask, and how to authenticate."""

import re
from typing import Annotated, Literal

import msgspec

from turnlane.api import Secret, SettingsError, Violation, ViolationCode, setting

MAX_REQUEST_BODY = 64 * 1024
"""Bytes of a request's body."""

MAX_LIFETIME = 10 * 366 * 86400
"""Seconds that credentials can be asked to be valid, or said to be."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_TOKEN = re.compile(r"[!-~]+")
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_OURS = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
"""Headers that the request has anyway, or that change what it means (RFC 9110, RFC 9112)."""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the provider `http`."""

    method: Annotated[
        Literal["GET", "POST"], setting("The HTTP method that the endpoint wants.")
    ] = "GET"
    bearer_token: Annotated[
        Secret[str] | None,
        setting("A token, sent as `Authorization: Bearer ...`.", write_only=True),
    ] = None
    user: Annotated[
        Secret[str] | None,
        setting("The user of basic authentication; wants password.", write_only=True),
    ] = None
    password: Annotated[
        Secret[str] | None,
        setting("The password of basic authentication; may be empty.", write_only=True),
    ] = None
    api_key_header: Annotated[
        str | None, setting("The name of the header that carries api_key.")
    ] = None
    api_key: Annotated[
        Secret[str] | None, setting("A key, sent in api_key_header.", write_only=True)
    ] = None
    request_body: Annotated[
        Secret[str] | None,
        setting('JSON to send with POST, such as {"ttl": 86400}.', write_only=True),
    ] = None
    ca_file: Annotated[
        str | None,
        setting(
            "A PEM file of the authorities to trust instead of the system's; a relative path "
            "starts at the folder of local configuration files."
        ),
    ] = None
    timeout: Annotated[float, setting("Seconds for the whole request.", minimum=1, maximum=120)] = (
        20.0
    )
    trust_env: Annotated[
        bool, setting("Whether proxies from the environment (HTTPS_PROXY, NO_PROXY) are used.")
    ] = False

    def __post_init__(self) -> None:
        """Check what the fields' types cannot say; raises `SettingsError` with all violations."""
        found = [*_combinations(self), *_texts(self)]
        if found:
            raise SettingsError("the provider http", tuple(sorted(found)))

    @property
    def asked_lifetime(self) -> float | None:
        """The `ttl` in seconds that `request_body` asks for, or None."""
        body = _json(self.request_body)
        ttl = body.get("ttl") if isinstance(body, dict) else None
        if isinstance(ttl, bool) or not isinstance(ttl, int | float):
            return None
        return float(ttl) if 0 < ttl <= MAX_LIFETIME else None

    @property
    def sent_secrets(self) -> tuple[str, ...]:
        """The names of the settings that go into the request and are secret."""
        names = ("bearer_token", "user", "password", "api_key", "request_body")
        return tuple(name for name in names if getattr(self, name) is not None)


def _combinations(settings: HttpSettings) -> list[Violation]:
    """Say which settings do not go together."""
    found: list[Violation] = []

    def told(field: str, code: ViolationCode, message: str) -> None:
        found.append(Violation(field, code, message))

    for one, other in (("user", "password"), ("api_key", "api_key_header")):
        for given, missing in ((one, other), (other, one)):
            if getattr(settings, given) is not None and getattr(settings, missing) is None:
                told(missing, "required", f"it goes with {given}")
    if settings.bearer_token is not None and settings.user is not None:
        told("user", "unknown", "it is not taken beside bearer_token: both are Authorization")
    if settings.request_body is not None and settings.method != "POST":
        told("request_body", "unknown", "it is taken with method POST only")
    return found


def _texts(settings: HttpSettings) -> list[Violation]:
    """Say which settings hold what the request cannot carry."""
    found: list[Violation] = []

    def told(field: str, code: ViolationCode, message: str) -> None:
        found.append(Violation(field, code, message))

    for field, form in (("bearer_token", _TOKEN), ("api_key", _HEADER_VALUE)):
        value: Secret[str] | None = getattr(settings, field)
        if value is not None and form.fullmatch(value.reveal()) is None:
            told(field, "pattern", "it is empty or has characters that a header cannot carry")
    user, password = settings.user, settings.password
    if user is not None and (not user or ":" in user.reveal() or not _prints(user)):
        told("user", "pattern", "it is empty, or has a colon or a control character")
    if password is not None and not _prints(password):
        told("password", "pattern", "it has a control character")
    header = settings.api_key_header
    if header is not None and _HEADER_NAME.fullmatch(header) is None:
        told("api_key_header", "pattern", "letters, digits and hyphens make a header's name")
    elif header is not None and header.lower() in _OURS:
        told("api_key_header", "enum", "a header that the request sets itself")
    body = settings.request_body
    if body is not None and len(body.reveal()) > MAX_REQUEST_BODY:
        told("request_body", "range", f"at most {MAX_REQUEST_BODY} characters")
    elif body is not None and _json(body) is msgspec.UNSET:
        told("request_body", "type", "it is not JSON")
    if settings.ca_file is not None and (not settings.ca_file or "\0" in settings.ca_file):
        told("ca_file", "pattern", "it is no path")
    return found


def _prints(secret: Secret[str]) -> bool:
    """Whether a text can stand in basic authentication (RFC 7617, section 2)."""
    return not any(
        ord(character) < 0x20 or ord(character) == 0x7F or 0xD800 <= ord(character) < 0xE000
        for character in secret.reveal()
    )


def _json(text: Secret[str] | None) -> object:
    """Return what a JSON text says, or `UNSET` when it says nothing."""
    if text is None:
        return msgspec.UNSET
    try:
        return msgspec.json.decode(text.reveal().encode())
    except (msgspec.DecodeError, ValueError, RecursionError):
        return msgspec.UNSET
