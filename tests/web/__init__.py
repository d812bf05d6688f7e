"""Agents over HTTP: a real server, a real worker, a real Valkey, and Encord's sandbox."""
