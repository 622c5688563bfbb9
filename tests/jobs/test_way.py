"""The table of a job's way against what the methods do, and against the threads that call them."""

from __future__ import annotations

import ast
import concurrent.futures
import threading
from pathlib import Path

import pytest

import gearman_pool
from gearman_pool import GearmanClient, GearmanJob, GearmanJobRequest, GearmanWorker, JobFuture
from gearman_pool.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from gearman_pool.errors import InvalidClientState
from gearman_pool.jobs.flight import WAY, Flight
from gearman_pool.jobs.job import JOB_MOVES
from gearman_pool.protocol.client import STATUS
from gearman_pool.protocol.commands import Command
from gearman_pool.testing import EmbeddedServer
from gearman_pool.threads.outcome import FINISHED

from ..support.waiting import wait_until

STEPS = {step.method: step for step in WAY}

#: How each method is called, once for each thing that it can do to the state.
CALLS = {
    "depart": [lambda flight: flight.depart(None)],
    "accept": [lambda flight: flight.accept(None, None, "H:lap:1", 0)],
    "depart_again": [lambda flight: flight.depart_again(None)],
    "update": [lambda flight: flight.update(STATUS, (1, 2), 0)],
    "end": [lambda flight, state=state: flight.end(state) for state in (JOB_COMPLETE, JOB_FAILED, JOB_UNKNOWN)],
    "resolve": [lambda flight: flight.resolve(FINISHED, None, None, 0)],
    "result": [lambda flight: flight.resolve(FINISHED, None, None, 0) and flight.result()],
    "tell_waiters": [lambda flight: flight.tell_waiters([], 0)],
    "call_back": [lambda flight: flight.call_back([])],
}


class Noting(GearmanJobRequest):
    """Notes the states that it goes to."""

    def __init__(self, job):
        self.moves = []
        super().__init__(job, max_attempts=2)

    def __setattr__(self, name, value):
        if name == "state":
            self.moves.append((self.state, value))
        super().__setattr__(name, value)


def flight_in(state):
    """A flight that has come as far as this, with no moves noted."""
    request = Noting(GearmanJob(None, None, "task", "unique", b""))
    flight = JobFuture(request, None, Command.SUBMIT_JOB, b"task", b"", None, False, True, None)
    if state in (JOB_PENDING, JOB_CREATED):
        flight.depart(None)
    if state == JOB_CREATED:
        flight.accept(None, None, "H:lap:1", 0)
    assert request.state == state
    request.moves.clear()
    return flight


def test_every_move_of_a_job_stands_in_the_way_and_no_other():
    moves = {(start, end) for start, ends in JOB_MOVES.items() for end in ends}
    assert {move for step in WAY for move in step.moves} == moves


@pytest.mark.parametrize("step", WAY, ids=[step.method for step in WAY])
def test_a_method_of_the_way_makes_the_moves_that_it_is_said_to_make(step):
    made = set()
    for state in (JOB_UNKNOWN, JOB_PENDING, JOB_CREATED):
        for call in CALLS[step.method]:
            flight = flight_in(state)
            try:
                call(flight)
            except InvalidClientState:  # not from this state: the moves before it do not count
                continue
            made.update(flight.request.moves)
    assert made == set(step.moves)
    assert callable(getattr(Flight, step.method))


def test_nobody_else_moves_a_job():
    movers = set()
    for path in Path(gearman_pool.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(
                isinstance(use, ast.Attribute)
                and (use.attr == "_move" or (use.attr == "state" and isinstance(use.ctx, ast.Store)))
                and ast.unparse(use.value).endswith("request")
                for use in ast.walk(node)
            ):
                movers.add((path.name, node.name))
    assert movers == {("flight.py", step.method) for step in WAY if step.moves}


def test_a_step_follows_steps_of_the_way():
    first, *others = WAY
    assert list(first.after) == ["client.submit()"]
    assert all(set(step.after) <= set(STEPS) for step in others)
    for step in others:
        # What hands the job over is named where another thread goes on, and only there.
        assert {before for before, through in step.after.items() if through} == {
            before for before in step.after if STEPS[before].thread != step.thread
        }


def test_the_threads_of_the_way_are_those_that_call(monkeypatch):
    called = {}
    caller = threading.current_thread()

    def watch(step):
        owner = JobFuture if step.method in vars(JobFuture) else Flight
        method = getattr(owner, step.method)

        def watched(self, *arguments, **options):
            current = threading.current_thread()
            if current is caller:
                thread = "your thread"
            else:
                thread = "I/O thread" if client._engine.io.is_current() else "callback threads"
            called.setdefault(step.method, set()).add(thread)
            return method(self, *arguments, **options)

        monkeypatch.setattr(owner, step.method, watched)

    for step in WAY:
        watch(step)
    going = threading.Event()

    def task(job):
        job.send_status(1, 2)
        assert going.wait(20)
        return job.data

    with EmbeddedServer() as server, GearmanClient([server.address], max_retries=1) as client:
        worker = GearmanWorker([server.address])
        worker.register_task("task", task)
        thread = threading.Thread(target=worker.work)
        thread.start()
        try:
            future = client.submit("task", b"data")
            called_back = threading.Event()
            future.add_done_callback(lambda _: called_back.set())
            wait_until(lambda: future.progress is not None)
            server.kill_connections()
            wait_until(lambda: "depart_again" in called)
            releaser = threading.Thread(target=lambda: wait_until(lambda: future._waiter_list) and going.set())
            releaser.start()
            concurrent.futures.wait([future], 20)
            assert future.result(20) == b"data"
            assert called_back.wait(20)
            releaser.join()
        finally:
            going.set()
            worker.close()
            thread.join()
    assert called == {step.method: {step.thread} for step in WAY}
