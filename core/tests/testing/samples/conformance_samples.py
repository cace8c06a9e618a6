"""A provider that passes the conformance kit, and others each with one fault.

Each faulty class differs from `Sound` in that fault alone. `plugin(Class)` makes a plugin of one.
"""

import base64
import contextlib
import itertools
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import msgspec

from turnlane.api import (
    Artifact,
    ArtifactError,
    ArtifactOutcome,
    ArtifactResolution,
    Challenge,
    ChallengePort,
    Credentials,
    LinkError,
    ProviderCapabilities,
    ProviderContext,
    ProviderDescriptor,
    ProviderError,
    RelayEndpoint,
    Renewal,
    Resolution,
    ResolveRequest,
    Secret,
    StageOutcome,
    StageRecord,
    StageRequest,
    StageResponse,
    hookimpl,
    setting,
)

ID = "sample"
SECRET = "planted/s3cret+value"
LINK = f"sample://{SECRET}"
PLACEHOLDER = "<redacted:turn-password>"
ENDPOINT = RelayEndpoint("turn.example", 3478)

_LOG = logging.getLogger("conformance_samples")
_COUNTER = itertools.count()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    region: Annotated[str, setting("Where to ask.", pattern="[a-z]{2}")] = "eu"
    key: Annotated[Secret[str], setting("The account's key.", write_only=True)] = Secret("")


class LaxSettings(msgspec.Struct, frozen=True, kw_only=True):
    region: Annotated[str, setting("Where to ask.")] = "eu"
    key: Annotated[Secret[str], setting("The account's key.", write_only=True)] = Secret("")


class SilentSettings(Settings, frozen=True, kw_only=True):
    region: Annotated[str, msgspec.Meta(pattern="^[a-z]{2}$")] = "eu"


class ShowySettings(msgspec.Struct, frozen=True, kw_only=True):
    region: Annotated[str, setting("Where to ask.", pattern="[a-z]{2}")] = "eu"
    key: Annotated[str, setting("The account's key.", write_only=True)] = ""


class Sound:
    """Reads a file, waits for something and resolves; every step can be replaced."""

    capabilities = ProviderCapabilities(renewable=True)
    settings: type[msgspec.Struct] = Settings
    lifetime: float | None = 600.0
    renewal: Renewal | None = None

    def __init__(self, context: ProviderContext) -> None:
        self.context = context

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        with self.context.span("read_link"):
            if not request.link.reveal().startswith("sample://"):
                self.refuse(request)
        await self.work(request, challenges)
        self.context.memory["resolved"] = True
        expires_at = None if self.lifetime is None else self.now() + self.lifetime
        password = Secret(request.link.reveal().removeprefix("sample://"))
        credentials = Credentials((ENDPOINT,), Secret("user"), password, expires_at)
        return Resolution(credentials, self.artifact(request), self.renewal)

    def now(self) -> float:
        return self.context.wall_time()

    def refuse(self, request: ResolveRequest) -> None:
        raise LinkError(
            "wrong_scheme",
            "the link does not begin with sample://",
            "write sample://PASSWORD",
            provider_stage="read_link",
            artifact=refusal("wrong_scheme"),
        )

    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
        await anyio.Path(self.context.config_dir / "sample.conf").read_text()

    def artifact(self, request: ResolveRequest) -> Artifact:
        return resolved()


def resolved(**changes: Any) -> Artifact:
    artifact = Artifact(
        provider=ID,
        resolution_method="sample",
        input={"link_redacted": f"sample://{PLACEHOLDER}"},
        stages=(
            StageRecord(
                name="read_link",
                endpoint_id="read_link",
                request=StageRequest("PARSE", ("link",), ("link",)),
                response=StageResponse(body={"password": PLACEHOLDER}),
                outcome=StageOutcome("resolution"),
            ),
        ),
        outcome=ArtifactOutcome(
            "resolution", ArtifactResolution("<redacted>", PLACEHOLDER, ENDPOINT.address)
        ),
    )
    return msgspec.structs.replace(artifact, **changes)


def refusal(code: str) -> Artifact:
    stage = StageRecord(
        name="read_link",
        endpoint_id="read_link",
        request=StageRequest("PARSE"),
        response=StageResponse(),
        outcome=StageOutcome("provider_error", error_code=code),
    )
    failure = ArtifactError("read_link", code)
    outcome = ArtifactOutcome("provider_error", provider_error=failure)
    return resolved(stages=(stage,), outcome=outcome)


class Asking(Sound):
    """Sound, and asks a human where that is allowed."""

    capabilities = ProviderCapabilities(interactive=True, renewable=True)
    renewal = Renewal.CHALLENGE

    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        if not request.interactive:
            raise ProviderError("needs_a_human", "it must ask", "run it where you can answer")
        answer = await challenges.ask(Challenge("confirm", "Confirm that you are there."))
        if answer.action != "continue":
            raise ProviderError("not_confirmed", "it was not confirmed", "confirm it next time")


class WithoutSettings(Sound):
    settings = None  # type: ignore[assignment]


# descriptor_is_complete: see the descriptors in the tests.

# class_is_importable


class NeedsMore(Sound):
    def __init__(self, context: ProviderContext, more: object = None, *, needed: object) -> None:
        super().__init__(context)


class NotAsync(Sound):
    def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Any:  # type: ignore[override]
        return super().resolve(request, challenges)


class TakesRequestAlone(Sound):
    async def resolve(self, request: ResolveRequest) -> Resolution:  # type: ignore[override]
        raise NotImplementedError


class SilentAboutSettings(Sound):
    settings = SilentSettings


# resolves_the_link


class WithoutEndpoint(Sound):
    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        found = await super().resolve(request, challenges)
        credentials = msgspec.structs.replace(found.credentials, endpoints=())
        return Resolution(credentials, found.artifact)


class Crashing(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        raise KeyError(request.link.reveal())


# artifact_is_sound


class OtherName(Sound):
    def artifact(self, request: ResolveRequest) -> Artifact:
        return resolved(provider="other")


class NoStage(Sound):
    def artifact(self, request: ResolveRequest) -> Artifact:
        return resolved(stages=())


class WrongOutcome(Sound):
    def artifact(self, request: ResolveRequest) -> Artifact:
        return refusal("wrong_scheme")


class OtherAddress(Sound):
    def artifact(self, request: ResolveRequest) -> Artifact:
        resolution = ArtifactResolution("<redacted>", PLACEHOLDER, "other.example:1")
        return resolved(outcome=ArtifactOutcome("resolution", resolution))


class UnendingStages(Sound):
    def artifact(self, request: ResolveRequest) -> Artifact:
        (stage,) = resolved().stages
        return resolved(stages=(msgspec.structs.replace(stage, outcome=StageOutcome("continue")),))


class NotJson(Sound):
    def artifact(self, request: ResolveRequest) -> Artifact:
        return resolved(input={"link_redacted": object()})


class NotUtf8(Sound):
    def artifact(self, request: ResolveRequest) -> Artifact:
        return resolved(input={"link_redacted": "\udcff"})


class Unstable(Sound):
    def artifact(self, request: ResolveRequest) -> Artifact:
        return resolved(input={"run": f"{next(_COUNTER)}"})


# refuses_bad_links


class TakesAnything(Sound):
    def refuse(self, request: ResolveRequest) -> None:
        pass


class RefusesOtherwise(Sound):
    def refuse(self, request: ResolveRequest) -> None:
        raise ProviderError(
            "wrong_scheme",
            "it is not for us",
            "write another",
            provider_stage="read_link",
            artifact=refusal("wrong_scheme"),
        )


class RefusesChanged(Sound):
    provider_stage = "read_link"
    artifact_of_refusal: Artifact | None = refusal("wrong_scheme")

    def refuse(self, request: ResolveRequest) -> None:
        raise LinkError(
            "wrong_scheme",
            "it is not for us",
            "write another",
            provider_stage=self.provider_stage,
            artifact=self.artifact_of_refusal,
        )


class RefusesWithoutArtifact(RefusesChanged):
    artifact_of_refusal = None


class RefusesWithoutStage(RefusesChanged):
    provider_stage = ""


class RefusesWithTwoCodes(RefusesChanged):
    artifact_of_refusal = refusal("another_code")


class RefusesWithGoodOutcome(RefusesChanged):
    artifact_of_refusal = resolved()


# refuses_bad_settings


class Lax(Sound):
    settings = LaxSettings


# cancellation_at_every_await


class Swallowing(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        with contextlib.suppress(BaseException):
            await anyio.lowlevel.checkpoint()


class Translating(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException:
            raise ProviderError("cancelled", "it was cancelled", "try again") from None


class KeepsSocket(Sound):
    kept: list[socket.socket] = []  # noqa: RUF012 shared on purpose

    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        opened = socket.socket()
        self.kept.append(opened)
        await anyio.lowlevel.checkpoint()
        self.kept.remove(opened)
        opened.close()


class ForgetsSocket(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        opened = socket.socket()
        await anyio.lowlevel.checkpoint()
        opened.close()


class KeepsProcess(Sound):
    kept: list[subprocess.Popen[bytes]] = []  # noqa: RUF012 shared on purpose

    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        waiting = [sys.executable, "-S", "-c", "input()"]
        process = subprocess.Popen(waiting, stdin=subprocess.PIPE)  # noqa: ASYNC220
        self.kept.append(process)
        await anyio.lowlevel.checkpoint()
        self.kept.remove(process)
        process.communicate()


class KeepsThread(Sound):
    kept: list[threading.Event] = []  # noqa: RUF012 shared on purpose

    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        done = threading.Event()
        thread = threading.Thread(target=done.wait)
        self.kept.append(done)
        thread.start()
        await anyio.lowlevel.checkpoint()
        self.kept.remove(done)
        done.set()
        thread.join()


class KeepsFile(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        draft = Path(self.context.config_dir / "draft.tmp")
        draft.touch()  # noqa: ASYNC240
        await anyio.lowlevel.checkpoint()
        draft.unlink()  # noqa: ASYNC240


class KeepsLock(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        if self.context.memory.get("busy"):
            raise ProviderError("busy", "it is busy", "try again")
        self.context.memory["busy"] = True
        await anyio.lowlevel.checkpoint()
        self.context.memory["busy"] = False


# secrets_stay_secret


class ShowsInArtifact(Sound):
    def artifact(self, request: ResolveRequest) -> Artifact:
        encoded = base64.b64encode(request.link.reveal().encode()).decode()
        return resolved(input={"link": encoded})


class ShowsInEndpoint(Sound):
    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        found = await super().resolve(request, challenges)
        showing = msgspec.structs.replace(ENDPOINT, server_name=request.link.reveal())
        credentials = msgspec.structs.replace(found.credentials, endpoints=(showing,))
        return Resolution(credentials, found.artifact)


class ShowsInLog(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        _LOG.debug("asked", extra={"link": request.link.reveal()})


class ShowsInSpan(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        with self.context.span("ask", link=request.link.reveal()):
            pass


class ShowsOnOutput(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        print("asked for", request.link.reveal())  # noqa: T201 the fault


class ShowsInError(Sound):
    def refuse(self, request: ResolveRequest) -> None:
        raise LinkError(
            "wrong_scheme",
            f"{request.link.reveal()} is not for us",
            "write another",
            provider_stage="read_link",
            artifact=refusal("wrong_scheme"),
        )


class ShowsInCause(Sound):
    def refuse(self, request: ResolveRequest) -> None:
        try:
            int(request.link.reveal())
        except ValueError as error:
            raise LinkError(
                "wrong_scheme",
                "the link is not for us",
                "write another",
                provider_stage="read_link",
                artifact=refusal("wrong_scheme"),
            ) from error


class ShowsInSettings(Sound):
    settings = ShowySettings


class ShowsMintedPassword(Sound):
    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        found = await super().resolve(request, challenges)
        minted = "minted-from-what-was-given"
        credentials = msgspec.structs.replace(found.credentials, password=Secret(minted))
        return Resolution(credentials, resolved(input={"password": minted}))


# expiry_and_renewal


class Expired(Sound):
    lifetime = -1.0


class RealClock(Sound):
    def now(self) -> float:
        return 1_700_000_000.0


class UndeclaredRenewal(Sound):
    capabilities = ProviderCapabilities()
    renewal = Renewal.RESOLVE


class UndeclaredChallenge(Sound):
    renewal = Renewal.CHALLENGE


class NeverFresh(Sound):
    def now(self) -> float:
        first = self.context.memory.setdefault("first", self.context.wall_time())
        assert isinstance(first, float)
        return first


class RefusesToRenew(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        first = self.context.memory.setdefault("first", self.context.wall_time())
        assert isinstance(first, float)
        if self.context.wall_time() > first + 60:
            raise ProviderError("used_up", "the link is used up", "get another")


# errors_are_typed


class CodeInWords(Sound):
    def refuse(self, request: ResolveRequest) -> None:
        raise LinkError(
            "Wrong Scheme",
            "the link is not for us",
            "write another",
            provider_stage="read_link",
            artifact=refusal("Wrong Scheme"),
        )


class WithoutAdvice(Sound):
    def refuse(self, request: ResolveRequest) -> None:
        raise LinkError(
            "wrong_scheme",
            "the link is not for us",
            provider_stage="read_link",
            artifact=refusal("wrong_scheme"),
        )


class CrashesOnOddLinks(Sound):
    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        request.link.reveal().encode("ascii")
        return await super().resolve(request, challenges)


# challenges_only_when_allowed


class AsksAlways(Sound):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        await challenges.ask(Challenge("confirm", "Confirm that you are there."))


class CrashesWithoutHuman(Asking):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        if not request.interactive:
            raise RuntimeError
        await super().work(request, challenges)


class CrashesOnRefusal(Asking):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        try:
            await super().work(request, challenges)
        except ProviderError as error:
            if error.code == "not_confirmed":
                raise RuntimeError from None
            raise


class AsksUnclearly(Asking):
    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        if not request.interactive:
            raise ProviderError("needs_a_human", "it must ask", "run it where you can answer")
        answer = await challenges.ask(Challenge("Confirm!", ""))
        if answer.action != "continue":
            raise ProviderError("not_confirmed", "it was not confirmed", "confirm it next time")


# memory_survives


class StumblesOverMemory(Sound):
    lifetime = None

    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        if "resolved" in self.context.memory:
            raise ProviderError("twice", "it was asked twice", "ask once")


class StumblesOverRefusal(Sound):
    def refuse(self, request: ResolveRequest) -> None:
        self.context.memory["refused"] = True
        super().refuse(request)

    async def work(self, request: ResolveRequest, challenges: ChallengePort) -> None:
        if "refused" in self.context.memory:
            raise ProviderError("sulking", "it was given a bad link", "give none")


class Plugin:
    """A plugin with one provider."""

    def __init__(self, descriptor: ProviderDescriptor) -> None:
        self._descriptor = descriptor

    @hookimpl
    def turnlane_providers(self) -> list[ProviderDescriptor]:
        return [self._descriptor]


def descriptor(sample: type[Sound] = Sound, /, **changes: Any) -> ProviderDescriptor:
    settings = sample.settings
    complete = ProviderDescriptor(
        id=ID,
        title="Sample",
        summary="What the conformance kit is tried on",
        implementation=f"{sample.__module__}:{sample.__name__}",
        example_links=("sample://PASSWORD",),
        settings=f"{__name__}:{settings.__name__}" if settings is not None else None,
        capabilities=sample.capabilities,
    )
    return msgspec.structs.replace(complete, **changes)


def plugin(sample: type[Sound] = Sound, /, **changes: Any) -> Plugin:
    return Plugin(descriptor(sample, **changes))


@contextlib.contextmanager
def nothing_kept() -> Iterator[None]:
    """Give back what providers kept in their classes."""
    try:
        yield
    finally:
        for opened in KeepsSocket.kept:
            opened.close()
        for process in KeepsProcess.kept:
            process.communicate()
        for done in KeepsThread.kept:
            done.set()
        for kept in (KeepsSocket.kept, KeepsProcess.kept, KeepsThread.kept):
            kept.clear()
