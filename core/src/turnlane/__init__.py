"""Turnlane: UDP and TCP traffic through TURN relays to a server you own.

Plugins import `turnlane.api`; everything else is the runtime's own.
"""
