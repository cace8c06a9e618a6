"""Discovery, isolation and lookup of plugins."""
