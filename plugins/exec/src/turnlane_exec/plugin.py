"""What this plugin offers; the class behind it is imported when it is first used."""

from turnlane.api import ProviderCapabilities, ProviderDescriptor, hookimpl


@hookimpl
def turnlane_providers() -> list[ProviderDescriptor]:
    """Offer the provider `exec`."""
    return [
        ProviderDescriptor(
            id="exec",
            title="Command",
            summary="A command of yours, named in exec.toml, that prints credentials as JSON",
            implementation="turnlane_exec.provider:Exec",
            example_links=("exec:office",),
            capabilities=ProviderCapabilities(renewable=True),
        )
    ]
