"""Turnlane provider: relay credentials printed as JSON by a command of yours."""
