"""How many questions for jobs a worker asks, whom, and what becomes of those that are answered late.

The test plays the server, because no real one can be told when to answer.
"""

from __future__ import annotations

import queue
import threading

import pytest

from gearman_pool import GearmanWorker
from gearman_pool.engine.worker import slots
from gearman_pool.engine.worker.held_jobs import Slot

from ..support.raw import (
    CAN_DO,
    ECHO_REQ,
    ECHO_RES,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_UNIQ,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    SET_CLIENT_ID,
    WORK_COMPLETE,
    Packet,
    RawConnection,
    pack_response,
)
from ..support.running import running
from ..support.scripted import ScriptedServer
from ..support.waiting import wait_until


class PlayedServer(ScriptedServer):
    """Answers health checks, and shows the test one packet after the other, those included."""

    def __init__(self) -> None:
        self._packets: queue.SimpleQueue[Packet | None] = queue.SimpleQueue()
        self._peer: RawConnection | None = None
        #: Cleared by a test that wants no health check answered yet.
        self.answers: threading.Event = threading.Event()
        self.answers.set()
        super().__init__(self._take, greets=False)

    def _take(self, connection: RawConnection, packet: Packet) -> None:
        self._peer = connection
        if packet.command == ECHO_REQ:
            assert self.answers.wait(10)
            connection.sock.sendall(pack_response(ECHO_RES, packet.body))
        self._packets.put(packet)

    def _run(self, connection: RawConnection) -> None:
        super()._run(connection)
        self._packets.put(None)

    def say(self, command: int, *arguments: bytes) -> None:
        """Send a packet to the worker."""
        assert self._peer is not None
        self._peer.sock.sendall(pack_response(command, *arguments))

    def assign(self, number: int) -> None:
        """Give the worker a job."""
        self.say(JOB_ASSIGN_UNIQ, b"H:here:%d" % number, b"task", b"", b"")

    def next(self, *passing: int) -> int:
        """The command of the next packet that is none of these; -1 if the worker has closed the connection."""
        while True:
            try:
                packet = self._packets.get(timeout=10)
            except queue.Empty:
                raise AssertionError("the worker says nothing more") from None
            if packet is None:
                return -1
            if packet.command not in passing:
                return packet.command

    def expect(self, command: int) -> None:
        """The next packet, but for health checks and CAN_DO, is this one."""
        assert self.next(ECHO_REQ, CAN_DO) == command


def sent_until_now(worker: GearmanWorker, *servers: PlayedServer) -> list[int]:
    """What the worker sends because of what it has been told so far, without health checks.

    Thrice, because what it is told may come to its notice only after it marks the first place, and what it does about
    that may be sent only after it marks the second.
    """
    commands = []
    for _ in range(3):
        worker.set_client_id("marks the place")
        for server in servers:
            while (command := server.next(ECHO_REQ, CAN_DO)) != SET_CLIENT_ID:
                commands.append(command)
    return commands


def replaced(worker: GearmanWorker) -> bool:
    """Whether a question was not answered in time, and its slot is used elsewhere."""
    engine = worker._runs.engine
    tokens = [token for connection in engine.pool.connections for token in connection.unanswered()]
    return any(isinstance(token, Slot) and token.orphan for token in tokens)


@pytest.fixture
def played():
    with PlayedServer() as server:
        yield server


def quiet(address: str, **options) -> GearmanWorker:
    """A worker that asks again only if it is told to."""
    return GearmanWorker([address], **{"poll_interval": 600.0, "health_check_interval": 600.0, **options})


# ---- as many as there are slots, and as jobs may be taken ----------------------------------------------------------


def test_no_more_jobs_are_asked_for_than_max_jobs_has_left(played):
    worker = quiet(played.address, concurrency=8, max_jobs=3)
    runs = []
    worker.register_task("task", lambda job: runs.append(job.handle))
    with running(worker, wait_ready=False):
        played.expect(GRAB_JOB_UNIQ)
        assert sent_until_now(worker, played) == [GRAB_JOB_UNIQ] * 2
        played.assign(1)
        played.expect(WORK_COMPLETE)
        # Two are left, and two questions are on their way.
        assert sent_until_now(worker, played) == []
        played.say(NO_JOB)
        played.say(NO_JOB)
        played.expect(PRE_SLEEP)
        played.say(NOOP)
        # Both were answered without a job, so they are asked once more.
        played.expect(GRAB_JOB_UNIQ)
        assert sent_until_now(worker, played) == [GRAB_JOB_UNIQ]
        played.assign(2)
        played.assign(3)
        played.expect(WORK_COMPLETE)
        played.expect(WORK_COMPLETE)
        wait_until(lambda: worker.stats().jobs_done == 3)
        assert played.next(ECHO_REQ) == -1
    assert sorted(runs) == ["H:here:1", "H:here:2", "H:here:3"]


def test_late_answer_without_a_job_gives_back_no_second_slot(played, monkeypatch):
    """A slot whose question is not answered is replaced; when the answer comes after all, one is enough."""
    worker = quiet(played.address, poll_interval=0.1)
    begun, go_on = threading.Event(), threading.Event()

    @worker.task
    def task(job):
        begun.set()
        assert go_on.wait(20)

    with running(worker, wait_ready=False), PlayedServer() as other:
        try:
            played.expect(GRAB_JOB_UNIQ)
            other.answers.clear()
            worker.add_connection(other.address)
            wait_until(lambda: replaced(worker), message="the slot is replaced")
            # The other server has all the time it needs, however busy the machine is.
            monkeypatch.setattr(slots, "_GRAB_PATIENCE", 60.0)
            other.answers.set()
            other.expect(GRAB_JOB_UNIQ)
            other.assign(1)
            assert begun.wait(10)
            # The worker's only slot is taken: whatever it is told now, it has none to ask with.
            played.say(NO_JOB)
            played.expect(PRE_SLEEP)
            played.say(NOOP)
            assert sent_until_now(worker, played, other) == []
        finally:
            go_on.set()


def test_late_job_is_run_and_its_slot_is_not_used_again(played):
    worker = quiet(played.address, poll_interval=0.1)
    asked, go_on = threading.Event(), threading.Event()

    @worker.task
    def task(job):
        assert go_on.wait(20)

    def nothing(connection: RawConnection, packet: Packet) -> None:
        if packet.command == GRAB_JOB_UNIQ:
            asked.set()
            connection.sock.sendall(pack_response(NO_JOB))

    with running(worker, wait_ready=False), ScriptedServer(nothing) as other:
        try:
            played.expect(GRAB_JOB_UNIQ)
            worker.add_connection(other.address)
            assert asked.wait(10)
            # The slot was replaced. Its question brings a job after all, and the other slot asks for more.
            played.assign(1)
            played.expect(GRAB_JOB_UNIQ)
            played.assign(2)
            go_on.set()
            # From now on each question brings a job. Sooner or later a job's end leaves the worker, which has one
            # slot, with nothing at all; with two slots in use it always has the other one's question or job.
            in_hand = 2
            for number in range(1000):
                if played.next(ECHO_REQ, CAN_DO, PRE_SLEEP) == WORK_COMPLETE:
                    in_hand -= 1
                else:
                    in_hand += 1
                    played.assign(3 + number)
                if not in_hand:
                    break
            assert not in_hand
            played.expect(GRAB_JOB_UNIQ)
            played.say(NO_JOB)
        finally:
            go_on.set()


# ---- while there are no jobs ---------------------------------------------------------------------------------------


def test_server_that_sleeps_is_asked_each_poll_interval(played):
    """gearmand before 2.0 wakes no worker for a job that falls due."""
    worker = quiet(played.address, poll_interval=0.1)
    worker.register_task("task", lambda job: None)
    with running(worker, wait_ready=False):
        for _ in range(3):
            played.expect(GRAB_JOB_UNIQ)
            played.say(NO_JOB)
            played.expect(PRE_SLEEP)


# ---- the end -------------------------------------------------------------------------------------------------------


def test_worker_that_stops_waits_for_answers_and_for_the_server_to_have_the_result(played):
    worker = quiet(played.address)
    worker.register_task("task", lambda job: b"result")
    with running(worker, wait_ready=False):
        played.expect(GRAB_JOB_UNIQ)
        worker.stop()
        # The worker is stopping, and has no job; but its question may still be answered with one.
        assert sent_until_now(worker, played) == []
        played.assign(1)
        played.expect(WORK_COMPLETE)
        # Before it goes it asks whether the server has that: closing with something unread would destroy it.
        assert played.next() == ECHO_REQ
        assert played.next() == -1
