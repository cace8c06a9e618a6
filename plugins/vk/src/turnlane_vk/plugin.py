"""What this plugin offers; the class behind it is imported when it is first used."""

from turnlane.api import ProviderCapabilities, ProviderDescriptor, hookimpl


@hookimpl
def turnlane_providers() -> list[ProviderDescriptor]:
    """Offer the provider `vk`."""
    return [
        ProviderDescriptor(
            id="vk",
            title="VK calls",
            summary="Joins a VK call by its invite, or lets you host one, for the relays it names",
            implementation="turnlane_vk.provider:VkProvider",
            settings="turnlane_vk.settings:VkSettings",
            example_links=(
                "https://vk.com/call/join/TOKEN",
                "https://calls.vk.com/",
            ),
            stability="provisional",
            capabilities=ProviderCapabilities(interactive=True, browser=True, renewable=True),
        )
    ]
