"""The staged flow: runs the stages of the invite flow one after the other, and notes each."""

from typing import TypeVar

from turnlane.api import ProviderContext, ProviderError, Secret
from turnlane_vk import stages
from turnlane_vk.answers import check_answer_untrusted, decode_untrusted
from turnlane_vk.exchange import Exchange, HttpAnswer
from turnlane_vk.link import Invite
from turnlane_vk.record import Record
from turnlane_vk.settings import VkSettings
from turnlane_vk.stages import Stage
from turnlane_vk.turn_server import TurnServer

T = TypeVar("T")


class StagedFlow:
    """The stages of one invite, over one exchange; every failure ends it."""

    def __init__(
        self,
        settings: VkSettings,
        invite: Invite,
        exchange: Exchange,
        context: ProviderContext,
        record: Record,
    ) -> None:
        self._settings = settings
        self._invite = invite
        self._exchange = exchange
        self._context = context
        self._record = record

    async def anonym_token(self) -> Secret[str]:
        """Return the call's anonymous token; raises `StageError`, `captcha_required` among it."""
        access_token = await self._pass(stages.login(self._settings))
        return await self._pass(stages.anonym_token(self._settings, self._invite, access_token))

    async def turn_server(self, anonym_token: Secret[str], device_id: str) -> TurnServer:
        """Log in as `device_id` and join; return the relays. Raises `StageError`."""
        session_key = await self._pass(stages.ok_login(self._settings, device_id))
        return await self._pass(
            stages.join(self._settings, self._invite, anonym_token, session_key)
        )

    async def _pass(self, stage: Stage[T]) -> T:
        answer: HttpAnswer | None = None
        document = None
        try:
            with self._context.span(stage.id):
                answer = await self._exchange.post(stage.id, stage.url, stage.form)
                document = decode_untrusted(answer.body)
                wait = answer.retry_after
                taken = stage.take(check_answer_untrusted(stage.id, answer.status, document, wait))
        except ProviderError as error:
            status = None if answer is None else answer.status
            self._record.answered(stage.id, list(stage.form), status, document, error)
            raise
        ending = taken if isinstance(taken, TurnServer) else None
        self._record.answered(stage.id, list(stage.form), answer.status, document, ending)
        return taken
