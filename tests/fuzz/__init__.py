"""Schemathesis against a cloud of its own (`make fuzz`)."""
