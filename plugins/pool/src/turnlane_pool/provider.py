"""The provider `pool`: asks its members one after the other until one resolves."""

import logging
import math
import os
from contextvars import ContextVar

import anyio

from turnlane.api import (
    ChallengePort,
    LinkError,
    ProviderContext,
    ProviderError,
    Resolution,
    ResolveRequest,
    TurnlaneError,
)
from turnlane.telemetry import log_event
from turnlane_pool.health import Health, Round, known_members
from turnlane_pool.link import SCHEME, pool_name
from turnlane_pool.member_link import member_link
from turnlane_pool.pool_file import FILE_NAME, STAGE, Member, Pool, find_cycle, read_pools
from turnlane_pool.record import CYCLE, Record, code_of, is_misconfigured, stage_of

_LOG = logging.getLogger("turnlane.pool")

SHARE = 3
"""A member gets this part of the time that is left, so that one that hangs leaves some to others.

A last one gets all of it, the last but one a half."""

RESERVE = 0.05
"""Part of the time that the pool keeps for itself, to say what has failed."""

_under_way: ContextVar[tuple[str, ...]] = ContextVar("turnlane_pools_under_way", default=())
"""The pools that this task is inside of, the outermost first."""


class PoolProvider:
    """Resolves `pool:NAME` through the members of a pool in the operator's `pool.toml`."""

    def __init__(self, context: ProviderContext) -> None:
        self._context = context
        self._record = Record()

    async def resolve(self, request: ResolveRequest, challenges: ChallengePort) -> Resolution:  # noqa: ARG002
        """Return the credentials of the first member that resolves, with its renewal.

        Raises `LinkError` for a link that names no pool (`wrong_scheme`, `unknown_pool`),
        `PoolFileError` for a file that cannot be used, and `ProviderError`: `provider_cycle` for a
        pool that leads back to itself, `no_member_resolved` with the code of every member.
        """
        outer = _under_way.get()
        try:
            pool = self._find(request, outer)
        except ProviderError as error:
            error.artifact = self._record.refused(error.code)
            raise
        now = self._context.wall_time()
        round_ = Round(pool, known_members(self._context.memory, pool), now)
        self._record.found(pool, round_.aside, now)
        token = _under_way.set((*outer, pool.name))
        try:
            return await self._ask(pool, round_)
        finally:
            _under_way.reset(token)

    def _find(self, request: ResolveRequest, outer: tuple[str, ...]) -> Pool:
        name = pool_name(request.link)
        if name is None:
            raise LinkError(
                "wrong_scheme",
                f"the link is not {SCHEME} and the name of a pool",
                f"write {SCHEME}NAME for [pools.NAME] in {FILE_NAME}",
                provider_stage=STAGE,
            )
        with self._context.span(STAGE):
            pools = read_pools(self._context.config_dir)
        memory = self._context.memory
        for gone in [known for known in memory if known not in pools]:
            del memory[gone]
        if name not in pools:
            raise LinkError(
                "unknown_pool",
                f"the link names a pool that {FILE_NAME} does not have",
                f"its pools: {', '.join(pools)}",
                provider_stage=STAGE,
            )
        way = find_cycle(pools, name)
        if way is None and name in outer:
            way = (*outer[outer.index(name) :], name)
        if way is not None:
            raise ProviderError(
                CYCLE,
                f"the pool {way[0]} leads back to itself: {' > '.join(way)}",
                f"take one of these steps out of {FILE_NAME}",
                provider_stage=STAGE,
            )
        return pools[name]

    async def _ask(self, pool: Pool, round_: Round) -> Resolution:
        deadline = _own_deadline()
        failures: dict[str, TurnlaneError] = {}
        try:
            while (health := round_.next()) is not None:
                member = health.member
                # Counted with this one, which `left` no longer has.
                limit = (deadline - anyio.current_time()) / min(round_.left + 1, SHARE)
                try:
                    resolution = await self._resolve(member, limit)
                except TurnlaneError as error:
                    failures[member.name] = error
                    self._failed(pool, round_, health, error)
                else:
                    round_.settle(health)
                    return self._wrap(member, resolution)
        except BaseException:
            round_.undo()
            raise
        round_.settle()
        raise self._none_resolved(pool, failures, round_.aside)

    async def _resolve(self, member: Member, limit: float) -> Resolution:
        context = self._context
        with context.span("pool_member", member=member.name, provider=member.provider):
            link = member_link(member, context.config_dir, os.environ)
            with anyio.move_on_after(limit):
                return await context.resolve_with(member.provider, link, member.settings)
            raise ProviderError(
                "member_timeout",
                f"the member {member.name} gave no answer within its share of the time",
                "check the network, then try again",
            )

    def _failed(self, pool: Pool, round_: Round, health: Health, error: TurnlaneError) -> None:
        member = health.member
        code = code_of(error)
        round_.failed(health, code, self._context.wall_time())
        self._record.member_failed(member, error)
        log_event(
            _LOG,
            logging.WARNING,
            "pool_member_failed",
            provider=member.provider,
            code=code,
            pool=pool.name,
            member=member.name,
            misconfigured=is_misconfigured(error),
        )

    def _wrap(self, member: Member, resolution: Resolution) -> Resolution:
        credentials = resolution.credentials
        artifact = self._record.member_resolved(
            member, credentials.endpoints[0], resolution.artifact
        )
        return Resolution(credentials, artifact, resolution.renewal)

    def _none_resolved(
        self, pool: Pool, failures: dict[str, TurnlaneError], aside: list[Health]
    ) -> ProviderError:
        codes = {name: code_of(error) for name, error in failures.items()}
        # Where all lead back to where they came from, that is what has to be mended.
        code = CYCLE if set(codes.values()) == {CYCLE} and not aside else "no_member_resolved"
        now = self._context.wall_time()
        told = [f"{name} ({failed})" for name, failed in codes.items()]
        for health in aside:
            left = f"put aside for {health.aside_for(now):.0f} s more"
            told.append(f"{health.member.name} ({health.code}, {left})")
        broken = [name for name, error in failures.items() if is_misconfigured(error)]
        advice = "see the stages of the artifact; who failed is asked again after a pause"
        if broken:
            advice = f"mend in {FILE_NAME} or beside it: {', '.join(broken)}; {advice}"
        stage = stage_of(list(failures)[-1])
        return ProviderError(
            code,
            f"no member of the pool {pool.name} resolved: {', '.join(told)}",
            advice,
            provider_stage=stage,
            artifact=self._record.failure(stage, code),
        )


def _own_deadline() -> float:
    """Return when the pool must be done, on the event loop's clock."""
    deadline = anyio.current_effective_deadline()
    if math.isinf(deadline):
        return math.inf
    return deadline - RESERVE * max(deadline - anyio.current_time(), 0.0)
