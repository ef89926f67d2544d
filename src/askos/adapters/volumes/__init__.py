"""Folders, tmpfs mounts and loop-mounted files that the capsules of one host mount."""
