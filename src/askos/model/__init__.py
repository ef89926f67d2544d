"""What things are: plain values without I/O. Imports nothing of Askos."""
