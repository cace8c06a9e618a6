"""The exchange: one form posted, one bounded answer, and every way in which that fails told."""

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import anyio
import anyio.to_thread
import httpx
from anyio.abc import AsyncResource

from turnlane.api import Secret
from turnlane_vk.answers import MAX_WAIT
from turnlane_vk.errors import StageError
from turnlane_vk.quiet import quiet
from turnlane_vk.settings import VkSettings

MAX_BODY = 256 * 1024
"""Bytes of an answer's body."""

ATTEMPTS = 2
"""How often a connection is tried. A request that may have been sent is never sent again: VK
counts requests, and each asks for a token of its own."""


@dataclass(frozen=True)
class HttpAnswer:
    """An answer; `retry_after` are the seconds that the header of that name asks for.

    The body is empty where it is too long, or compressed though nobody asked for that.
    """

    status: int
    retry_after: int | None
    body: bytes = field(repr=False)


class Exchange:
    """The HTTP client of one resolution: no cookies, no redirects, no connection kept."""

    def __init__(self, settings: VkSettings, tls: ssl.SSLContext, now: float) -> None:
        self._settings = settings
        self._now = now
        self._opened: list[AsyncResource] = []
        self._client = httpx.AsyncClient(
            verify=tls,
            trust_env=False,
            # One limit holds for everything, so that an answer cannot trickle for ever.
            timeout=None,  # noqa: S113
            follow_redirects=False,
            # A kept connection that has gone stale looks like a request that was lost.
            limits=httpx.Limits(max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={
                "Accept": "application/json",
                # What is not compressed cannot unfold beyond its bound.
                "Accept-Encoding": "identity",
                "User-Agent": settings.user_agent,
            },
        )

    @classmethod
    async def make(cls, settings: VkSettings, now: float) -> Self:
        """Return a client; `now` is the Unix time, by which a date in Retry-After is reckoned."""
        tls = await anyio.to_thread.run_sync(ssl.create_default_context)
        return cls(settings, tls, now)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        # httpcore 1.0 forgets a connection when a cancellation falls into its TLS handshake.
        with anyio.CancelScope(shield=True):
            for connection in self._opened:
                await connection.aclose()
            await self._client.aclose()

    async def post(self, stage: str, url: str, form: Mapping[str, Secret[str]]) -> HttpAnswer:
        """Post a form; raises `StageError` (`request_failed`) at `stage`."""
        fields = {name: value.reveal() for name, value in form.items()}
        answer: HttpAnswer | None = None
        failure: tuple[str, str] | None = None
        with quiet(), anyio.move_on_after(self._settings.timeout):
            for _ in range(ATTEMPTS):
                opened = len(self._opened)
                failure = None
                try:
                    answer = await self._send(url, urlencode(fields).encode())
                except httpx.HTTPError as error:
                    failure = _told(error)
                if failure is None or len(self._opened) > opened:
                    break
        # Raised out here: what httpx raises refers to the request, with all that is secret in it.
        if answer is None:
            what, advice = failure or (
                f"there was no whole answer within {self._settings.timeout:g} s",
                "check the network, or raise the setting timeout",
            )
            host = urlsplit(url).hostname or "VK"
            raise StageError("request_failed", f"{host}: {what}", advice, provider_stage=stage)
        return answer

    async def _send(self, url: str, content: bytes) -> HttpAnswer:
        request = self._client.build_request(
            "POST", url, headers={"Content-Type": "application/x-www-form-urlencoded"},
            content=content,
        )  # fmt: skip
        request.stream = _Body(content)
        request.extensions["trace"] = self._note
        response = await self._client.send(request, stream=True)
        try:
            body = await _read(response)
        finally:
            await response.aclose()
        wait = _retry_after_untrusted(response.headers.get("retry-after"), self._now)
        return HttpAnswer(response.status_code, wait, body)

    async def _note(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of a new connection; httpcore calls this at each of its steps."""
        if event == "connection.connect_tcp.complete":
            self._opened.append(info["return_value"])


class _Body(httpx.AsyncByteStream):
    """A request's body, sent in one piece.

    httpx's own is an async generator, which stays open when sending is broken off.
    """

    def __init__(self, content: bytes) -> None:
        self._left = [content]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def _read(response: httpx.Response) -> bytes:
    encoded = response.headers.get("content-encoding", "identity").strip().lower() != "identity"
    body = bytearray()
    # Broken off by cancelling, which ends the generators inside of httpx and httpcore from
    # within; left half-read they stay open, which trio complains about.
    with anyio.CancelScope() as reading:
        if encoded:
            reading.cancel()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BODY:
                reading.cancel()
    return b"" if encoded or len(body) > MAX_BODY else bytes(body)


def _retry_after_untrusted(value: str | None, now: float) -> int | None:
    """Return the seconds that Retry-After asks for (RFC 9110, section 10.2.3), or None."""
    if value is None or len(value) > 64:
        return None
    if value.isascii() and value.isdigit():
        return min(int(value), MAX_WAIT)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(0, round(seconds)), MAX_WAIT)


def _told(error: httpx.HTTPError) -> tuple[str, str]:
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return "its certificate is not trusted", "check this machine's clock, and the network"
    if any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
        return "there is no TLS with it", "check what stands between this machine and VK"
    if isinstance(error, httpx.ConnectError):
        return "there is no connection to it", "check the network, and that VK is reached from here"
    return "it broke off, or answered with something else than HTTP", "try again"


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
