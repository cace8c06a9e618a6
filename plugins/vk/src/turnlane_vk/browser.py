"""The browser as the provider sees it: what it is to open and watch, and what it saw.

The one implementation drives a real Chromium (`turnlane_vk.controlled_browser`, the extra
`browser`); tests have their own. What an observation means is none of the browser's business:
`turnlane_vk.observation` says it.
"""

from typing import Literal, Protocol

import msgspec

from turnlane.api import Challenge, ChallengePort, Secret

MAX_OBSERVED_BODY = 256 * 1024
"""Bytes of an answer that are kept; a longer one is kept as empty, which no rule can use."""

MAX_OBSERVED_ANSWERS = 128
"""Answers that are kept of one observation, the first ones."""


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What to open, and which answers to keep."""

    page: Secret[str]
    """The page to open; an invite is a secret as a whole."""
    endpoints: dict[str, str]
    """For each stage that is kept, what the URL of its requests begins with."""
    application_key: str = ""
    """The form field `application_key` of the stages that share an endpoint."""
    protocol_version: str = "5"
    """The form field `protocolVersion` of a join."""
    join_links: tuple[Secret[str], ...] = ()
    """What the form field `joinLink` of a join may be: the token, or the invite's URL."""


class ObservedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to a request of the page that was recognised as a stage."""

    stage: str
    """The id of the stage (`turnlane_vk.recognition`)."""
    status: int
    """The HTTP status."""
    form_keys: tuple[str, ...]
    """The names of the form's fields, sorted; their values stay in the browser."""
    body: Secret[bytes]
    """The body as it came, decompressed; empty where it could not be had or is too long."""


class Observations(msgspec.Struct, frozen=True):
    """What was seen until the operator answered, in the order in which the answers came."""

    answers: tuple[ObservedAnswer, ...]
    """The answers that were kept."""
    ended: Literal["continue", "cancel", "timeout", "closed"]
    """The operator's word; or `closed` when the browser went away before it came."""


class BrowserUnavailable(Exception):  # noqa: N818 - a condition of the machine
    """No browser can be driven here; message and advice say what to install."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class Browser(Protocol):
    """A browser that a human uses and that the provider watches; it clicks and types nothing."""

    async def observe(
        self, watch: Watch, challenge: Challenge, challenges: ChallengePort
    ) -> Observations:
        """Open `watch.page` in a fresh profile, ask `challenge` and keep what is seen meanwhile.

        Nothing is left behind, neither a process nor a folder, also when this is cancelled.
        Raises `BrowserUnavailable` where there is no browser, or it does not start.
        """
        ...


def make_browser() -> Browser:
    """Return the browser of this machine; it is looked for when it is used."""
    from turnlane_vk.controlled_browser import ControlledBrowser  # noqa: PLC0415 needs the extra

    return ControlledBrowser()
