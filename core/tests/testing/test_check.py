"""The cases that the check derives, and the process that is kept off the network."""

import socket
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import anyio
import pytest

from turnlane.api import AdapterDescriptor, Direction, PolicyError, Secret, TrafficClass, hookimpl
from turnlane.plugins.loader import Kind, load_modules
from turnlane.testing import check as checking
from turnlane.testing.adapters import AdapterCase
from turnlane.testing.check import Installed, Trial, Wishes, check, plan
from turnlane.testing.offline import offline
from turnlane.testing.provider_bench import ProviderCase


class Ends:
    """Offers stream adapters: one pair that dials what the client names, and one that does not."""

    @hookimpl
    def turnlane_ingress_adapters(self) -> list[AdapterDescriptor]:
        return [
            adapter("proxy", Direction.INGRESS, ("anywhere",)),
            adapter("plain", Direction.INGRESS, ("anywhere", "fixed")),
        ]

    @hookimpl
    def turnlane_egress_adapters(self) -> list[AdapterDescriptor]:
        return [
            adapter("anywhere", Direction.EGRESS, dials_client_choice=True),
            adapter("fixed", Direction.EGRESS),
        ]


def adapter(
    identifier: str, direction: Direction, pairs_with: tuple[str, ...] = (), **more: Any
) -> AdapterDescriptor:
    return AdapterDescriptor(
        identifier,
        identifier,
        "For tests.",
        direction,
        TrafficClass.STREAM,
        "moons:Unwilling",
        pairs_with,
        **more,
    )


class Unwilling:
    """An adapter that only takes addresses which nobody would guess."""

    def __init__(self, context: object, address: str, settings: object) -> None: ...

    async def open(self) -> None:
        raise PolicyError("odd_address", "the address is not a moon", "name a moon")

    async def prepare(self) -> None:
        await self.open()

    async def connect(self, destination: object) -> None: ...


def installed(plugin: object) -> Installed:
    records, loaded = load_modules([plugin])
    return Installed("acme", "1", tuple(records), tuple((each, plugin) for each in loaded))


def test_an_ingress_is_spoken_to_only_where_something_fixed_may_be_at_the_other_end() -> None:
    trials = {(each.kind, each.identifier): each for each in plan(installed(Ends()), Wishes())}
    assert trials[Kind.INGRESS, "proxy"].reason == (
        "applications tell it a destination: say how with --cases"
    )
    assert trials[Kind.INGRESS, "plain"].reason == ""
    assert trials[Kind.EGRESS, "anywhere"].reason == ""


def test_an_adapter_with_addresses_of_its_own_is_not_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("moons")
    vars(module)["Unwilling"] = Unwilling
    monkeypatch.setitem(sys.modules, "moons", module)
    trials = [each for each in plan(installed(Ends()), Wishes()) if each.identifier == "fixed"]
    (found,) = [
        verdict.finding
        for verdict in check(installed(Ends()), trials)
        if verdict.finding.check == "opens_the_good_address" and verdict.backend == "asyncio"
    ]
    assert (found.passed, found.judged) == (True, False)
    assert found.message == "it does not open at 127.0.0.1 (odd_address): give a case with --cases"


def test_a_case_has_the_id_of_something_that_is_offered() -> None:
    case = AdapterCase(Ends(), Direction.EGRESS, "udp", "", ())
    with pytest.raises(PolicyError, match="acme offers no egress adapter udp") as caught:
        plan(installed(Ends()), Wishes(cases=(case,)))
    assert "egress adapter fixed" in caught.value.advice


def test_wishes_for_a_provider_need_one() -> None:
    with pytest.raises(PolicyError, match="0 providers could take them"):
        plan(installed(Ends()), Wishes(link=Secret("acme://x")))


def test_a_check_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(case: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(checking, "PATIENCE", 0.01)
    monkeypatch.setattr(checking.provider_checks, "CHECKS", (endless,))
    case = ProviderCase(Ends(), "acme", "", ())
    verdicts = list(check(Installed("acme", "1", (), ()), [Trial(Kind.PROVIDER, "acme", case)]))
    assert [each.backend for each in verdicts] == ["asyncio", "trio"]
    assert all(not each.finding.passed for each in verdicts)
    assert verdicts[0].finding.message == "it took over 0 s"


def connect(address: tuple[Any, ...], family: int = socket.AF_INET) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        opened.connect(address)


@pytest.mark.parametrize(
    "reach",
    [
        lambda: socket.getaddrinfo("turn.example.org", 443),
        lambda: socket.gethostbyname("turn.example.org"),
        lambda: connect(("192.0.2.1", 9)),
        lambda: connect(("2001:db8::1", 9), socket.AF_INET6),
        lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 9)),
        lambda: subprocess.run(["true"], check=False),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed")
def test_offline_the_network_and_other_programs_are_out_of_reach(
    reach: Callable[[], object],
) -> None:
    with offline(), pytest.raises(OSError):
        reach()


def test_offline_this_machine_and_this_interpreter_are_there() -> None:
    with offline():
        assert socket.getaddrinfo("localhost", 9)
        assert socket.getaddrinfo(b"127.0.0.1", 9)
        connect(("127.0.0.1", 9))
        subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    # Outside, nothing is in the way of a program that is there.
    subprocess.run(["true"], check=True)
