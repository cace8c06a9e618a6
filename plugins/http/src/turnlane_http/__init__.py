"""Turnlane provider: relay credentials fetched over HTTPS."""
