"""What this plugin offers; the class behind it is imported when it is first used."""

from turnlane.api import ProviderCapabilities, ProviderDescriptor, hookimpl


@hookimpl
def turnlane_providers() -> list[ProviderDescriptor]:
    """Offer the provider `generic-turn`."""
    return [
        ProviderDescriptor(
            id="generic-turn",
            title="Generic TURN",
            summary="Any TURN server: user and password from the link, or a TURN REST secret",
            implementation="turnlane_generic_turn.provider:GenericTurn",
            example_links=(
                "generic-turn://USER:PASSWORD@turn.example.org:3478?transport=udp",
                "generic-turn://USER:PASSWORD@[2001:db8::1]?transport=tls&server_name=turn.example",
                "generic-turn+rest://LABEL:SHARED-SECRET@turn.example.org:3478?lifetime=3600",
            ),
            capabilities=ProviderCapabilities(renewable=True),
        )
    ]
