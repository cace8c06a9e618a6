"""Helpers of the tests that cross distributions."""
