"""What Docker Compose is told is right, as far as that can be seen without Docker; its commands run for real next door."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from typing import Any

import pytest

from tests.packaging.compose import ROOT, env_file, interpolated, parsed

WITH_PROJECT = {"CELERY_AGENTS_PROJECT": "00000000-0000-0000-0000-000000000000"}
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = parsed(interpolated(WITH_PROJECT)).to_dict()["services"]
    return found


def test_a_compose_parser_accepts_the_file() -> None:
    compose = parsed(interpolated(WITH_PROJECT))

    assert set(compose.service_names()) == {"valkey", "worker", "producer", "flower", "sandbox"}


def test_the_parser_would_tell_a_mistake() -> None:
    content = interpolated(WITH_PROJECT)
    content["services"]["worker"]["stop_grace_periode"] = "45s"

    with pytest.raises(ValueError, match="stop_grace_periode"):
        parsed(content)


def test_without_a_project_hash_compose_says_what_to_set() -> None:
    with pytest.raises(ValueError, match="CELERY_AGENTS_PROJECT: set it to the hash of your Encord project"):
        interpolated({})


def test_the_sandbox_s_env_file_makes_everything_use_the_sandbox() -> None:
    services = interpolated(env_file(ROOT / "examples" / "sandbox.env"))["services"]

    for name in ("worker", "producer"):
        environment = services[name]["environment"]
        assert environment["ENCORD_DOMAIN"] == "http://sandbox:8900"
        assert f"--key-file={environment['ENCORD_SSH_KEY_FILE']}" in services["sandbox"]["command"]
    assert "--port=8900" in services["sandbox"]["command"]
    assert services["sandbox"]["profiles"] == ["sandbox"]


def test_whoever_waits_for_a_service_waits_for_one_that_exists_and_can_be_healthy(
    services: dict[str, Any],
) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, f"{name} depends on {other}"
            assert how["condition"] != "service_healthy" or "healthcheck" in services[other]


def test_every_service_that_answers_somebody_has_a_health_check(services: dict[str, Any]) -> None:
    # Nobody can ask a producer; it ends when it cannot go on, and is started anew.
    assert [name for name, service in services.items() if "healthcheck" not in service] == ["producer"]
    assert services["producer"]["restart"] == "unless-stopped"


def test_a_worker_is_asked_to_stop_and_has_time_to(services: dict[str, Any]) -> None:
    # Docker's default is ten seconds, less than many an agent needs for one agent task.
    assert services["worker"]["stop_grace_period"] == "1m"
    # `exec`, so that the signal reaches Celery and not a shell that does not hand it on.
    assert services["worker"]["command"][-1].startswith("exec celery ")


def test_the_key_is_a_secret_and_nothing_secret_is_in_the_environment(services: dict[str, Any]) -> None:
    content = interpolated({**WITH_PROJECT, "ENCORD_SSH_KEY_FILE": "/home/me/key"})

    assert content["secrets"]["encord_key"]["file"] == "/home/me/key"
    for name, service in services.items():
        assert "ENCORD_SSH_KEY" not in service.get("environment", {}), name
        assert ("encord_key" in service.get("secrets", [])) == (name in ("worker", "producer")), name


def test_nothing_runs_as_root_and_only_this_machine_reaches_flower(services: dict[str, Any]) -> None:
    ours = [name for name, service in services.items() if "build" in service]

    assert all(services[name]["user"] == "1000:1000" for name in ours)
    assert services["flower"]["ports"] == ["127.0.0.1:5555:5555"]
    assert [name for name in services if "ports" in services[name]] == ["flower"]
    # What is run without Compose gets the user of the stage that the images are made from.
    assert re.search(r"^FROM \S+ AS runtime\n(?:(?!FROM).*\n)*USER 1000$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM runtime AS (\w+)$", DOCKERFILE, re.MULTILINE)) == {
        "agents",
        "flower",
        "sandbox",
    }


def test_every_build_target_is_a_stage_of_the_dockerfile(services: dict[str, Any]) -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))

    assert {service["build"]["target"] for service in services.values() if "build" in service} <= stages


def test_what_the_dockerfile_copies_exists_and_is_not_ignored() -> None:
    admitted = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)

    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern) for pattern in admitted), source


def test_the_image_has_the_flower_that_is_tested_here() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    (pin,) = [each for each in groups["dev"] if each.startswith("flower")]

    assert f'pip install --no-cache-dir "{pin}"' in DOCKERFILE
