"""The checks of an adapter: each says in its docstring what an adapter's author must do.

A check is a plain async function over an `AdapterCase`. It returns when the adapter does as it
must, raises `CheckFailedError` with what is wrong, and `NotJudgedError` where it does not apply or
where another check must pass before. Checks run the adapter on the runtime's own context, over
loopback sockets, on whichever backend they are called.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing
from typing import Any

import anyio

from turnlane.api import (
    CONTRACT_MINOR,
    AdapterError,
    Batch,
    Direction,
    SettingsError,
    Stage,
    TurnlaneError,
)
from turnlane.plugins.records import PluginStatus
from turnlane.plugins.settings import describe
from turnlane.telemetry.redaction import MIN_LENGTH, find_leaks
from turnlane.testing import datagram_checks, stream_checks
from turnlane.testing.adapter_bench import AdapterCase, Bench, CutError, calling, needing, told
from turnlane.testing.adapter_ends import (
    DatagramEnd,
    Runner,
    StreamEnd,
    beside,
    closing_end,
    end_of,
    exchange,
    opened,
    others_wait,
)
from turnlane.testing.adapter_peers import silent_address
from turnlane.testing.cancellation import CancelAt
from turnlane.testing.findings import CheckFailedError, NotJudgedError, fail, require
from turnlane.testing.leftovers import Holdings, aged, left_since, watched
from turnlane.testing.observation import observed

Check = Callable[[AdapterCase], Awaitable[None]]

MAX_WAITS = 1000
"""Awaits of one operation at which it is cancelled, each in turn."""

ODD_ADDRESSES = (
    "",
    " ",
    ":",
    "[",
    "[::1",
    "\0:1",
    "\udcff:1",
    "127.0.0.1",
    "127.0.0.1:99999",
    "127.0.0.1:-1",
    "x" * 10_000,
)
"""Addresses that are none: whatever comes of them, it is no crash."""

_CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_WORD = re.compile(r"[a-z]+")


async def descriptor_is_complete(case: AdapterCase) -> None:
    """Offer the adapter with all that front ends show of it.

    The plugin's hooks are sound, and the descriptor has a title and a summary of one line each, the
    direction of its hook, a stability, and a minor version of the contract that there is. Only an
    egress of streams can say `dials_client_choice`.
    """
    made = Bench(case)
    record = made.plugins.records[0]
    require(
        record.status is PluginStatus.LOADED,
        f"the plugin does not load: {record.reason} ({record.code})",
    )
    descriptor = made.offered.get(case.adapter)
    if descriptor is None:
        offered = ", ".join(made.offered) or "none"
        fail(f"the plugin offers no {case.direction} {case.adapter!r}; it offers: {offered}")
    for name in ("title", "summary"):
        text: str = getattr(descriptor, name)
        require(text.strip() and len(text.splitlines()) == 1, f"the {name} is not one line of text")
    require(all(descriptor.pairs_with), "an adapter that it pairs with has no name")
    require(_WORD.fullmatch(descriptor.stability), "the stability is not a word in lower case")
    require(
        0 <= descriptor.contract_minor <= CONTRACT_MINOR,
        f"contract_minor is not from 0 to {CONTRACT_MINOR}",
    )
    chooses = descriptor.direction is Direction.EGRESS and made.stream
    require(
        chooses or not descriptor.dials_client_choice,
        "dials_client_choice is said of what is no egress of streams",
    )


async def class_is_importable(case: AdapterCase) -> None:
    """Let the descriptor name a class, and a settings schema if any, that can be imported.

    The class is made with the context, the address and the settings; an ingress has `async def
    open()`, an egress `async def prepare()` and `async def connect(…)`. The schema is a
    `msgspec.Struct` each of whose fields says what it is.
    """
    made = Bench(case)
    unfit = made.unfit()
    require(unfit is None, f"{unfit}")
    schema = made.descriptor.settings
    if schema is not None:
        fields = describe(made.plugins.load_settings(schema))
        silent = [field["name"] for field in fields if not field["description"]]
        require(not silent, f"settings without a description: {', '.join(silent)}")


async def opens_the_good_address(case: AdapterCase) -> None:
    """Open at the good address with the good settings.

    Making the adapter opens nothing yet. An ingress says where it listens, with the port that the
    system chose; `prepare` of an egress leaves nothing open.
    """
    made = Bench(case)
    made.load()
    before = Holdings.take([])
    end = end_of(made)
    async with closing_end(end):
        try:
            held = Holdings.take([])
            made.make(made.address(end.upstream.address[1]))
            left = Holdings.take([]).since(held)
            require(not left, f"making the adapter opens something: {', '.join(left)}")
            with made.within("it does not open in time"):
                await end.open()
            if made.ingress:
                opened_one: Any = end.listener if isinstance(end, StreamEnd) else end.sockets[0]
                _require_address(opened_one.local_address)
        except CheckFailedError:
            raise
        except (Exception, SystemExit) as error:
            fail(f"at the good address it raises {told(error)}")
    if not made.ingress:
        left = await left_since(before, [])
        require(not left, f"prepare leaves something open: {', '.join(left)}")


async def refuses_bad_addresses(case: AdapterCase) -> None:
    """Refuse an address that is not one of yours with `AdapterError`, and leave nothing open.

    Its stage is `local_bind` for an ingress, `upstream_dial` for an egress.
    """
    made = Bench(case)
    made.load()
    stage = Stage.LOCAL_BIND if made.ingress else Stage.UPSTREAM_DIAL
    for number, address in enumerate(case.bad_addresses, 1):
        what = f"bad address {number}"
        before = Holdings.take([])
        with made.within(f"{what} is not refused in time"):
            error = await made.try_address(address)
        if error is None:
            fail(f"{what} is not refused")
        require(isinstance(error, AdapterError), f"{what}: {told(error)}, not AdapterError")
        require(getattr(error, "stage", None) == stage, f"{what}: the stage is not {stage}")
        del error  # its traceback holds what was there
        left = await left_since(before, [])
        require(not left, f"after {what} there was left: {', '.join(left)}")


async def refuses_bad_settings(case: AdapterCase) -> None:
    """Say in the settings schema all that a setting must be.

    Each of the case's bad settings, and one that there is not, is refused with `SettingsError`
    before the adapter is made.
    """
    made = Bench(case)
    made.load()
    if made.descriptor.settings is None:
        require(not case.bad_settings, "the case has bad settings, the adapter no schema")
        raise NotJudgedError("the adapter has no settings")
    unknown = {**case.settings, "no_setting_has_this_name": True}
    for number, settings in enumerate((*case.bad_settings, unknown), 1):
        what = f"bad settings {number}" if settings is not unknown else "an unknown setting"
        try:
            made.make(made.address(), settings)
        except SettingsError:
            continue
        except (Exception, SystemExit) as error:
            fail(f"{what}: {told(error)}, not SettingsError")
        fail(f"{what}: the adapter is made")


async def cancellation_at_every_await(case: AdapterCase) -> None:
    """Let a cancellation pass at every await, and give back what you hold.

    `open`, `prepare`, `connect`, `accept` and `receive` are cancelled where they wait for the first
    time, the second and so on until they complete. The cancellation must come out of them, and once
    everything is closed no socket, file, thread or task may be left; an offer whose `accept` is
    cancelled is released by that. After a cancelled `connect`, `accept` or `receive` the next one
    works.
    """
    made = Bench(case)
    made.load()
    for operation in await _operations(made):
        with aged():
            for number in range(1, MAX_WAITS + 1):
                cutting = _Cutting(operation, number)
                where = f"{operation} was cancelled at its await {number}"
                before = Holdings.take([])
                with watched() as leak:
                    try:
                        await _exercise(made, cutting)
                    except CheckFailedError as error:
                        fail(f"after {where}: {error}")
                    left = await left_since(before, [])
                require(not cutting.swallowed, f"when {where}, the cancellation did not come out")
                require(not left, f"after {where} there was left: {', '.join(left)}")
                require(not leak.unclosed, f"after {where} something was never closed")
                if cutting.completed:
                    break


class _Cutting:
    """Cancels an operation, the first time that it is done, at one of its awaits (a `Runner`)."""

    def __init__(self, operation: str, number: int) -> None:
        self.operation = operation
        self.number = number
        self.begun = False
        self.completed = False
        self.swallowed = False

    async def __call__(self, operation: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Await an operation; raises `CutError` where it was cancelled."""
        if operation != self.operation or self.begun:
            return await coroutine
        self.begun = True
        result = None
        with anyio.CancelScope() as scope:
            run = CancelAt(coroutine, self.number, scope.cancel)
            try:
                result = await run
            except (Exception, SystemExit) as error:
                if run.waits >= self.number:
                    fail(f"it raises {told(error)}")
                raise
        if scope.cancelled_caught:
            raise CutError
        self.completed = run.waits < self.number
        self.swallowed = run.delivered
        return result


async def _exercise(made: Bench, run: Runner) -> None:
    """Open the adapter and carry something, once more where that was cancelled; close it."""
    end = end_of(made, run, late=True)
    async with closing_end(end):
        try:
            await end.open()
        except CutError:
            return
        try:
            await exchange(end)
        except CutError:
            if isinstance(end, StreamEnd):
                end.hang_up()
            await exchange(end)


async def _operations(made: Bench) -> list[str]:
    """Return what the adapter is asked to do, in order; raises `NotJudgedError` if it cannot."""
    operations: dict[str, None] = {}

    async def note(operation: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
        operations[operation] = None
        return await coroutine

    # What is made once for the process (a module's globals, a pool of threads) is made here.
    await _soundly(made, note)
    before = Holdings.take([])
    await _soundly(made, note)
    if await left_since(before, []):
        raise NotJudgedError("closing leaves something, see closing_ends_what_waits")
    return list(operations)


async def _soundly(made: Bench, run: Runner) -> None:
    try:
        await _exercise(made, run)
    except (Exception, SystemExit):
        raise NotJudgedError("it carries nothing, see the checks of that") from None


async def closing_ends_what_waits(case: AdapterCase) -> None:
    """Let what is closed be over: a second close does nothing, and nothing is left open.

    A waiting `receive` or `accept` ends with `anyio.ClosedResourceError`, and so does the next one;
    of a stream `send` too.
    """
    async with opened(case) as end:
        with needing("the checks of carrying"):
            await exchange(end)
    before = Holdings.take([])
    async with opened(case) as end:
        if not end.made.ingress:
            before = Holdings.take([])  # what `prepare` has left is another check's
        if isinstance(end, DatagramEnd):
            socket = (await end.flow()).socket
            await _closed(end.made, "receive", lambda: socket.receive(Batch()), socket.close)
        else:
            near = (await end.line()).near
            await _closed(end.made, "receive", near.receive, near.aclose)
            await _require_closed("send", lambda: near.send(b"late"))
            if end.made.ingress:
                listener = end.listener
                await _closed(end.made, "accept", listener.accept, listener.aclose)
    left = await left_since(before, [])
    require(not left, f"after closing there was left: {', '.join(left)}")


async def _closed(
    made: Bench,
    operation: str,
    wait: Callable[[], Coroutine[Any, Any, Any]],
    close: Callable[[], Any],
) -> None:
    over = anyio.Event()
    outcome: list[BaseException] = []

    async def waiting() -> None:
        try:
            await wait()
        except (Exception, SystemExit) as error:
            outcome.append(error)
        over.set()

    with made.within(f"a waiting {operation} does not end when it is closed"):
        async with beside(waiting):
            await others_wait()
            for what in ("close", "a second close"):
                with calling(what):
                    done = close()
                    if inspect.isawaitable(done):
                        await done
            await over.wait()
    if not outcome:
        fail(f"a waiting {operation} returns something when it is closed")
    require(
        isinstance(outcome[0], anyio.ClosedResourceError),
        f"a waiting {operation} ends with {told(outcome[0])} when it is closed",
    )
    with made.within(f"once it is closed, {operation} waits"):
        await _require_closed(operation, wait)


async def _require_closed(operation: str, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    try:
        await call()
    except anyio.ClosedResourceError:
        return
    except (Exception, SystemExit) as error:
        fail(f"once it is closed, {operation} raises {told(error)}")
    fail(f"once it is closed, {operation} does not raise")


async def secrets_stay_secret(case: AdapterCase) -> None:
    """Keep secrets out of everything that is shown.

    None of the case's secrets may be in the print of the settings, the adapter or what it opens, an
    error or what caused it, a log record at level debug, or on standard output or error, in plain
    or encoded.
    """
    if not case.secrets:
        raise NotJudgedError("the case has no secrets")
    short = [number for number, each in enumerate(case.secrets) if len(each) < MIN_LENGTH]
    require(not short, f"secrets of under {MIN_LENGTH} characters cannot be searched for: {short}")
    errors: list[tuple[str, BaseException | None]] = []
    with observed() as shown:
        async with opened(case) as end:
            made = end.made
            with needing("the checks of carrying"):
                await exchange(end)
            shown.add("the print of what it opened", *(repr(each) for each in end.shown))
        for number, address in enumerate(case.bad_addresses, 1):
            errors.append((f"the error for bad address {number}", await made.try_address(address)))
    shown.add("the print of the settings", repr(made.settings()))
    for place, error in errors:
        if isinstance(error, TurnlaneError):
            shown.add_error(place, error)
    leaks = dict.fromkeys(
        f"{leak} in {place}"
        for place, text in shown.texts
        for leak in find_leaks(text, case.secrets)
    )
    require(not leaks, f"secrets were shown: {'; '.join(list(leaks)[:5])}")


async def errors_are_typed(case: AdapterCase) -> None:
    """Tell each failure as a `TurnlaneError` that an operator and a script can use.

    It has a stage, a code in snake_case, a message and advice on what to do next. No address,
    however odd, makes the adapter crash, nor does an upstream of streams that does not listen: that
    is an `AdapterError` at `upstream_dial`.
    """
    made = Bench(case)
    made.load()
    for number, address in enumerate(case.bad_addresses, 1):
        error = await made.try_address(address)
        if isinstance(error, TurnlaneError):
            _require_typed(error, f"bad address {number}")
    for address in ODD_ADDRESSES:
        error = await made.try_address(address)
        if error is not None:
            _require_typed(error, f"the address {address[:16]!a}")
    if made.stream and not made.ingress:
        held, (_, port) = silent_address()
        with closing(held):
            adapter = made.make(made.address(port))
            with made.within("an upstream that does not listen is not told in time"):
                try:
                    stream = await adapter.connect(made.destination(port))
                except (Exception, SystemExit) as raised:
                    _require_typed(raised, "an upstream that does not listen")
                    require(
                        getattr(raised, "stage", None) == Stage.UPSTREAM_DIAL,
                        "an upstream that does not listen is told at another stage",
                    )
                else:
                    await stream.aclose()
                    fail("an upstream that does not listen is connected to")


def _require_typed(error: BaseException, what: str) -> None:
    if not isinstance(error, TurnlaneError):
        fail(f"{what} makes it raise {type(error).__name__}")
    require(isinstance(error.stage, Stage), f"{what}: the stage is no Stage")
    require(_CODE.fullmatch(error.code), f"{what}: the code is not in snake_case")
    require(error.message.strip(), f"{what}: the error has no message")
    require(error.advice.strip(), f"{what}: the error has no advice")


def _require_address(address: Any) -> None:
    fine = isinstance(address, tuple) and [type(part) for part in address] == [str, int]
    require(fine and address[1] > 0, "local_address is not a host and the port that it has")


CHECKS: tuple[Check, ...] = (
    descriptor_is_complete,
    class_is_importable,
    opens_the_good_address,
    *datagram_checks.CHECKS,
    *stream_checks.CHECKS,
    refuses_bad_addresses,
    refuses_bad_settings,
    closing_ends_what_waits,
    cancellation_at_every_await,
    secrets_stay_secret,
    errors_are_typed,
)
"""All checks, in the order in which they help most when something is wrong."""


def name_of(check: Check) -> str:
    """Return the stable name of a check."""
    name: str = getattr(check, "__name__")  # noqa: B009 the type of a function has none
    return name
