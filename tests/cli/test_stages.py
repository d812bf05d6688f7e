"""``agents stages``: which agent serves what, and what nobody serves."""

from __future__ import annotations

from functools import partial

from celery_agents.sandbox import SandboxServer
from tests.cli.conftest import CommandLine, together


def test_the_table_names_agents_queues_and_pathways(quiet_cli: CommandLine, sandbox: SandboxServer) -> None:
    answer = quiet_cli("stages", "--count")
    for part in (
        "Sandbox project",
        sandbox.project_hash,
        "tests.cli.app.pre_label",
        "gpu",
        "labelled → Route",
        "24",
    ):
        assert part in answer.out
    assert (answer.err, answer.code) == ("", 0)


def test_as_json(quiet_cli: CommandLine, sandbox: SandboxServer) -> None:
    [project] = quiet_cli("stages", "--json").json
    assert project["project_hash"] == sandbox.project_hash
    first, second = project["stages"]
    assert first == {
        "stage": "Pre-label",
        "uuid": first["uuid"],
        "pathways": {"labelled": "Route", "nothing found": "Archive"},
        "agent": "tests.cli.app.pre_label",
        "task": f"agents.{sandbox.project_hash[:8]}.Pre-label",
        "queue": "gpu",
        "batch_size": 5,
        "waiting": None,
    }
    assert (second["stage"], second["queue"], second["batch_size"]) == ("Route", "celery", 100)


def test_a_stage_without_an_agent_is_listed(quiet_cli: CommandLine) -> None:
    line = quiet_cli.but("light_app")
    shown, scripted = together(partial(line, "stages"), partial(line, "stages", "--json"))
    [project] = scripted.json
    assert [stage["agent"] for stage in project["stages"]] == ["tests.cli.light_app.pre_label", None]
    assert "no agent here" in shown.out
