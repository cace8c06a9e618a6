"""Logs: ours hold nothing of a request, and those of others are left alone."""

import logging
import ssl
from typing import Any

import pytest

from turnlane.telemetry.redaction import find_leaks
from turnlane_http.quiet import LOGGERS

pytestmark = pytest.mark.anyio


class Keeper(logging.Handler):
    """Keeps all that is logged, and what it was made of."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(f"{record.name} {record.getMessage()} {record.args!r}")


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Any:
    keeper = Keeper()
    loggers = [logging.getLogger(name) for name in ("", "turnlane", "httpx", "httpcore", *LOGGERS)]
    for logger in loggers:
        monkeypatch.setattr(logger, "level", logging.DEBUG)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]
    logging.getLogger().addHandler(keeper)
    yield keeper
    logging.getLogger().removeHandler(keeper)
    logging.getLogger().manager._clear_cache()  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [200, 302, 401, 429])
async def test_nothing_of_a_request_is_logged_by_the_http_libraries(
    client: Any, endpoint: Any, keeper: Keeper, status: int
) -> None:
    endpoint.status = status
    endpoint.headers = {"Set-Cookie": "planted-header", "Location": "https://x/planted-header"}
    settings: dict[str, Any] = {"method": "POST", "api_key_header": "X-Api-Key", **client.secrets}

    if status == 200:
        await client.resolve(endpoint.link, **settings)
    else:
        await client.failing(endpoint.link, **settings)
        await client.failing(
            endpoint.link, user="planted-basic-user", password="planted-basic-password"
        )

    told = "\n".join(keeper.told)
    assert find_leaks(told, client.planted) == []
    assert "httpx" not in told
    assert "httpcore" not in told


async def test_other_users_of_httpx_keep_their_logs(
    client: Any, plain_endpoint: Any, keeper: Keeper
) -> None:
    import httpx

    await client.resolve(plain_endpoint.link)
    async with httpx.AsyncClient(verify=ssl.create_default_context(), trust_env=False) as other:
        await other.get(f"http://localhost:{plain_endpoint.port}/theirs")

    assert any("httpx HTTP Request: GET" in line and "/theirs" in line for line in keeper.told)
    assert any("httpcore.http11" in line for line in keeper.told)
    assert find_leaks("\n".join(keeper.told), ["planted-path", "planted-query"]) == []
