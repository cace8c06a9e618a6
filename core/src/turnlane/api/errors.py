"""The errors that reach an operator: each carries its stage, a stable code and what to do next."""

from typing import ClassVar

from turnlane.api.artifact import Artifact
from turnlane.api.stages import Stage


class TurnlaneError(Exception):
    """A failure an operator is told about.

    None of its texts ever contains a secret: whoever raises an error puts no link, password, token
    or key into them.
    """

    exit_code: ClassVar[int] = 1
    """What a command that failed with it exits with; subclasses have their own."""
    details: tuple[str, ...] = ()
    """A line for each finding, where there are several."""

    stage: Stage
    """Where it happened."""
    code: str
    """What happened, as a stable snake_case name."""
    message: str
    """What happened, in words."""
    advice: str
    """What to do next; empty where there is nothing to say."""

    def __init__(self, stage: Stage, code: str, message: str, advice: str = "") -> None:
        super().__init__(stage, code, message, advice)
        self.stage = stage
        self.code = code
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        tail = f"; {self.advice}" if self.advice else ""
        return f"stage={self.stage} code={self.code}: {self.message}{tail}"


class PolicyError(TurnlaneError):
    """The input contradicts itself or the policy; nothing was started (exit code 2)."""

    exit_code = 2

    def __init__(self, code: str, message: str, advice: str = "") -> None:
        super().__init__(Stage.POLICY_VALIDATE, code, message, advice)


class UnavailableError(TurnlaneError):
    """A provider, adapter or pair that is not installed or not supported (exit code 3)."""

    exit_code = 3

    def __init__(self, code: str, message: str, advice: str = "") -> None:
        super().__init__(Stage.POLICY_VALIDATE, code, message, advice)


class ProviderError(TurnlaneError):
    """A provider could not resolve its link; `stage` is always `provider_resolve` here."""

    provider_stage: str
    """The provider's own step that failed; empty where it failed in none."""
    artifact: Artifact | None
    """The sanitized record up to that step."""

    def __init__(
        self,
        code: str,
        message: str,
        advice: str = "",
        *,
        provider_stage: str = "",
        artifact: Artifact | None = None,
    ) -> None:
        super().__init__(Stage.PROVIDER_RESOLVE, code, message, advice)
        self.provider_stage = provider_stage
        self.artifact = artifact


class LinkError(ProviderError):
    """The link itself is not what the provider takes: bad input, told as such (exit code 2)."""

    exit_code = 2


class TransportError(TurnlaneError):
    """The relay, the path or the peer's association failed."""


class SessionError(TurnlaneError):
    """The session with the tunnel server was refused, lost or exhausted."""


class AdapterError(TurnlaneError):
    """A local end (ingress) or an upstream end (egress) failed."""


class InternalError(TurnlaneError):
    """A fault of Turnlane or of a plugin, told with the stage in which it showed.

    Of the exception only the type is told: its text may hold anything.
    """

    def __init__(self, stage: Stage, error: BaseException) -> None:
        super().__init__(
            stage,
            "internal_error",
            f"an unexpected {type(error).__name__}",
            "run it again with --log-level debug, and report what it says",
        )
