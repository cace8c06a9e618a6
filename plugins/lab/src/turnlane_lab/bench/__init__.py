"""The benchmark: the shipped commands between a generator and a sink, and the limits beside them.

`turnlane bench` measures one tunnel on this machine. The repository's `make bench` measures more
of them, and what a C program does in their place, with the same modules.
"""
