"""OpenTelemetry facade, logging and redaction."""
