"""Turnlane provider: relay credentials fetched over HTTPS (TURN REST API, and JSON as call platforms answer)."""
