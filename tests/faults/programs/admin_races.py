"""Threads share one admin client while its connection is cut or it is closed; each must get the answer to its question.

Usage: ``python -m tests.faults.programs.admin_races SCENARIO SECONDS SERVER PID``. The scenarios: "share" only asks,
"cut" cuts the connection, "close" closes the client and makes another one.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time

from gearman_pool import GearmanAdminClient
from gearman_pool.errors import ClientClosed, ConnectionLost, ServerError, ServerUnavailable
from gearman_pool.testing import FaultProxy

from .racing import Race

EXPECTED = {"share": (), "cut": (ConnectionLost, ServerUnavailable), "close": (ClientClosed,)}


class Asked:
    """The admin client that the threads share."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.admin = self._make()

    def _make(self) -> GearmanAdminClient:
        return GearmanAdminClient([self._address], reconnect_backoff=(0.005, 0.02))

    def swap(self) -> None:
        """Close it, from two threads at once, and make another one."""
        old, self.admin = self.admin, self._make()
        closers = [threading.Thread(target=old.close) for _ in range(2)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()


def main(scenario: str, seconds: float, address: str, pid: str) -> None:
    """Race, and check each answer."""
    race = Race(seconds, EXPECTED[scenario])
    numbers = itertools.count()
    with FaultProxy(address) as wire:
        asked = Asked(wire.address)
        asked.admin.create_function("known")
        version = asked.admin.get_version()

        def check(what: str, right: bool, answer: object) -> None:
            race.count(what)
            if not right:
                race.unexpected.append(f"{what}: {answer!r}")

        def lines() -> None:
            admin = asked.admin
            answer = admin.get_pid()
            check("get_pid", answer == pid, answer)
            answer = admin.get_version()
            check("get_version", answer == version != pid, answer)

        def blocks() -> None:
            admin = asked.admin
            rows = admin.get_status()
            check("get_status", [row["task"] for row in rows] == ["known"], rows)
            workers = admin.get_workers()
            check("get_workers", bool(workers) and all("ip" in row for row in workers), workers)
            jobs = admin.get_jobs()
            check("get_jobs", jobs == (), jobs)

        def echoes() -> None:
            text = f"echo {next(numbers)}"
            answer = asked.admin._echo(text)
            check("echo", answer == text, answer)

        def refusals() -> None:
            for ask, code in ((asked.admin.cancel_job, "UNKNOWN_JOB"), (asked.admin.drop_function, "not found")):
                try:
                    answer: object = ask("H:nowhere:1")
                except ServerError as error:
                    check("refusal", code in f"{error.code} {error.text}", error)
                else:
                    check("refusal", False, answer)

        def handler() -> None:
            # python-gearman's way in two steps: sent first, and waited for later.
            admin = asked.admin
            text = f"handler {next(numbers)}"
            admin.current_handler.send_echo_request(text)
            answer = admin.wait_until_server_responds(16)
            check("handler", answer == text, answer)

        def cut() -> None:
            time.sleep(random.random() * 0.02)
            wire.cut()
            race.count("cuts")

        def swap() -> None:
            time.sleep(random.random() * 0.02)
            asked.swap()
            race.count("closes")

        others = {"share": [], "cut": [cut], "close": [swap]}[scenario]
        race.run([lines, blocks, echoes, echoes, refusals, handler] * 2 + others)
        asked.admin.close()
    race.finish()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4])
