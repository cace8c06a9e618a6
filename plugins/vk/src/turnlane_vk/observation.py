"""Observation: what it means that a browser was seen to get these answers, in this order.

Pure functions; the browser's part ends where its answers have been read. The invite's rules, in
the order in which they decide:

1. A preview, or a stage that belongs behind it, was seen: the page itself joins, or it does not.
2. The page asked for the anonymous token again: with it, the staged flow goes on.
3. There is nothing to go on with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from turnlane.api import Secret
from turnlane_vk.answers import Document, anonym_token_untrusted, decode_untrusted
from turnlane_vk.browser import ObservedAnswer
from turnlane_vk.errors import DRIFT, RESOLVE, StageError
from turnlane_vk.recognition import ANONYM_TOKEN, JOIN, OK_LOGIN, PREVIEW, START
from turnlane_vk.turn_server import TurnServer, read_turn_server_untrusted

_POST_PREVIEW = frozenset({OK_LOGIN, JOIN})
_CONTOUR = _POST_PREVIEW | {PREVIEW}

_AGAIN = "try again, and confirm only when the page shows the call"


@dataclass(frozen=True)
class StageResult:
    """An answer of a stage that was observed; `document` is empty where it was no JSON object."""

    stage: str
    status: int
    form_keys: tuple[str, ...]
    document: Document = field(repr=False)

    @classmethod
    def of_untrusted(cls, answer: ObservedAnswer) -> "StageResult":
        """Read the body of an observed answer."""
        document = decode_untrusted(answer.body.reveal())
        return cls(answer.stage, answer.status, answer.form_keys, document or {})

    @property
    def turn_server(self) -> TurnServer | None:
        """The relays that it names, None where it names none that can be used."""
        try:
            server = read_turn_server_untrusted(self.document, self.stage)
        except StageError:
            return None
        return server if self.status == 200 else None

    @property
    def anonym_token(self) -> Secret[str] | None:
        """The anonymous token that it gives, None where it gives none."""
        return anonym_token_untrusted(self.document) if self.status == 200 else None


@dataclass(frozen=True)
class GoOn:
    """The answer number `at` gave the token with which the staged flow goes on."""

    at: int
    token: Secret[str]


@dataclass(frozen=True)
class Resolved:
    """The answer number `at` named the relays."""

    at: int
    server: TurnServer


@dataclass(frozen=True)
class Failed:
    """Nothing came of it; `at` is the number of the answer that decided, None without one."""

    at: int | None
    error: StageError


def judge_invite(results: Sequence[StageResult]) -> GoOn | Resolved | Failed:
    """Say what came of an invite's page."""
    contour = [at for at, result in enumerate(results) if result.stage in _CONTOUR]
    if contour:
        return _judge_contour(results, contour)
    tried = [at for at, result in enumerate(results) if result.stage == ANONYM_TOKEN]
    for at in reversed(tried):
        token = results[at].anonym_token
        if token is not None:
            return GoOn(at, token)
    what = (
        "the page went on without an anonymous token"
        if tried
        else "nothing that can be used was seen in the browser"
    )
    error = StageError("browser_continuation_failed", what, _AGAIN, provider_stage=ANONYM_TOKEN)
    return Failed(tried[-1] if tried else None, error)


def _judge_contour(results: Sequence[StageResult], contour: list[int]) -> Resolved | Failed:
    first = contour[0]
    if results[first].stage != PREVIEW:
        return Failed(
            first,
            StageError(
                "unsupported_live_contour",
                "the page joined the call without having shown its preview",
                DRIFT,
                provider_stage=results[first].stage,
            ),
        )
    resolved = _first_resolved(results, JOIN)
    if resolved is not None:
        return resolved
    joining = [at for at in contour if results[at].stage in _POST_PREVIEW]
    if joining:
        return Failed(
            joining[-1],
            StageError(
                "browser_post_preview_unsupported",
                "the page went on behind the preview, but got no credentials for a relay",
                DRIFT,
                provider_stage=results[joining[-1]].stage,
            ),
        )
    return Failed(
        contour[-1],
        StageError(
            "browser_preview_only",
            "the page stayed at the preview of the call",
            "try again, join the call in the page, and confirm only then",
            provider_stage=PREVIEW,
        ),
    )


def judge_start(results: Sequence[StageResult]) -> Resolved | Failed:
    """Say what came of the page from which a call is hosted."""
    own = [at for at, result in enumerate(results) if result.stage in (OK_LOGIN, START)]
    if own and results[own[0]].stage == START:
        return Failed(
            own[0],
            StageError(
                "authenticated_browser_unsupported_contour",
                "the page started the call without having logged in where calls are made",
                DRIFT,
                provider_stage=START,
            ),
        )
    resolved = _first_resolved(results, START)
    if resolved is not None:
        return resolved
    return Failed(
        own[-1] if own else None,
        StageError(
            "authenticated_browser_contour_incomplete",
            "the page got no credentials for a relay",
            "try again, create the call in the page, and confirm only when it runs",
            provider_stage=results[own[-1]].stage if own else RESOLVE,
        ),
    )


def _first_resolved(results: Sequence[StageResult], stage: str) -> Resolved | None:
    for at, result in enumerate(results):
        server = result.turn_server if result.stage == stage else None
        if server is not None:
            return Resolved(at, server)
    return None
