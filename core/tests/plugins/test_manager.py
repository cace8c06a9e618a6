"""The facade: lookup by id, pairs, and classes imported on first use."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from turnlane.api import (
    AdapterDescriptor,
    Direction,
    PlatformTunnelDescriptor,
    ProviderDescriptor,
    TrafficClass,
    UnavailableError,
    hookimpl,
)
from turnlane.plugins import Kind, Pair, PluginManager, PluginStatus

Install = Callable[..., None]


class Settings(msgspec.Struct):
    name: str = ""


class Provider:
    async def resolve(self) -> None: ...


class Adapter:
    async def open(self) -> None: ...
    async def prepare(self) -> None: ...
    async def connect(self) -> None: ...


def adapter(
    identifier: str,
    direction: Direction,
    traffic: TrafficClass = TrafficClass.DATAGRAM,
    pairs_with: tuple[str, ...] = (),
    implementation: str = "made_up:Adapter",
) -> AdapterDescriptor:
    return AdapterDescriptor(
        id=identifier,
        title=identifier,
        summary=identifier,
        direction=direction,
        traffic=traffic,
        implementation=implementation,
        pairs_with=pairs_with,
    )


def provider(identifier: str, implementation: str = "made_up:Provider") -> ProviderDescriptor:
    return ProviderDescriptor(
        id=identifier, title=identifier, summary="", implementation=implementation
    )


class Plugin:
    """Offers what a test gives it."""

    def __init__(
        self,
        providers: tuple[ProviderDescriptor, ...] = (),
        ingress: tuple[AdapterDescriptor, ...] = (),
        egress: tuple[AdapterDescriptor, ...] = (),
    ) -> None:
        self._offer = (providers, ingress, egress)

    @hookimpl
    def turnlane_providers(self) -> tuple[ProviderDescriptor, ...]:
        return self._offer[0]

    @hookimpl
    def turnlane_ingress_adapters(self) -> tuple[AdapterDescriptor, ...]:
        return self._offer[1]

    @hookimpl
    def turnlane_egress_adapters(self) -> tuple[AdapterDescriptor, ...]:
        return self._offer[2]

    @hookimpl
    def turnlane_platform_tunnels(self) -> tuple[PlatformTunnelDescriptor, ...]:
        return (PlatformTunnelDescriptor("tun", "tun", "", ("linux",), "made_up:Tunnel"),)


IN, OUT = Direction.INGRESS, Direction.EGRESS
STREAM = TrafficClass.STREAM


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("made_up")
    vars(module).update(Provider=Provider, Adapter=Adapter, Settings=Settings, number=5)
    monkeypatch.setitem(sys.modules, "made_up", module)
    return module


def test_everything_offered_is_found_by_id_in_alphabetical_order() -> None:
    manager = PluginManager.from_modules(
        [
            Plugin(
                (provider("vk"), provider("acme")),
                (adapter("udp", IN), adapter("tcp", IN, STREAM)),
                (adapter("udp", OUT), adapter("raw", OUT)),
            )
        ]
    )

    assert list(manager.providers()) == ["acme", "vk"]
    assert list(manager.ingress_adapters()) == ["tcp", "udp"]
    assert list(manager.egress_adapters()) == ["raw", "udp"]
    assert list(manager.platform_tunnels()) == ["tun"]
    assert manager.provider("vk").id == "vk"
    assert manager.ingress_adapter("udp").direction is IN
    assert manager.egress_adapter("udp").direction is OUT
    assert manager.owner(Kind.EGRESS, "raw") is manager.records[0]


def test_a_pair_is_declared_by_either_side_and_carries_one_class_of_traffic() -> None:
    manager = PluginManager.from_modules(
        [
            Plugin(
                ingress=(
                    adapter("udp", IN, pairs_with=("udp", "raw")),
                    adapter("tcp", IN, STREAM, pairs_with=("udp",)),
                    adapter("lone", IN),
                ),
                egress=(
                    adapter("udp", OUT),
                    adapter("raw", OUT),
                    adapter("dial", OUT, STREAM, pairs_with=("tcp", "lone")),
                ),
            )
        ]
    )

    assert manager.pairs() == [
        Pair("tcp", "dial", STREAM),
        Pair("udp", "raw", TrafficClass.DATAGRAM),
        Pair("udp", "udp", TrafficClass.DATAGRAM),
    ]
    assert manager.pair("tcp", "dial") == Pair("tcp", "dial", STREAM)


@pytest.mark.parametrize(
    ("ingress", "egress", "cause"),
    [
        ("udp", "raw", "neither adapter declares the other"),
        ("udp", "dial", "one carries datagrams, the other streams"),
    ],
)
def test_an_unsupported_pair_is_refused_with_those_that_are_supported(
    ingress: str, egress: str, cause: str
) -> None:
    manager = PluginManager.from_modules(
        [
            Plugin(
                ingress=(adapter("udp", IN, pairs_with=("udp", "dial")),),
                egress=(adapter("udp", OUT), adapter("raw", OUT), adapter("dial", OUT, STREAM)),
            )
        ]
    )

    with pytest.raises(UnavailableError) as caught:
        manager.pair(ingress, egress)

    assert caught.value.code == "unsupported_pair"
    assert cause in caught.value.message
    assert caught.value.advice == "supported pairs: udp -> udp"
    assert caught.value.exit_code == 3


def test_an_unknown_id_is_refused_with_what_exists() -> None:
    manager = PluginManager.from_modules([Plugin((provider("vk"), provider("acme")))])

    with pytest.raises(UnavailableError) as unknown:
        manager.provider("vkk")
    assert unknown.value.code == "unknown_provider"
    assert "'vkk'" in unknown.value.message
    assert unknown.value.advice == "available: acme, vk"

    for look_up in (manager.ingress_adapter, manager.egress_adapter):
        with pytest.raises(UnavailableError) as missing:
            look_up("udp")
        assert missing.value.code == "unknown_adapter"
        assert "install a plugin" in missing.value.advice

    with pytest.raises(UnavailableError) as absent:
        manager.platform_tunnel("nut")
    assert absent.value.code == "unknown_tunnel"
    assert absent.value.advice == "available: tun"


def test_the_advice_counts_the_plugins_that_were_not_loaded() -> None:
    manager = PluginManager.from_modules([Plugin((provider("acme"),)), Plugin((provider("acme"),))])

    with pytest.raises(UnavailableError) as caught:
        manager.load_provider("vk")

    assert caught.value.advice == "available: acme; not loaded: 1, see `turnlane plugins list`"


def test_classes_are_imported_on_first_use(made_up: ModuleType) -> None:
    incoming, outgoing = adapter("udp", IN), adapter("udp", OUT)
    manager = PluginManager.from_modules([Plugin((provider("acme"),), (incoming,), (outgoing,))])

    assert manager.load_provider("acme") is made_up.Provider
    assert manager.load_adapter(incoming) is made_up.Adapter
    assert manager.load_adapter(outgoing) is made_up.Adapter
    assert manager.load_settings("made_up:Settings") is made_up.Settings


@pytest.mark.parametrize(
    ("reference", "code", "cause"),
    [
        ("not_there:Provider", "import_failed", "No module named 'not_there'"),
        ("made_up:Missing", "import_failed", "AttributeError"),
        ("made_up:number", "invalid_implementation", "made_up:number is no class"),
        ("made_up:Adapter", "invalid_implementation", "has no method resolve"),
    ],
)
def test_a_provider_that_cannot_be_imported_is_unavailable(
    made_up: ModuleType, reference: str, code: str, cause: str
) -> None:
    manager = PluginManager.from_modules([Plugin((provider("acme", reference),))])

    with pytest.raises(UnavailableError) as caught:
        manager.load_provider("acme")

    assert caught.value.code == code
    assert "'acme'" in caught.value.message
    assert cause in caught.value.message
    assert caught.value.advice


@pytest.mark.parametrize("direction", [IN, OUT])
def test_an_adapter_without_its_methods_is_refused(
    made_up: ModuleType, direction: Direction
) -> None:
    descriptor = adapter("udp", direction, implementation="made_up:Provider")

    with pytest.raises(UnavailableError, match="has no method"):
        PluginManager.from_modules([]).load_adapter(descriptor)


def test_settings_that_are_no_struct_are_refused(made_up: ModuleType) -> None:
    with pytest.raises(UnavailableError, match=r"is no msgspec\.Struct"):
        PluginManager.from_modules([]).load_settings("made_up:Provider")


def test_a_class_whose_module_exits_harms_nobody(site: Path) -> None:
    (site / "leaving.py").write_text("raise SystemExit(5)")
    manager = PluginManager.from_modules([Plugin((provider("acme", "leaving:Acme"),))])

    with pytest.raises(UnavailableError, match="SystemExit: 5"):
        manager.load_provider("acme")


def test_a_plugin_says_itself_what_is_missing(site: Path) -> None:
    (site / "browserless.py").write_text(
        "from turnlane.api import UnavailableError\n"
        "raise UnavailableError('no_browser', 'the browser extra is missing', 'install it')"
    )
    manager = PluginManager.from_modules([Plugin((provider("acme", "browserless:Acme"),))])

    with pytest.raises(UnavailableError) as caught:
        manager.load_provider("acme")

    assert caught.value.code == "no_browser"


def test_what_is_installed_is_loaded_but_for_what_the_environment_blocks(install: Install) -> None:
    install("acme-turn", "@hookimpl\ndef turnlane_providers():\n    return [provider('acme')]\n")

    loaded = PluginManager.load({})
    blocked = PluginManager.load({"TURNLANE_DISABLE_PLUGINS": "acme-turn"})

    assert "acme" in loaded.providers()
    assert "acme" not in blocked.providers()
    statuses = {each.name: each.status for each in blocked.records}
    assert statuses["acme-turn"] is PluginStatus.BLOCKED


def test_the_process_environment_is_asked_by_default(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme-turn", "raise KeyboardInterrupt")
    monkeypatch.setenv("TURNLANE_DISABLE_PLUGINS", "acme-turn")

    assert "acme-turn" in {each.name for each in PluginManager.load().records}


class Tunnel:
    async def capability(self) -> None: ...
    async def open(self) -> None: ...


def test_a_platform_tunnel_is_found_by_id_and_imported_on_first_use(made_up: ModuleType) -> None:
    manager = PluginManager.from_modules([Plugin()])
    vars(made_up)["Tunnel"] = Tunnel

    assert manager.load_tunnel(manager.platform_tunnel("tun")) is Tunnel
    with pytest.raises(
        UnavailableError, match="there is no platform tunnel named 'nope'"
    ) as caught:
        manager.platform_tunnel("nope")
    assert (caught.value.code, caught.value.advice) == ("unknown_tunnel", "available: tun")
    del Tunnel.capability
    with pytest.raises(UnavailableError, match="'tun': made_up:Tunnel has no method capability"):
        manager.load_tunnel(manager.platform_tunnel("tun"))
