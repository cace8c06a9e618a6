"""The observed flow: a human in a browser, and what is made of what was seen of it."""

from turnlane.api import Challenge, ChallengePort, ProviderContext, Secret
from turnlane_vk import browser
from turnlane_vk.browser import BrowserUnavailable, Observations, Watch
from turnlane_vk.errors import RESOLVE, StageError
from turnlane_vk.link import Invite
from turnlane_vk.observation import Failed, GoOn, Resolved, StageResult, judge_invite, judge_start
from turnlane_vk.recognition import ANONYM_TOKEN, BROWSER_LOGIN, JOIN, OK_LOGIN, PREVIEW, START
from turnlane_vk.record import OBSERVED, Record
from turnlane_vk.settings import VkSettings
from turnlane_vk.stages import invite_url
from turnlane_vk.turn_server import TurnServer

_CAPTCHA = (
    "VK wants a human. In the browser window, complete what it asks, and go on until the page "
    "shows the call."
)
_SIGN_IN = (
    "In the browser window, sign in to VK, create the call and stay in it. Nothing of the account "
    "is kept here."
)
_NOT_CONFIRMED = {"cancel": "it was cancelled", "timeout": "nobody confirmed in time"}
_MORE_TIME = "try again; the setting challenge_timeout gives more time"


class ObservedFlow:
    """What a human does in a browser, while the provider watches; every failure ends it."""

    def __init__(
        self,
        settings: VkSettings,
        challenges: ChallengePort,
        context: ProviderContext,
        record: Record,
    ) -> None:
        self._settings = settings
        self._challenges = challenges
        self._context = context
        self._record = record

    async def invited(self, invite: Invite) -> Secret[str] | TurnServer:
        """Let a human pass the captcha; return the anonymous token, or the relays themselves.

        Raises `StageError`.
        """
        settings = self._settings
        watch = Watch(
            page=Secret(settings.invite_page + invite.token.reveal()),
            endpoints={
                ANONYM_TOKEN: settings.browser_anonym_token_url,
                BROWSER_LOGIN: settings.browser_login_url,
                PREVIEW: settings.browser_preview_url,
                OK_LOGIN: settings.ok_url,
                JOIN: settings.ok_url,
            },
            application_key=settings.application_key,
            protocol_version=settings.protocol_version,
            join_links=(invite.token, invite_url(settings, invite)),
        )
        challenge = Challenge("captcha", _CAPTCHA, deadline=settings.challenge_timeout)
        seen = await self._observe(watch, challenge, ANONYM_TOKEN)
        results = [StageResult.of_untrusted(answer) for answer in seen.answers]
        if any(result.stage in (PREVIEW, OK_LOGIN, JOIN) for result in results):
            self._record.method = OBSERVED
        if seen.ended in _NOT_CONFIRMED:
            self._record.observed(results, None, None)
            raise StageError(
                "browser_continuation_failed",
                f"the captcha was not confirmed as completed: {_NOT_CONFIRMED[seen.ended]}",
                _MORE_TIME,
                provider_stage=ANONYM_TOKEN,
            )
        verdict = judge_invite(results)
        if isinstance(verdict, GoOn):
            self._record.observed(results, verdict.at, None)
            return verdict.token
        return self._ended(results, verdict)

    async def hosted(self) -> TurnServer:
        """Let a human sign in and host a call; return its relays. Raises `StageError`."""
        settings = self._settings
        watch = Watch(
            page=Secret(settings.start_page),
            endpoints={OK_LOGIN: settings.ok_url, START: settings.ok_url},
            application_key=settings.application_key,
        )
        challenge = Challenge("sign_in", _SIGN_IN, deadline=settings.challenge_timeout)
        seen = await self._observe(watch, challenge, RESOLVE)
        results = [StageResult.of_untrusted(answer) for answer in seen.answers]
        if seen.ended in _NOT_CONFIRMED:
            self._record.observed(results, None, None)
            raise StageError(
                "authenticated_browser_continuation_failed",
                f"the call was not confirmed as created: {_NOT_CONFIRMED[seen.ended]}",
                _MORE_TIME,
                provider_stage=RESOLVE,
            )
        return self._ended(results, judge_start(results))

    async def _observe(self, watch: Watch, challenge: Challenge, stage: str) -> Observations:
        seen: Observations | None = None
        missing: BrowserUnavailable | None = None
        with self._context.span("browser"):
            try:
                seen = await browser.make_browser().observe(watch, challenge, self._challenges)
            except BrowserUnavailable as error:
                missing = error
        if seen is not None:
            return seen
        assert missing is not None
        raise StageError(
            "browser_unavailable", missing.message, missing.advice, provider_stage=stage
        )

    def _ended(self, results: list[StageResult], verdict: Resolved | Failed) -> TurnServer:
        if isinstance(verdict, Failed):
            self._record.observed(results, verdict.at, verdict.error)
            raise verdict.error
        self._record.observed(results, verdict.at, verdict.server)
        return verdict.server
