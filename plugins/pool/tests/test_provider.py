"""The provider through the real resolver: order, weights, fall-over, back-off, secrets."""

import json
import logging
from collections import Counter
from typing import Any

import anyio
import msgspec
import pytest

from turnlane.api import LinkError, ProviderError, Renewal, TurnlaneError
from turnlane.runtime import resolver as resolver_module
from turnlane.telemetry.redaction import find_leaks
from turnlane_pool import provider as provider_module

pytestmark = pytest.mark.anyio

SECRETS = ["planted-secret", "planted-password", "planted-text", "planted-setting"]


def shown(artifact: object) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(artifact))
    return decoded


def stages(artifact: object) -> list[tuple[str, str, str | None]]:
    return [
        (each["name"], each["outcome"]["kind"], each["outcome"].get("error_code"))
        for each in shown(artifact)["stages"]
    ]


async def failure(world: Any, link: str = "pool:home") -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await world.resolve(link)
    return caught.value


# Order and weights


async def test_an_ordered_pool_asks_its_first_member_and_gives_what_that_gives(world: Any) -> None:
    world.write_pool("ordered", {"own": None, "spare": None})
    given = world.resolution("own", renewal=Renewal.CHALLENGE)
    world.answers["own"] = given

    resolution = await world.resolve()

    assert world.asked == ["own"]
    assert resolution.credentials is given.credentials
    assert resolution.renewal is Renewal.CHALLENGE


async def test_where_a_member_does_not_say_how_it_is_renewed_its_descriptor_does(
    world: Any,
) -> None:
    world.write_pool("ordered", {"own": None})

    assert (await world.resolve()).renewal is Renewal.NEVER


async def test_the_artifact_wraps_the_record_of_the_member(world: Any) -> None:
    world.write_pool("ordered", {"own": None, "spare": None})

    artifact = shown((await world.resolve()).artifact)

    assert artifact == {
        "provider": "pool",
        "resolution_method": "pool_ordered",
        "input": {"link_redacted": "pool:home"},
        "stages": [
            {
                "name": "read_pool",
                "endpoint_id": "read_pool",
                "request": {"method": "READ", "form_keys": ["link"], "redacted_fields": ["link"]},
                "response": {
                    "body": {"strategy": "ordered", "members": ["own", "spare"], "put_aside": {}}
                },
                "outcome": {"kind": "continue"},
            },
            {
                "name": "member:own",
                "endpoint_id": "plain",
                "request": {
                    "method": "RESOLVE",
                    "form_keys": ["link", "settings"],
                    "redacted_fields": ["link", "settings"],
                },
                "response": {
                    "body": {
                        "provider": "plain",
                        "artifact": {
                            "provider": "plain",
                            "resolution_method": "by_own",
                            "input": {},
                            "stages": [],
                            "outcome": {"result_kind": "resolution"},
                        },
                    }
                },
                "outcome": {
                    "kind": "resolution",
                    "extracted": {
                        "username": "<redacted:turn-username>",
                        "password": "<redacted:turn-password>",
                        "normalized_address": "own.example:3478",
                    },
                },
            },
        ],
        "outcome": {
            "result_kind": "resolution",
            "resolution": {
                "username_redacted": "<redacted:turn-username>",
                "password_redacted": "<redacted:turn-password>",
                "address": "own.example:3478",
            },
        },
    }


async def test_a_weighted_pool_shares_100_resolutions_exactly_and_smoothly(world: Any) -> None:
    world.write_pool("weighted", {"a": 5, "b": 3, "c": 2})

    users = [await world.user() for _ in range(100)]

    assert Counter(users) == {"a": 50, "b": 30, "c": 20}
    assert users[:10] == ["a", "b", "c", "a", "a", "b", "a", "c", "b", "a"]
    assert users == users[:10] * 10


async def test_a_weighted_pool_shares_among_those_that_are_well(world: Any) -> None:
    world.write_pool("weighted", {"a": 2, "b": 1, "c": 1})
    world.fail("a")

    users = Counter([await world.user() for _ in range(20)])

    assert users == {"b": 10, "c": 10}
    assert world.asked.count("a") == 1


async def test_concurrent_resolutions_of_a_weighted_pool_are_spread(world: Any) -> None:
    world.write_pool("weighted", {"a": None, "b": None})

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(world.resolve)

    assert Counter(world.asked) == {"a": 3, "b": 3}


# Fall-over


async def test_a_failing_member_is_followed_by_the_next_and_told(world: Any, caplog: Any) -> None:
    world.write_pool("ordered", {"own": None, "spare": None})
    world.fail("own")

    with caplog.at_level(logging.WARNING, "turnlane"):
        resolution = await world.resolve()

    assert resolution.credentials.username.reveal() == "spare"
    assert stages(resolution.artifact) == [
        ("read_pool", "continue", None),
        ("member:own", "provider_error", "http_500"),
        ("member:spare", "resolution", None),
    ]
    (record,) = caplog.records
    assert record.message == "pool_member_failed"
    assert record.turnlane_fields == {
        "provider": "plain",
        "code": "http_500",
        "pool": "home",
        "member": "own",
        "misconfigured": False,
    }


@pytest.mark.parametrize(
    ("member", "code"),
    [
        ('provider = "absent"\nlink = "x"', "unknown_provider"),
        ('provider = "tunable"\nlink = "x"\nsettings = { colour = 7 }', "invalid_settings"),
        ('provider = "plain"\nlink = "x"\nsettings = { colour = "red" }', "invalid_settings"),
        ('provider = "plain"\nlink = "bad#planted-secret"', "not_mine"),
        ('provider = "plain"\nlink_env = "POOL_TEST_UNSET"', "missing_link_variable"),
        ('provider = "plain"\nlink_file = "absent"', "missing_link_file"),
        ('provider = "plain"\nlink_file = "."', "unreadable_link_file"),
        ('provider = "plain"\nlink_file = "a\\u0000b"', "unreadable_link_file"),
        ('provider = "plain"\nlink_file = "~nobody-of-that-name/x"', "unreadable_link_file"),
        ('provider = "plain"\nlink_file = "loose"', "unsafe_link_file"),
        ('provider = "plain"\nlink_file = "two"', "invalid_link_file"),
        ('provider = "plain"\nlink_file = "binary"', "invalid_link_file"),
    ],
)
async def test_a_misconfigured_member_falls_over_too_and_is_told(
    world: Any, caplog: Any, member: str, code: str
) -> None:
    world.write("x", "loose", 0o622)
    world.write("x\ny", "two")
    world.write("", "binary").write_bytes(b"\xff\xfe")
    world.answers["bad"] = LinkError("not_mine", "planted-text")
    world.write(
        f'[pools.home]\nstrategy = "ordered"\n[[pools.home.members]]\nname = "own"\n{member}\n'
        '[[pools.home.members]]\nname = "spare"\nprovider = "plain"\nlink = "spare#x"'
    )

    resolution = await world.resolve()

    assert resolution.credentials.username.reveal() == "spare"
    failed = shown(resolution.artifact)["stages"][1]
    assert (failed["name"], failed["outcome"]["error_code"]) == ("member:own", code)
    assert failed["response"]["body"]["misconfigured"] is True
    assert caplog.records[0].turnlane_fields["misconfigured"] is True


async def test_a_member_with_wrong_settings_is_told_by_field(world: Any) -> None:
    world.write(
        '[pools.home]\nstrategy = "ordered"\n[[pools.home.members]]\nprovider = "tunable"\n'
        'link = "own#planted-secret"\nsettings = { colour = 7, shape = "planted-setting" }'
    )

    error = await failure(world)

    body = shown(error.artifact)["stages"][1]["response"]["body"]
    assert body["violations"] == [
        {"field": "colour", "code": "type"},
        {"field": "shape", "code": "unknown"},
    ]
    assert "mend in pool.toml or beside it: tunable" in error.advice


async def test_links_come_from_files_and_the_environment_and_settings_reach_the_member(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOL_TEST_LINK", "by-env#planted-secret")
    world.write("by-file#planted-secret\n", "own.link")
    world.write(
        """
        [pools.env]
        strategy = "ordered"
        members = [{ provider = "tunable", link_env = "POOL_TEST_LINK", settings.colour = "blue" }]

        [pools.file]
        strategy = "ordered"
        members = [{ provider = "plain", link_file = "own.link" }]
        """
    )

    assert await world.user("pool:env") == "by-env"
    assert await world.user("pool:file") == "by-file"
    assert world.requests[0].settings.colour == "blue"
    assert world.requests[1].link.reveal() == "by-file#planted-secret"


async def test_a_member_that_hangs_leaves_time_for_the_next_and_is_put_aside(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "RESOLVE_TIMEOUT", 1.0)
    world.write_pool("ordered", {"own": None, "spare": None, "third": None})
    world.answers["own"] = "hang"

    resolution = await world.resolve()
    again = await world.resolve()

    assert stages(resolution.artifact)[1:] == [
        ("member:own", "provider_error", "member_timeout"),
        ("member:spare", "resolution", None),
    ]
    assert stages(again.artifact)[1:] == [("member:spare", "resolution", None)]


async def test_members_that_all_hang_are_told_before_the_time_is_over(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver_module, "RESOLVE_TIMEOUT", 1.0)
    monkeypatch.setattr(provider_module, "RESERVE", 0.5)  # a busy machine takes a while to wake
    world.write_pool("ordered", {"own": None, "spare": None})
    world.answers.update(own="hang", spare="hang")

    error = await failure(world)

    assert "own (member_timeout), spare (member_timeout)" in error.message


# Back-off and recovery


async def test_a_failing_member_is_put_aside_for_5_seconds_doubling_to_5_minutes(
    world: Any,
) -> None:
    world.write_pool("ordered", {"own": None, "spare": None})
    world.fail("own")

    for pause in (5, 10, 20, 40, 80, 160, 300, 300):
        world.asked.clear()
        assert await world.user() == "spare"
        assert world.asked == ["own", "spare"]
        world.now += pause - 0.001
        assert await world.user() == "spare"
        assert world.asked == ["own", "spare", "spare"], f"asked again before {pause} s"
        world.now += 0.001


async def test_the_file_says_how_long_members_are_put_aside(world: Any) -> None:
    world.write_pool("ordered", {"own": None, "spare": None}, backoff_first=2, backoff_last=3)
    world.fail("own")

    for pause in (2, 3, 3):
        world.asked.clear()
        await world.resolve()
        world.now += pause - 0.001
        await world.resolve()
        world.now += 0.001
        assert world.asked == ["own", "spare", "spare"]


async def test_a_member_that_is_well_again_is_first_again_and_its_back_off_is_forgotten(
    world: Any,
) -> None:
    world.write_pool("ordered", {"own": None, "spare": None})
    world.fail("own")
    await world.resolve()
    world.now += 5
    await world.resolve()
    world.now += 10
    del world.answers["own"]

    assert await world.user() == "own"

    world.fail("own")
    assert await world.user() == "spare"
    world.now += 5
    world.asked.clear()
    await world.resolve()
    assert world.asked == ["own", "spare"]


async def test_who_is_put_aside_is_told_with_the_cause(world: Any) -> None:
    world.write_pool("ordered", {"own": None, "spare": None})
    world.fail("own", code="quota_used_up")
    await world.resolve()
    world.now += 2

    artifact = shown((await world.resolve()).artifact)

    assert artifact["stages"][0]["response"]["body"]["put_aside"] == {
        "own": {"code": "quota_used_up", "failures": 1, "seconds_left": 3.0}
    }


async def test_a_changed_member_begins_anew_and_others_do_not(world: Any) -> None:
    world.write_pool("ordered", {"own": None, "other": None, "spare": None})
    world.fail("own", "other")
    await world.resolve()
    path = world.config_dir / "pool.toml"
    world.write(path.read_text().replace("own#planted", "own#fresh"))
    world.asked.clear()

    await world.resolve()

    assert world.asked == ["own", "spare"]


async def test_what_the_file_no_longer_has_is_forgotten(world: Any) -> None:
    world.write_pool("ordered", {"own": None, "spare": None})
    world.fail("own")
    await world.resolve()
    assert set(world.resolver.memory("pool")) == {"home"}
    world.write('[pools.b]\nstrategy = "ordered"\nmembers = [{provider = "plain", link = "own#"}]')

    await failure(world, "pool:b")

    assert set(world.resolver.memory("pool")) == {"b"}


# All down


async def test_when_all_fail_each_is_named_with_its_code(world: Any) -> None:
    world.write_pool("ordered", {"own": None, "spare": None})
    world.fail("own")
    world.fail("spare", code="quota_used_up")

    error = await failure(world)

    assert error.code == "no_member_resolved"
    assert error.message == (
        "no member of the pool home resolved: own (http_500), spare (quota_used_up)"
    )
    assert error.advice
    assert error.provider_stage == "member:spare"
    assert stages(error.artifact) == [
        ("read_pool", "continue", None),
        ("member:own", "provider_error", "http_500"),
        ("member:spare", "provider_error", "quota_used_up"),
    ]
    assert shown(error.artifact)["outcome"] == {
        "result_kind": "provider_error",
        "provider_error": {"stage": "member:spare", "code": "no_member_resolved"},
    }


async def test_when_all_are_put_aside_the_least_bad_is_asked_anyway(world: Any) -> None:
    world.write_pool("ordered", {"own": None, "spare": None, "third": None})
    world.fail("own", "spare", "third")
    await failure(world)
    world.now += 5
    world.answers.pop("third")
    world.fail("own", "spare")
    assert await world.user() == "third"
    world.fail("third", code="quota_used_up")
    world.asked.clear()
    await failure(world)  # now third has failed once, spare twice and own, the last resort, thrice
    assert world.asked == ["third", "own"]
    world.asked.clear()

    error = await failure(world)

    assert world.asked == ["third"]
    assert error.message == (
        "no member of the pool home resolved: third (quota_used_up), "
        "own (http_500, put aside for 20 s more), spare (http_500, put aside for 10 s more)"
    )


async def test_the_least_bad_is_also_the_last_resort_after_those_that_are_well(world: Any) -> None:
    world.write_pool("ordered", {"own": None, "spare": None})
    world.fail("own")
    await world.resolve()
    del world.answers["own"]
    world.fail("spare")

    assert await world.user() == "own"
    assert world.asked == ["own", "spare", "spare", "own"]


async def test_a_code_that_is_no_code_is_not_repeated(world: Any) -> None:
    world.write_pool("ordered", {"own": None})
    world.fail("own", code="got planted-secret")

    error = await failure(world)

    assert "own (provider_error)" in error.message


# Cancellation


@pytest.mark.parametrize("strategy", ["ordered", "weighted"])
async def test_a_cancelled_resolution_changes_nothing(world: Any, strategy: str) -> None:
    world.write_pool(strategy, {"own": None, "spare": None, "third": None})
    assert await world.user() == "own"
    world.fail("own")
    world.answers["third"] = world.answers["spare"] = "hang"
    before = remembered(world)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.resolve)
        await world.hanging.wait()
        tasks.cancel_scope.cancel()

    assert remembered(world) == before
    world.answers.clear()
    assert await world.user() == ("own" if strategy == "ordered" else "spare")


def remembered(world: Any) -> dict[str, tuple[Any, ...]]:
    memory: Any = world.resolver.memory("pool")["home"]
    return {
        name: (health.failures, health.code, health.since, health.pause, health.credit)
        for name, health in memory.items()
    }


# Links and secrets


@pytest.mark.parametrize(
    "link",
    ["plain://user:planted-secret@host", "pool:", "pool:a/planted-secret", "pool://home", "home"],
)
async def test_a_link_of_another_kind_is_refused_and_not_repeated(world: Any, link: str) -> None:
    world.write_pool("ordered", {"own": None})

    error = await failure(world, link)

    assert isinstance(error, LinkError)
    assert (error.code, error.provider_stage) == ("wrong_scheme", "read_pool")
    assert find_leaks(told(error), ["planted-secret"]) == []
    assert shown(error.artifact)["input"] == {"link_redacted": "<redacted:link>"}


async def test_an_unknown_pool_is_refused_with_the_names_of_those_there_are(world: Any) -> None:
    world.write_pool("ordered", {"own": None})

    error = await failure(world, "pool:planted-secret")

    assert isinstance(error, LinkError)
    assert error.code == "unknown_pool"
    assert error.advice == "its pools: home"
    assert find_leaks(told(error), ["planted-secret"]) == []


async def test_secrets_are_nowhere(world: Any, caplog: Any) -> None:
    world.write("file#planted-secret\nplanted-secret", "two.link")
    world.write(
        """
        [pools.home]
        strategy = "weighted"
        members = [
            { name = "a", provider = "plain", link = "a#planted-secret" },
            { name = "b", provider = "plain", link_file = "two.link" },
            { name = "c", provider = "plain", link_file = "planted-secret" },
            { name = "d", provider = "plain", link_env = "planted_secret" },
            { name = "e", provider = "tunable", link = "planted-secret", \
              settings.colour = ["planted-setting"] },
            { name = "f", provider = "plain", link = "crash#planted-secret" },
        ]
        """
    )
    world.fail("a")
    world.answers["crash"] = RuntimeError("planted-text")

    with caplog.at_level(logging.DEBUG):
        error = await failure(world)
        world.answers.clear()
        world.now += 5
        resolution = await world.resolve()

    logged = "".join(str(vars(record)) for record in caplog.records)
    output = told(error) + logged + repr(resolution) + repr(world.resolver.memory("pool"))
    output += msgspec.json.encode(resolution.artifact).decode()
    assert "f (provider_crashed)" in error.message
    assert find_leaks(output, [*SECRETS, "planted_secret"]) == []


def told(error: TurnlaneError) -> str:
    """Everything that an operator, or a traceback, may show of an error."""
    artifact = error.artifact if isinstance(error, ProviderError) else None
    return repr(error) + str(error) + msgspec.json.encode(artifact).decode() + chain(error)


def chain(error: BaseException | None) -> str:
    text = ""
    while error is not None:
        text += repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return text
