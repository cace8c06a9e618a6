"""The version of the plugin contract; the major number is also in the entry-point group's name."""

CONTRACT_MAJOR = 1
"""A plugin written for another does not load."""

CONTRACT_MINOR = 0
"""Raised by additions; a plugin that needs some says so in its descriptor's `contract_minor`."""
