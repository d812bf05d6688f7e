"""The demo: the whole path on real parts, on this machine, and a check of what came of it."""
