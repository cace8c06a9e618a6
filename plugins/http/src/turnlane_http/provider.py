"""The provider `http`: asks an endpoint for credentials and reads its answer."""

from turnlane.api import (
    ChallengePort,
    Credentials,
    ProviderContext,
    ProviderError,
    Renewal,
    Resolution,
    ResolveRequest,
    Secret,
)
from turnlane_http.answer import Answer, expiry_of, parse_answer_untrusted
from turnlane_http.artifact import Record
from turnlane_http.errors import (
    ANSWER_STAGE,
    LINK_STAGE,
    REQUEST_STAGE,
    AnswerError,
    ExchangeError,
)
from turnlane_http.exchange import HttpAnswer, exchange
from turnlane_http.link import Endpoint, parse_link
from turnlane_http.settings import HttpSettings


class HttpProvider:
    """Resolves `https://` links; remembers nothing and stores nothing."""

    def __init__(self, context: ProviderContext) -> None:
        self._context = context

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:  # noqa: ARG002
        """Return the credentials that the endpoint gives.

        Raises `LinkError` for a link that cannot be read, and `ProviderError` for an endpoint that
        cannot be asked or does not answer with credentials.
        """
        settings = request.settings
        if not isinstance(settings, HttpSettings):
            settings = HttpSettings()
        record = Record()
        try:
            endpoint = self._read_link(request.link, record)
            asked_at = self._context.wall_time()
            response = await self._ask(endpoint, settings, asked_at, record)
            answer, expires_at = self._read_answer(response, settings, asked_at, record)
        except ProviderError as error:
            error.artifact = record.refusal(error)
            raise
        # The endpoint is asked again for credentials that ran out or were refused, even where it
        # does not tell when they do.
        return Resolution(
            Credentials(answer.endpoints, answer.username, answer.password, expires_at),
            record.resolution(answer),
            Renewal.RESOLVE,
        )

    def _read_link(self, link: Secret[str], record: Record) -> Endpoint:
        try:
            with self._context.span(LINK_STAGE):
                endpoint = parse_link(link)
        except ProviderError as error:
            record.failed(LINK_STAGE, error.code)
            raise
        record.shown = endpoint.shown
        return endpoint

    async def _ask(
        self, endpoint: Endpoint, settings: HttpSettings, now: float, record: Record
    ) -> HttpAnswer:
        try:
            with self._context.span(
                REQUEST_STAGE, method=settings.method, address=endpoint.address
            ):
                answer = await exchange(endpoint, settings, self._context.config_dir, now)
        except ExchangeError as error:
            record.requested(settings, error.status, error)
            raise
        record.requested(settings, answer.status)
        return answer

    def _read_answer(
        self, response: HttpAnswer, settings: HttpSettings, asked_at: float, record: Record
    ) -> tuple[Answer, float | None]:
        try:
            with self._context.span(ANSWER_STAGE):
                answer = parse_answer_untrusted(response.body)
                expires_at = _expiry(answer, settings, asked_at)
        except AnswerError as error:
            record.failed(ANSWER_STAGE, error.code)
            raise
        record.answered(answer)
        return answer, expires_at


def _expiry(answer: Answer, settings: HttpSettings, asked_at: float) -> float | None:
    """Return when credentials expire: what the answer says, else what was asked for.

    A lifetime goes before the time in a user name: it holds also where two clocks disagree.
    """
    if answer.lifetime is not None:
        return asked_at + answer.lifetime
    expires_at = expiry_of(answer.username, asked_at)
    if expires_at is None:
        asked = settings.asked_lifetime
        return None if asked is None else asked_at + asked
    if expires_at <= asked_at:
        raise AnswerError(
            "expired_credentials",
            "the endpoint gave credentials that have expired",
            "check this machine's clock, and tell whoever runs the endpoint",
        )
    return expires_at
