"""What this plugin offers; the class behind it is imported when it is first used."""

from turnlane.api import ProviderCapabilities, ProviderDescriptor, hookimpl


@hookimpl
def turnlane_providers() -> list[ProviderDescriptor]:
    """Offer the provider `pool`."""
    return [
        ProviderDescriptor(
            id="pool",
            title="Pool",
            summary="Other providers in order or by weight; when one fails, the next is asked",
            implementation="turnlane_pool.provider:PoolProvider",
            example_links=("pool:home",),
            # What a member can do is the pool's to offer: it may ask a human, and asking again may
            # reach another member.
            capabilities=ProviderCapabilities(interactive=True, renewable=True),
        )
    ]
