"""The checks of a provider: each says in its docstring what a provider's author must do.

A check is a plain async function over a `ProviderCase`. It returns when the provider does as it
must, raises `CheckFailedError` with what is wrong, and `NotJudgedError` where it does not apply or
where another check must pass before. Checks run the provider under the real resolver, on whichever
backend they are called; none waits for real time.
"""

import inspect
import json
import math
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from turnlane.api import (
    CONTRACT_MINOR,
    Artifact,
    Challenge,
    LinkError,
    ProviderError,
    Renewal,
    Resolution,
    Secret,
    SettingsError,
    Stage,
    TurnlaneError,
)
from turnlane.plugins.manager import PluginManager
from turnlane.plugins.records import PluginStatus
from turnlane.plugins.settings import describe, validate
from turnlane.runtime.profiles import ProviderProfile
from turnlane.telemetry.redaction import MIN_LENGTH, find_leaks
from turnlane.testing.cancellation import CancelAt
from turnlane.testing.findings import NotJudgedError, fail, require
from turnlane.testing.leftovers import Holdings, aged, left_since, watched
from turnlane.testing.observation import Shown, observed
from turnlane.testing.provider_bench import CRASHED, Bench, ProviderCase, bench, told

Check = Callable[[ProviderCase], Awaitable[None]]

MAX_WAITS = 1000
"""Awaits of one resolution at which it is cancelled, each in turn."""

TELLING = 12
"""Characters from which a resolved user name or password is no ordinary word."""

ODD_LINKS = ("", " ", "\0", "%", "://", "?#@", "é🎉", "\udcff", "x" * 10_000)
"""Links that are none: whatever comes of them, it is no crash."""

TRANSPORT = ("turnlane.net", "turnlane.proto", "turnlane.relay")
"""What a provider knows nothing of."""

_CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_WORD = re.compile(r"[a-z]+")

_IMPORTED = """
import importlib, json, sys
path, modules = json.loads(sys.argv[1])
sys.path[:] = path
for module in modules:
    importlib.import_module(module)
print("\\n" + json.dumps(sorted(sys.modules)))
"""


async def descriptor_is_complete(case: ProviderCase) -> None:
    """Offer the provider with all that front ends show of it.

    The plugin's hooks are sound, and the descriptor has a title and a summary of one line each,
    an example link without real secrets, a homepage that is a URL or empty, a stability, a minor
    version of the contract that there is, and capabilities that agree with each other.
    """
    plugins = PluginManager.from_modules([case.plugin])
    record = plugins.records[0]
    require(
        record.status is PluginStatus.LOADED,
        f"the plugin does not load: {record.reason} ({record.code})",
    )
    descriptor = plugins.providers().get(case.provider)
    if descriptor is None:
        offered = ", ".join(plugins.providers()) or "none"
        fail(f"the plugin offers no provider {case.provider!r}; it offers: {offered}")
    for name in ("title", "summary"):
        text: str = getattr(descriptor, name)
        require(text.strip() and len(text.splitlines()) == 1, f"the {name} is not one line of text")
    require(descriptor.input_kinds and all(descriptor.input_kinds), "there are no input kinds")
    require(descriptor.example_links and all(descriptor.example_links), "there is no example link")
    examples = "\n".join(descriptor.example_links)
    require(not find_leaks(examples, _needles(case)), "an example link has a secret of the case")
    require(
        not descriptor.homepage or descriptor.homepage.startswith(("https://", "http://")),
        "the homepage is no URL",
    )
    require(_WORD.fullmatch(descriptor.stability), "the stability is not a word in lower case")
    require(
        0 <= descriptor.contract_minor <= CONTRACT_MINOR,
        f"contract_minor is not from 0 to {CONTRACT_MINOR}",
    )
    capabilities = descriptor.capabilities
    require(
        capabilities.interactive or not capabilities.browser,
        "the capability browser needs the capability interactive",
    )
    require(
        capabilities.interactive or not case.interactive,
        "the case is interactive, and the capability interactive is not declared",
    )


async def class_is_importable(case: ProviderCase) -> None:
    """Let the descriptor name a class, and a settings schema if any, that can be imported.

    The class is made with one argument, the context, and has `async def resolve(request,
    challenges)`; the schema is a `msgspec.Struct` each of whose fields says what it is.
    """
    with bench(case) as made:
        unfit = made.unfit()
        require(unfit is None, f"{unfit}")
        descriptor = made.descriptor
        implementation = PluginManager.load_provider(made.plugins, descriptor.id)
        resolve = getattr(implementation, "resolve", None)
        require(inspect.iscoroutinefunction(resolve), "resolve is not an `async def` method")
        if descriptor.settings is not None:
            fields = describe(made.plugins.load_settings(descriptor.settings))
            silent = [field["name"] for field in fields if not field["description"]]
            require(not silent, f"settings without a description: {', '.join(silent)}")


async def resolves_the_link(case: ProviderCase) -> None:
    """Resolve the good link into a `Resolution` with credentials that can be used.

    At least one endpoint with a host, a port and a transport, and a user name and a password that
    are `Secret`.
    """
    with bench(case) as made:
        made.load()
        outcome = await made.attempt()
    require(isinstance(outcome, Resolution), f"the good link gives {told(outcome)}")


async def artifact_is_sound(case: ProviderCase) -> None:
    """Record what was done in an artifact that is the same for the same input.

    It names the provider, has at least one stage, of which the last led to the resolution, its
    outcome is the resolution with the address of one of the endpoints, and it can be encoded as
    JSON, byte for byte the same in two runs.
    """
    encoded = set()
    for _ in range(2):
        with bench(case) as made:
            resolution = await made.resolve()
        artifact: Any = resolution.artifact
        encoded.add(_encoded(artifact, case, "the artifact"))
        outcome = artifact.outcome
        require(outcome.result_kind == "resolution", "the outcome is no resolution")
        require(
            outcome.resolution is not None and outcome.provider_error is None,
            "the outcome does not have the resolution alone",
        )
        addresses = [endpoint.address for endpoint in resolution.credentials.endpoints]
        require(
            outcome.resolution.address in addresses,
            "the address in the outcome is not that of an endpoint",
        )
        require(
            artifact.stages[-1].outcome.kind == "resolution",
            "the last stage did not lead to the resolution",
        )
    require(len(encoded) == 1, "the artifact differs between two runs with the same input")


async def refuses_bad_links(case: ProviderCase) -> None:
    """Refuse a link that is not one of yours with `LinkError`.

    It has a code, the provider's own stage that refused it, and an artifact whose outcome is a
    provider error with that code; the command line ends with exit code 2.
    """
    require(case.bad_links, "the case names no bad link")
    with bench(case) as made:
        for what, outcome in await made.refusals():
            if not isinstance(outcome, LinkError):
                fail(f"{what} gives {told(outcome)}, not LinkError")
            require(outcome.exit_code == 2, f"{what}: the exit code is not 2")
            require(outcome.stage == Stage.PROVIDER_RESOLVE, f"{what}: the stage is not its own")
            require(outcome.code, f"{what}: the error has no code")
            require(outcome.provider_stage, f"{what}: the error has no provider_stage")
            if outcome.artifact is None:
                fail(f"{what}: the error has no artifact")
            artifact = outcome.artifact
            _encoded(artifact, case, f"{what}: the artifact")
            failure = artifact.outcome.provider_error
            require(
                artifact.outcome.result_kind == "provider_error" and failure is not None,
                f"{what}: the artifact's outcome is no provider error",
            )
            require(
                failure is None or failure.code == outcome.code,
                f"{what}: the codes of the error and of its artifact differ",
            )


async def refuses_bad_settings(case: ProviderCase) -> None:
    """Say in the settings schema all that a setting must be.

    Each of the case's bad settings, and one that there is not, is refused with `SettingsError`
    before the provider runs.
    """
    with bench(case) as made:
        made.load()
        if made.descriptor.settings is None:
            require(not case.bad_settings, "the case has bad settings, the provider no schema")
            raise NotJudgedError("the provider has no settings")
        unknown = {**case.settings, "no_setting_has_this_name": True}
        for number, settings in enumerate((*case.bad_settings, unknown), 1):
            outcome = await made.attempt(settings=settings)
            what = f"bad settings {number}" if settings is not unknown else "an unknown setting"
            require(
                isinstance(outcome, SettingsError) and outcome.violations,
                f"{what}: {told(outcome)}, not SettingsError",
            )


async def cancellation_at_every_await(case: ProviderCase) -> None:
    """Let a cancellation pass at every await, and give back what you hold.

    The provider is cancelled where it waits for the first time, the second and so on until it
    completes. The cancellation must come out of it, and no socket, file, process, thread or task
    may stay open, nor a file in `config_dir`; the next resolution, with the same memory, works.
    """
    with bench(case) as made:
        # What is made once for the process (a module's globals, a pool of threads) is made here.
        await made.resolve()
    with aged():
        for number in range(1, MAX_WAITS + 1):
            with bench(case) as made:
                folders = [made.config_dir]
                before = Holdings.take(folders)
                with watched() as leak:
                    completed = await _cancelled_at(made, number)
                    left = await left_since(before, folders)
                where = "it completed" if completed else f"it was cancelled at its await {number}"
                require(not left, f"after {where} there was left: {', '.join(left)}")
                require(not leak.unclosed, f"after {where} something was never closed")
                if completed:
                    return
                outcome = await made.attempt()
                require(
                    isinstance(outcome, Resolution),
                    f"after {where} the next resolution gives {told(outcome)}",
                )


async def _cancelled_at(made: Bench, number: int) -> bool:
    """Cancel a resolution at one await; return whether it completed before it came there."""
    profile = ProviderProfile(
        provider=made.case.provider,
        link=Secret(made.case.link),
        settings=dict(made.case.settings),
        interactive=made.case.interactive,
    )
    where = f"cancelled at its await {number}, the provider"
    with anyio.CancelScope() as scope:
        run = CancelAt(made.resolver.resolve(profile), number, scope.cancel)
        try:
            await run
        except TurnlaneError as error:
            doing = where if run.waits >= number else "not cancelled yet, the provider"
            fail(f"{doing} raised {told(error)}")
    require(
        scope.cancelled_caught or not run.delivered, f"{where} did not let the cancellation pass"
    )
    return run.waits < number


async def secrets_stay_secret(case: ProviderCase) -> None:
    """Keep secrets out of everything that is shown.

    None of the case's secrets, nor the resolved password, may be in the print of the resolution or
    of the settings, an artifact, an error or what caused it, a log record at level debug, a span,
    or on standard output or error, in plain or encoded.
    """
    short = [number for number, each in enumerate(case.secrets) if len(each) < MIN_LENGTH]
    require(not short, f"secrets of under {MIN_LENGTH} characters cannot be searched for: {short}")
    needles = list(_needles(case))
    with bench(case) as made:
        with observed() as shown:
            resolution = await made.resolve()
            refused = await made.refusals()
        _add_resolution(shown, resolution)
        credentials = resolution.credentials
        resolved = (credentials.username.reveal(), credentials.password.reveal())
        needles += [each for each in resolved if len(each) >= TELLING]
        for what, outcome in refused:
            if isinstance(outcome, TurnlaneError):
                shown.add_error(f"the error for {what}", outcome)
            else:
                _add_resolution(shown, outcome)
        schema = made.descriptor.settings
        if schema is not None:
            settings = validate(made.plugins.load_settings(schema), case.settings, "the provider")
            shown.add("the print of the settings", repr(settings))
        shown.add("a span", *(repr(span) for span in made.spans))
    leaks = dict.fromkeys(
        f"{leak} in {place}" for place, text in shown.texts for leak in find_leaks(text, needles)
    )
    require(not leaks, f"secrets were shown: {'; '.join(list(leaks)[:5])}")


async def expiry_and_renewal(case: ProviderCase) -> None:
    """Tell when credentials run out, by the context's clock, and how fresh ones are got.

    `expires_at` is in the future. A resolution that says how it is renewed agrees with the
    capabilities `renewable` and `interactive`. Where resolving again gives fresh credentials, it
    does so after the first have run out.
    """
    with bench(case) as made:
        resolution = await made.resolve()
        capabilities = made.descriptor.capabilities
        renewal = resolution.renewal
        require(
            capabilities.renewable or renewal is Renewal.NEVER,
            f"the renewal is {renewal}, and the capability renewable is not declared",
        )
        require(
            capabilities.interactive or renewal is not Renewal.CHALLENGE,
            "the renewal asks a human, and the capability interactive is not declared",
        )
        expires_at = resolution.credentials.expires_at
        if expires_at is None:
            return
        _require_future(expires_at, made.clock.now, "the credentials")
        if renewal is Renewal.RESOLVE:
            made.clock.now = expires_at + 1
            outcome = await made.attempt()
            if not isinstance(outcome, Resolution):
                fail(f"after they ran out, resolving again gives {told(outcome)}")
            renewed = outcome.credentials.expires_at
            if renewed is not None:
                _require_future(renewed, made.clock.now, "the renewed credentials")


async def errors_are_typed(case: ProviderCase) -> None:
    """Tell each failure as a `TurnlaneError` that an operator and a script can use.

    It has a stage, a code in snake_case, a message and advice on what to do next. No link,
    however odd, makes the provider crash.
    """
    with bench(case) as made:
        outcomes = await made.refusals()
        for link in ODD_LINKS:
            outcomes.append((f"the link {link[:8]!a}", await made.attempt(link)))
    for what, error in outcomes:
        if isinstance(error, TurnlaneError):
            _require_typed(error, what)


async def does_not_touch_transport(case: ProviderCase) -> None:
    """Import nothing of the transport: a provider knows neither sockets of the tunnel nor relays.

    A fresh process that imports what the descriptor names has none of `turnlane.net`,
    `turnlane.proto` and `turnlane.relay` in it.
    """
    with bench(case) as made:
        made.load()
        descriptor = made.descriptor
    references = [descriptor.implementation, descriptor.settings or descriptor.implementation]
    modules = list(dict.fromkeys(reference.partition(":")[0] for reference in references))
    imported = await anyio.to_thread.run_sync(_imported_with, json.dumps([sys.path, modules]))
    if imported is None:
        fail(f"{', '.join(modules)} cannot be imported by name in a fresh process")
    found = [name for name in imported if ".".join(name.split(".")[:2]) in TRANSPORT]
    require(not found, f"importing {', '.join(modules)} imports {', '.join(found)}")


@lru_cache(maxsize=16)
def _imported_with(wanted: str) -> tuple[str, ...] | None:
    """Return what a fresh process has imported after the modules that are wanted, as JSON."""
    result = subprocess.run(  # noqa: S603 our own interpreter
        [sys.executable, "-c", _IMPORTED, wanted], capture_output=True, check=False
    )
    if result.returncode != 0:
        return None
    return tuple(json.loads(result.stdout.decode().splitlines()[-1]))


async def challenges_only_when_allowed(case: ProviderCase) -> None:
    """Ask a human only where the request is `interactive`, and take any answer.

    Without leave to ask, resolve or raise `ProviderError`. A challenge has a kind in snake_case, a
    prompt and a deadline, and the capability `interactive` is declared. When it is cancelled or
    runs out of time, resolve otherwise or raise `ProviderError`.
    """
    with bench(case) as made:
        made.load()
        interactive = made.descriptor.capabilities.interactive
        outcome = await made.attempt(interactive=False)
        require(not made.challenges.asked, "the provider asks though the request does not allow it")
        if not case.interactive:
            return
        _require_told(outcome, "without leave to ask")
    for answer in ("continue", "cancel", "timeout"):
        with bench(case, answer) as made:
            outcome = await made.attempt()
            for challenge in made.challenges.asked:
                require(interactive, "the capability interactive is not declared")
                _require_clear(challenge)
            if answer != "continue":
                _require_told(outcome, f"when a challenge is answered with {answer}")


async def memory_survives(case: ProviderCase) -> None:
    """Cope with what you left in the memory: resolve again and again in one host.

    The good link resolves a second time with the same memory, and once more after bad links were
    refused.
    """
    with bench(case) as made:
        await made.resolve()
        made.clock.now += 1
        outcome = await made.attempt()
        require(isinstance(outcome, Resolution), f"the second resolution gives {told(outcome)}")
        await made.refusals()
        outcome = await made.attempt()
        require(
            isinstance(outcome, Resolution),
            f"the resolution after refused links gives {told(outcome)}",
        )


CHECKS: tuple[Check, ...] = (
    descriptor_is_complete,
    class_is_importable,
    resolves_the_link,
    artifact_is_sound,
    refuses_bad_links,
    refuses_bad_settings,
    cancellation_at_every_await,
    secrets_stay_secret,
    expiry_and_renewal,
    errors_are_typed,
    does_not_touch_transport,
    challenges_only_when_allowed,
    memory_survives,
)
"""All checks, in the order in which they help most when something is wrong."""


def name_of(check: Check) -> str:
    """Return the stable name of a check."""
    name: str = getattr(check, "__name__")  # noqa: B009 the type of a function has none
    return name


def _needles(case: ProviderCase) -> tuple[str, ...]:
    return tuple(secret for secret in case.secrets if len(secret) >= MIN_LENGTH)


def _encoded(artifact: Artifact, case: ProviderCase, what: str) -> bytes:
    """Encode an artifact; require what all artifacts have in common."""
    try:
        encoded = msgspec.json.encode(artifact)
        msgspec.json.decode(encoded, type=Artifact)
    except (TypeError, ValueError, NotImplementedError, RecursionError) as error:
        fail(f"{what} is not one that JSON can hold: {type(error).__name__}")
    require(artifact.provider == case.provider, f"{what} names another provider")
    require(artifact.stages, f"{what} has no stage")
    return encoded


def _add_resolution(shown: Shown, resolution: Resolution) -> None:
    # Without the artifact, which has a place of its own.
    shown.add("the print of the resolution", repr(resolution.credentials), str(resolution))
    shown.add_artifact("the artifact", resolution.artifact)


def _require_future(expires_at: float, now: float, what: str) -> None:
    require(math.isfinite(expires_at), f"{what} expire at no time")
    require(
        expires_at > now, f"{what} have expired {now - expires_at:.0f} s ago by the context's clock"
    )


def _require_typed(error: TurnlaneError, what: str) -> None:
    require(error.code != CRASHED, f"{what}: {error.message}")
    require(isinstance(error.stage, Stage), f"{what}: the stage is no Stage")
    require(_CODE.fullmatch(error.code), f"{what}: the code is not in snake_case")
    require(error.message.strip(), f"{what}: the error has no message")
    require(error.advice.strip(), f"{what}: the error has no advice")


def _require_told(outcome: Resolution | TurnlaneError, when: str) -> None:
    fine = isinstance(outcome, Resolution | ProviderError) and (
        not isinstance(outcome, ProviderError) or outcome.code != CRASHED
    )
    require(fine, f"{when} the provider gives {told(outcome)}")


def _require_clear(challenge: Challenge) -> None:
    require(_CODE.fullmatch(challenge.kind), "a challenge's kind is not in snake_case")
    require(challenge.prompt.strip(), "a challenge has no prompt")
    require(
        challenge.deadline > 0 and math.isfinite(challenge.deadline),
        "a challenge's deadline is not a number of seconds",
    )
    require(
        challenge.completes in ("confirmation", "observation"),
        "a challenge does not say what completes it",
    )
