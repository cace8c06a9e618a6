"""The plugin contract: everything a plugin may import from Turnlane, and nothing else."""

from typing import TYPE_CHECKING

from turnlane.api.adapters import AdapterContext, DatagramEgress, DatagramIngress, DatagramSocket
from turnlane.api.artifact import (
    Artifact,
    ArtifactError,
    ArtifactOutcome,
    ArtifactResolution,
    StageOutcome,
    StageRecord,
    StageRequest,
    StageResponse,
)
from turnlane.api.authority import AuthorityError, is_host, parse_authority
from turnlane.api.batch import HEADROOM, MAX_DATAGRAM, Batch
from turnlane.api.challenge import Challenge, ChallengeAnswer, ChallengePort
from turnlane.api.credentials import (
    Credentials,
    RelayEndpoint,
    RelayTransport,
    Renewal,
    Resolution,
)
from turnlane.api.deprecation import TurnlaneDeprecationWarning, present_name
from turnlane.api.descriptors import (
    AdapterDescriptor,
    Direction,
    PlatformTunnelDescriptor,
    ProviderCapabilities,
    ProviderDescriptor,
    TrafficClass,
)
from turnlane.api.errors import (
    AdapterError,
    InternalError,
    LinkError,
    PolicyError,
    ProviderError,
    SessionError,
    TransportError,
    TurnlaneError,
    UnavailableError,
)
from turnlane.api.hooks import COMMAND_GROUP, PLUGIN_GROUP, hookimpl, hookspec
from turnlane.api.provider import Provider, ProviderContext, ResolveRequest
from turnlane.api.secrets import Secret
from turnlane.api.settings import Kept, SettingsError, Violation, ViolationCode, setting
from turnlane.api.stages import Stage
from turnlane.api.streams import (
    ByteStream,
    StreamDestination,
    StreamEgress,
    StreamIngress,
    StreamListener,
    StreamOffer,
)
from turnlane.api.tunnels import (
    PlatformTunnel,
    TunnelCapability,
    TunnelDevice,
    TunnelRequest,
)
from turnlane.api.version import CONTRACT_MAJOR, CONTRACT_MINOR

__all__ = [
    "COMMAND_GROUP",
    "CONTRACT_MAJOR",
    "CONTRACT_MINOR",
    "HEADROOM",
    "MAX_DATAGRAM",
    "PLUGIN_GROUP",
    "AdapterContext",
    "AdapterDescriptor",
    "AdapterError",
    "Artifact",
    "ArtifactError",
    "ArtifactOutcome",
    "ArtifactResolution",
    "AuthorityError",
    "Batch",
    "ByteStream",
    "Challenge",
    "ChallengeAnswer",
    "ChallengePort",
    "Credentials",
    "DatagramEgress",
    "DatagramIngress",
    "DatagramSocket",
    "Direction",
    "InternalError",
    "Kept",
    "LinkError",
    "PlatformTunnel",
    "PlatformTunnelDescriptor",
    "PolicyError",
    "Provider",
    "ProviderCapabilities",
    "ProviderContext",
    "ProviderDescriptor",
    "ProviderError",
    "RelayEndpoint",
    "RelayTransport",
    "Renewal",
    "Resolution",
    "ResolveRequest",
    "Secret",
    "SessionError",
    "SettingsError",
    "Stage",
    "StageOutcome",
    "StageRecord",
    "StageRequest",
    "StageResponse",
    "StreamDestination",
    "StreamEgress",
    "StreamIngress",
    "StreamListener",
    "StreamOffer",
    "TrafficClass",
    "TransportError",
    "TunnelCapability",
    "TunnelDevice",
    "TunnelRequest",
    "TurnlaneDeprecationWarning",
    "TurnlaneError",
    "UnavailableError",
    "Violation",
    "ViolationCode",
    "hookimpl",
    "hookspec",
    "is_host",
    "parse_authority",
    "setting",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        return globals()[present_name(name)]
