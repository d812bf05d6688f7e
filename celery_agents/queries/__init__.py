"""Ask for what becomes of agent tasks now, and wait for it: what ``runner.query`` and ``runner.query_many`` do.

A query claims agent tasks as a sweep does, so none is with a worker and here at once, nor in two messages. What another
message has already is waited for. The second try of a policy gets an agent task when the first has given it back: it
could not do it, its message was taken out of its queue in one step with its claim, or it FAILED. Without a ledger
nobody can say whether a message has been begun, so what was sent is then left to the workers.
"""

from celery_agents.queries.answering import query_many

__all__ = ["query_many"]
