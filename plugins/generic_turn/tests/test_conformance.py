"""The provider does what the conformance kit asks of every provider."""

from turnlane.testing.providers import ProviderCase, ProviderConformance
from turnlane_generic_turn import plugin

BAD_LINKS = (
    "https://planted-user:planted-password@turn.example",
    "generic-turn://planted-user@turn.example",
    "generic-turn://planted-user:planted-password@turn.example:0",
    "generic-turn://planted-user:planted-password@turn.example/planted-user",
    "generic-turn+rest://:planted-password@turn.example?lifetime=planted-user",
)
SECRETS = ("planted-user", "planted-password")


class TestStaticLink(ProviderConformance):
    case = ProviderCase(
        plugin=plugin,
        provider="generic-turn",
        link="generic-turn://planted-user:planted-password@[2001:db8::1]:3479?transport=tcp",
        bad_links=BAD_LINKS,
        secrets=SECRETS,
    )


class TestRestLink(ProviderConformance):
    case = ProviderCase(
        plugin=plugin,
        provider="generic-turn",
        link="generic-turn+rest://planted-user:planted-password@turn.example?lifetime=600",
        bad_links=BAD_LINKS,
        secrets=SECRETS,
    )


class TestStaticLinkThatExpires(ProviderConformance):
    case = ProviderCase(
        plugin=plugin,
        provider="generic-turn",
        link="generic-turn://4000003600%3Aplanted-user:planted-password@turn.example",
        bad_links=BAD_LINKS,
        secrets=SECRETS,
    )
