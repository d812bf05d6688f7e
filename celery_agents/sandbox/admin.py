"""The sandbox's own routes, for people, the demo and other processes: report, audit, faults, counters."""

from __future__ import annotations

import dataclasses
import hmac
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from .counters import Counters
from .errors import ForbiddenError, InvalidArgumentsError, NotEmulatedError
from .faults import Fault, Faults
from .incoming import Fields
from .projects import Project
from .state import Sandbox
from .wire import Json

PREFIX = "/sandbox/"
_AUDIT_PAGE = 1000


@dataclasses.dataclass(frozen=True)
class Admin:
    """Answers the routes below `/sandbox/`."""

    state: Sandbox
    faults: Faults
    counters: Counters
    token: str
    """Lets callers in that do not sit on this machine."""

    def check_caller(self, host: str | None, authorization: str) -> None:
        """Raises `ForbiddenError` for a caller from elsewhere without the token."""
        if is_loopback(host or "") or hmac.compare_digest(authorization, f"Bearer {self.token}"):
            return
        raise ForbiddenError("the sandbox's own routes are for this machine, or for the admin token")

    def answer(self, method: str, path: str, query: str, body: Any) -> Json | list[Json]:
        """The answer to one request. Raises `SandboxError` leaves for what cannot be answered."""
        answers: Mapping[str, Callable[[], Json | list[Json]]] = {
            "GET health": lambda: {"status": "ok"},
            "GET report": lambda: report(self.state, self.counters),
            "GET audit": lambda: self._audit(dict(parse_qsl(query))),
            "GET faults": self.faults.to_json,
            "POST faults": lambda: self._set_faults(body),
            "DELETE faults": self._clear_faults,
            "POST reset-counters": self._reset_counters,
        }
        found = answers.get(f"{method} {path.removeprefix(PREFIX)}")
        if found is None:
            raise NotEmulatedError(f"the sandbox has no route {method} {path}")
        return found()

    def _reset_counters(self) -> Json:
        self.counters.reset()
        return {"status": "ok"}

    def _clear_faults(self) -> list[Json]:
        self.faults.clear()
        return self.faults.to_json()

    def _audit(self, query: dict[str, str]) -> Json:
        try:
            after, limit = int(query.get("after", 0)), int(query.get("limit", _AUDIT_PAGE))
        except ValueError as error:
            raise InvalidArgumentsError("after and limit are numbers") from error
        records = [record.to_json() for record in self.state.audit.after(after, limit)]
        return {"records": records, "last": records[-1]["number"] if records else after}

    def _set_faults(self, body: Any) -> list[Json]:
        """Add faults: one as an object or as text, or several in a list."""
        try:
            for given in body if isinstance(body, list) else [body]:
                fault = (
                    Fault.parse(given) if isinstance(given, str) else Fault.from_json(Fields(given).values)
                )
                self.faults.add(fault)
        except ValueError as error:
            raise InvalidArgumentsError(str(error)) from error
        return self.faults.to_json()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; `localhost` counts."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def report(state: Sandbox, counters: Counters) -> Json:
    """What happened so far, in one object."""
    with state.lock:
        moves = state.audit.moves()
        refused = state.audit.records(accepted=False)
        return {
            "calls": dict(counters.calls),
            "retries": dict(counters.retries),
            "connections": counters.connections,
            "projects": [_project(state, project) for project in state.projects.values()],
            "audit": {
                "records": len(state.audit),
                "moves": dict(moves),
                "moved_more_than_once": [uuid for uuid, times in moves.items() if times > 1],
                "saves": len(state.audit.records("labels.save", accepted=True)),
                "saves_after_move": [record.to_json() for record in state.audit.late_saves()],
                "refused": len(refused),
                "refused_by_call": _count(record.call for record in refused),
            },
        }


def _count(names: Any) -> Json:
    counted: Json = {}
    for name in names:
        counted[name] = counted.get(name, 0) + 1
    return counted


def _project(state: Sandbox, project: Project) -> Json:
    stages = [
        {
            "uuid": stage.uuid,
            "title": stage.title,
            "type": stage.type.value,
            "tasks": project.workflow.count(stage),
            "left": dict(state.audit.moves_from(stage.title, project.project_hash)),
        }
        for stage in project.workflow.stages.values()
    ]
    return {
        "project_hash": project.project_hash,
        "title": project.title,
        "stages": stages,
        "data_units": [_data_unit(project, data_hash) for data_hash in project.units],
    }


def _data_unit(project: Project, data_hash: str) -> Json:
    unit, row = project.units[data_hash], project.labels_of(data_hash)
    return {
        "data_hash": data_hash,
        "title": unit.title,
        "kind": unit.kind.value,
        "task_uuid": project.task(data_hash).uuid,
        "stage": project.stage_of(data_hash),
        "truth": [dataclasses.asdict(box) for box in unit.truth],
        "saves": row.saves if row else 0,
        "boxes": [entry["boundingBox"] for entry in row.objects() if "boundingBox" in entry] if row else [],
        "classifications": len(row.classification_answers) if row else 0,
    }
