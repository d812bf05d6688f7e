"""``agents status``: one row per message, from ids alone."""

from __future__ import annotations

from tests.cli.conftest import Answer, CommandLine


def sent_and_ended(cli: CommandLine, *options: str) -> tuple[list[str], Answer]:
    answer = cli("enqueue", "--stage", "Pre-label", "--wait", "--json", *options)
    return answer.json["ids"], answer


def test_a_failed_message_a_fine_one_and_an_unknown_one(cli: CommandLine) -> None:
    [failed], waited = sent_and_ended(cli, "--title", "video", "--batch-size", "50")
    assert (waited.json["status"], waited.code) == ("FAILED", 1)
    [fine], waited = sent_and_ended(cli, "--title", "pdf", "--batch-size", "50")
    assert (waited.json["status"], waited.code) == ("SUCCEEDED", 0)

    answer = cli("status", failed, fine)
    first, second = answer.out.splitlines()[-2:]
    assert first.startswith(f"{failed}  FAILED ")
    assert "no box in video" in first
    assert second.startswith(f"{fine}  SUCCEEDED ")
    assert "HELD" in second
    assert answer.code == 1

    assert cli("status", fine).code == 0
    unknown = cli("status", fine, "never-heard-of-it")
    assert "UNKNOWN" in unknown.out
    assert unknown.code == 3

    listed = cli("status", failed, "--outcomes")
    assert "ValueError: no box in video" in listed.out
    assert "FAILED" in listed.out

    [one] = cli("status", failed, "--json").json
    assert one["status"] == "FAILED"
    assert {outcome["outcome"] for outcome in one["outcomes"]} == {"FAILED"}
