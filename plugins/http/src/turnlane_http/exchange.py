"""The exchange: one request, one bounded answer, and every way in which it fails named."""

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.to_thread
import httpx
from anyio.abc import AsyncResource

from turnlane_http.errors import ExchangeError
from turnlane_http.link import Endpoint
from turnlane_http.quiet import quiet
from turnlane_http.settings import HttpSettings

MAX_BODY = 256 * 1024
"""Bytes of an answer's body."""

MAX_RETRY_AFTER = 30 * 86400
"""Seconds; a server that asks for more is told as asking for this."""

_UNTRUSTED = (
    "if it has a certificate of your own authority, name that authority's file with the setting "
    "ca_file"
)
_CAUSES = {
    9: ("its certificate is not valid yet", "check this machine's clock"),
    10: (
        "its certificate has expired",
        "check this machine's clock, and tell whoever runs the endpoint",
    ),
    18: ("its certificate is self-signed", _UNTRUSTED),
    19: ("its certificate comes from an authority that is not trusted here", _UNTRUSTED),
    20: ("its certificate comes from an authority that is not trusted here", _UNTRUSTED),
    21: ("its certificate comes from an authority that is not trusted here", _UNTRUSTED),
    62: (
        "its certificate is for another name",
        "write the host in the link as the certificate names it",
    ),
    64: (
        "its certificate is for another address",
        "write the host in the link as the certificate names it",
    ),
}
"""By OpenSSL's verification results (X509_V_ERR_...)."""


@dataclass(frozen=True)
class HttpAnswer:
    """An answer with a status of success; its body may hold credentials."""

    status: int
    body: bytes = field(repr=False)


async def exchange(
    endpoint: Endpoint, settings: HttpSettings, config_dir: Path, now: float
) -> HttpAnswer:
    """Ask the endpoint once, within `settings.timeout` seconds in all.

    Redirects are not followed: each could carry a key to where it was not meant to go. `now` is
    the Unix time, by which a date in Retry-After is reckoned. Raises `ExchangeError`.
    """
    tls = await anyio.to_thread.run_sync(_tls, endpoint, settings, config_dir)
    if tls is None:
        raise ExchangeError(
            "ca_file_unusable",
            "the file that the setting ca_file names cannot be read as certificates in PEM form",
            "check its path and that this user may read it",
        )
    failure: ExchangeError | None = None
    answer: HttpAnswer | None = None
    with quiet(), anyio.move_on_after(settings.timeout):
        try:
            async with _Connections() as connections, _client(endpoint, settings, tls) as client:
                request = _request(client, endpoint, settings)
                request.extensions["trace"] = connections.note
                response = await client.send(request, stream=True, follow_redirects=False)
                answer = await _read(response, now)
        except httpx.HTTPError as error:
            failure = _failure(error, endpoint)
        except (httpx.InvalidURL, ImportError, ValueError):
            failure = _no_request(settings)
    # Raised out here: what httpx raises refers to the request, with all that is secret in it.
    if failure is not None:
        raise failure
    if answer is None:
        raise ExchangeError(
            "http_timeout",
            f"{endpoint.address} did not answer in full within {settings.timeout:g} s",
            "check the network and the endpoint, or raise the setting timeout",
        )
    return answer


def _tls(endpoint: Endpoint, settings: HttpSettings, config_dir: Path) -> ssl.SSLContext | None:
    """Return what certificates are verified by, or None when `ca_file` is unusable."""
    if endpoint.scheme == "http":
        # Trusts nobody: should anything begin TLS after all, it fails.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.ca_file is None:
        return ssl.create_default_context()
    try:
        path = config_dir / Path(settings.ca_file).expanduser()
        return ssl.create_default_context(cafile=path)
    except (OSError, RuntimeError, ValueError):
        return None


def _client(endpoint: Endpoint, settings: HttpSettings, tls: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        verify=tls,
        # A request to this machine goes to no proxy: without TLS it would show there.
        trust_env=settings.trust_env and not endpoint.loopback,
        # One limit holds for everything, so that an answer cannot trickle for ever.
        timeout=None,  # noqa: S113
        follow_redirects=False,
        headers={
            "Accept": "application/json",
            # What is not compressed cannot unfold beyond its bound.
            "Accept-Encoding": "identity",
            "User-Agent": "turnlane-http",
        },
    )


def _request(
    client: httpx.AsyncClient, endpoint: Endpoint, settings: HttpSettings
) -> httpx.Request:
    headers: list[tuple[bytes, bytes]] = []
    if settings.bearer_token is not None:
        headers.append((b"Authorization", b"Bearer " + settings.bearer_token.reveal().encode()))
    if settings.api_key_header is not None and settings.api_key is not None:
        headers.append((settings.api_key_header.encode(), settings.api_key.reveal().encode()))
    content: bytes | None = None
    if settings.request_body is not None:
        content = settings.request_body.reveal().encode()
        headers.append((b"Content-Type", b"application/json"))
    url = httpx.URL(
        scheme=endpoint.scheme,
        host=endpoint.host,
        port=endpoint.port,
        raw_path=endpoint.target.reveal().encode("ascii"),
    )
    request = client.build_request(settings.method, url, headers=headers, content=content)
    if settings.user is not None and settings.password is not None:
        basic = httpx.BasicAuth(settings.user.reveal(), settings.password.reveal())
        request = next(basic.auth_flow(request))
    request.stream = _Body(content or b"")
    return request


class _Connections:
    """Closes what was opened, also when a cancellation falls into a TLS handshake.

    httpcore 1.0 forgets the connection then. It tells of each one through the extension `trace`.
    """

    def __init__(self) -> None:
        self._opened: list[AsyncResource] = []

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of a new connection; httpcore calls this at each of its steps."""
        if event == "connection.connect_tcp.complete":
            self._opened.append(info["return_value"])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        with anyio.CancelScope(shield=True):
            for connection in self._opened:
                await connection.aclose()


class _Body(httpx.AsyncByteStream):
    """A request's body, sent in one piece.

    httpx's own is an async generator, which stays open when sending is broken off.
    """

    def __init__(self, content: bytes) -> None:
        self._left = [content] if content else []

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def _read(response: httpx.Response, now: float) -> HttpAnswer:
    try:
        status = response.status_code
        if not 200 <= status <= 299:
            raise _refused(status, _retry_after_untrusted(response.headers.get("retry-after"), now))
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise ExchangeError(
                "unsupported_encoding",
                "the endpoint compressed its answer, though it was asked not to",
                "tell whoever runs it that Accept-Encoding: identity is not heeded",
                status=status,
            )
        if _announced_untrusted(response.headers.get("content-length")) > MAX_BODY:
            raise _too_large(status)
        body = bytearray()
        # Broken off by cancelling, which ends the generators inside of httpx and httpcore from
        # within; left half-read they stay open, which trio complains about.
        with anyio.CancelScope() as reading:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BODY:
                    reading.cancel()
        if len(body) > MAX_BODY:
            raise _too_large(status)
        return HttpAnswer(status, bytes(body))
    finally:
        await response.aclose()


def _refused(status: int, retry_after: int | None) -> ExchangeError:
    wait = "" if retry_after is None else f" in {retry_after} s"
    code, message, advice = "http_status", "refused the request", "check the link and the settings"
    if status in (401, 403):
        code = "http_unauthorized"
        message = "did not accept who is asking"
        advice = (
            "check bearer_token, user and password, or api_key, and that they may ask for "
            "TURN credentials"
        )
    elif status in (404, 410):
        code, message = "http_not_found", "knows nothing of this path"
        advice = "check the path of the link"
    elif status == 405:
        code, message = "http_method_refused", "does not take this method"
        advice = "set the setting method to the other of GET and POST"
    elif status == 429:
        code, message = "rate_limited", "was asked too often"
        advice = f"try again{wait}" if wait else "try again later"
    elif 300 <= status <= 399:
        code, message = "redirect_refused", "wants the request to go elsewhere"
        advice = "redirects are not followed: write the endpoint's final URL as the link"
    elif 500 <= status <= 599:
        code, message = "http_server_error", "failed"
        advice = f"try again{wait or ' later'}; if it stays so, tell whoever runs the endpoint"
    return ExchangeError(
        code,
        f"the endpoint {message} (HTTP status {status})",
        advice,
        status=status,
        retry_after=retry_after,
    )


def _too_large(status: int) -> ExchangeError:
    return ExchangeError(
        "answer_too_large",
        f"the endpoint's answer has over {MAX_BODY // 1024} KiB",
        "check that the link is the endpoint for credentials",
        status=status,
    )


def _announced_untrusted(value: str | None) -> int:
    """Return what Content-Length announces, 0 when it says nothing that can be read."""
    return int(value) if value is not None and value.isascii() and value.isdigit() else 0


def _retry_after_untrusted(value: str | None, now: float) -> int | None:
    """Return the seconds that Retry-After asks for (RFC 9110, section 10.2.3), or None."""
    if value is None or len(value) > 64:
        return None
    if value.isascii() and value.isdigit():
        return min(int(value), MAX_RETRY_AFTER)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(0, round(seconds)), MAX_RETRY_AFTER)


def _failure(error: httpx.HTTPError, endpoint: Endpoint) -> ExchangeError:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            told, advice = _CAUSES.get(
                cause.verify_code, ("its certificate does not verify", _UNTRUSTED)
            )
            return ExchangeError(
                "tls_verification_failed", f"{endpoint.address} is not trusted: {told}", advice
            )
        if isinstance(cause, ssl.SSLError):
            return ExchangeError(
                "tls_failed",
                f"{endpoint.address} does not speak TLS as this machine does",
                "check that the port is one for https://",
            )
    if isinstance(error, httpx.ProxyError):
        return ExchangeError(
            "proxy_failed",
            "the proxy that the environment names refused",
            "check HTTPS_PROXY and NO_PROXY, or turn the setting trust_env off",
        )
    if isinstance(error, httpx.ConnectError):
        return ExchangeError(
            "connect_failed",
            f"there is no connection to {endpoint.address}",
            "check the network and the host in the link",
        )
    return ExchangeError(
        "connection_lost",
        f"{endpoint.address} broke off, or answered with something else than HTTP",
        "try again; check that the port in the link is one for HTTP",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _no_request(settings: HttpSettings) -> ExchangeError:
    if settings.trust_env:
        return ExchangeError(
            "proxy_failed",
            "the proxy that the environment names cannot be used",
            "check HTTPS_PROXY and NO_PROXY, or turn the setting trust_env off",
        )
    return ExchangeError(
        "connect_failed",
        "the host in the link is not one that can be looked up",
        "check the host in the link",
    )
