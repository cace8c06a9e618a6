"""Credentials: kept while good, resolved again in time, and which endpoint of them is used."""

from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest

from turnlane.api import (
    Credentials,
    ProviderCapabilities,
    ProviderDescriptor,
    ProviderError,
    RelayEndpoint,
    RelayTransport,
    Renewal,
    Secret,
)
from turnlane.runtime.credentials import CredentialSource, choose_endpoint
from turnlane.telemetry import REDACTOR

pytestmark = pytest.mark.anyio

UDP = RelayEndpoint("relay.example", 3478)
TCP = RelayEndpoint("relay.example", 3479, RelayTransport.TCP)
TLS = RelayEndpoint("tls.example", 5349, RelayTransport.TLS)


@pytest.fixture
def source(resolver, profile):
    """Return a function that makes the credentials of a session."""

    def source(
        *,
        renewable: bool = True,
        on_renewed: Callable[[Credentials], None] | None = None,
        **more: Any,
    ) -> CredentialSource:
        made = resolver(renewable=renewable)
        return CredentialSource(profile(**more), made, on_renewed=on_renewed)

    return source


async def test_credentials_are_resolved_once_for_all_lanes(scripted, source, good) -> None:
    scripted.script = [good()]
    credentials = source()
    assert await credentials.get() is await credentials.get()
    assert len(scripted.requests) == 1


async def test_lanes_that_ask_at_once_share_one_resolution(scripted, source, good) -> None:
    scripted.script = [good()]
    credentials = source()
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(credentials.get)
    assert len(scripted.requests) == 1


async def test_credentials_about_to_expire_are_resolved_again(
    scripted, source, good, clock
) -> None:
    scripted.script = [good(expires_at=clock.now + 100), good(name="fresh")]
    credentials = source()
    await credentials.get()
    clock.now += 69
    assert (await credentials.get()).username == Secret("u")
    clock.now += 2
    assert (await credentials.get()).username == Secret("fresh")


async def test_refused_credentials_are_resolved_again_once(scripted, source, good) -> None:
    scripted.script = [good(), good(name="fresh")]
    credentials = source()
    first = await credentials.get()
    second = await credentials.get(refused=first)
    assert second.username == Secret("fresh")
    assert await credentials.get(refused=first) is second


@pytest.mark.parametrize(
    ("renewable", "renewal", "interactive", "resolved"),
    [
        (True, None, False, 2),
        (False, None, False, 1),
        (True, Renewal.NEVER, False, 1),
        (False, Renewal.RESOLVE, False, 2),
        (True, Renewal.CHALLENGE, False, 1),
        (False, Renewal.CHALLENGE, True, 2),
    ],
)
async def test_a_resolution_says_better_than_its_descriptor_whether_to_ask_again(
    scripted, source, good, clock, *, renewable, renewal, interactive, resolved
) -> None:
    scripted.script = [good(expires_at=clock.now, renewal=renewal), good()]
    credentials = source(renewable=renewable, interactive=interactive)
    first = await credentials.get()
    assert (await credentials.get(refused=first) is first) is (resolved == 1)
    assert len(scripted.requests) == resolved


async def test_the_log_hides_credentials_for_as_long_as_they_are_in_use(
    scripted, source, good
) -> None:
    scripted.script = [good(name="planted-user")]
    credentials = source()
    await credentials.get()
    assert REDACTOR.redact("planted-user") == "***"
    credentials.close()
    assert REDACTOR.redact("planted-user") == "planted-user"


@pytest.mark.parametrize(
    ("endpoints", "transport", "host", "port", "chosen"),
    [
        ((TCP, UDP), None, None, None, TCP),
        ((TCP, TLS), None, None, None, TCP),
        ((UDP, TCP), RelayTransport.TCP, None, None, TCP),
        ((UDP,), RelayTransport.TCP, None, None, msgspec.structs.replace(TCP, port=3478)),
        ((UDP, TLS), RelayTransport.TLS, None, None, TLS),
        ((UDP,), None, "192.0.2.9", None, RelayEndpoint("192.0.2.9", 3478)),
        ((UDP,), None, None, 99, RelayEndpoint("relay.example", 99)),
    ],
)
def test_the_endpoint_of_a_session(
    *,
    endpoints: tuple[RelayEndpoint, ...],
    transport: RelayTransport | None,
    host: str | None,
    port: int | None,
    chosen: RelayEndpoint,
    good: Any,
) -> None:
    credentials = good(*endpoints).credentials
    described = ProviderDescriptor("acme", "Acme", "A provider.", "acme:Acme")
    assert choose_endpoint(credentials, described, transport, host, port) == chosen


async def test_what_is_resolved_for_use_is_told_each_time(scripted, source, good) -> None:
    told: list[Credentials] = []
    scripted.script = [good(), ProviderError("down", "down"), good(name="fresh")]
    credentials = source(on_renewed=told.append)
    first = await credentials.get()
    with pytest.raises(ProviderError):
        await credentials.get(refused=first)
    fresh = await credentials.get(refused=first)
    await credentials.get()
    assert told == [first, fresh]


@pytest.mark.parametrize(
    ("endpoints", "chosen"), [((TCP, UDP), UDP), ((TCP, TLS), TCP), ((UDP, UDP), UDP)]
)
def test_a_provider_may_prefer_a_transport_to_the_order_of_its_endpoints(
    endpoints: tuple[RelayEndpoint, ...], chosen: RelayEndpoint
) -> None:
    capabilities = ProviderCapabilities(default_transport=RelayTransport.UDP)
    preferring = ProviderDescriptor("p", "P", "P.", "m:C", capabilities=capabilities)
    credentials = Credentials(endpoints, Secret("u"), Secret("p"))
    assert choose_endpoint(credentials, preferring, None, None, None) is chosen
