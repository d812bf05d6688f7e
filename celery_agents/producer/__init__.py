"""The producer: list the agent tasks that wait at a stage, batch them, send the batches to the stage's Celery task.

Pages are streamed: what is held is one flush of specs, a few pages that are listed while it is sent, and the ids of
what was sent. Encord is the source of truth: an agent task that was listed and not sent, or sent and lost, is still at
its stage, and the next sweep finds it.

One sweep of one stage is a ``StageSweep``: it sends until nothing more waits, or something stands in its way, and can
be gone on with. Three drive it: ``sweep`` once, waiting where it must; ``continuous`` again and again; and ``beat`` for
a worker, which leaves to the next beat what it would have to wait for.
"""
