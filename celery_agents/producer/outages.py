"""Tell when stages begin to fail and when they are swept again; what goes on failing is not told again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from celery_agents.errors import AgentsError
from celery_agents.producer.reports import Explain, StageReport, SweepReport, explained


@dataclass(frozen=True, slots=True)
class _Outage:
    kind: str
    since: float


class Outages:
    """Remembers which stages fail, from report to report."""

    def __init__(self) -> None:
        self._of_stage: dict[str, _Outage] = {}

    def news(self, report: SweepReport, explain: Explain = explained) -> Iterator[str]:
        """Yield a sentence for each outage that has begun, or has become another one, and for what is over."""
        begun: dict[str, list[str]] = {}
        ended: dict[str, float] = {}
        for stage in report.stages:
            earlier = self._of_stage.pop(stage.task, None)
            if stage.error is None:
                if earlier is not None:
                    ended[stage.stage] = time.monotonic() - earlier.since
            elif self._note(stage, stage.error, earlier):
                begun.setdefault(explain(stage.error), []).append(stage.stage)
        for sentence, titles in begun.items():
            yield f"{', '.join(titles)} cannot be swept at present, and will be when it is over: {sentence}"
        if ended:
            yield f"{', '.join(ended)} can be swept again, after {max(ended.values()):.0f} s."

    def _note(self, stage: StageReport, error: Exception, earlier: _Outage | None) -> bool:
        kind = _kind(error)
        since = earlier.since if earlier else time.monotonic()
        self._of_stage[stage.task] = _Outage(kind, since)
        return earlier is None or earlier.kind != kind


def _kind(error: Exception) -> str:
    """Whose trouble it is: what one peer in trouble answers varies from call to call."""
    return type(error).__name__ if isinstance(error, AgentsError) else type(error).__module__.split(".")[0]
