"""The commands of ``docker-compose.yml``, run on this machine with other addresses: they do what the file promises."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import servers
from tests.packaging.compose import ROOT, env_file, interpolated

pytestmark = pytest.mark.slow

PATIENCE = 90.0


class Host:
    """Runs services of the compose file as plain processes."""

    def __init__(self, folder: Path, addresses: Mapping[str, str]) -> None:
        self._folder = folder
        #: What stands in the compose file, and what is here in its place.
        self._addresses = addresses
        self._services = interpolated(env_file(ROOT / "examples" / "sandbox.env"))["services"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, **environment: str) -> None:
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self._here(self._services[name]["command"]),
                cwd=ROOT,
                env=self._environment(name) | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_healthy(self, name: str) -> bool:
        """Whether the service's own health check says so."""
        kind, *test = self._services[name]["healthcheck"]["test"]
        command = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
        run = subprocess.run(
            self._here(command), cwd=ROOT, env=self._environment(name), check=False, capture_output=True
        )
        return run.returncode == 0

    def url(self, name: str) -> str:
        """Where it listens, by its health check."""
        (url,) = re.findall(r"http://[\d.:]+", self._here(self._services[name]["healthcheck"]["test"])[-1])
        return str(url)

    def wait_until_healthy(self, name: str) -> None:
        def is_healthy() -> bool:
            assert self.processes[name].poll() is None, f"{name} has ended:\n{self.log(name).read_text()}"
            return self.is_healthy(name)

        self.wait_until(is_healthy, f"{name} is healthy")

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        latest = time.monotonic() + PATIENCE
        while not condition():
            logs = "".join(f"--- {name}\n{self.log(name).read_text()}" for name in self.processes)
            assert time.monotonic() < latest, f"waited until {what}\n{logs}"
            time.sleep(0.1)

    def stop(self, name: str) -> int:
        """Stop it as Docker does; its exit code."""
        self.processes[name].send_signal(signal.SIGTERM)
        return self.processes[name].wait(PATIENCE)

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def kill_everything(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):  # it has ended, and all of its group
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _environment(self, name: str) -> dict[str, str]:
        """What the container would have: nothing of the environment in which the tests run."""
        own = {key: str(value) for key, value in self._services[name].get("environment", {}).items()}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        here = dict(zip(own, self._here(list(own.values())), strict=True))
        return {**here, "PATH": programs, "HOME": str(self._folder)}

    def _here(self, texts: list[Any]) -> list[str]:
        """What these say with this machine's addresses and paths."""
        # All in one go: a port that was put in may look like one that is to be replaced.
        there = re.compile("|".join(map(re.escape, self._addresses)))
        return [there.sub(lambda found: self._addresses[found[0]], str(text)) for text in texts]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Valkey and the sandbox, up."""
    folder = tmp_path_factory.mktemp("compose")
    sandbox_port = str(servers.free_port())
    with servers.new_valkey() as server:
        host = Host(
            folder,
            {
                "valkey:6379": f"127.0.0.1:{server.port}",
                "sandbox:8900": f"127.0.0.1:{sandbox_port}",
                "0.0.0.0": "127.0.0.1",
                "8900": sandbox_port,
                "5555": str(servers.free_port()),
                "/sandbox/key": str(folder / "key"),
            },
        )
        try:
            host.start("sandbox")
            host.wait_until_healthy("sandbox")
            yield host
        finally:
            host.kill_everything()


def test_the_sandbox_has_the_project_that_its_env_file_names(host: Host) -> None:
    project = env_file(ROOT / "examples" / "sandbox.env")["CELERY_AGENTS_PROJECT"]

    assert f"export CELERY_AGENTS_PROJECT={project}\n" in host.log("sandbox").read_text()


def test_the_producer_sweeps_the_worker_works_and_both_stop_when_told(host: Host) -> None:
    host.start("worker")
    host.wait_until_healthy("worker")

    # When the producer has swept until there was nothing more
    host.start("producer", SWEEP_SECONDS="1", MAX_IN_FLIGHT="120")
    host.wait_until(lambda: "nothing waits" in host.log("producer").read_text(), "it finds nothing more")

    # Then everything that waited at the stage was moved, once
    report = requests.get(host.url("sandbox") + "/sandbox/report", timeout=30).json()
    (stage,) = [stage for stage in report["projects"][0]["stages"] if stage["title"] == "Pre-label"]
    assert stage["tasks"] == 0
    assert len(stage["left"]) == 300
    assert set(stage["left"].values()) == {1}
    assert host.stop("producer") == 0
    assert host.stop("worker") == 0


def test_flower_is_up(host: Host) -> None:
    host.start("flower")

    host.wait_until_healthy("flower")

    assert host.stop("flower") == 0
