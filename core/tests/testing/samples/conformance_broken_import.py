"""A module that cannot be imported."""

raise RuntimeError("this fails on purpose")
