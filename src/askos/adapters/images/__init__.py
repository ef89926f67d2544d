"""The files of the embedded image service."""
