"""How agents are called for the agent tasks of a batch, which come one after the other, each when it is read.

    turns       what each way is given: whose turn it is, and the agent
    one         one agent task: its dependencies, the agent, its answer; in a thread, or on the event loop
    one_by_one  on this thread, which in a pool process is the main one
    at_once     several at a time: in threads, or on the event loop
    in_lists    many with one call, ``batched=True``
    ways        which of these it is

Each way is a function ``(works, calls, turns) -> None``. It begins agent tasks as ``turns`` allows, notes on each what
became of it, and hands it back; committing is somebody else's business, on the thread that asks.
"""

from celery_agents.calling.turns import Calls, Turns
from celery_agents.calling.ways import Way, choose

__all__ = ["Calls", "Turns", "Way", "choose"]
