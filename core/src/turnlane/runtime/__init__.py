"""Policy, the client session, the tunnel server, and the host object that embeds them."""
