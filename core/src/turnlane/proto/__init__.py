"""Sans-IO protocol machines: bytes and time come in as arguments, bytes and events go out."""
