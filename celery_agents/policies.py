"""Where a query is answered: by a worker, in this process, or by one of them where the other cannot."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ExecutionPolicy(StrEnum):
    """Who answers ``runner.query``. "Here" is the process that asks, "a worker" one that gets a message."""

    LOCAL = "LOCAL"  #: here
    REMOTE = "REMOTE"  #: a worker; where none listens it is waited for
    LOCAL_FIRST = "LOCAL_FIRST"  #: here, and a worker where that was not possible or the agent task FAILED
    REMOTE_FIRST = "REMOTE_FIRST"  #: a worker, and here where that was not possible or the agent task FAILED
    AUTO = "AUTO"  #: a worker where one listens to the stage's queue, or else here


@dataclass(frozen=True, slots=True)
class Route:
    """What a policy means."""

    tries: tuple[
        ExecutionPolicy, ...
    ]  #: LOCAL and REMOTE, in this order; the second where the first could not do it
    after_failure: bool = False  #: the second also for what FAILED at the first
    #: How much of the query's time a message may wait in its queue before it is taken back, where that is possible. It
    #: is taken back anyway when nobody listens any more and the second try is LOCAL.
    share_in_queue: float = 1.0


ROUTES: dict[ExecutionPolicy, Route] = {
    ExecutionPolicy.LOCAL: Route((ExecutionPolicy.LOCAL,)),
    ExecutionPolicy.REMOTE: Route((ExecutionPolicy.REMOTE,)),
    ExecutionPolicy.LOCAL_FIRST: Route((ExecutionPolicy.LOCAL, ExecutionPolicy.REMOTE), after_failure=True),
    ExecutionPolicy.REMOTE_FIRST: Route(
        (ExecutionPolicy.REMOTE, ExecutionPolicy.LOCAL), after_failure=True, share_in_queue=0.5
    ),
    ExecutionPolicy.AUTO: Route((ExecutionPolicy.REMOTE, ExecutionPolicy.LOCAL)),
}
