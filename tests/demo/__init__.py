"""The demo: run for real, interrupted for real, and its checks checked."""
