"""The `celery-agents` command: what needs no Celery app. The rest is `celery -A app agents …`."""

from __future__ import annotations

import click

from celery_agents.cli.sandbox import sandbox


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="celery-agents")
def main() -> None:
    """Tools for Encord agents on Celery that need no Celery app.

    \b
    celery-agents sandbox --help      a local server with Encord's protocol, to try things on
    celery -A app agents --help       everything about a running app: check, enqueue, status, watch
    """  # noqa: D301 - click reads \b


main.add_command(sandbox)
