"""Our worker with clients of others, our client with workers of others, and both clients on one job."""

from __future__ import annotations

import json
import subprocess

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker
from gearman_pool.errors import JobException, JobFailed

from ..support.processes import find_program
from ..support.running import running
from ..support.waiting import wait_until
from .foreign import CLIENTS, WORKERS, ForeignWorker, start_client, tool


@pytest.fixture
def client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        yield client
        client.close(0)


@pytest.fixture
def worker(gearmand):
    """Our worker of ``gearmand``, with the tasks that the peers' clients ask for."""
    worker = GearmanWorker([gearmand.address], concurrency=2)
    worker.register_task("reverse", lambda job: job.data[::-1])
    worker.register_task("fail", lambda worker, job: worker.send_job_failure(job))

    @worker.task("raise")
    def refuse(job):
        raise ValueError(job.data.decode())

    @worker.task("stream")
    def stream(job):
        count = int(job.data)
        for number in range(1, count + 1):
            job.send_data(b"part %d" % number)
            job.send_status(number, count)
        job.send_warning(b"last")
        return b"done"

    with running(worker):
        yield worker


def finish(process):
    """What a peer's client has told."""
    try:
        output, errors = process.communicate(timeout=40)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, errors) == (0, ""), f"{output}\n{errors}"
    return json.loads(output)


# ---- their clients -------------------------------------------------------------------------------------------------

#: What only some of them can do or tell: gear keeps data, warnings and result in one list.
EXPECTED = {
    "reverse": "!dlroW olleH",
    "high": "hgih",
    "data": ["part 1", "part 2", "part 3"],
    "status": [[1, 3], [2, 3], [3, 3]],
    "warning": ["last"],
    "complete": ["done"],
    "exception": "ValueError: why",
    "failed": 1,
    "known": True,
    "slow": "shared",
}
DIFFERENT = {"gear": {"data": ["part 1", "part 2", "part 3", "last", "done"]}}


@pytest.mark.parametrize("peer", CLIENTS)
def test_clients_of_others_get_all_that_our_worker_sends_and_share_a_job_with_our_client(
    gearmand, client, worker, raw_workers, peer, caplog
):
    slow = raw_workers(gearmand, "slow")
    ours = client.submit("slow", b"same", unique="meeting")
    job = slow.next_job()
    process = start_client(peer, gearmand, "meeting")
    try:
        # Its last job joins ours, which is running since.
        wait_until(
            lambda: process.poll() is not None or client.status(unique="meeting").waiting_clients == 2,
            message="both wait",
            timeout=30,
        )
        job.complete(b"shared")
        seen = finish(process)
    finally:
        process.kill()
        process.communicate()
    assert ours.result(10) == b"shared"
    assert len(slow.taken) == 1
    expected = {**EXPECTED, **DIFFERENT.get(peer, {})}
    handle = seen.pop("handle")
    assert seen == {name: expected[name] for name in seen}
    assert {"reverse", "high", "data", "failed", "slow"} <= set(seen)
    # Its background job is with the server, under the handle that it was told.
    rows = gearmand.text("show jobs").splitlines()
    assert [row.split("\t")[0] for row in rows] == [handle]


@pytest.mark.parametrize(
    ("arguments", "data", "expected"),
    [
        (["-f", "reverse"], b"Hello\n", (0, b"\nolleH")),
        (["-f", "reverse", "-n"], b"ab\ncd\n", (0, b"\nba\ndc")),
        (["-f", "reverse", "-I", "-u", "unique"], b"high", (0, b"hgih")),
        (["-f", "fail"], b"x", (1, b"")),
        (["-b", "-f", "reverse"], b"background", (0, b"")),
    ],
    ids=["one", "lines", "high", "fail", "background"],
)
def test_libgearmans_tool_works_with_our_worker(gearmand, worker, arguments, data, expected):
    code, output = tool(gearmand, *arguments, data=data)
    assert (code, output) == expected
    wait_until(lambda: not gearmand.jobs("reverse"), message="all jobs are done")


def test_libgearmans_tool_prints_what_our_worker_sends(gearmand, worker):
    code, output = tool(gearmand, "-f", "stream", data=b"2")
    assert code == 0
    assert output.startswith(b"part 1part 2done")
    assert b"50% Complete" in output


def test_worker_can_be_made_to_fail_in_a_way_that_libgearmans_tool_understands(gearmand):
    # WORK_EXCEPTION reaches a client that did not ask for it as WORK_FAIL with a NUL behind the handle, and the tool
    # waits for ever, whoever's worker sent it.
    class PlainFailures(GearmanWorker):
        def on_job_exception(self, current_job, exc_info):
            self.send_job_failure(current_job)
            return False

    worker = PlainFailures([gearmand.address])
    worker.register_task("divide", lambda job: 1 // 0)
    with running(worker):
        assert tool(gearmand, "-f", "divide", data=b"x") == (1, b"")


def test_libgearmans_tool_and_our_client_share_one_job(gearmand, client, raw_workers):
    worker = raw_workers(gearmand, "slow")
    future = client.submit("slow", b"ours", unique="meeting")
    job = worker.next_job()
    program = find_program("gearman")
    if program is None:
        pytest.skip("the gearman tool is missing (Debian's gearman-tools)")
    command = [program, "-h", gearmand.host, "-p", str(gearmand.port), "-f", "slow", "-u", "meeting", "theirs"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            wait_until(lambda: client.status(unique="meeting").waiting_clients == 2, message="both wait")
            assert job.data == b"ours"
            job.complete(b"shared")
            output, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert output == b"shared"
    assert future.result(10) == b"shared"
    assert len(worker.taken) == 1


# ---- their workers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", WORKERS)
def test_workers_of_others_do_our_clients_jobs(gearmand, client, peer):
    with ForeignWorker(peer, gearmand):
        payloads = [b"%d \0 \xff" % number for number in range(20)]
        futures = [client.submit("reverse", payload) for payload in payloads]
        assert [future.result(20) for future in futures] == [payload[::-1] for payload in payloads]
        with pytest.raises(JobFailed):
            client.submit("fail").result(20)
        future = client.submit("stream", b"3")
        updates = list(future.updates(20))
        assert [(u.numerator, u.denominator) for u in updates if u.kind == "status"] == [(1, 3), (2, 3), (3, 3)]
        # Perl's workers can send no data.
        parts = [] if peer == "perl" else [b"part 1", b"part 2", b"part 3"]
        assert [u.data for u in updates if u.kind == "data"] == parts
        assert future.result(20) == b"done"
        assert client.submit_job("reverse", "old", poll_timeout=20).result == b"dlo"


def test_phps_worker_sends_everything_that_there_is(client, php_worker):
    assert client.submit("upper", b"a\xff\0b").result(20) == b"A\xff\0B"
    with pytest.raises(JobFailed) as failed:
        client.submit("fail").result(20)
    assert type(failed.value) is JobFailed
    with pytest.raises(JobException) as caught:
        client.submit("exception", b"why \0 not").result(20)
    assert caught.value.data == b"why \0 not"
    assert "why" not in str(caught.value)
    future = client.submit("stream", b"3")
    updates = list(future.updates(20))
    assert [u.data for u in updates if u.kind == "data"] == [b"part 1", b"part 2", b"part 3"]
    assert [(u.numerator, u.denominator) for u in updates if u.kind == "status"] == [(1, 3), (2, 3), (3, 3)]
    assert [u.data for u in updates if u.kind == "warning"] == [b"last"]
    assert future.result() == b"done"
    assert future.progress == 1.0
    assert not future.request.data_updates


def test_libgearmans_tool_is_a_worker_that_succeeds_and_fails(gearmand, client, tool_workers):
    tool_workers(gearmand, "rev", "rev")
    tool_workers(gearmand, "false", "false")
    assert client.submit("rev", b"abc").result(20).strip() == b"cba"
    with pytest.raises(JobFailed):
        client.submit("false", b"").result(20)
    assert client.submit_job("false", b"x", poll_timeout=20).state == "FAILED"


def test_workers_of_all_kinds_share_the_jobs_of_one_task(gearmand, client, worker, php_worker, c_worker):
    before = [row.split("\t")[3] for row in gearmand.text("status").splitlines() if row.startswith("reverse\t")]
    assert before == ["3"]
    payloads = [b"%d" % number for number in range(1000)]
    assert list(client.map("reverse", payloads)) == [payload[::-1] for payload in payloads]


# ---- gearadmin -----------------------------------------------------------------------------------------------------


@pytest.fixture
def gearadmin(gearmand):
    """Runs libgearman's ``gearadmin`` and returns what it prints, without the line "." at its end."""
    program = find_program("gearadmin")
    if program is None:
        pytest.skip("gearadmin is missing (Debian's gearman-tools)")

    def run(*arguments):
        command = [program, "-h", gearmand.host, "-p", str(gearmand.port), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return [line for line in done.stdout.splitlines() if line not in (".", "")]

    return run


def test_gearadmin_and_our_admin_client_see_the_same(gearmand, client, gearadmin, worker, raw_worker):
    client.submit("raw")
    raw_worker.next_job()
    references = [client.submit_background("later", unique=unique).result(10) for unique in ("one", "two")]
    with GearmanAdminClient([gearmand.address]) as admin:
        theirs = [tuple(line.split("\t")) for line in gearadmin("--status")]
        assert theirs == [tuple(str(value) for value in row.values()) for row in admin.get_status()]
        theirs = [tuple(line.split("\t")) for line in gearadmin("--priority-status")]
        assert theirs == [tuple(str(value) for value in row.values()) for row in admin.get_priority_status()]
        theirs = sorted(line.split("\t")[0] for line in gearadmin("--show-jobs"))
        assert theirs == sorted(row["handle"] for row in admin.get_jobs())
        assert set(gearadmin("--show-unique-jobs")) == {row["unique"] for row in admin.get_unique_jobs()}
        # A gearmand that was built outside its repository has none, and the program's empty line is left out.
        assert gearadmin("--server-version") == [version for version in [admin.get_version()] if version]
        assert gearadmin("--server-verbose") == [admin.get_verbose()]
        assert gearadmin("--getpid") == [admin.get_pid()]
        ids = {line.split()[2] for line in gearadmin("--workers")}
        assert {row["client_id"] for row in admin.get_workers()} <= ids
        # What one changes the other sees.
        gearadmin("--create-function", "made")
        assert "made" in {row["task"] for row in admin.get_status()}
        admin.drop_function("made")
        assert not any(line.startswith("made\t") for line in gearadmin("--status"))
        gearadmin("--cancel-job", references[0].handle)
        ignored = {row["handle"]: row["ignored"] for row in admin.get_jobs()}
        assert ignored.get(references[0].handle) == (1 if gearmand.keeps_unwanted_jobs else None)
