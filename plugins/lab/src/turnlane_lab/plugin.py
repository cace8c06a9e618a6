"""The lab's plugin module: it offers no provider and no adapter, so it implements no hook."""
