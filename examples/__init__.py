"""Programs to read, run and copy from; not part of what is installed."""
