"""The command line: a thin shell over `turnlane.runtime.host`."""
