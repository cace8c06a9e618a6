"""Turnlane provider: VK call invites and hosted calls."""
