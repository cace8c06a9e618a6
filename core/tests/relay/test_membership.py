"""How lanes become one session: one at a time until the secret is known, then all at once."""

import anyio
import pytest

from turnlane.api import Secret
from turnlane.relay.membership import Membership, Ticket

pytestmark = pytest.mark.anyio


class CountingBytes:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, size: int) -> bytes:
        self.calls += 1
        return bytes([self.calls]) * size


async def test_one_lane_makes_the_session_and_the_others_wait_for_its_secret() -> None:
    membership = Membership(CountingBytes())
    seen: list[Ticket] = []
    first_is_in = anyio.Event()
    go_on = anyio.Event()

    async def first() -> None:
        async with membership.ticket() as ticket:
            seen.append(ticket)
            first_is_in.set()
            await go_on.wait()
            membership.established(ticket, Secret(b"secret"))

    async def later() -> None:
        await first_is_in.wait()
        async with membership.ticket() as ticket:
            seen.append(ticket)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        tasks.start_soon(later)
        tasks.start_soon(later)
        await first_is_in.wait()
        await anyio.wait_all_tasks_blocked()
        assert len(seen) == 1
        go_on.set()
    assert [ticket.secret for ticket in seen] == [None, Secret(b"secret"), Secret(b"secret")]
    assert {ticket.session_id for ticket in seen} == {b"\x01" * 16}


async def test_the_next_lane_tries_when_the_first_one_fails() -> None:
    membership = Membership(CountingBytes())
    with pytest.raises(ValueError, match="refused"):
        async with membership.ticket():
            raise ValueError("refused")
    async with membership.ticket() as ticket:
        assert ticket.secret is None
        membership.established(ticket, Secret(b"secret"))
    async with membership.ticket() as ticket:
        assert ticket.secret == Secret(b"secret")


async def test_lanes_that_find_the_session_forgotten_begin_one_new_session_together() -> None:
    membership = Membership(CountingBytes())
    async with membership.ticket() as ticket:
        membership.established(ticket, Secret(b"old"))
    async with membership.ticket() as one, membership.ticket() as other:
        pass
    membership.forget(one)
    fresh = membership.session_id
    membership.forget(other)
    assert membership.session_id == fresh != one.session_id
    async with membership.ticket() as ticket:
        assert ticket == Ticket(fresh, None)


async def test_a_late_answer_to_a_forgotten_session_changes_nothing() -> None:
    membership = Membership(CountingBytes())
    async with membership.ticket() as stale:
        membership.forget(stale)
    membership.established(stale, Secret(b"late"))
    async with membership.ticket() as ticket:
        assert ticket.secret is None
