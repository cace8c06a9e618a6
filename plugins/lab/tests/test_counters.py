"""Counters that are waited on."""

import re
from pathlib import Path

import anyio
import pytest

from turnlane.api import Secret
from turnlane_lab.config import RelayConfig
from turnlane_lab.counters import Counters
from turnlane_lab.relay import Relay


@pytest.mark.anyio
async def test_a_number_is_awaited_from_below_and_exactly():
    counters = Counters(("made", "alive"))
    seen = []

    async def wait():
        seen.append(await counters.reached("made", 2))
        seen.append(await counters.settled("alive", 0))

    counters.add("alive", 3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        counters.add("made")
        await anyio.wait_all_tasks_blocked()
        assert seen == []
        counters.add("made", 2)
        await anyio.wait_all_tasks_blocked()
        assert seen == [3]
        counters.add("alive", -2)
        await anyio.wait_all_tasks_blocked()
        assert seen == [3]
        counters.add("alive", -1)
    assert seen == [3, 0]
    assert dict(counters) == {"made": 3, "alive": 0}
    assert len(counters) == 2


@pytest.mark.anyio
async def test_a_number_that_was_right_for_a_moment_counts():
    counters = Counters(("alive",))
    counters.add("alive")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(counters.settled, "alive", 0)
        await anyio.wait_all_tasks_blocked()
        counters.add("alive", -1)
        counters.add("alive")
    assert counters["alive"] == 1


@pytest.mark.anyio
async def test_what_is_so_already_is_not_waited_for():
    counters = Counters(("made",))
    counters.add("made", 5)
    with anyio.fail_after(1):
        assert await counters.reached("made", 5) == 5
        assert await counters.settled("made", 5) == 5


@pytest.mark.anyio
@pytest.mark.parametrize("wait", ["reached", "settled"])
async def test_waiting_in_vain_ends_and_tells_the_numbers(wait):
    counters = Counters(("made", "alive"))
    counters.add("alive", 4)
    with pytest.raises(TimeoutError, match=r"made [>=]= 1 .*alive=4"):
        await getattr(counters, wait)("made", 1, timeout=0.001)
    assert counters._waiters == []


@pytest.mark.anyio
async def test_an_unknown_name_is_told_what_there_is():
    counters = Counters(("made", "alive"))
    with pytest.raises(KeyError, match="made, alive"):
        await counters.reached("mode", 1)
    with pytest.raises(KeyError, match="made, alive"):
        counters["mode"]
    with pytest.raises(KeyError):
        counters.add("mode")


def test_the_readme_names_every_counter_of_the_relay_and_no_other():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    table = readme.partition("| counters | |\n|---|---|\n")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall("`(.*?)`", row)}
    relay = Relay(RelayConfig(users={"ada": Secret("swordfish")}))
    assert named == set(relay.counters)
