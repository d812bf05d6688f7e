"""What a worker keeps of a message of agent tasks, where Celery's own ``Request`` knows too little.

The worker sees how a pool process dies; the process itself cannot tell any more. It is noted in the ledger for the
delivery that comes after. What is overridden are the hooks of ``celery.worker.request.Request``; ``Task.Request`` names
the class.
"""

from __future__ import annotations

import re
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import states
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.utils.log import get_logger
from celery.worker.request import Request

from celery_agents.errors import CancelledMessageError, LedgerError, SpecError
from celery_agents.messages import Carry, TaskCompletionResult
from celery_agents.processing import SupersededError
from celery_agents.time_limits import EXIT_CODE
from celery_agents.worker import visibility

logger = get_logger(__name__)

_TIMED_OUT = re.compile(rf"\bexitcode {EXIT_CODE}\b")


class AgentRequest(Request):  # type: ignore[misc]  # celery ships no types
    """A message of agent tasks that this worker has received."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Note how the process died, if that is what happened, and go on as Celery does."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, SupersededError):
            return self._leave()
        if isinstance(error, WorkerLostError | SystemExit):
            self._note_death(error)
            if self.task.runner.ledger is None and _TIMED_OUT.search(str(error)):
                # Without a ledger nobody would know, when it comes again, what it hangs in.
                exc_info = _time_limit_exceeded(self.task.stage_agent.options.limits.hard)
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _leave(self) -> None:
        """Be done with a message that is another worker's."""
        visibility.leave(self.message)
        self.acknowledged = True

    def _note_death(self, error: BaseException) -> None:
        ledger = self.task.runner.ledger
        if ledger is None:
            return
        try:
            ledger.note_death(self.id, str(error) or type(error).__name__)
        except LedgerError as trouble:
            logger.warning("How the process of message %s died is not noted: %s", self.id, trouble)

    def _announce_cancelled(self, *arguments: Any, **options: Any) -> None:
        """Have the message come back, although the result backend may be away with the broker.

        Celery ends the process, tells the backend, and only then notes that it did so on purpose. Where telling fails
        it takes the end of the process for a revocation: it stores REVOKED and acknowledges the message.
        """
        self._already_cancelled = True
        try:
            super()._announce_cancelled(*arguments, **options)
        except Exception as trouble:  # noqa: BLE001  (whatever the backend raises)
            logger.warning(
                "That message %s comes again is not in its result: %s", self.id, type(trouble).__name__
            )

    def _announce_revoked(self, reason: str, *arguments: Any) -> Any:
        """Keep the outcomes that earlier attempts decided; Celery would store the reason alone."""
        announced = super()._announce_revoked(reason, *arguments)
        decided = self._decided()
        if decided.outcomes and self.store_errors:
            error = CancelledMessageError(reason, decided.model_dump_json())
            self.task.backend.mark_as_failure(self.id, error, request=self._context, state=states.REVOKED)
        return announced

    def _decided(self) -> TaskCompletionResult:
        try:
            carry = Carry.decode(self.kwargs.get("carry"))
        except (SpecError, AttributeError):
            carry = Carry()
        return TaskCompletionResult.from_outcomes(carry.outcomes, None)


def _time_limit_exceeded(seconds: float | None) -> ExceptionInfo:
    try:
        raise TimeLimitExceeded(seconds)
    except TimeLimitExceeded:
        return ExceptionInfo()
