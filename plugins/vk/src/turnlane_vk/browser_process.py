"""The browser's process: `python -m turnlane_vk.browser_process FOLDER`, driven by its pipe.

It starts a Chromium that the operator uses, watches what its pages send and receive, and tells the
answers it was asked to keep. It neither clicks nor types, and puts nothing into a page. However it
ends, and when whoever started it is gone, the browser and its folder go first.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
from anyio.abc import ByteReceiveStream, TaskGroup
from playwright.async_api import BrowserContext, Dialog, Error, Page, Playwright, async_playwright

from turnlane_vk.browser import MAX_OBSERVED_BODY
from turnlane_vk.browser_choice import Choice
from turnlane_vk.browser_folder import BrowserFolder
from turnlane_vk.browser_observer import Observer
from turnlane_vk.browser_wire import (
    Closed,
    Event,
    Finish,
    Finished,
    Lines,
    NotStarted,
    NotStartedReason,
    Observed,
    Open,
    Ready,
    WireError,
    encode,
)

ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""A browser that does nothing but what its operator does; over QUIC it would not be watched."""

MAX_KEPT = 32 * 1024 * 1024
"""Bytes that the browser keeps of what a page got, for the answers among it."""

START_WITHIN = 45.0
CATCH_UP_WITHIN = 5.0
STOP_WITHIN = 5.0
"""Seconds."""

Tell = Callable[[Event], None]


class Pipe(ByteReceiveStream):
    """The reading end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return what has come; raises `EndOfStream`."""
        await anyio.wait_readable(self._descriptor)
        data = os.read(self._descriptor, max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def aclose(self) -> None:
        """Close it."""
        os.close(self._descriptor)


async def serve(folder: BrowserFolder, commands: Lines, tell: Tell) -> None:
    """Do what `commands` say until they end, or the browser does."""
    try:
        opening = await commands.command()
        if isinstance(opening, Open):
            await _observe(opening, folder, commands, tell)
    except WireError:
        # Nobody is there any longer to whom it could be told.
        pass
    finally:
        await folder.clear()


async def _observe(opening: Open, folder: BrowserFolder, commands: Lines, tell: Tell) -> None:
    async with anyio.create_task_group() as tasks:
        session = _Session(opening, folder, tell, tasks)
        tasks.start_soon(session.run)
        await session.obey(commands)
        tasks.cancel_scope.cancel()


class _Session:
    """One browser, from its start to its end."""

    def __init__(self, opening: Open, folder: BrowserFolder, tell: Tell, tasks: TaskGroup) -> None:
        self._opening = opening
        self._folder = folder
        self._tell = tell
        self._tasks = tasks
        self._context: BrowserContext | None = None
        self._closed = anyio.Event()
        self._observer = Observer(
            opening.watch, lambda answer: tell(Observed(answer)), tasks.start_soon
        )

    async def obey(self, commands: Lines) -> None:
        """Return once the operator has confirmed and all is told, or nobody is there to tell."""
        with suppress(WireError):
            if isinstance(await commands.command(), Finish):
                if self._context is not None:
                    await _catch_up(self._context)
                await self._observer.settle()
                self._tell(Finished())

    async def run(self) -> None:
        """Start the browser and stay until it is closed."""
        starter = async_playwright()
        # Shielded: what is cancelled while it starts is not stopped afterwards.
        with anyio.CancelScope(shield=True):
            playwright = await starter.start()
        try:
            context = await _launched(playwright, self._opening.choice, self._folder)
            if isinstance(context, NotStarted):
                self._tell(context)
            else:
                await self._stay(context)
        finally:
            with anyio.move_on_after(STOP_WITHIN, shield=True):
                await playwright.stop()
        self._tasks.cancel_scope.cancel()

    async def _stay(self, context: BrowserContext) -> None:
        self._context = context
        context.on("close", self._gone)
        context.on("page", lambda page: self._tasks.start_soon(_keep_bodies, context, page))
        context.on("request", self._observer.requested)
        context.on("requestfailed", self._observer.failed)
        context.on("response", lambda response: self._observer.answered(response.request, response))
        if not self._opening.choice.headless:
            # Without a listener playwright would answer the dialogs in the operator's place.
            context.on("dialog", _left_to_the_operator)
        self._tell(Ready())
        self._tasks.start_soon(self._open, context)
        await self._closed.wait()
        await self._observer.settle()
        self._tell(Closed())

    async def _open(self, context: BrowserContext) -> None:
        # A page that does not load shows why, and the operator may try again.
        with suppress(Error):
            page = context.pages[0] if context.pages else await context.new_page()
            await _keep_bodies(context, page)
            await page.goto(self._opening.watch.page.reveal(), wait_until="commit")

    def _gone(self, _: BrowserContext) -> None:
        self._closed.set()
        self._observer.gone()


async def _keep_bodies(context: BrowserContext, page: Page) -> None:
    """Have the bodies that `page` gets outlive it, where this Chromium can do that."""
    bounds = {"maxTotalBufferSize": MAX_KEPT, "maxResourceBufferSize": 2 * MAX_OBSERVED_BODY}
    with suppress(Error):
        session = await context.new_cdp_session(page)
        await session.send("Network.configureDurableMessages", bounds)


async def _catch_up(context: BrowserContext) -> None:
    """Wait for what the browser has to tell about the past: it tells before it answers."""
    with anyio.move_on_after(CATCH_UP_WITHIN), suppress(Error):
        for page in context.pages:
            session = await context.new_cdp_session(page)
            await session.send("Page.getFrameTree")


async def _launched(
    playwright: Playwright, choice: Choice, folder: BrowserFolder
) -> BrowserContext | NotStarted:
    try:
        return await playwright.chromium.launch_persistent_context(
            folder.profile,
            executable_path=choice.executable,
            headless=choice.headless,
            chromium_sandbox=choice.sandbox,
            args=ARGUMENTS,
            env=dict(folder.browser_environment(os.environ)),
            timeout=START_WITHIN * 1000,
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
            accept_downloads=False,
            no_viewport=True,
        )
    except Error as error:
        return NotStarted(_reason(str(error)))


def _reason(told: str) -> NotStartedReason:
    # What Chromium says is not passed on: it names the folder and the whole command line.
    if "Missing X server" in told or "ozone_platform" in told:
        return "display"
    if "No usable sandbox" in told or "without --no-sandbox" in told:
        return "sandbox"
    return "other"


def _left_to_the_operator(_: Dialog) -> None:
    pass


def main() -> None:
    """Serve on the standard streams; nothing else ever gets to them."""
    events = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)

    def tell(event: Event) -> None:
        line = encode(event)
        while line:
            line = line[os.write(events, line) :]

    folder = BrowserFolder(Path(sys.argv[1]))
    # playwright knows asyncio alone; nothing but it runs in this process.
    anyio.run(serve, folder, Lines(Pipe(0)), tell, backend="asyncio")


if __name__ == "__main__":
    main()
