"""What a worker of ours does on any server.

What is special to gearmand stands in ``tests/test_worker.py`` and ``tests/engine/worker``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from gearman_pool import GearmanClient, GearmanWorker
from gearman_pool.errors import JobException, JobFailed, ServerError
from gearman_pool.testing import FaultProxy

from ..support.raw import (
    CAN_DO,
    ECHO_REQ,
    ECHO_RES,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_UNIQ,
    NO_JOB,
    NOOP,
    OPTION_REQ,
    OPTION_RES,
    PRE_SLEEP,
    SUBMIT_JOB,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    RawConnection,
    pack,
    pack_response,
)
from ..support.running import running
from ..support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def worker(server):
    return GearmanWorker([server.address])


@pytest.mark.parametrize("concurrency", [1, 8])
def test_sixteen_threads_get_their_own_results_from_a_worker_of_ours(server, client, concurrency):
    worker = GearmanWorker([server.address], concurrency=concurrency)
    worker.register_task("reverse", lambda job: job.data[::-1])
    wrong = []

    def work(thread):
        for number in range(100):
            payload = f"{thread}-{number}-{os.urandom(4).hex()}".encode()
            result = client.submit("reverse", payload).result(50)
            if result != payload[::-1]:
                wrong.append((payload, result))

    with running(worker):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(58)
        assert not wrong
    stats = worker.stats()
    assert (stats.jobs_done, stats.jobs_failed, stats.refused, stats.results_lost) == (16 * 100, 0, 0, 0)


def test_sixty_four_mebibytes_of_zeros_go_through_a_worker_of_ours(client, worker):
    sizes = []

    @worker.task("zeros")
    def zeros(job):
        sizes.append(len(job.data))
        return job.data

    payload = bytes(64 * 1024 * 1024)
    with running(worker):
        assert client.submit("zeros", payload).result(50) == payload
    assert sizes == [len(payload)]


def test_job_and_client_agree_on_what_the_job_is(client, worker):
    seen = []
    worker.register_task("look", lambda job: seen.append((job.task, job.unique, job.handle, job.data)))
    with running(worker):
        future = client.submit("look", b"\0data\0", unique="ünique")
        assert future.result(20) == b""
    assert seen == [("look", "ünique", future.job.handle, b"\0data\0")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b""),
        (b"", b""),
        ("größe", "größe".encode()),
        (bytearray(b"x\0y"), b"x\0y"),
        (memoryview(b"view"), b"view"),
    ],
    ids=["None", "empty", "str", "bytearray", "memoryview"],
)
def test_task_may_return_none_and_anything_like_text_or_bytes(client, worker, value, expected):
    worker.register_task("give", lambda job: value)
    with running(worker):
        assert client.submit("give").result(20) == expected
        assert client.submit_job("give", b"", poll_timeout=20).result == expected


@pytest.mark.parametrize("value", [7, 1.5, ["list"], {"a": 1}, object(), "\ud800"], ids=lambda v: type(v).__name__)
def test_task_that_returns_what_cannot_be_sent_fails_once_and_kills_nobody(server, client, worker, value, caplog):
    # With python-gearman the TypeError ends the worker, the server gives the job to the next one, and so on.
    runs = []

    @worker.task("give")
    def give(job):
        runs.append(job.handle)
        return value

    worker.register_task("fine", lambda job: b"fine")
    caplog.set_level("CRITICAL", "gearman_pool.worker")
    with running(worker):
        with pytest.raises(JobException) as caught:
            client.submit("give").result(20)
        assert b"EncodeError" in caught.value.data
        assert client.submit("fine").result(20) == b"fine"
        wait_until(lambda: server.jobs("give") == 0, message="the job is done")
    assert len(runs) == 1
    assert worker.stats().refused == 0


def test_task_that_raises_sends_one_packet_and_nothing_behind_it(server, worker, caplog):
    # python-gearman sends WORK_FAIL as well, which the server refuses.
    worker.register_task("divide", lambda job: str(1 // int(job.data)))
    caplog.set_level("CRITICAL", "gearman_pool.worker")
    with running(worker), server.connect() as asked, server.connect() as plain:
        assert asked.request(OPTION_REQ, b"exceptions").command == OPTION_RES
        for connection, expected in [(asked, WORK_EXCEPTION), (plain, WORK_FAIL)]:
            packets = connection.run("divide", b"0")
            assert [packet.command for packet in packets] == [expected]
            assert connection.call("divide", b"1") == b"1"
        assert asked.run("divide", b"0")[0].arguments(2)[1].startswith(b"ZeroDivisionError")
    stats = worker.stats()
    assert stats.refused == 0
    assert (stats.jobs_failed, stats.jobs_done) == (3, 2)


def test_tasks_may_register_and_take_back_tasks_and_the_running_job_runs_once(server, client, worker):
    # python-gearman sends RESET_ABILITIES for each of these, and the server gives the running job away.
    runs = Counter()

    @worker.task("change")
    def change(job):
        runs["change"] += 1
        worker.register_task("made", lambda job: b"made here")
        worker.register_task(b"bytes", lambda job: b"by bytes")
        worker.unregister_task("old")
        worker.set_client_id("renamed")
        return b"changed"

    worker.register_task("old", lambda job: b"old")
    other = GearmanWorker([server.address])
    other.register_task("change", lambda job: runs.update(["given away"]))
    with running(worker):
        future = client.submit("change")
        assert future.result(20) == b"changed"
        assert client.submit("made").result(20) == b"made here"
        assert client.submit("bytes").result(20) == b"by bytes"
        wait_until(lambda: server.workers("old") == 0, message="the old task is taken back")
        wait_until(lambda: "renamed" in server.text("workers"), message="the new name")
        with running(other):
            assert client.status(future).known is False
    assert runs == {"change": 1}
    assert worker.stats().refused == 0
    assert set(worker.worker_abilities) == {"change", "made", "bytes"}


def test_task_may_take_itself_back(server, client, worker):
    runs = []

    @worker.task("once")
    def once(job):
        runs.append(job.handle)
        worker.unregister_task("once")
        # What was sent before this is known to the server when this is: a CANT_DO now would give the job away.
        worker.register_task("marker", lambda job: b"")
        wait_until(lambda: server.workers("marker") == 1, message="the server knows")
        assert server.workers("once") == 1
        return b"done"

    with running(worker):
        assert client.submit("once").result(20) == b"done"
        wait_until(lambda: server.workers("once") == 0, message="it is taken back")
        again = client.submit("once")
        wait_until(lambda: server.jobs("once") == 1, message="the second waits")
        assert not again.done()
        worker.register_task("once", lambda job: b"another")
        assert again.result(20) == b"another"
    assert len(runs) == 1


def test_job_that_was_on_its_way_when_its_task_was_taken_back_and_registered_again_runs_once(server, client):
    # Both servers give it away with CANT_DO, so that the one on its way is a second copy.
    runs = []
    with FaultProxy(server.address) as wire:
        worker = GearmanWorker([wire.address])
        worker.register_task("task", lambda job: runs.append(job.handle))
        worker.register_task("other", lambda job: b"other")
        with running(worker):
            wire.delay(0.3, "to_client")
            future = client.submit("task")
            wait_until(lambda: server.running_jobs("task") == 1, message="the job is on its way to the worker")
            worker.unregister_task("task")
            worker.register_task("task", lambda job: runs.append(job.handle))
            assert future.result(20) == b""
            # The worker has had everything that was sent to it before this.
            assert client.submit("other").result(20) == b"other"
            assert len(runs) == 1
            assert worker.stats().refused == 0


@pytest.mark.parametrize("concurrency", [1, 2])
def test_task_that_is_taken_back_between_its_end_and_the_result_runs_once(server, client, concurrency):
    runs = []
    worker = GearmanWorker([server.address], concurrency=concurrency)
    worker.register_task("once", lambda job: runs.append(job.handle))
    ended, go_on = threading.Event(), threading.Event()
    with running(worker):
        release = worker._runs.engine.held.release

        def release_late(assignment, final):
            # The task has returned, and what it returned is not sent yet.
            ended.set()
            assert go_on.wait(20)
            release(assignment, final)

        worker._runs.engine.held.release = release_late
        future = client.submit("once", b"data")
        assert ended.wait(20)
        worker.unregister_task("once")
        # What was sent before this is known to the server when this is: a CANT_DO now would give the job away.
        worker.register_task("marker", lambda job: b"")
        wait_until(lambda: server.workers("marker") == 1, message="the server knows")
        assert server.workers("once") == 1
        go_on.set()
        assert future.result(20) == b""
        wait_until(lambda: server.workers("once") == 0, message="it is taken back")
        assert worker.stats().refused == 0
    assert len(runs) == 1


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_task_that_is_registered_late_gets_the_jobs_that_wait_for_it_at_once(server, client, timeout):
    # No server wakes a worker for jobs that were there before its CAN_DO.
    future = client.submit("late", b"data")
    wait_until(lambda: future.job.handle, message="acceptance")
    worker = GearmanWorker([server.address], poll_interval=600.0)
    worker.register_task("early", lambda job: b"")
    with running(worker):
        assert client.submit("early").result(20) == b""
        worker.register_task("late", lambda job: job.data, timeout=timeout)
        assert future.result(20) == b"data"


def test_updates_come_in_order_before_the_result_to_every_client(server, client, worker):
    go_on = threading.Event()

    @worker.task("stream")
    def stream(job):
        assert go_on.wait(30)
        for number in range(100):
            job.send_data(b"%d" % number)
            job.send_status(number + 1, 100)
        job.send_warning(b"nearly")
        return b"end"

    with running(worker), server.connect() as other:
        future = client.submit("stream", unique="both")
        wait_until(lambda: future.job.handle, message="acceptance")
        other.submit("stream", b"", b"both", SUBMIT_JOB)
        go_on.set()
        updates = list(future.updates(30))
        packets = [other.receive() for _ in range(202)]
    assert [u.data for u in updates if u.kind == "data"] == [b"%d" % number for number in range(100)]
    assert [u.numerator for u in updates if u.kind == "status"] == list(range(1, 101))
    assert [u.data for u in updates if u.kind == "warning"] == [b"nearly"]
    assert future.result(10) == b"end"
    data = [packet.arguments(2)[1] for packet in packets if packet.command == WORK_DATA]
    assert data == [b"%d" % number for number in range(100)]
    assert packets[-1].command == WORK_COMPLETE


def test_cancelled_job_that_runs_on_disturbs_nobody(client, admin, worker):
    go_on = threading.Event()

    @worker.task("slow")
    def slow(job):
        assert go_on.wait(30)
        job.send_data(b"late")
        return b"late"

    worker.register_task("fine", lambda job: b"fine")
    with running(worker):
        future = client.submit("slow")
        wait_until(lambda: future.job.handle and client.status(future).running, message="it runs")
        admin.cancel_job(future.job.handle)
        with pytest.raises(JobFailed):
            future.result(20)
        go_on.set()
        assert client.submit("fine").result(20) == b"fine"


def test_refusals_between_the_answers_to_questions_for_jobs_disturb_nobody(server, client):
    # A result for a job that is not the worker's own any more: the refusal is no answer to a question. Perl's worker
    # dies of it.
    foreign = [pack(command, b"H:nowhere:1", b"1") for command in (WORK_COMPLETE, WORK_DATA, WORK_EXCEPTION)]
    foreign.append(pack(WORK_FAIL, b"H:nowhere:1"))
    with FaultProxy(server.address) as wire:
        worker = GearmanWorker([wire.address], concurrency=3)
        worker.register_task("echo", lambda job: job.data)
        with running(worker):
            for turn in range(25):
                futures = [client.submit("echo", b"%d %d" % (turn, number)) for number in range(8)]
                assert wire.inject(b"".join(foreign), "to_server") == 1
                assert [future.result(20) for future in futures] == [b"%d %d" % (turn, n) for n in range(8)]
            wait_until(lambda: worker.stats().refused == 100, message="every refusal has come")
            stats = worker.stats()
            assert (stats.jobs_done, stats.connections_opened, stats.connections_lost) == (200, 1, 0)


def _order_of_tasks(server, client) -> list[str]:
    """Have a worker of three tasks take the jobs that wait for it; return the tasks in the order in which it did."""
    taken = []
    worker = GearmanWorker([server.address], max_jobs=9)
    for task in ("one", "two", "three"):
        worker.register_task(task, lambda job: taken.append(job.task))
    for task in ("one", "two", "three"):
        for number in range(3):
            client.submit_background(task, b"%d" % number).result(10)
    worker.work(20)
    return taken


def test_worker_of_several_tasks_gets_them_in_the_servers_order(server, client):
    taken = _order_of_tasks(server, client)
    if server.takes_functions_in_turn:
        assert [sorted(taken[start : start + 3]) for start in (0, 3, 6)] == [["one", "three", "two"]] * 3
    else:
        # What is registered last starves the others as long as there are jobs of it.
        assert taken == ["three"] * 3 + ["two"] * 3 + ["one"] * 3


def test_gearmand_with_round_robin_gives_a_worker_jobs_of_all_its_tasks_in_turn(gearmands):
    server = gearmands(arguments=("--round-robin",))
    with GearmanClient([server.address]) as client:
        taken = _order_of_tasks(server, client)
    assert [sorted(taken[start : start + 3]) for start in (0, 3, 6)] == [["one", "three", "two"]] * 3


def test_function_with_a_worker_cannot_be_dropped_until_the_worker_has_gone(server, admin, worker):
    worker.register_task("task", lambda job: b"")
    with running(worker):
        with pytest.raises(ServerError, match="still connected workers"):
            admin.drop_function("task")
        (row,) = [row for row in admin.get_workers() if "task" in row["tasks"]]
        assert row["client_id"] == "-"
    wait_until(lambda: server.workers("task") == 0, message="the worker has gone")
    assert admin.drop_function("task") == "OK"


def test_delayed_job_runs_when_it_is_due_whether_or_not_the_server_wakes_its_worker(client, worker):
    ran = []
    worker.register_task("later", lambda job: ran.append(time.time()))
    with running(worker):
        due = time.time() + 1.2
        client.submit_background("later", at=due).result(20)
        wait_until(lambda: ran, timeout=20, message="it runs")
    assert ran[0] >= due


def test_one_job_that_wakes_many_workers_runs_once_and_the_others_sleep_on(server, client):
    runs = []
    workers = [GearmanWorker([server.address], poll_interval=60.0, health_check_interval=60.0) for _ in range(5)]
    for worker in workers:
        worker.register_task("rare", lambda job: runs.append(job.handle))

    def nested(left):
        if not left:
            for number in range(20):
                assert client.submit("rare", b"%d" % number).result(20) == b""
            return
        with running(left[0]):
            nested(left[1:])

    nested(workers)
    assert len(runs) == len(set(runs)) == 20
    # A NOOP, a NO_JOB and a PRE_SLEEP for each job, at the most, and what the start and the end take.
    assert all(worker.stats().wakeups < 20 * 4 + 40 for worker in workers)


def test_server_that_restarts_is_served_again_with_all_abilities_and_the_name(server, worker):
    worker = GearmanWorker([server.address], client_id="keeps its name", reconnect_backoff=(0.02, 0.2))
    worker.register_task("one", lambda job: b"1")
    worker.register_task("two", lambda job: b"2")
    with running(worker), GearmanClient([server.address], max_retries=3) as client:
        for _ in range(3):
            server.restart()
            wait_until(lambda: server.workers("one") == server.workers("two") == 1, timeout=20, message="it is back")
            assert client.submit("two").result(20) == b"2"
            wait_until(lambda: "keeps its name" in server.text("workers"), message="its name")
        assert worker.stats().connections_lost == 3


JOBS_WITHOUT_END = """
import gc, os, sys
from gearman_pool import GearmanWorker

def resident():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

# Of each the least of several: an allocator gives pages back when it likes, without the GIL megabytes later.
first, last = [], []
worker = GearmanWorker([sys.argv[1]], max_jobs=20_000)
count = 0

@worker.task("task")
def task(job):
    global count
    count += 1
    if count % 1_000 == 0 and not 9_000 < count < 16_000 and count >= 4_000:
        (first if count <= 9_000 else last).append((resident(), sys.getallocatedblocks()))
    return job.data

worker.run()
print(*(min(after) - min(before) for before, after in zip(zip(*first), zip(*last))))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_twenty_thousand_jobs_leave_nothing_behind_in_the_worker(server, client):
    for _ in range(20):
        futures = [client.submit_background("task", b"x" * 20) for _ in range(1000)]
        for future in futures:
            future.result(30)
    program = subprocess.run(
        [sys.executable, "-W", "error", "-c", JOBS_WITHOUT_END, server.address],
        capture_output=True,
        text=True,
        timeout=55,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (program.returncode, program.stderr) == (0, "")
    grown, blocks = map(int, program.stdout.split())
    print(f"measured: {grown / 1024:.0f} KiB and {blocks} blocks more after another 12,000 jobs")
    # One in ten jobs that leaves an object behind would be 1,200 blocks.
    assert blocks < 500
    # 80 bytes for each job would be as much.
    assert grown < 1024 * 1024
    assert server.jobs("task") == 0


def test_answers_that_come_together_put_the_worker_to_sleep_once():
    # Each PRE_SLEEP too many is answered with a NOOP as soon as there is a job, and makes another round of questions:
    # with eight slots a job took 40 ms.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        worker = GearmanWorker([address], concurrency=8, poll_interval=600.0, health_check_interval=600.0)
        may_end = threading.Semaphore(0)
        worker.register_task("task", lambda job: job.data if may_end.acquire(timeout=20) else b"")
        with running(worker, wait_ready=False), RawConnection.adopt(listener.accept()[0]) as connection:

            def read_until_asked(count):
                """The commands that come before so many questions for a job have come."""
                commands = []
                while commands.count(GRAB_JOB_UNIQ) < count:
                    packet = connection.receive()
                    if packet.command == ECHO_REQ:
                        connection.sock.sendall(pack_response(ECHO_RES, packet.body))
                    else:
                        commands.append(packet.command)
                return [command for command in commands if command not in (CAN_DO, GRAB_JOB_UNIQ)]

            assert read_until_asked(8) == []
            for _ in range(5):
                # Not while questions are on their way, either: the answer to the last one decides.
                connection.sock.sendall(pack_response(NO_JOB) * 3)
                connection.sock.sendall(pack_response(NO_JOB) * 5)
                connection.expect(PRE_SLEEP)
                connection.sock.sendall(pack_response(NOOP))
                assert read_until_asked(8) == []
                # A job among the answers changes nothing in that.
                job = pack_response(JOB_ASSIGN_UNIQ, b"H:here:1", b"task", b"unique", b"data")
                connection.sock.sendall(job + pack_response(NO_JOB) * 7)
                connection.expect(PRE_SLEEP)
                may_end.release()
                connection.expect(WORK_COMPLETE)
                connection.sock.sendall(pack_response(NOOP))
                assert read_until_asked(8) == []
