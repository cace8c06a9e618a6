"""The version of the plugin contract; the major number is also in the entry-point group's name."""

CONTRACT_MAJOR = 1
CONTRACT_MINOR = 0
