"""Challenges: what only a human can do, asked by a provider in the middle of resolving."""

from typing import Literal, Protocol

import msgspec

from turnlane.api.secrets import Secret


class Challenge(msgspec.Struct, frozen=True):
    """A question to the operator.

    `kind` is a stable name (`captcha`, `sign_in`, `confirm`), `prompt` says what to do in plain
    words without secrets, `open_url` is what a front end may open, `completes` says what ends it
    well: the operator's `confirmation`, or something the provider `observes` by itself. `deadline`
    are the seconds after which the provider gives up.
    """

    kind: str
    prompt: str
    open_url: Secret[str] | None = None
    completes: Literal["confirmation", "observation"] = "confirmation"
    deadline: float = 300.0


class ChallengeAnswer(msgspec.Struct, frozen=True):
    """What the operator decided."""

    action: Literal["continue", "cancel", "timeout"]


class ChallengePort(Protocol):
    """Through which a provider asks; the command line, a daemon and tests implement it."""

    async def ask(self, challenge: Challenge) -> ChallengeAnswer:
        """Show `challenge` and wait until it is answered, cancelled or past its deadline."""
        ...
