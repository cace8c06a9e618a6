"""The local ends of a tunnel: udp."""
