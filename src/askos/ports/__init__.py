"""The Protocols through which the core reaches the outside. Each has a conformance suite in tests/."""
