"""The checks of a platform tunnel: each says in its docstring what a tunnel's author must do.

A check is a plain async function over a `TunnelCase`. It returns when the tunnel does as it must,
raises `CheckFailedError` with what is wrong, and `NotJudgedError` where it does not apply, where
this host cannot have the tunnel, or where another check must pass before.
"""

import inspect
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import msgspec

from turnlane.api import (
    CONTRACT_MINOR,
    AdapterError,
    Batch,
    SettingsError,
    Stage,
    TunnelCapability,
    TunnelDevice,
    TunnelRequest,
    TurnlaneError,
)
from turnlane.plugins.manager import PluginManager
from turnlane.plugins.records import PluginStatus
from turnlane.plugins.settings import describe
from turnlane.telemetry.redaction import MIN_LENGTH, find_leaks
from turnlane.testing.cancellation import CancelAt
from turnlane.testing.findings import CheckFailedError, NotJudgedError, fail, require
from turnlane.testing.leftovers import Holdings, aged, left_since, watched
from turnlane.testing.observation import observed
from turnlane.testing.tunnel_bench import (
    Bench,
    Host,
    TunnelCase,
    WaitedError,
    attempt,
    bench,
    close,
    ip_packet,
    not_waiting,
    peers,
    told,
    unlike,
)

Check = Callable[[TunnelCase], Awaitable[None]]

MAX_WAITS = 1000
"""Awaits of one call at which it is cancelled, each in turn."""

PATIENCE = 5.0
"""Seconds after which a packet or an end that did not come is missed."""

FLOOD = 50
"""Batches that are sent while nobody takes what they carry."""

SMALL = 60
"""Bytes of a packet that is small for either version of IP."""

_PLATFORMS = re.compile(
    r"aix|android|cygwin|darwin|emscripten|ios|linux|wasi|win32"
    r"|(?:dragonfly|freebsd|netbsd|openbsd|sunos)[0-9]*"
)
_CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_WORD = re.compile(r"[a-z]+")


async def descriptor_is_complete(case: TunnelCase) -> None:
    """Offer the tunnel with all that front ends show of it.

    The plugin's hooks are sound, and the descriptor has a title and a summary of one line each,
    platforms as `sys.platform` names them, a stability, and a minor version of the contract that
    there is.
    """
    plugins = PluginManager.from_modules([case.plugin])
    record = plugins.records[0]
    require(
        record.status is PluginStatus.LOADED,
        f"the plugin does not load: {record.reason} ({record.code})",
    )
    descriptor = plugins.platform_tunnels().get(case.tunnel)
    if descriptor is None:
        offered = ", ".join(plugins.platform_tunnels()) or "none"
        fail(f"the plugin offers no platform tunnel {case.tunnel!r}; it offers: {offered}")
    for name in ("title", "summary"):
        text: str = getattr(descriptor, name)
        require(text.strip() and len(text.splitlines()) == 1, f"the {name} is not one line of text")
    require(descriptor.platforms, "there are no platforms")
    unknown = [each for each in descriptor.platforms if not _PLATFORMS.fullmatch(each)]
    require(not unknown, f"platforms that sys.platform never names: {', '.join(unknown)}")
    require(_WORD.fullmatch(descriptor.stability), "the stability is not a word in lower case")
    require(
        0 <= descriptor.contract_minor <= CONTRACT_MINOR,
        f"contract_minor is not from 0 to {CONTRACT_MINOR}",
    )


async def class_is_importable(case: TunnelCase) -> None:
    """Let the descriptor name a class, and a settings schema if any, that can be imported.

    The class is made with one argument, the settings, and has `async def capability()` and `async
    def open(request)`; the schema is a `msgspec.Struct` each of whose fields says what it is.
    """
    with bench(case) as made:
        unfit = made.unfit()
        require(unfit is None, f"{unfit}")
        reference = made.descriptor.settings
        if reference is not None:
            fields = describe(made.plugins.load_settings(reference))
            silent = [field["name"] for field in fields if not field["description"]]
            require(not silent, f"settings without a description: {', '.join(silent)}")


async def capability_is_told(case: TunnelCase) -> None:
    """Tell whether the host can have the tunnel; change nothing by looking, and never raise.

    Where it cannot (on a platform that is not declared, for one) there are a code in snake_case, a
    reason and advice; where it can, there are none. Looking twice says the same.
    """
    for host, expected in _hosts(case):
        with bench(case, host) as made:
            tunnel = made.make()
            async with _leaving_nothing(case, "after looking"):
                try:
                    found = [await tunnel.capability() for _ in range(2)]
                except Exception as error:
                    fail(f"capability raised {told(error)}")
            capability = found[0]
            require(isinstance(capability, TunnelCapability), "it is no TunnelCapability")
            require(found[0] == found[1], "looking twice says two things")
            code, reason, advice = capability.code, capability.reason, capability.advice
            if capability.available:
                require(expected is not False, "it is available where the case says that it is not")
                declared = host or any(map(sys.platform.startswith, made.descriptor.platforms))
                require(declared, f"it is available on {sys.platform}, which is not declared")
                require(not (code or reason or advice), "it is available, and says why not")
            else:
                require(expected is not True, f"it is not available where the case says so: {code}")
                require(_CODE.fullmatch(code), "it is not available; the code is not in snake_case")
                require(reason.strip(), "it is not available, and there is no reason")
                require(advice.strip(), "it is not available, and there is no advice")


async def unavailable_is_refused(case: TunnelCase) -> None:
    """Let `open` raise `AdapterError` at `local_bind` where the host cannot have the tunnel."""
    judged = False
    for host, _ in _hosts(case):
        with bench(case, host) as made:
            tunnel = made.make()
            if await _available(tunnel.capability()) is not False:
                continue
            judged = True
            await _refuse(case, made, case.request, "on a host that cannot have the tunnel")
    if not judged:
        raise NotJudgedError("this host can have the tunnel, and the case names none that cannot")


async def opens_a_device(case: TunnelCase) -> None:
    """Open a device that has a name, and the methods that the contract asks for."""
    with bench(case) as made:
        device = await attempt(await made.ready(), case.request)
        if isinstance(device, Exception):
            fail(f"the request gives {told(device)}")
        lacking = unlike(device)
        await close(device)
        require(lacking is None, f"{lacking}")


async def carries_packets(case: TunnelCase) -> None:
    """Carry packets both ways unchanged, bare of any header of the device, up to the MTU."""
    inject, extract = _needed(case.inject, "inject"), _needed(case.extract, "extract")
    own, other = peers(case.request)
    async with _opened(case) as device:
        for number, size in enumerate((SMALL, case.request.mtu), 1):
            packet = ip_packet(own, other, size, number)
            await inject(device, packet)
            got = await _received(device, [packet], Batch())
            require(
                got == [packet],
                f"what the host sent in {size} bytes was not received as it was sent",
            )

            packet, batch = ip_packet(other, own, size, number), Batch()
            batch.append(packet)
            require(device.send(batch) == 1, "send does not say that it took the one packet")
            seen = False
            with anyio.move_on_after(PATIENCE):
                while not seen:
                    seen = await extract(device) == packet
            require(seen, f"what was sent in {size} bytes did not reach the host as it was sent")


async def fills_batches(case: TunnelCase) -> None:
    """Clear a batch and fill it, as far as it goes; what does not fit waits for the next one."""
    inject = _needed(case.inject, "inject")
    own, other = peers(case.request)
    packets = [ip_packet(own, other, SMALL, number) for number in range(5)]
    async with _opened(case) as device:
        for packet in packets:
            await inject(device, packet)
        batch = Batch(capacity=2)
        batch.append(b"left over")
        got = await _received(device, packets, batch)
        require(got == packets, "packets were lost, doubled or reordered between small batches")


async def send_never_waits(case: TunnelCase) -> None:
    """Take what the system takes at once and drop the rest, however much comes.

    `send` returns how many packets of the batch were taken, also once the device is closed.
    """
    own, other = peers(case.request)
    batch = Batch()
    while batch.append(ip_packet(other, own, case.request.mtu, len(batch) + 1)):
        pass
    async with _opened(case) as device:
        for _ in range(FLOOD):
            _send(device, batch, "under a flood")
        batch.clear()
        _send(device, batch, "of an empty batch")
    batch.append(ip_packet(other, own, SMALL, 1))
    require(_send(device, batch, "after aclose") == 0, "send takes packets after aclose")


async def refuses_bad_requests(case: TunnelCase) -> None:
    """Refuse a request that is none with `AdapterError` at `local_bind`, and leave nothing."""
    with bench(case) as made, aged():
        await made.ready()
        for what, request in bad_requests(case):
            await _refuse(case, made, request, f"for {what}")


async def refuses_bad_settings(case: TunnelCase) -> None:
    """Say in the settings schema all that a setting must be.

    Each of the case's bad settings, and one that there is not, is refused before the class is made.
    """
    with bench(case) as made:
        if made.descriptor.settings is None:
            require(not case.bad_settings, "the case has bad settings, the tunnel no schema")
            raise NotJudgedError("the tunnel has no settings")
        if made.unfit() is not None:
            raise NotJudgedError("there is nothing to run, see class_is_importable")
        try:
            made.settings()
        except SettingsError as error:
            fail(f"the settings of the case do not fit: {'; '.join(error.details)}")
        unknown = {**case.settings, "no_setting_has_this_name": True}
        for number, settings in enumerate((*case.bad_settings, unknown), 1):
            what = f"bad settings {number}" if settings is not unknown else "an unknown setting"
            try:
                made.settings(settings)
            except SettingsError:
                continue
            fail(f"{what} were taken")


async def cancellation_at_every_await(case: TunnelCase) -> None:
    """Let a cancellation of `open` pass at every await, and leave nothing on the host.

    No device, address, route, socket, file, process, thread or task may stay; the next `open`
    works.
    """
    await _warm_up(case)
    with aged():
        for number in range(1, MAX_WAITS + 1):
            with bench(case) as made:
                tunnel = made.make()
                where = f"cancelled at its await {number}, open"
                async with _leaving_nothing(case, f"{where} left behind"):
                    completed = await _cancelled_open(tunnel.open(case.request), number, where)
                if completed:
                    return
                outcome = await attempt(tunnel, case.request)
                if isinstance(outcome, Exception):
                    fail(f"{where} made the next one raise {told(outcome)}")
                await close(outcome)


async def closes_for_good(case: TunnelCase) -> None:
    """Take everything down in `aclose`, call it once or twice; afterwards `open` works again."""
    async with _opened(case):
        pass  # what is made once for the process is made here
    with bench(case) as made:
        tunnel = await made.ready()
        async with _leaving_nothing(case, "after aclose"):
            device = await made.open(tunnel)
            for call in ("first", "second"):
                try:
                    await device.aclose()
                except Exception as error:
                    fail(f"the {call} aclose raised {told(error)}")
        again = await attempt(tunnel, case.request)
        if isinstance(again, Exception):
            fail(f"after aclose the next open gives {told(again)}")
        await close(again)


async def closes_when_cancelled(case: TunnelCase) -> None:
    """Take everything down although `aclose` is cancelled, at whichever await."""
    await _warm_up(case)
    with aged():
        for number in range(1, MAX_WAITS + 1):
            with bench(case) as made:
                tunnel = await made.ready()
                where = f"cancelled at its await {number}, aclose"
                async with _leaving_nothing(case, f"{where} left behind"):
                    device = await made.open(tunnel)
                    with anyio.CancelScope() as scope:
                        run = CancelAt(_aclose(device), number, scope.cancel)
                        try:
                            await run
                        except Exception as error:
                            fail(f"{where} raised {told(error)}")
                if run.waits < number:
                    return


async def closing_ends_a_receive(case: TunnelCase) -> None:
    """End a waiting `receive` by `anyio.ClosedResourceError` on `aclose`, and each one after it."""
    async with _opened(case) as device:
        ended = await _end_of_receive(device, device.aclose)
        require(
            isinstance(ended, anyio.ClosedResourceError),
            f"a waiting receive {_ending(ended)} on aclose, not ClosedResourceError",
        )
        ended = await _end_of_receive(device, anyio.lowlevel.checkpoint)
        require(
            isinstance(ended, anyio.ClosedResourceError),
            f"receive {_ending(ended)} after aclose, not ClosedResourceError",
        )


async def tells_that_the_device_is_gone(case: TunnelCase) -> None:
    """Raise `AdapterError` at `forwarding_loop` from `receive` once the device is gone.

    `send` takes nothing then, and raises nothing.
    """
    lose = _needed(case.lose, "lose")
    async with _opened(case) as device:
        ended = await _end_of_receive(device, lambda: lose(device))
        require(
            isinstance(ended, AdapterError) and ended.stage == Stage.FORWARDING_LOOP,
            f"receive {_ending(ended)} once the device is gone, not AdapterError at "
            f"{Stage.FORWARDING_LOOP}",
        )
        own, other = peers(case.request)
        batch = Batch()
        batch.append(ip_packet(other, own, SMALL, 1))
        _send(device, batch, "once the device is gone")


async def errors_are_typed(case: TunnelCase) -> None:
    """Tell each failure with a code in snake_case, a message, and advice on what to do next."""
    for host, _ in _hosts(case):
        with bench(case, host) as made:
            tunnel = made.make()
            lacking = await _available(tunnel.capability()) is not True
            requests = [("a host without it", case.request)] if lacking else bad_requests(case)
            for what, request in requests:
                error = await attempt(tunnel, request)
                if isinstance(error, TurnlaneError):
                    require(_CODE.fullmatch(error.code), f"{what}: the code is not in snake_case")
                    require(error.message.strip(), f"{what}: the error has no message")
                    require(error.advice.strip(), f"{what}: the error has no advice")
                elif not isinstance(error, Exception):
                    await close(error)


async def secrets_stay_secret(case: TunnelCase) -> None:
    """Keep the case's secrets out of everything that is shown.

    None may be in the print of tunnel, device or settings, in a capability, an error or what
    caused it, a log record at level debug, or on standard output or error, in plain or encoded.
    """
    short = [number for number, each in enumerate(case.secrets) if len(each) < MIN_LENGTH]
    require(not short, f"secrets of under {MIN_LENGTH} characters cannot be searched for: {short}")
    with bench(case) as made:
        with observed() as shown:
            tunnel = await made.ready()
            shown.add("the capability", repr(await tunnel.capability()))
            for request in (case.request, *(request for _, request in bad_requests(case))):
                outcome = await attempt(tunnel, request)
                if isinstance(outcome, TurnlaneError):
                    shown.add_error("an error", outcome)
                elif not isinstance(outcome, Exception):
                    shown.add("the print of the device", repr(outcome), f"{outcome.name}")
                    await close(outcome)
        shown.add("the print of the tunnel", repr(tunnel))
        shown.add("the print of the settings", repr(made.settings()))
    leaks = dict.fromkeys(
        f"{leak} in {place}"
        for place, text in shown.texts
        for leak in find_leaks(text, case.secrets)
    )
    require(not leaks, f"secrets were shown: {'; '.join(list(leaks)[:5])}")


CHECKS: tuple[Check, ...] = (
    descriptor_is_complete,
    class_is_importable,
    capability_is_told,
    unavailable_is_refused,
    opens_a_device,
    carries_packets,
    fills_batches,
    send_never_waits,
    refuses_bad_requests,
    refuses_bad_settings,
    cancellation_at_every_await,
    closes_for_good,
    closes_when_cancelled,
    closing_ends_a_receive,
    tells_that_the_device_is_gone,
    errors_are_typed,
    secrets_stay_secret,
)
"""All checks, in the order in which they help most when something is wrong."""


def bad_requests(case: TunnelCase) -> list[tuple[str, TunnelRequest]]:
    """Return requests that none can fulfil, each with words for it."""
    changes: dict[str, dict[str, object]] = {
        "no address": {"addresses": ()},
        "an address that is none": {"addresses": ("10.111.0.256/24",)},
        "an address in words": {"addresses": ("--help",)},
        "an address without its prefix length": {"addresses": ("10.111.0.2",)},
        "a prefix that is too long": {"addresses": ("10.111.0.2/33",)},
        "a route that is none": {"routes": ("everywhere",)},
        "a route with too long a prefix": {"routes": ("10.112.0.0/33",)},
        "an excluded address that is none": {"excluded": ("nowhere",)},
        "an MTU of 0": {"mtu": 0},
        "an MTU that no IPv4 host need take": {"mtu": 575},
        "an MTU over the largest packet": {"mtu": 65_536},
    }
    known = [
        (what, msgspec.structs.replace(case.request, **each)) for what, each in changes.items()
    ]
    return known + [(f"bad request {n}", each) for n, each in enumerate(case.bad_requests, 1)]


def _hosts(case: TunnelCase) -> Iterator[tuple[Host | None, bool | None]]:
    """Return the hosts to look at, each with whether the case says that it can have the tunnel."""
    yield case.available, None if case.available is None else True
    if case.unavailable is not None:
        yield case.unavailable, False


async def _available(capability: Awaitable[TunnelCapability]) -> bool | None:
    try:
        return (await capability).available
    except Exception:
        return None  # told by capability_is_told


@asynccontextmanager
async def _leaving_nothing(case: TunnelCase, when: str) -> AsyncIterator[None]:
    """Require that the block leaves the process and the host as they were."""
    held, network = Holdings.take([]), set(case.footprint())
    with watched() as leak:
        yield
        left = await left_since(held, [])
    left += sorted(network ^ set(case.footprint()))
    require(not left, f"{when}: {', '.join(left)}")
    require(not leak.unclosed, f"{when}: something that was never closed")


@asynccontextmanager
async def _opened(case: TunnelCase) -> AsyncIterator[TunnelDevice]:
    with bench(case) as made:
        device = await made.open()
        try:
            yield device
        finally:
            await close(device)


async def _warm_up(case: TunnelCase) -> None:
    """Open and close, so that what is made once for the process is there.

    Raises `NotJudgedError` where even that leaves something behind.
    """
    with bench(case) as made:
        tunnel = await made.ready()
        await close(await made.open(tunnel))
        try:
            async with _leaving_nothing(case, "after aclose"):
                await close(await made.open(tunnel))
        except CheckFailedError:
            raise NotJudgedError("aclose leaves something, see closes_for_good") from None


async def _refuse(case: TunnelCase, made: Bench, request: TunnelRequest, when: str) -> None:
    async with _leaving_nothing(case, f"{when} open left behind"):
        outcome = await attempt(made.make(), request)
        if not isinstance(outcome, Exception):
            await close(outcome)
        require(
            isinstance(outcome, AdapterError) and outcome.stage == Stage.LOCAL_BIND,
            f"{when} open gives {told(outcome)}, not AdapterError at {Stage.LOCAL_BIND}",
        )


async def _cancelled_open(opening: Awaitable[TunnelDevice], number: int, where: str) -> bool:
    """Cancel an `open` at one await; return whether it completed before it came there."""
    device: TunnelDevice | None = None
    with anyio.CancelScope() as scope:
        assert inspect.iscoroutine(opening)
        run: CancelAt[TunnelDevice] = CancelAt(opening, number, scope.cancel)
        try:
            device = await run
        except Exception as error:
            fail(f"{where} raised {told(error)}")
    if device is not None:
        await close(device)
    require(device is None or not run.delivered, f"{where} did not let the cancellation pass")
    return run.waits < number


async def _aclose(device: TunnelDevice) -> None:
    await device.aclose()


async def _received(device: TunnelDevice, wanted: list[bytes], batch: Batch) -> list[bytes]:
    """Return what arrives of `wanted`, once as many have come; a host also sends of its own."""
    got: list[bytes] = []
    with anyio.move_on_after(PATIENCE):
        while len(got) < len(wanted):
            try:
                await device.receive(batch)
            except Exception as error:
                fail(f"receive raised {told(error)}")
            require(len(batch) > 0, "receive returned without a packet")
            got += [packet for packet in map(bytes, batch) if packet in wanted]
    return got


async def _end_of_receive(
    device: TunnelDevice, end: Callable[[], Awaitable[object]]
) -> Exception | None:
    """Receive until it raises, and `end` it while it waits; return what it raised."""
    ended: Exception | None = None
    over = anyio.Event()

    async def receive() -> None:
        nonlocal ended
        batch = Batch()
        try:
            while True:
                await device.receive(batch)
                await anyio.lowlevel.checkpoint()
        except Exception as error:
            ended = error
        over.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await end()
        with anyio.move_on_after(PATIENCE):
            await over.wait()
        tasks.cancel_scope.cancel()
    return ended


def _ending(ended: Exception | None) -> str:
    return "goes on" if ended is None else f"ends with {told(ended)}"


def _send(device: TunnelDevice, batch: Batch, when: str) -> int:
    try:
        with not_waiting(PATIENCE):
            taken: object = device.send(batch)
    except WaitedError:
        fail(f"send waits {when}")
    except Exception as error:
        fail(f"send raised {told(error)} {when}")
    if not isinstance(taken, int) or not 0 <= taken <= len(batch):
        fail(f"send does not return {when} how many packets it took")
    return taken


def _needed(
    hook: Callable[..., Awaitable[object]] | None, name: str
) -> Callable[..., Awaitable[object]]:
    if hook is None:
        raise NotJudgedError(f"the case has no `{name}`")
    return hook
