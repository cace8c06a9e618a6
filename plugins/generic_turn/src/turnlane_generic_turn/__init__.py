"""Relay credentials from a link: static ones, or minted by the TURN REST scheme."""
