"""The demo from start to end: set the scene, run two stages, compare with the sandbox's books."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.demo.processes import ROOT, DemoError, Processes, celery

if TYPE_CHECKING:
    from celery_agents import AgentGroupResult
    from examples.demo.checks import Report, StageRun
    from examples.demo.view import View

#: Pool processes of each worker node.
CONCURRENCY = 2
#: Seconds after which a stage that is not done is given up.
PATIENCE = 120.0
#: How the sandbox counts requests for media, which with Encord go to where the files are and not to its API.
DOWNLOADS = "media.get"
#: Seconds between two looks at the results.
LOOK_EVERY = 0.2

NEXT = """
Next, with a project of your own (README.md has the details):
  1. mkdir ~/agents; cp examples/quickstart.py celeryconfig.py ~/agents; and in an environment of yours
     pip install '{root}[vision]'
  2. export ENCORD_SSH_KEY_FILE=~/.ssh/your-encord-key CELERY_AGENTS_PROJECT=<project hash>
  3. cd ~/agents; celery -A quickstart agents check; celery -A quickstart worker; celery -A quickstart agents enqueue
The logs of this run are in {logs}."""


def tell(view: View, *, tasks: int, nodes: int, logs: Path) -> int:
    """Run the demo; return 0, or 1 where something is not as it must be.

    Raises:
        DemoError: It could not be run to its end.
    """
    logs = logs.resolve()
    with Processes(logs) as processes:
        url = _start(processes, view, tasks=tasks, nodes=nodes, logs=logs)
        # Only now: the app reads its broker and project from the environment, and imports the SDK.
        from examples.demo.checks import differences
        from examples.demo_app import is_large

        runs = [_run_stage(processes, view, stage, url) for stage in ("Pre-label", "Route")]
        report = _report(url)
        tails = processes.tails()
    view.table(runs)
    found = differences(report, runs, is_large)
    if found:
        view.differences(found, tails)
        return 1
    view.say(_verdict(report, runs), style="green")
    view.say(NEXT.format(logs=os.path.relpath(logs), root=ROOT))
    return 0


def _start(processes: Processes, view: View, *, tasks: int, nodes: int, logs: Path) -> str:
    """Start everything, wait until it is up, and return the sandbox's URL."""
    view.say(f"Starting Valkey, a sandbox with {tasks} data units, and {nodes} Celery workers")
    valkey = processes.start("valkey", "-m", "examples.demo.valkey", str(logs / "valkey"))
    celery_agents = str(Path(sys.executable).with_name("celery-agents"))
    key = f"--key-file={logs / 'sandbox-key'}"
    sandbox = processes.start("sandbox", celery_agents, "sandbox", f"--tasks={tasks}", key, "--json")
    broker = f"redis://127.0.0.1:{processes.wait_for('Valkey', valkey.ready)['port']}"
    ready = processes.wait_for("The sandbox", sandbox.ready)
    environment = {
        "CELERY_BROKER_URL": f"{broker}/0",
        "CELERY_RESULT_BACKEND": f"{broker}/1",
        "CELERY_AGENTS_PROJECT": ready["project_hash"],
        "ENCORD_DOMAIN": ready["url"],
        "ENCORD_SSH_KEY_FILE": ready["key_file"],
    }
    processes.environment.update(environment)
    os.environ.update(processes.environment)
    os.environ.pop("ENCORD_SSH_KEY", None)  # would be preferred to the file
    _start_workers(processes, nodes)
    view.say(f"  broker {broker}, sandbox {ready['url']}, project {ready['project_hash']}")
    return str(ready["url"])


def _start_workers(processes: Processes, nodes: int) -> None:
    names = [f"node{number}@demo" for number in range(1, nodes + 1)]
    for name in names:
        processes.start(
            name.partition("@")[0],
            *celery("worker", f"--hostname={name}", f"--concurrency={CONCURRENCY}", "--loglevel=INFO"),
        )
    from examples.demo_app import app

    def all_answer() -> bool:
        return len(app.control.ping(timeout=0.5, limit=nodes)) == nodes

    processes.wait_for(f"{nodes} workers", all_answer, timeout=60)


def _run_stage(processes: Processes, view: View, stage: str, url: str) -> StageRun:
    """Send what waits at the stage by the producer's command line, and follow it to its end."""
    from examples.demo.checks import StageRun

    before = _encord_calls(url)
    started = _Stopwatch()
    command = celery("agents", "enqueue", "--stage", stage, "--json")
    sent = json.loads(processes.run(f"enqueue-{stage.lower()}", *command, meanwhile=started.look))
    group = _group(sent["ids"])
    total = sum(row["agent_tasks"] for row in sent["sent"])
    view.say(f"{stage}: {total} agent tasks in {len(group)} messages")
    _follow(processes, view, stage, group, total)
    seconds = started.seconds()
    calls = _encord_calls(url) - before
    return StageRun(stage, list(group.outcomes), seconds, calls.total() - calls[DOWNLOADS], calls[DOWNLOADS])


def _group(ids: list[str]) -> AgentGroupResult:
    from celery_agents import AgentGroupResult, AgentResult
    from examples.demo_app import app

    return AgentGroupResult([AgentResult(message_id, app) for message_id in ids], app)


def _follow(processes: Processes, view: View, stage: str, group: AgentGroupResult, total: int) -> None:
    latest = time.monotonic() + PATIENCE
    with view.stage(stage, total) as update:
        while not (summary := group.summary()).is_final:
            update(summary)
            processes.check()
            if time.monotonic() > latest:
                state = f"{stage} was not done after {PATIENCE:.0f} seconds: {summary.as_dict()}"
                raise DemoError(f"{state}\n{processes.tails()}")
            time.sleep(LOOK_EVERY)
        update(summary)


class _Stopwatch:
    """Runs from the first message on the broker, so that the producer's start is not counted as the workers' time."""

    def __init__(self) -> None:
        from examples.demo_app import app

        self._queue = app.conf.task_default_queue
        self._connection = app.connection_for_read()
        self._started: float | None = None

    def look(self) -> None:
        """Start once something waits, or is held by a worker."""
        client = self._connection.default_channel.client
        if self._started is None and (client.llen(self._queue) or client.hlen("unacked")):
            self._started = time.monotonic()

    def seconds(self) -> float:
        """How long ago it started."""
        self._connection.release()
        return time.monotonic() - (self._started or time.monotonic())


def _encord_calls(url: str) -> Counter[str]:
    """How many calls the sandbox has answered so far, by name."""
    return Counter(_report(url)["calls"])


def _report(url: str) -> Report:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    with opener.open(f"{url}/sandbox/report", timeout=30) as answer:
        report: dict[str, Any] = json.load(answer)
        return report


def _verdict(report: Report, runs: list[StageRun]) -> str:
    moves = " and ".join(f"{len(run.outcomes)} from {run.stage}" for run in runs)
    boxes = sum(bool(unit["boxes"]) for unit in report["projects"][0]["data_units"])
    return (
        f"✓ By the sandbox's audit every agent task was moved exactly once: {moves}. "
        f"{boxes} boxes are saved, each where it was drawn."
    )
