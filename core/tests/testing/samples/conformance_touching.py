"""A provider that passes the conformance kit, but for what its module imports."""

import conformance_samples

import turnlane.proto.stun  # noqa: F401 the fault


class Touching(conformance_samples.Sound):
    """Sound."""
