"""The lab: an in-process TURN server and echo targets, for development and tests.

This module imports nothing: pytest imports it in every run of an environment that has the lab.
"""
