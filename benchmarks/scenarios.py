"""What is compared: agents, what each library does with them at its best, and under which conditions."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contestants import LATENCIES, Conditions, Contestant

#: Specs in one of our messages, unless something else is said below.
OUR_SIZE = 1000
#: Specs in a list, the best that encord-agents has.
THEIR_SIZE = 100


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One agent, as we run it and as a peer does."""

    name: str  #: for the command line
    what: str  #: for the table
    ours: Contestant
    peer: Contestant
    ceiling: float | None = None  #: agent tasks a second that one slot cannot exceed, whoever calls the agent
    usual: tuple[Conditions, ...] = ()  #: under which it runs where nothing is selected


def ours(
    agent: str, pace: tuple[int, int, int], *, size: int = OUR_SIZE, name: str = "ours", **options: object
) -> Contestant:
    """Return ours, with options of `stage`."""
    return Contestant(name=name, app="ours", agent=agent, size=size, pace=pace, options=options)


def theirs(agent: str, pace: tuple[int, int, int], *, size: int = THEIR_SIZE) -> Contestant:
    """Return encord-agents' QueueRunner."""
    return Contestant(
        name=f"encord-agents, {f'lists of {size}' if size > 1 else 'one spec a message'}",
        app="encord_agents_app",
        agent=agent,
        size=size,
        pace=pace,
        peer="encord-agents",
    )


def bare(agent: str, pace: tuple[int, int, int], *, size: int = THEIR_SIZE) -> Contestant:
    """Return bare Celery with the SDK."""
    return Contestant(
        name="bare Celery and the SDK", app="bare", agent=agent, size=size, pace=pace, peer="encord-agents"
    )


def batches(agent: str, pace: tuple[int, int, int]) -> Contestant:
    """Return celery-batches around encord-agents' QueueRunner."""
    return Contestant(
        name="celery-batches, 100 at once",
        app="celery_batches_app",
        agent=agent,
        size=1,
        pace=pace,
        peer="celery-batches",
    )


AT_ONCE, NEAR, FAR = (Conditions(latency=latency) for latency in LATENCIES)
NEAR_TLS = Conditions(latency=NEAR.latency, tls=True)
FAR_THREADS = Conditions(latency=FAR.latency, pool="threads", slots=16)

#: Run beside several peers.
OUR_STRUCT = ours("struct", (6_000, 6_000, 4_000))
OUR_SINGLE = ours("nothing", (2_000, 400, 100), size=1)

SCENARIOS = (
    Scenario(
        name="nothing",
        what="needs nothing",
        ours=ours("nothing", (20_000, 12_000, 8_000)),
        peer=theirs("nothing", (20_000, 8_000, 2_000)),
        usual=(AT_ONCE, NEAR_TLS, FAR),
    ),
    Scenario(
        name="struct",
        what="box through the struct",
        ours=OUR_STRUCT,
        peer=theirs("struct", (6_000, 2_000, 800)),
        usual=(AT_ONCE, NEAR_TLS, FAR, FAR_THREADS),
    ),
    Scenario(
        name="hundreds",
        what="box through the struct, messages of 100",
        ours=ours("struct", (6_000, 6_000, 4_000), size=100),
        peer=theirs("struct", (6_000, 2_000, 800)),
        usual=(FAR,),
    ),
    Scenario(
        name="save",
        what="own `label_row.save()`, `concurrency=16`",
        ours=ours("save", (4_000, 4_000, 2_000), concurrency=16),
        peer=theirs("save", (2_000, 400, 200)),
        usual=(AT_ONCE, FAR),
    ),
    Scenario(
        name="deferred",
        what="own `label_row.save()`, `deferred_saves=True`",
        ours=ours("save", (6_000, 6_000, 4_000), deferred_saves=True),
        peer=theirs("save", (2_000, 400, 200)),
        usual=(AT_ONCE, FAR),
    ),
    Scenario(
        name="frame",
        what="takes a frame",
        ours=ours("frame", (4_000, 4_000, 2_000)),
        peer=theirs("frame", (2_000, 400, 200)),
        usual=(AT_ONCE, FAR),
    ),
    Scenario(
        name="wait",
        what="waits 200 ms for a model server, `concurrency=16`",
        ours=ours("wait", (2_000, 2_000, 2_000), concurrency=16),
        peer=theirs("wait", (100, 100, 100), size=50),
        ceiling=16 / 0.2,
        usual=(FAR,),
    ),
    Scenario(
        name="async",
        what="waits 200 ms for a model server, `async def`",
        ours=ours("wait_async", (2_000, 2_000, 2_000)),
        peer=theirs("wait", (100, 100, 100), size=50),
        ceiling=16 / 0.2,
        usual=(FAR,),
    ),
    Scenario(
        name="gpu",
        what="32 cost as much as one, `batched=True`",
        ours=ours("gpu_many", (6_400, 6_400, 6_400), size=3200, batched=True, list_size=32),
        peer=theirs("gpu", (100, 100, 100), size=50),
        ceiling=32 / 0.1,
        usual=(FAR,),
    ),
    Scenario(
        name="compute",
        what="computes 20 ms, beside the same without Encord",
        ours=ours("compute", (1_200, 1_200, 1_200), size=600),
        peer=bare("compute", (1_200, 1_200, 1_200)),
        usual=(FAR,),
    ),
    Scenario(
        name="single",
        what="needs nothing, one spec a message",
        ours=OUR_SINGLE,
        peer=theirs("nothing", (2_000, 400, 100), size=1),
        usual=(NEAR_TLS,),
    ),
    Scenario(
        name="same-calls",
        what="needs nothing, one spec a message, beside the same calls by hand",
        ours=OUR_SINGLE,
        peer=bare("same_calls", (2_000, 400, 100), size=1),
        usual=(AT_ONCE,),
    ),
    Scenario(
        name="memory",
        what="needs nothing, beside a task that does nothing",
        ours=ours("nothing", (10_000, 10_000, 10_000)),
        peer=bare("nothing", (10_000, 10_000, 10_000)),
        usual=(AT_ONCE,),
    ),
    Scenario(
        name="tens",
        what="box through the struct, lists of 10 there",
        ours=OUR_STRUCT,
        peer=theirs("struct", (2_000, 400, 100), size=10),
    ),
    Scenario(
        name="batches",
        what="box through the struct, one spec a message there",
        ours=OUR_STRUCT,
        peer=batches("struct", (4_000, 2_000, 800)),
        usual=(FAR,),
    ),
)
