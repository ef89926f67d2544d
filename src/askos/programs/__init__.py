"""Wiring: the programs `askos up`, `server`, `agent` and `down`, put together from adapters and loops."""
