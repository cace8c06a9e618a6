"""What can go wrong between the link and the credentials, as errors of their own.

Raised without a cause and outside of `except` blocks: what an HTTP library or a decoder raises
carries the request, or the text that it could not read.
"""

from turnlane.api import ProviderError

LINK_STAGE = "parse_link"
REQUEST_STAGE = "http_request"
ANSWER_STAGE = "parse_answer"
"""The provider's stages, as errors, spans and the artifact name them."""


class ExchangeError(ProviderError):
    """The endpoint could not be asked, or refused.

    `status` is the HTTP status where there was one; `retry_after` are the seconds for which the
    endpoint wants to be left alone.
    """

    def __init__(
        self,
        code: str,
        message: str,
        advice: str,
        *,
        status: int | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(code, message, advice, provider_stage=REQUEST_STAGE)
        self.status = status
        self.retry_after = retry_after


class AnswerError(ProviderError):
    """What the endpoint answered is not usable; the text names fields and never repeats values."""

    def __init__(self, code: str, message: str, advice: str) -> None:
        super().__init__(code, message, advice, provider_stage=ANSWER_STAGE)
