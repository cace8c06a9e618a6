"""What can go wrong on the way, as one error with the stage that saw it.

Raised without a cause and outside of `except` blocks: what an HTTP library or a decoder raises
carries the request, or the text that it could not read.
"""

from turnlane.api import ProviderError

RESOLVE = "provider_resolve"
"""The stage of what goes wrong before any other: the link, the browser of a hosted call."""

DRIFT = (
    "the service may have changed: the artifact shows what it answered; look for a newer version "
    "of turnlane-vk"
)


class StageError(ProviderError):
    """A stage failed, which the message names too; most front ends show the message alone.

    `retry_after` are the seconds for which VK wants to be left alone.
    """

    def __init__(
        self,
        code: str,
        message: str,
        advice: str,
        *,
        provider_stage: str,
        retry_after: int | None = None,
    ) -> None:
        told = message if provider_stage == RESOLVE else f"{message} ({provider_stage})"
        super().__init__(code, told, advice, provider_stage=provider_stage)
        self.retry_after = retry_after
