"""What is true of the ledger's keys at any time: nothing is counted, and nothing is led to, that is not there."""

from __future__ import annotations

import re
from collections import Counter
from uuid import UUID

from tests.ledger.conftest import Site

GROUP = re.compile(r"\d+ \d+ [A-Z]+ \S+ (\d+)\n")


def assert_in_order(site: Site, stage: UUID) -> None:
    """Look at what is kept of claims and outcomes in a project that has only this stage."""
    holders, sizes, queued, running = (
        _texts(site, name) for name in ("holders", "sizes", "queued", "running")
    )
    total, lapsed = (sizes.pop(name, None) for name in (" total", " lapsed"))
    assert int(total or 0) == sum(map(int, sizes.values()))
    assert total != "0"
    if lapsed is not None:
        assert_lapsed(lapsed, sizes, {**queued, **running})
    claims = Counter(holder for holder in holders.values() if holder in sizes)
    assert claims == {id_: int(size) for id_, size in sizes.items()}
    assert sizes.keys() == queued.keys() | running.keys()
    assert not queued.keys() & running.keys()
    client, keys = site.client, site.ledger.keys
    assert {*client.hkeys(keys.failures)} == {*client.zrange(keys.failure_times, 0, -1)}
    groups = _groups(site, stage)
    for task, holder in holders.items():
        assert holder in sizes or task in groups.get(holder, ()), f"{task} -> {holder!r}, where it is not"
    assert not groups.keys() & sizes.keys(), "a message with claims stands for a group"


def assert_lapsed(known: str, sizes: dict[str, str], until: dict[str, str]) -> None:
    """Look at what is known of how many claims have lapsed; nothing is kept where none have."""
    last, number = map(int, known.split())
    assert number == sum(int(size) for id_, size in sizes.items() if float(until[id_]) <= last)
    assert number > 0


def _groups(site: Site, stage: UUID) -> dict[str, set[str]]:
    """Return the agent tasks of each group by whom their entries name; the numbers of all must be right."""
    keys, client = site.ledger.keys, site.client
    records = {name.decode(): text.decode() for name, text in client.hgetall(keys.outcomes).items()}
    grouped = int(records.pop("grouped", 0))
    assert records.keys() == {name.decode() for name in client.zrange(keys.outcome_times, 0, -1)}
    groups = {
        name.removesuffix(f" {stage.hex}"): _tasks(text) for name, text in records.items() if " " in name
    }
    assert grouped == sum(len(tasks) - 1 for tasks in groups.values())
    return groups


def _tasks(text: str) -> set[str]:
    head = GROUP.match(text)
    assert head is not None
    packed = text[head.end() :]
    return {packed[32 * number : 32 * number + 32] for number in range(int(head[1]))}


def _texts(site: Site, name: str) -> dict[str, str]:
    """Return a hash, or the members and scores of a sorted set, of the claims."""
    key = site.ledger.keys.claims(UUID(int=1))[name]
    if name in ("holders", "sizes"):
        return {field.decode(): value.decode() for field, value in site.client.hgetall(key).items()}
    return {member.decode(): str(score) for member, score in site.client.zrange(key, 0, -1, withscores=True)}
