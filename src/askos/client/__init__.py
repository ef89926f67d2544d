"""The client: finding a cloud, logging in, and speaking the Zun and the native API. Needs no server code."""
