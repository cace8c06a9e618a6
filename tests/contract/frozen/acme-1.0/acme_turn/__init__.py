"""A provider as it was published for contract 1.0. Never change it."""
