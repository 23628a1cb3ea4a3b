"""The front door: the `bertrand` command."""
