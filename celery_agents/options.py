"""The options of ``@runner.stage``: encord-agents', our own, and Celery's task options, checked when decorated."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from celery_agents.agent import COMMIT_EVERY, LIST_SIZE
from celery_agents.errors import DeclarationError
from celery_agents.retries import RetryPolicy
from celery_agents.sizes import AUTO, USUAL, BatchSize
from celery_agents.watch import Limits

FailurePolicy = Literal["all", "any", "never"]

#: Options of ``apply_async`` that say where a message goes. As task attributes Celery has deprecated them.
ROUTING_OPTIONS = frozenset({"delivery_mode", "exchange", "priority", "queue", "routing_key"})
#: What Celery calls around each message, see "Handlers" in its documentation; the first argument is the task.
HOOKS = frozenset({"after_return", "before_start", "on_failure", "on_retry", "on_success"})
#: Celery's own task options that are passed on as they are, see ``celery.app.task.Task``.
CELERY_OPTIONS = frozenset(
    {
        "acks_late",
        "acks_on_failure_or_timeout",
        "compression",
        "expires",
        "ignore_result",
        "rate_limit",
        "reject_on_worker_lost",
        "resultrepr_maxsize",
        "send_events",
        "store_eager_result",
        "store_errors_even_if_ignored",
        "track_started",
    }
)
_RETRY_OPTIONS = frozenset(each.name for each in fields(RetryPolicy))
#: What a class of Celery tasks may say as well, see ``bases``; what ``stage()`` is told comes first.
INHERITED_OPTIONS = CELERY_OPTIONS | ROUTING_OPTIONS | _RETRY_OPTIONS
_ENCORD_OPTIONS = frozenset(
    {"label_row_metadata_include_args", "label_row_initialise_labels_args", "will_set_priority"}
)
_OUR_OPTIONS = frozenset(
    {
        "name",
        "base",
        "bind",
        "batch_size",
        "batched",
        "commit_every",
        "commit_interval",
        "concurrency",
        "deferred_saves",
        "failure_policy",
        "list_size",
        "soft_time_limit",
        "time_limit",
    }
)
_ALL_OPTIONS = (
    CELERY_OPTIONS
    | HOOKS
    | ROUTING_OPTIONS
    | _RETRY_OPTIONS
    | _ENCORD_OPTIONS
    | _OUR_OPTIONS
    | {"serializer"}
)

#: Without these a message is gone when its worker dies, whatever the app's configuration says.
_SAFE_BY_DEFAULT: Mapping[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "track_started": True,
    "resultrepr_maxsize": 120,  # the result is JSON for programs; a log line needs no more than its beginning
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    """How one stage's agent is run, enqueued and judged."""

    name: str | None = None  #: Celery task name
    bind: bool = False  #: whether the agent is given its Celery task as the first argument
    batch_size: BatchSize = USUAL  #: agent tasks in one message, unless ``enqueue`` says otherwise
    batched: bool = False  #: whether the agent is called with lists
    list_size: int = LIST_SIZE  #: agent tasks in one of those, at most
    concurrency: int | None = None  #: agent tasks at once; None: 1, or for ``async def`` ASYNC_CONCURRENCY
    commit_every: int = COMMIT_EVERY  #: agent tasks that may be answered and not committed
    commit_interval: float = 30.0  #: seconds after which the same is done
    limits: Limits = field(default_factory=Limits)  #: of each agent task
    failure_policy: FailurePolicy = (
        "all"  #: a message ends in FAILURE where all, any or never one of them FAILED
    )
    deferred_saves: bool = False  #: whether what the agent writes by itself waits for the commit
    will_set_priority: bool = False
    label_row_options: Mapping[str, Any] = field(default_factory=dict)  #: for ``Project.list_label_rows_v2``
    initialise_options: Mapping[str, Any] = field(
        default_factory=dict
    )  #: for ``LabelRowV2.initialise_labels``
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    routing: Mapping[str, Any] = field(
        default_factory=dict
    )  #: for ``apply_async``, unless it is told otherwise
    celery: Mapping[str, Any] = field(default_factory=dict)  #: for ``app.task``


def stage_options(given: Mapping[str, Any]) -> StageOptions:
    """Sort and check the keyword arguments of ``@runner.stage``.

    Raises:
        DeclarationError: An option does not exist, or its value cannot be used; the sentence names what can.
    """
    _refuse_unknown(given)
    if given.get("serializer", "json") != "json":
        raise DeclarationError(f"serializer={given['serializer']!r}: messages of agent tasks are JSON only.")
    return StageOptions(
        name=_checked(given, "name", str | None, None),
        bind=_checked(given, "bind", bool, default=False),
        batch_size=_batch_size(given),
        batched=_checked(given, "batched", bool, default=False),
        list_size=_list_size(given),
        concurrency=_number_of_agent_tasks(given, "concurrency")
        if given.get("concurrency") is not None
        else None,
        commit_every=_number_of_agent_tasks(given, "commit_every", COMMIT_EVERY),
        commit_interval=_seconds(given, "commit_interval", 30.0),
        limits=_limits(given),
        failure_policy=_failure_policy(given),
        deferred_saves=_checked(given, "deferred_saves", bool, default=False),
        will_set_priority=_checked(given, "will_set_priority", bool, default=False),
        label_row_options=_arguments(given, "label_row_metadata_include_args"),
        initialise_options=_arguments(given, "label_row_initialise_labels_args"),
        retry=_retry_policy(_given(given, _RETRY_OPTIONS)),
        routing=_given(given, ROUTING_OPTIONS),
        celery={**_SAFE_BY_DEFAULT, **_given(given, CELERY_OPTIONS), **_hooks(given), "serializer": "json"},
    )


def _given(given: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: given[name] for name in names & given.keys()}


def _hooks(given: Mapping[str, Any]) -> dict[str, Any]:
    hooks = _given(given, HOOKS)
    for name, hook in hooks.items():
        if not callable(hook):
            raise DeclarationError(
                f"{name}={hook!r}: give a function; its first argument is the Celery task."
            )
    return hooks


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    for name in given.keys() - _ALL_OPTIONS:
        near = difflib.get_close_matches(name, _ALL_OPTIONS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DeclarationError(
            f"stage() has no option {name!r}.{hint} Its options are: {', '.join(sorted(_ALL_OPTIONS))}."
        )


def _checked(given: Mapping[str, Any], name: str, kind: Any, default: Any) -> Any:
    value = given.get(name, default)
    if not isinstance(value, kind):
        expected = getattr(kind, "__name__", str(kind))
        raise DeclarationError(f"{name}={value!r}: give a value of type {expected}.")
    return value


def _number_of_agent_tasks(given: Mapping[str, Any], name: str, default: int = 100) -> int:
    number = given.get(name, default)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise DeclarationError(f"{name}={number!r}: give a number of agent tasks, 1 or more.")
    return number


def _batch_size(given: Mapping[str, Any]) -> BatchSize:
    return AUTO if given.get("batch_size") == AUTO else _number_of_agent_tasks(given, "batch_size")


def _list_size(given: Mapping[str, Any]) -> int:
    size = _number_of_agent_tasks(given, "list_size")
    if "list_size" in given and not given.get("batched"):
        raise DeclarationError(
            f"list_size={size} is for an agent that is called with lists: add batched=True."
        )
    if size > LIST_SIZE:
        raise DeclarationError(
            f"list_size={size}: a list has {LIST_SIZE} agent tasks at most, as many as are loaded together."
        )
    return size


def _seconds(given: Mapping[str, Any], name: str, default: float) -> float:
    value = given.get(name, default)
    if not isinstance(value, int | float) or value < 0:
        raise DeclarationError(f"{name}={value!r}: give seconds, 0 or more.")
    return float(value)


def _limits(given: Mapping[str, Any]) -> Limits:
    limits = Limits(_time_limit(given, "soft_time_limit"), _time_limit(given, "time_limit"))
    if limits.soft is not None and limits.hard is not None and limits.soft >= limits.hard:
        raise DeclarationError(
            f"soft_time_limit={limits.soft:g} is not below time_limit={limits.hard:g}: the agent would have no time "
            "between being told and being ended."
        )
    return limits


def _time_limit(given: Mapping[str, Any], name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise DeclarationError(f"{name}={value!r}: give the seconds that one agent task may take, or None.")
    return float(value)


def _failure_policy(given: Mapping[str, Any]) -> FailurePolicy:
    policy: FailurePolicy = given.get("failure_policy", "all")
    if policy not in get_args(FailurePolicy):
        raise DeclarationError(f"failure_policy={policy!r}: choose 'all', 'any' or 'never'.")
    return policy


def _arguments(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return what an argument model of ours or of encord-agents holds: only what differs from the SDK's defaults."""
    value = given.get(name)
    if value is None:
        return {}
    if not hasattr(value, "model_dump"):
        wanted = "LabelRowMetadataIncludeArgs" if "metadata" in name else "LabelRowInitialiseLabelsArgs"
        raise DeclarationError(f"{name}={value!r}: give a {wanted}.")
    return dict(value.model_dump(exclude_unset=True))


def _retry_policy(given: Mapping[str, Any]) -> RetryPolicy:
    chosen = dict(given)
    for name in ("autoretry_for", "dont_autoretry_for"):
        if name in chosen:
            chosen[name] = _error_types(name, chosen[name])
    retries = chosen.get("max_retries", 0)
    if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int) or retries < 0):
        raise DeclarationError(f"max_retries={retries!r}: give 0 or more, or None for no limit.")
    for name in ("retry_backoff", "retry_backoff_max", "default_retry_delay"):
        _seconds(chosen, name, 0)
    return RetryPolicy(**chosen)


def _error_types(name: str, given: Any) -> tuple[type[BaseException], ...]:
    kinds = tuple(given) if isinstance(given, tuple | list) else (given,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise DeclarationError(f"{name}={given!r}: give a tuple of exception classes.")
    return kinds
