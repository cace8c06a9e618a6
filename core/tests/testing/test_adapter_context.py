"""The context for adapters' own unit tests: it notes what it is asked and opens nothing."""

from typing import Any

import pytest

from turnlane.api import AdapterContext, AdapterError, Stage
from turnlane.testing.adapter_context import FakeAdapterContext

pytestmark = pytest.mark.anyio


async def opened_by(context: AdapterContext) -> list[Any]:
    return [
        await context.bind_udp("::1", 1),
        await context.connect_udp("a.example", 2, 7),
        await context.listen_tcp("::1", 3),
        await context.connect_tcp("a.example", 4),
    ]


async def test_it_notes_what_it_is_asked_and_what_became_of_it() -> None:
    context = FakeAdapterContext()
    bound, connected, listener, stream = await opened_by(context)

    assert context.calls == [
        ("bind_udp", "::1", 1),
        ("connect_udp", "a.example", 2, 7),
        ("listen_tcp", "::1", 3),
        ("connect_tcp", "a.example", 4),
    ]
    assert context.opened == [bound, connected, listener, stream]
    assert (bound.local_address, listener.local_address) == (("::1", 1), ("::1", 3))
    assert stream.remote_address == ("a.example", 4)
    bound.close()
    await stream.aclose()
    assert [each.closed for each in context.opened] == [True, False, False, True]
    await listener.aclose()
    assert listener.closed


async def test_it_raises_what_it_is_told_to_and_opens_nothing_then() -> None:
    context = FakeAdapterContext()
    context.error = AdapterError(Stage.LOCAL_BIND, "taken", "it is taken", "take another")

    with pytest.raises(AdapterError, match="taken"):
        await context.bind_udp("::1", 1)

    assert (len(context.calls), context.opened) == (1, [])


async def test_what_it_opens_is_not_to_be_used() -> None:
    bound, _, listener, stream = await opened_by(FakeAdapterContext())
    unused = [
        bound.receive(None),
        listener.accept(),
        stream.receive(),
        stream.send(b""),
        stream.send_eof(),
    ]

    for each in unused:
        with pytest.raises(AssertionError, match="opens nothing"):
            await each
    with pytest.raises(AssertionError, match="opens nothing"):
        bound.send(None)
