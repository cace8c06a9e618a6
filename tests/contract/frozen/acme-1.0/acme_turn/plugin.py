"""What Acme offered in its first release."""

from turnlane.api import ProviderCapabilities, ProviderDescriptor, hookimpl


@hookimpl
def turnlane_providers():
    return [
        ProviderDescriptor(
            id="acme",
            title="Acme TURN",
            summary="Relay credentials from an acme:// link.",
            implementation="acme_turn.provider:Acme",
            settings="acme_turn.provider:AcmeSettings",
            example_links=("acme://room",),
            capabilities=ProviderCapabilities(interactive=True, renewable=True),
        )
    ]
