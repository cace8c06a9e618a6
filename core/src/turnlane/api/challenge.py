"""Challenges: what only a human can do, asked by a provider in the middle of resolving."""

from typing import Literal, Protocol

import msgspec

from turnlane.api.secrets import Secret


class Challenge(msgspec.Struct, frozen=True):
    """A question to the operator."""

    kind: str
    """A stable name for what is asked: `captcha`, `sign_in`, `confirm`."""
    prompt: str
    """What to do, in plain words without secrets."""
    open_url: Secret[str] | None = None
    """What a front end may open for the operator."""
    completes: Literal["confirmation", "observation"] = "confirmation"
    """What ends it well: the operator's word, or something that the provider notices itself."""
    deadline: float = 300.0
    """Seconds after which the provider gives up."""


class ChallengeAnswer(msgspec.Struct, frozen=True):
    """What the operator decided."""

    action: Literal["continue", "cancel", "timeout"]
    """Go on, give up, or nobody answered within the deadline."""


class ChallengePort(Protocol):
    """Through which a provider asks; the command line, a daemon and tests implement it."""

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        """Show `challenge` and wait until it is answered, cancelled or past its deadline."""
        ...
