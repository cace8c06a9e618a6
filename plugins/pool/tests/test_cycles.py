"""Pools that lead back to themselves: found in the file, on the way, or by the runtime."""

from itertools import pairwise
from typing import Any

import pytest

from turnlane.api import Artifact, ProviderError

pytestmark = pytest.mark.anyio


def stages(artifact: Artifact | None) -> list[tuple[str, str, str | None]]:
    assert artifact is not None
    return [(each.name, each.outcome.kind, each.outcome.error_code) for each in artifact.stages]


async def failure(world: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await world.resolve()
    return caught.value


def chained(*links: tuple[str, str]) -> str:
    """Write pools that each have one member, the pool behind the link."""
    return "\n".join(
        f'[pools.{name}]\nstrategy = "ordered"\n'
        f'members = [{{ provider = "pool", name = "inner", {link} }}]'
        for name, link in links
    )


@pytest.mark.parametrize(
    ("links", "way"),
    [
        ([("home", 'link = "pool:home"')], "home > home"),
        ([("home", 'link = "pool:b"'), ("b", 'link = "pool:home"')], "home > b > home"),
        ([("home", 'link = "pool:b"'), ("b", 'link = "pool:b"')], "b > b"),
    ],
)
async def test_a_pool_that_leads_back_to_itself_is_refused_with_the_way(
    world: Any, links: list[tuple[str, str]], way: str
) -> None:
    world.write(chained(*links))

    error = await failure(world)

    assert error.code == "provider_cycle"
    assert f"leads back to itself: {way}" in error.message
    assert stages(error.artifact) == [("read_pool", "provider_error", "provider_cycle")]


async def test_a_cycle_through_files_is_found_on_the_way(world: Any) -> None:
    world.write("pool:home", "home.link")
    world.write(chained(("home", 'link = "pool:b"'), ("b", 'link_file = "home.link"')))

    error = await failure(world)

    assert error.code == "provider_cycle"
    assert error.message == "no member of the pool home resolved: inner (provider_cycle)"
    assert error.advice.startswith("mend in pool.toml or beside it: inner; ")


async def test_a_cycle_through_a_file_falls_over_and_is_told(world: Any) -> None:
    world.write("pool:home", "home.link")
    world.write(
        '[pools.home]\nstrategy = "ordered"\n'
        'members = [{ provider = "pool", link_file = "home.link" },\n'
        '{ provider = "plain", link = "spare#" }]'
    )

    resolution = await world.resolve()

    assert stages(resolution.artifact)[1:] == [
        ("member:pool", "provider_error", "provider_cycle"),
        ("member:plain", "resolution", None),
    ]
    assert world.asked == ["spare"]


async def test_pools_nested_too_deeply_are_a_cycle_to_the_runtime(world: Any) -> None:
    names = ["home", "b", "c", "d", "e"]
    links = [(a, f'link = "pool:{b}"') for a, b in pairwise(names)]
    leaf = '\n[pools.e]\nstrategy = "ordered"\nmembers = [{ provider = "plain", link = "x#" }]'
    world.write(chained(*links) + leaf)

    assert (await failure(world)).code == "provider_cycle"
    assert await world.user("pool:c") == "x"


async def test_one_pool_may_be_in_two_places(world: Any) -> None:
    leaf = '\n[pools.b]\nstrategy = "ordered"\nmembers = [{ provider = "plain", link = "x#" }]'
    world.write(chained(("home", 'link = "pool:b"'), ("c", 'link = "pool:b"')) + leaf)

    assert await world.user() == "x"
    assert await world.user("pool:c") == "x"
