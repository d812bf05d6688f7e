"""``agents status``: one row per message, from ids alone."""

from __future__ import annotations

from functools import partial

from tests.cli.conftest import CommandLine, together


def test_a_failed_message_a_fine_one_and_an_unknown_one(cli: CommandLine) -> None:
    send = partial(
        cli, "enqueue", "--stage", "Pre-label", "--wait", "--json", "--batch-size", "50", "--title"
    )
    videos, papers = together(partial(send, "video"), partial(send, "pdf"))
    assert (videos.json["status"], videos.code) == ("FAILED", 1)
    assert (papers.json["status"], papers.code) == ("SUCCEEDED", 0)
    [failed], [fine] = videos.json["ids"], papers.json["ids"]

    # Ids are enough: another app with the same result backend can be asked.
    status = partial(cli.but("light_app"), "status")
    both, alone, unknown, listed, scripted = together(
        partial(status, failed, fine),
        partial(status, fine),
        partial(status, fine, "never-heard-of-it"),
        partial(status, failed, "--outcomes"),
        partial(status, failed, "--json"),
    )
    first, second = both.out.splitlines()[-2:]
    assert first.startswith(f"{failed}  FAILED ")
    assert "no box in video" in first
    assert second.startswith(f"{fine}  SUCCEEDED ")
    assert "HELD" in second
    assert both.code == 1
    assert alone.code == 0
    assert "UNKNOWN" in unknown.out
    assert unknown.code == 3
    assert "ValueError: no box in video" in listed.out
    [one] = scripted.json
    assert one["status"] == "FAILED"
    assert {outcome["outcome"] for outcome in one["outcomes"]} == {"FAILED"}
