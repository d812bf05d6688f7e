"""``celery -A … agents …`` as a user runs it: real processes against a sandbox, a Valkey server and a worker."""
