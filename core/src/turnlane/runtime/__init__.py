"""Policy, the client session and its supervisor, the tunnel server, and the host that embeds them."""
