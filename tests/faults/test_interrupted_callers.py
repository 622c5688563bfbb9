"""F17: an exception that is raised into a caller from outside harms that call alone."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionLost

from ..support.figures import figure
from ..support.outcomes import wait_accepted, wait_up
from ..support.processes import run_program
from .interrupt import WITNESSES

#: Until so many exceptions have come and an eighth as many jobs of others, at least so many seconds long, but not
#: longer than five times as long;
#: `EXCEPTIONS=60000` in the environment shows the figure of the promise.
LEAST = int(os.environ.get("EXCEPTIONS", "4000"))
SECONDS = LEAST / 1000


@pytest.mark.slow
@pytest.mark.timeout(5 * SECONDS + 100)
def test_exceptions_from_outside_harm_nobody_else(gearmand, c_worker):
    arguments = ["-m", "tests.faults.interrupt", gearmand.address, str(SECONDS), str(LEAST)]
    ended = run_program(arguments, 5 * SECONDS + 70)
    assert ended.code == 0, ended.errors
    figures = json.loads(ended.output.splitlines()[-1])
    figure(f"exceptions from outside: {figures}")
    # Fewer than wanted come only where the machine is busy beyond reason, and then a third of them is evidence too.
    assert figures["received"] >= LEAST / 3
    assert figures["witnesses"] >= LEAST / 24
    assert figures["clients"] >= 1
    assert (figures["wrong"], figures["hung"], figures["loop_errors"], figures["alive"]) == (0, 0, 0, True), (
        ended.errors
    )
    assert figures["threads left"] == []
    # A caller that is struck while it sends takes its connection with it, and with that at most one job of each
    # witness. That moment is short.
    assert set(figures["errors"]) <= {"ConnectionLost"}
    assert sum(figures["errors"].values()) <= WITNESSES * figures["connections_lost"]
    # Without the GIL it is a larger part of what a caller does: one in 45 has been measured on a busy machine.
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert figures["connections_lost"] <= figures["received"] / (50 if has_gil else 20)


def test_lock_of_logging_that_was_left_taken_holds_up_no_job(gearmand, c_worker):
    """An interruption in logging can leave the lock taken that all loggers share, and the client logs losses."""
    taken, let_go = threading.Event(), threading.Event()

    def leave_it_taken() -> None:
        with logging._lock:
            logging.getLogger("gearman_pool.client").manager._clear_cache()
            taken.set()
            let_go.wait(50)

    with GearmanClient([gearmand.address], reconnect_backoff=(0.01, 0.05)) as client:
        wait_up(client)
        waiting = client.submit("nobody")
        wait_accepted(waiting)
        caller = threading.Thread(target=leave_it_taken)
        caller.start()
        try:
            assert taken.wait(10)
            for connection in client._engine.pool.connections:
                client._engine.io.post(lambda lost=connection: lost.lose(ConnectionLost("on purpose")))
            assert isinstance(waiting.exception(15), ConnectionLost)
            assert client.submit("echo", b"x", max_retries=5).result(15) == b"x"
        finally:
            let_go.set()
            caller.join(10)
