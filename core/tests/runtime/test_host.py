"""The host as a context: what leaves its block is what was raised in it."""

from contextlib import AsyncExitStack

import anyio
import pytest

from turnlane.plugins.manager import PluginManager
from turnlane.runtime.host import Host

pytestmark = pytest.mark.anyio


def host() -> Host:
    return Host(PluginManager.from_modules([]))


def contexts(error: BaseException) -> list[BaseException]:
    """Return an exception and its contexts; raises `AssertionError` where they go in a circle.

    anyio follows them when a task ends, and would never come back.
    """
    chain: list[BaseException] = []
    context: BaseException | None = error
    while context is not None:
        circle = context in chain
        for one in chain if circle else ():
            one.__context__ = None
        assert not circle, "an exception is its own context"
        chain.append(context)
        context = context.__context__
    return chain


@pytest.mark.parametrize("stacked", [False, True])
async def test_a_host_that_is_left_by_cancellation_leaves_it_as_it_was(stacked: bool) -> None:
    cancellation = anyio.get_cancelled_exc_class()
    caught: list[BaseException] = []

    async def use() -> None:
        try:
            if stacked:
                async with AsyncExitStack() as stack:
                    await stack.enter_async_context(host())
                    await stack.enter_async_context(host())
                    stack.push_async_callback(anyio.lowlevel.checkpoint)
                    await anyio.sleep_forever()
            else:
                async with host():
                    await anyio.sleep_forever()
        except cancellation as error:
            caught.extend(contexts(error))
            raise

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert caught


async def test_what_the_block_raises_is_not_wrapped() -> None:
    with pytest.raises(ZeroDivisionError):
        async with host():
            raise ZeroDivisionError


async def test_a_host_that_nobody_entered_starts_nothing() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await host().start_server(None)  # type: ignore[arg-type]
