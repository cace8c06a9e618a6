"""What this plugin offers; the class behind it is imported when it is first used."""

from turnlane.api import ProviderCapabilities, ProviderDescriptor, hookimpl


@hookimpl
def turnlane_providers() -> list[ProviderDescriptor]:
    """Offer the provider `http`."""
    return [
        ProviderDescriptor(
            id="http",
            title="HTTPS endpoint",
            summary="Fetches credentials over HTTPS: the TURN REST API, Cloudflare, Twilio and kin",
            implementation="turnlane_http.provider:HttpProvider",
            settings="turnlane_http.settings:HttpSettings",
            example_links=(
                "https://turn.example.org/credentials?service=turn",
                "https://rtc.live.cloudflare.com/v1/turn/keys/KEY-ID/credentials/generate-ice-servers",
                "https://api.twilio.com/2010-04-01/Accounts/ACCOUNT-SID/Tokens.json",
            ),
            capabilities=ProviderCapabilities(renewable=True),
        )
    ]
