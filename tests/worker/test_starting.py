"""A worker that cannot run its agents says why and stops; one that cannot reach Encord for now starts all the same."""

from __future__ import annotations

from celery_agents import AgentResult, Status
from tests import servers

from .conftest import DEADLINE, Site, wait_until


def test_a_stage_that_is_not_there_stops_the_worker(site: Site) -> None:
    worker = site.start_worker("-c", "1", is_up=False, PRE_LABEL_STAGE="Pre-lable")
    assert worker.wait(DEADLINE) == 1
    log = site.log().read_text()
    assert "This worker cannot run its agents: Project" in log
    assert "has no agent stage 'Pre-lable'; did you mean 'Pre-label'?" in log
    assert "Traceback" not in log


def test_a_stage_that_is_not_an_agent_stage_stops_the_worker(site: Site) -> None:
    worker = site.start_worker("-c", "1", is_up=False, PRE_LABEL_STAGE="Archive")
    assert worker.wait(DEADLINE) == 1
    assert "'Archive' is a stage of project" in site.log().read_text()


def test_two_agents_for_one_stage_stop_the_worker(site: Site) -> None:
    """One by its title and one by its UUID: only Encord can tell that they are the same."""
    uuid = str(site.module.route.agent_stage.uuid)
    worker = site.start_worker("-c", "1", is_up=False, PRE_LABEL_STAGE=uuid)
    assert worker.wait(DEADLINE) == 1
    assert "has two agents" in site.log().read_text()


def test_a_missing_key_stops_the_worker(site: Site) -> None:
    worker = site.start_worker("-c", "1", is_up=False, ENCORD_SSH_KEY="")
    assert worker.wait(DEADLINE) == 1
    assert "No Encord key: set ENCORD_SSH_KEY_FILE" in site.log().read_text()


def test_a_worker_for_other_queues_does_not_mind(site: Site) -> None:
    site.start_worker("-c", "1", "-Q", "something-else", PRE_LABEL_STAGE="Pre-lable")


def test_encord_being_down_does_not_stop_the_worker(site: Site) -> None:
    """It starts, says so, and its agents run when Encord is back."""
    site.start_worker("-c", "1", ENCORD_DOMAIN=f"http://127.0.0.1:{servers.free_port()}")
    assert "Encord cannot be reached" in site.log().read_text()
    result = AgentResult(site.module.pre_label.delay(site.specs()).id, site.app)
    wait_until("it waits for Encord to come back", lambda: result.status is Status.RETRYING)


def test_what_the_pool_s_processes_share_is_nothing_for_their_garbage_collectors(site: Site) -> None:
    """They would write to it, and so have a copy each."""
    site.start_worker("-c", "2")
    assert site.module.is_sdk_collected()  # here, where no worker has begun
    asked = [site.module.is_sdk_collected.delay() for _ in range(4)]
    assert [each.get(timeout=DEADLINE) for each in asked] == [False] * 4
