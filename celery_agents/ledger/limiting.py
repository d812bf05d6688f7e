"""The ledger's operation on the rate of calls to Encord: a token bucket that holds one, so that they are spaced evenly.

One that holds more would let through, after a pause, in one second what is allowed in two. Who is granted a permit is
told for when it is: the times of all who ask are apart, and nobody asks twice.
"""

from __future__ import annotations

from typing import NamedTuple

from celery_agents.ledger import calls
from celery_agents.ledger.part import Part


class Permit(NamedTuple):
    """The answer to one call that asks."""

    is_granted: bool
    seconds: float  #: until the call may be made; where it is not granted, as it is now


class Limiting(Part):
    """How often Encord is called."""

    def permit(self, rate: float, longest: float) -> Permit:
        """Ask for a permit to call Encord.

        Args:
            rate: Calls a second, of all who ask together.
            longest: Seconds until it holds, at most. What would take longer is not granted, and delays nobody else.
        """
        call = calls.Permit(
            next_call=self.keys.next_call, apart=round(1e6 / rate), longest=round(longest * 1e6)
        )
        is_granted, microseconds = self._connection.run(call)
        return Permit(bool(is_granted), microseconds / 1e6)
