"""Turnlane provider: an ordered or weighted set of other providers, with fall-over."""
