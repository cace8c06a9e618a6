"""The provider `vk`: an invite or a hosted call goes in, credentials of its relays come out."""

from uuid import uuid4

from turnlane.api import (
    ChallengePort,
    ProviderContext,
    ProviderError,
    Renewal,
    Resolution,
    ResolveRequest,
)
from turnlane_vk.errors import RESOLVE, StageError
from turnlane_vk.exchange import Exchange
from turnlane_vk.link import Invite, read_link_untrusted
from turnlane_vk.observed_flow import ObservedFlow
from turnlane_vk.record import Record
from turnlane_vk.settings import VkSettings
from turnlane_vk.staged_flow import StagedFlow
from turnlane_vk.turn_server import TurnServer


class VkProvider:
    """Resolves VK's invites and hosted calls; remembers nothing and stores nothing."""

    def __init__(self, context: ProviderContext) -> None:
        self._context = context

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:
        """Return the credentials that VK gives to whoever joins, or hosts, the call.

        Raises `LinkError` for a link that is neither, before anything is asked, and `ProviderError`
        with the stage that failed. No other way is tried in place of one that failed.
        """
        settings = request.settings
        if not isinstance(settings, VkSettings):
            settings = VkSettings()
        record = Record()
        human = ObservedFlow(settings, challenges, self._context, record)
        try:
            target = read_link_untrusted(request.link)
            record.begin(target)
            if isinstance(target, Invite):
                server, renewal = await self._join(
                    target, settings, human if request.interactive else None, record
                )
            elif request.interactive:
                server, renewal = await human.hosted(), Renewal.CHALLENGE
            else:
                raise _start_required()
        except ProviderError as error:
            error.artifact = record.failure(error)
            raise
        return Resolution(server.credentials, record.resolution(server), renewal)

    async def _join(
        self, invite: Invite, settings: VkSettings, human: ObservedFlow | None, record: Record
    ) -> tuple[TurnServer, Renewal]:
        """Return the relays of an invite, and whether it took a human to get them."""
        device_id = str(uuid4())
        async with await Exchange.make(settings, self._context.wall_time()) as exchange:
            flow = StagedFlow(settings, invite, exchange, self._context, record)
            try:
                token = await flow.anonym_token()
            except StageError as error:
                if error.code != "captcha_required" or human is None:
                    raise
            else:
                return await flow.turn_server(token, device_id), Renewal.RESOLVE
            found = await human.invited(invite)
            if not isinstance(found, TurnServer):
                found = await flow.turn_server(found, device_id)
            return found, Renewal.CHALLENGE


def _start_required() -> StageError:
    return StageError(
        "authenticated_browser_start_required",
        "a call is hosted by a human, who signs in to VK in a browser",
        "allow it with --interactive-provider, or give the invite of a call that runs",
        provider_stage=RESOLVE,
    )
