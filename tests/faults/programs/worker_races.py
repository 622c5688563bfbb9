"""A worker runs jobs while other threads do to it whatever can be done, and each job must run exactly once.

Usage: ``python -m tests.faults.programs.worker_races SCENARIO CONCURRENCY SECONDS SERVER...``. The scenarios: "tasks"
takes tasks back and registers them again, "stop" stops and closes the worker, which is started again, "all" does both.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from collections import Counter

from gearman_pool import GearmanClient, GearmanWorker

from .racing import Race

TASKS = [f"task{number}" for number in range(4)]


def main(scenario: str, concurrency: int, seconds: float, servers: list[str]) -> None:
    """Race, and check what came of it."""
    worker = GearmanWorker(servers, concurrency=concurrency, client_id="racer")
    client = GearmanClient(servers)
    race = Race(seconds)
    runs: list[bytes] = []  # append is atomic
    bad: Counter[str] = Counter()
    payloads = itertools.count()
    ended = threading.Event()

    def task(job):
        runs.append(job.data)
        if len(runs) % 8 == 0:
            job.send_status(1, 2)
        return b"result of " + job.data

    def work() -> None:
        while not ended.is_set():
            worker.work(0.5)
            stats = worker.stats()
            bad["refused"] += stats.refused
            bad["results lost"] += stats.results_lost
            race.count("ends of work()")

    def submit() -> None:
        payload = b"%d" % next(payloads)
        future = client.submit(random.choice(TASKS), payload)
        if future.result(20) != b"result of " + payload:
            race.unexpected.append(f"the result of {payload!r} is {future.result()!r}")
        race.count("jobs")

    def tasks() -> None:
        name = random.choice(TASKS[1:])
        worker.unregister_task(name)
        time.sleep(random.choice((0, 0, 0.001, 0.005)))
        worker.register_task(name, task)
        race.count("tasks taken back")
        time.sleep(0.002)

    def stop() -> None:
        time.sleep(random.random() * 0.05)
        random.choice((worker.stop, worker.close))()
        race.count("stops")

    def look() -> None:
        repr(worker), worker.stats(), worker.worker_abilities, worker.has_job_lock(), worker.stopping
        worker.set_client_id(f"racer-{next(payloads)}")
        time.sleep(0.005)
        race.count("looks")

    for name in TASKS:
        worker.register_task(name, task)
    loop = threading.Thread(target=work, daemon=True)
    loop.start()
    # One thread takes tasks back: two would take back what the other just has.
    others = {"tasks": [tasks], "stop": [stop, stop], "all": [tasks, stop]}[scenario]
    race.run([submit] * 6 + [look, *others])
    ended.set()
    worker.stop()
    race.join([loop])
    client.close(5)
    twice = [payload for payload, count in Counter(runs).items() if count > 1]
    race.counts["runs"] = len(runs)
    race.finish()
    assert not twice, f"jobs that ran more than once: {twice[:10]}"
    assert len(runs) == race.counts["jobs"]
    assert not +bad, bad


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
