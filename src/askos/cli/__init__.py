"""The command line. `main` holds the list of commands; each command is one module."""
