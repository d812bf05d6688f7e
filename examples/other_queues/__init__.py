"""One agent, and queues of every kind that carry its task specs: a call with JSON is all that any of them needs."""
