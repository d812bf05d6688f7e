"""``docker-compose.yml`` as Docker Compose reads it: merged, interpolated, parsed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).parents[2]

_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<operator>:-|:\?)(?P<rest>[^}]*))?\}")


def interpolated(env: Mapping[str, str]) -> dict[str, Any]:
    """The file with YAML's merge keys and Compose's variables resolved; ValueError for a required one not set."""
    merged = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    resolved: dict[str, Any] = _resolve(merged, env)
    return resolved


def parsed(content: dict[str, Any]) -> PyCompose:
    """What the compose-spec parser makes of it; ValueError for what the specification does not allow."""
    compose = PyCompose.from_json(json.dumps(content))
    compose.validate()
    return compose


def env_file(path: Path) -> dict[str, str]:
    """The variables of an ``--env-file``."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def _resolve(value: Any, env: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _resolve(each, env) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolve(each, env) for each in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _replacement(match, env), value)
    return value


def _replacement(match: re.Match[str], env: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    given = env.get(match["name"], "")
    if given or match["operator"] == ":-":
        return given or match["rest"]
    raise ValueError(f"{match['name']}: {match['rest']}")
