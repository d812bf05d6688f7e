"""The demo is ended at any moment, politely or not, and no process of it stays."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import pytest

from tests.demo.conftest import RunningDemo, StartDemo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"),
        reason="finds processes by /proc/*/environ, which only Linux has",
    ),
]

Moment = Callable[[RunningDemo], object]

#: Moments in the life of a demo, in order, and what can be seen then.
MOMENTS: dict[str, Moment] = {
    # Before its first line it is Python itself that is interrupted, and may fail with 1.
    "at the very start": lambda demo: demo.output,
    "while Valkey starts": lambda demo: (demo.logs / "valkey.out").exists(),
    "while the sandbox draws": lambda demo: (demo.logs / "sandbox.out").exists(),
    "while workers import": lambda demo: (demo.logs / "node1.out").exists(),
    "while a worker connects": lambda demo: "Connected to redis" in demo.log("node1"),
    "while the producer starts": lambda demo: (demo.logs / "enqueue-pre-label.out").exists(),
    "while agents run": lambda demo: "received" in demo.log("node1") + demo.log("node2"),
    "while results are polled": lambda demo: "Pre-label:" in demo.output,
}
MOMENT = pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)


@MOMENT
def test_ctrl_c(start_demo: StartDemo, moment: Moment) -> None:
    demo = start_demo("--tasks", "300")
    demo.wait_until(lambda: moment(demo), "the moment")

    # As a terminal does it: to the whole process group
    os.killpg(demo.process.pid, signal.SIGINT)

    code = demo.wait()
    demo.wait_until(lambda: not demo.alive(), "everything to end")
    assert code in (130, -signal.SIGINT)  # the second while it has nothing to stop
    assert "Traceback" not in demo.output


def test_ctrl_c_at_a_real_terminal_pressed_twice_by_somebody_impatient(start_demo: StartDemo) -> None:
    demo = start_demo("--tasks", "300", at_terminal=True)
    demo.wait_until(lambda: "━" in demo.output, "the first stage's progress bar")

    demo.press("\x03\x03")

    assert demo.wait() == 130, demo.output
    demo.wait_until(lambda: "Stopped by SIGINT; nothing is left running." in demo.output, "the last line")
    assert demo.alive() == {}


@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [(signal.SIGTERM, 143, "while agents run"), (signal.SIGHUP, 129, "while workers import")],
    ids=["TERM", "HUP"],
)
def test_kill_and_a_closed_terminal(
    start_demo: StartDemo, number: signal.Signals, code: int, moment: str
) -> None:
    demo = start_demo("--tasks", "300")
    demo.wait_until(lambda: MOMENTS[moment](demo), moment)

    demo.process.send_signal(number)

    assert demo.wait() == code, demo.output
    demo.wait_until(lambda: not demo.alive(), "everything to end")


@pytest.mark.parametrize("moment", ["while the sandbox draws", "while workers import", "while agents run"])
def test_a_demo_that_is_killed_outright_takes_its_children_along(start_demo: StartDemo, moment: str) -> None:
    demo = start_demo("--tasks", "300")
    demo.wait_until(lambda: MOMENTS[moment](demo), moment)

    demo.process.kill()  # nothing of the demo's own can run any more

    demo.wait()
    demo.wait_until(lambda: not demo.alive(), "everything to end")
