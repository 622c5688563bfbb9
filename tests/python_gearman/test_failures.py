"""What python-gearman's interface does where things go wrong, and where programs build on it."""

from __future__ import annotations

import collections
import functools
import threading

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker
from gearman_pool.errors import (
    ClientSaturated,
    ConnectionLost,
    EncodeError,
    ExceededConnectionAttempts,
    InvalidClientState,
    QueueFull,
    ServerError,
    ServerUnavailable,
)
from gearman_pool.future import JobFuture
from gearman_pool.job import GearmanJob, GearmanJobRequest
from gearman_pool.python_gearman import GearmanConnection
from gearman_pool.testing import EagerClient
from tests.support.running import running
from tests.support.scripted import SilentServer
from tests.support.waiting import wait_until


@pytest.fixture
def client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        yield client
        client.close(0)


def status_request(client, handle):
    """A request made by hand, as job_types.rst makes it, for a job of the first server."""
    request = GearmanJobRequest(GearmanJob(client.connection_list[0], handle, None, None, None))
    request.state = "CREATED"
    return request


def request_for(task, data=b"", **options):
    return GearmanJobRequest(GearmanJob(None, None, task, f"unique of {task}", data), **options)


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"task": "a", "data": 7}, EncodeError),
        ({"task": "a\0b", "data": b""}, ValueError),
        ({"task": "a", "data": b"", "unique": "u" * 64}, ValueError),
        ({"task": "a", "data": b"", "priority": "URGENT"}, ValueError),
        ({"task": "a", "dat": b""}, TypeError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_batch_with_a_bad_job_sends_none_of_them(gearmand, client, bad, error):
    good = {"task": "good", "data": b""}
    with pytest.raises(error):
        client.submit_multiple_jobs([good, bad, good], background=True, poll_timeout=10)
    # The server answers in order: nothing that was sent before this job is missing from its tables.
    client.submit_job("last", b"", background=True, poll_timeout=10)
    assert gearmand.status() == {"last": (1, 0, 0)}


def test_requests_of_a_batch_with_a_bad_one_can_be_submitted_again(gearmand, client):
    requests = [request_for("good", background=True), request_for("bad", 7, background=True)]
    for _ in range(2):
        with pytest.raises(EncodeError):
            client.submit_multiple_requests(requests, poll_timeout=10)
        assert [(r.state, r.connection_attempts) for r in requests] == [("UNKNOWN", 0)] * 2
    requests[1].job.data = b"7"
    # The same request twice is sent once.
    client.submit_multiple_requests([*requests, requests[0]], poll_timeout=10)
    assert [r.complete for r in requests] == [True] * 2
    assert gearmand.status() == {"good": (1, 0, 0), "bad": (1, 0, 0)}


def test_requests_that_there_was_no_room_for_can_be_submitted_again(gearmand):
    first, *requests = [request_for(f"task-{number}") for number in range(4)]
    with GearmanClient([gearmand.address], max_in_flight=2, submit_timeout=0.5) as client:
        wait_until(lambda: None not in client.ping().values(), message="the server is up")
        client.submit_multiple_requests([first], wait_until_complete=False, poll_timeout=10)
        with pytest.raises(ClientSaturated):
            client.submit_multiple_requests(requests, wait_until_complete=False, poll_timeout=10)
        client.wait_until_jobs_accepted(requests[:1], poll_timeout=10)
        assert [r.state for r in requests] == ["CREATED", "UNKNOWN", "UNKNOWN"]
        with pytest.raises(InvalidClientState, match="CREATED"):
            client.send_job_request(requests[0])
        with pytest.raises(ClientSaturated):
            client.send_job_request(requests[1])
        client.close(0)
    with GearmanClient([gearmand.address]) as client:
        client.submit_multiple_requests(requests[1:], wait_until_complete=False, poll_timeout=10)
        assert [r.state for r in requests[1:]] == ["CREATED"] * 2
        client.close(0)


def test_lost_request_can_be_submitted_again_as_soon_as_the_wait_for_it_ends(gearmand, client, monkeypatch):
    request = request_for("task")
    client.submit_multiple_requests([request], wait_until_complete=False, poll_timeout=10)
    resolve, submitted_again = JobFuture.resolve, threading.Event()

    def resolve_and_pause(future, *arguments):
        resolved = resolve(future, *arguments)
        # The I/O thread is held up where it has just woken the caller.
        submitted_again.wait(10)
        return resolved

    monkeypatch.setattr(JobFuture, "resolve", resolve_and_pause)
    gearmand.restart()
    client.wait_until_jobs_completed([request], poll_timeout=10)
    assert request.connection_failed
    client.submit_multiple_requests([request], wait_until_complete=False, poll_timeout=0)
    submitted_again.set()
    client.wait_until_jobs_accepted([request], poll_timeout=10)
    assert (request.state, request.timed_out) == ("CREATED", False)


def test_retries_that_are_no_number_of_times_are_refused(client):
    for bad in (-1, 1.5, "2"):
        with pytest.raises(ValueError, match="max_retries"):
            client.submit_job("task", b"", max_retries=bad)


# ---- subclasses that were written for python-gearman -----------------------------------------------------------------


class Counting:
    """Counts which overridden methods were called."""

    def __init__(self, *arguments, **options):
        self.calls = collections.Counter()
        super().__init__(*arguments, **options)


class OldClient(Counting, GearmanClient):
    """Overrides everything, with python-gearman's exact signatures."""

    def submit_job(
        self,
        task,
        data,
        unique=None,
        priority=None,
        background=False,
        wait_until_complete=True,
        max_retries=0,
        poll_timeout=None,
    ):
        self.calls["submit_job"] += 1
        return super().submit_job(
            task, data, unique, priority, background, wait_until_complete, max_retries, poll_timeout
        )

    def submit_multiple_jobs(
        self, jobs_to_submit, background=False, wait_until_complete=True, max_retries=0, poll_timeout=None
    ):
        self.calls["submit_multiple_jobs"] += 1
        return super().submit_multiple_jobs(jobs_to_submit, background, wait_until_complete, max_retries, poll_timeout)

    def submit_multiple_requests(self, job_requests, wait_until_complete=True, poll_timeout=None):
        self.calls["submit_multiple_requests"] += 1
        return super().submit_multiple_requests(job_requests, wait_until_complete, poll_timeout)

    def wait_until_jobs_accepted(self, job_requests, poll_timeout=None):
        self.calls["wait_until_jobs_accepted"] += 1
        return super().wait_until_jobs_accepted(job_requests, poll_timeout=poll_timeout)

    def wait_until_jobs_completed(self, job_requests, poll_timeout=None):
        self.calls["wait_until_jobs_completed"] += 1
        return super().wait_until_jobs_completed(job_requests, poll_timeout=poll_timeout)

    def get_job_status(self, current_request, poll_timeout=None):
        self.calls["get_job_status"] += 1
        return super().get_job_status(current_request, poll_timeout)

    def get_job_statuses(self, job_requests, poll_timeout=None):
        self.calls["get_job_statuses"] += 1
        return super().get_job_statuses(job_requests, poll_timeout)

    def wait_until_job_statuses_received(self, job_requests, poll_timeout=None):
        self.calls["wait_until_job_statuses_received"] += 1
        return super().wait_until_job_statuses_received(job_requests, poll_timeout)

    def send_job_request(self, current_request):
        self.calls["send_job_request"] += 1
        return super().send_job_request(current_request)


def test_client_that_overrides_everything_with_python_gearmans_signatures_works(gearmand, echo_worker):
    with OldClient([gearmand.address]) as client:
        assert client.submit_job("echo", b"1", poll_timeout=10).result == b"1"
        assert client.calls == dict.fromkeys(
            (
                "submit_job",
                "submit_multiple_jobs",
                "submit_multiple_requests",
                "wait_until_jobs_accepted",
                "wait_until_jobs_completed",
                "send_job_request",
            ),
            1,
        )
        client.calls.clear()
        request = client.submit_job("nobody", b"2", background=True, poll_timeout=10)
        assert client.get_job_status(request, poll_timeout=10).status["known"]
        asked = ("get_job_status", "get_job_statuses", "wait_until_job_statuses_received")
        assert [client.calls[method] for method in asked] == [1, 1, 1]


class KeywordClient(GearmanClient):
    """Passes on what it does not know, as subclasses do that were written for python-gearman's own calls."""

    def submit_multiple_jobs(self, jobs_to_submit, **options):
        return super().submit_multiple_jobs(jobs_to_submit, **options)

    def submit_multiple_requests(self, job_requests, **options):
        return super().submit_multiple_requests(job_requests, **options)

    def get_job_statuses(self, job_requests, **options):
        return super().get_job_statuses(job_requests, **options)


def test_client_that_overrides_with_keywords_works(gearmand, echo_worker):
    with KeywordClient([gearmand.address]) as client:
        request = client.submit_job("echo", b"1", poll_timeout=10)
        assert request.result == b"1"
        assert not client.get_job_status(request, poll_timeout=10).status["known"]


@pytest.mark.parametrize("method", ["submit_job", "submit_multiple_jobs", "get_job_status"])
def test_timeout_is_the_older_name_of_poll_timeout_and_not_given_beside_it(client, method):
    arguments = {
        "submit_job": ("nobody", b""),
        "submit_multiple_jobs": ([{"task": "nobody", "data": b""}],),
        "get_job_status": (request_for("nobody"),),
    }[method]
    with pytest.raises(TypeError, match="older name"):
        getattr(client, method)(*arguments, poll_timeout=1, timeout=1)
    if method != "get_job_status":
        requests = getattr(client, method)(*arguments, timeout=0.05)
        assert (requests if method == "submit_job" else requests[0]).timed_out


def test_job_that_is_accepted_when_the_time_is_up_has_timed_out(gearmand):
    class Slow(GearmanClient):
        def wait_until_jobs_accepted(self, job_requests, poll_timeout=None):
            accepted = super().wait_until_jobs_accepted(job_requests)
            threading.Event().wait(poll_timeout)
            return accepted

    with Slow([gearmand.address]) as client:
        request = client.submit_job("nobody", b"", poll_timeout=0.05)
        assert (request.state, request.timed_out) == ("CREATED", True)
        client.close(0)


def test_hook_that_changes_the_job_before_it_is_sent_is_heeded(gearmand, echo_worker):
    class Tagging(GearmanClient):
        def send_job_request(self, current_request):
            current_request.job.data = b"tagged " + current_request.job.data
            return super().send_job_request(current_request)

    with Tagging([gearmand.address]) as client:
        assert client.submit_job("echo", b"job", poll_timeout=10).result == b"tagged job"


class OldWorker(Counting, GearmanWorker):
    """Overrides everything, with python-gearman's exact signatures."""

    def register_task(self, task, callback_function):
        self.calls["register_task"] += 1
        return super().register_task(task, callback_function)

    def unregister_task(self, task):
        self.calls["unregister_task"] += 1
        return super().unregister_task(task)

    def set_client_id(self, client_id):
        self.calls["set_client_id"] += 1
        return super().set_client_id(client_id)

    def work(self, poll_timeout=60.0):
        self.calls["work"] += 1
        return super().work(poll_timeout)

    def establish_worker_connections(self):
        self.calls["establish_worker_connections"] += 1
        return super().establish_worker_connections()

    def after_poll(self, any_activity):
        self.calls["after_poll"] += 1
        return super().after_poll(any_activity)

    def after_job(self):
        self.calls["after_job"] += 1
        return super().after_job()

    def wait_until_updates_sent(self, multiple_gearman_jobs, poll_timeout=None):
        self.calls["wait_until_updates_sent"] += 1
        return super().wait_until_updates_sent(multiple_gearman_jobs, poll_timeout=poll_timeout)

    def send_job_status(self, current_job, numerator, denominator, poll_timeout=None):
        self.calls["send_job_status"] += 1
        return super().send_job_status(current_job, numerator, denominator, poll_timeout=poll_timeout)

    def send_job_complete(self, current_job, data, poll_timeout=None):
        self.calls["send_job_complete"] += 1
        return super().send_job_complete(current_job, data, poll_timeout=poll_timeout)

    def send_job_failure(self, current_job, poll_timeout=None):
        self.calls["send_job_failure"] += 1
        return super().send_job_failure(current_job, poll_timeout=poll_timeout)

    def send_job_exception(self, current_job, data, poll_timeout=None):
        self.calls["send_job_exception"] += 1
        return super().send_job_exception(current_job, data, poll_timeout=poll_timeout)

    def send_job_data(self, current_job, data, poll_timeout=None):
        self.calls["send_job_data"] += 1
        return super().send_job_data(current_job, data, poll_timeout=poll_timeout)

    def send_job_warning(self, current_job, data, poll_timeout=None):
        self.calls["send_job_warning"] += 1
        return super().send_job_warning(current_job, data, poll_timeout=poll_timeout)

    def create_job(self, command_handler, job_handle, task, unique, data):
        self.calls["create_job"] += 1
        return super().create_job(command_handler, job_handle, task, unique, data)

    def on_job_execute(self, current_job):
        self.calls["on_job_execute"] += 1
        return super().on_job_execute(current_job)

    def on_job_exception(self, current_job, exc_info):
        self.calls["on_job_exception"] += 1
        return super().on_job_exception(current_job, exc_info)

    def on_job_complete(self, current_job, job_result):
        self.calls["on_job_complete"] += 1
        return super().on_job_complete(current_job, job_result)

    def has_job_lock(self):
        self.calls["has_job_lock"] += 1
        return super().has_job_lock()


def test_worker_that_overrides_everything_with_python_gearmans_signatures_works(gearmand, client):
    worker = OldWorker([gearmand.address])
    worker.set_client_id("old")

    @worker.task("all")
    def everything(worker, job):
        job.send_status(1, 2)
        job.send_data(b"part")
        job.send_warning(b"careful")
        worker.wait_until_updates_sent([job], 5)
        assert worker.has_job_lock()
        return len(worker.establish_worker_connections()) * b"x"

    @worker.task("generator")
    def generator(worker, job):
        yield b"part"

    @worker.task("raise")
    def fail(worker, job):
        raise LookupError("no such thing")

    for method, arguments in (("complete", (b"r",)), ("failure", ()), ("exception", (b"e",))):
        worker.register_task(method, functools.partial(_send, method, arguments))
    worker.register_task("unwanted", everything)
    worker.unregister_task("unwanted")
    with running(worker):
        states = {
            task: client.submit_job(task, b"", poll_timeout=20).state
            for task in ("all", "generator", "raise", "complete", "failure", "exception")
        }
    assert states == {
        "all": "COMPLETE",
        "generator": "COMPLETE",
        "raise": "FAILED",
        "complete": "COMPLETE",
        "failure": "FAILED",
        "exception": "FAILED",
    }
    overridden = {name for name in vars(OldWorker) if not name.startswith("_")}
    assert overridden - set(worker.calls) == set()


def _send(method, arguments, worker, job):
    getattr(worker, f"send_job_{method}")(job, *arguments, poll_timeout=5)


class OldAdminClient(Counting, GearmanAdminClient):
    """Overrides everything, with python-gearman's exact signatures."""

    def establish_admin_connection(self):
        self.calls["establish_admin_connection"] += 1
        return super().establish_admin_connection()

    def ping_server(self):
        self.calls["ping_server"] += 1
        return super().ping_server()

    def send_maxqueue(self, task, max_size):
        self.calls["send_maxqueue"] += 1
        return super().send_maxqueue(task, max_size)

    def wait_until_server_responds(self, expected_type):
        self.calls["wait_until_server_responds"] += 1
        return super().wait_until_server_responds(expected_type)

    def get_status(self):
        self.calls["get_status"] += 1
        return super().get_status()

    def cancel_job(self, handle):
        self.calls["cancel_job"] += 1
        return super().cancel_job(handle)

    def send_shutdown(self, graceful=True):
        self.calls["send_shutdown"] += 1
        return super().send_shutdown(graceful)


def test_admin_client_that_overrides_everything_with_python_gearmans_signatures_works(gearmand, client):
    request = client.submit_job("task", b"", background=True, poll_timeout=10)
    with OldAdminClient([gearmand.address]) as admin:
        assert admin.ping_server() > 0
        assert admin.send_maxqueue("task", 10) == "OK"
        assert admin.cancel_job(request.job.handle) == "OK"
        with pytest.raises(ServerError, match="signal"):
            admin.send_shutdown()
        admin.current_handler.send_text_command("status")
        assert admin.wait_until_server_responds("status") == admin.get_status()
        overridden = {name for name in vars(OldAdminClient) if not name.startswith("_")}
        assert overridden - set(admin.calls) == set()


# ---- requests that are submitted again -------------------------------------------------------------------------------


@pytest.fixture
def submit_timeout():
    return 20.0


@pytest.fixture
def lost(gearmand, submit_timeout):
    """A request that was accepted, and lost with its server, which is dead; and the client that lost it."""
    with GearmanClient([gearmand.address], submit_timeout=submit_timeout) as client:
        request = request_for("task", max_attempts=2)
        client.submit_multiple_requests([request], wait_until_complete=False, poll_timeout=10)
        assert request.state == "CREATED"
        gearmand.kill()
        client.wait_until_jobs_completed([request], poll_timeout=10)
        assert (request.state, request.connection_failed) == ("UNKNOWN", True)
        yield client, request
        client.close(0)


@pytest.mark.parametrize("submit_timeout", [0.3])
@pytest.mark.parametrize("resubmit", ["submit_multiple_requests", "wait_until_jobs_accepted"])
def test_lost_request_that_no_server_takes_again_raises_as_a_fresh_one_does(lost, resubmit):
    client, request = lost
    with pytest.raises(ServerUnavailable):
        getattr(client, resubmit)([request], poll_timeout=10)
    assert (request.state, request.connection_failed) == ("UNKNOWN", False)
    assert (request.job.handle, request.job.connection) == (None, None)


def test_lost_request_that_the_server_refuses_raises_as_a_fresh_one_does(gearmand, lost):
    client, request = lost
    gearmand.start()
    with GearmanAdminClient([gearmand.address]) as admin:
        admin.create_function("task")
        admin.send_maxqueue("task", 1)
    client.wait_until_jobs_accepted([request_for("task", background=True)], poll_timeout=10)
    request.job.unique = "another"
    with pytest.raises(QueueFull):
        client.submit_multiple_requests([request], poll_timeout=10)


def test_lost_request_that_is_never_accepted_again_raises_as_a_fresh_one_does(gearmand, lost):
    client, request = lost
    with SilentServer() as silent:
        client.remove_server(gearmand.address)
        client.add_server(silent.address)
        cut = threading.Thread(target=_cut_submissions, args=(silent, 2))
        cut.start()
        try:
            with pytest.raises(ExceededConnectionAttempts, match="2 times"):
                client.submit_multiple_requests([request], poll_timeout=20)
        finally:
            cut.join()
            client.close(0)


def _cut_submissions(silent, times):
    """Close the connections of a server that has been sent a job, so many times."""
    for count in range(1, times + 1):
        wait_until(lambda count=count: len(silent.received) >= count, 20, message="a job")
        for connection in list(silent.connections):
            connection.close()


def test_refusal_that_comes_after_the_wait_for_acceptance_is_raised_by_the_wait_for_the_result(gearmand):
    gearmand.kill()
    with GearmanClient([gearmand.address], submit_timeout=0.5) as client:
        [request] = client.submit_multiple_requests([request_for("task")], False, poll_timeout=0.01)
        assert (request.state, request.timed_out) == ("PENDING", True)
        with pytest.raises(ServerUnavailable):
            client.wait_until_jobs_completed([request], poll_timeout=10)
        # It is not under way any more, and there is nothing to wait for.
        assert client.wait_until_jobs_completed([request], poll_timeout=10) == [request]
        [request] = client.submit_multiple_requests([request], False, poll_timeout=0.01)
        wait_until(lambda: request.state == "UNKNOWN", message="it is refused while nobody waits")
        with pytest.raises(ServerUnavailable):
            client.wait_until_jobs_completed([request], poll_timeout=10)


# ---- choosing and connecting -----------------------------------------------------------------------------------------


def test_job_that_has_its_handle_has_its_connection(gearmand):
    seen = []

    class Job(GearmanJob):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            # What another thread could see now.
            if self.to_dict()["job_handle"] is not None:
                seen.append((name, str(self.connection)))

        def __init__(self, *arguments):
            for name in ("connection", "handle", "task", "unique", "data"):
                super().__setattr__(name, None)
            super().__init__(*arguments)

    class Client(GearmanClient):
        job_class = Job

    with Client([gearmand.address]) as client:
        client.submit_job("task", b"", background=True, poll_timeout=10)
    assert seen[0] == ("handle", gearmand.address)


def test_establish_request_connection_connects_an_unused_client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        assert client.establish_request_connection(request_for("task")).get_address() == gearmand.endpoint


def test_establish_request_connection_waits_for_a_server_within_submit_timeout(gearmand):
    gearmand.kill()
    patient = GearmanClient([gearmand.address], submit_timeout=0.3)
    with patient as client, pytest.raises(ServerUnavailable, match=gearmand.address):
        client.establish_request_connection(request_for("task"))
    with GearmanClient([gearmand.address], submit_timeout=20, reconnect_backoff=(0.05, 0.1)) as client:
        with pytest.raises(ServerUnavailable):
            client.get_job_status(status_request(client, "H:nobody:1"), poll_timeout=0.05)
        starter = threading.Thread(target=gearmand.start)
        starter.start()
        assert client.establish_request_connection(request_for("task")) == client.connection_list[0]
        starter.join()


def test_establish_request_connection_says_where_the_policy_sends_a_job(gearmands):
    servers = [gearmands() for _ in range(3)]
    with GearmanClient([server.address for server in servers], policy="unique") as client:
        for number in range(6):
            request = request_for(f"task-{number}", background=True)
            chosen = client.establish_request_connection(request)
            client.submit_multiple_requests([request], poll_timeout=10)
            assert request.job.connection == chosen


class Pinning(GearmanClient):
    """Sends each job to the server that its task names."""

    def establish_request_connection(self, current_request):
        super().establish_request_connection(current_request)
        return self.connection_list[int(current_request.job.task[-1])]


def test_overridden_establish_request_connection_chooses_the_server(gearmands):
    servers = [gearmands() for _ in range(2)]
    with Pinning([server.address for server in servers], policy="unique") as client:
        jobs = [{"task": f"to-{number % 2}", "data": b"", "unique": f"u{number}"} for number in range(8)]
        requests = client.submit_multiple_jobs(jobs, background=True, poll_timeout=10)
        assert [r.job.connection.get_address() for r in requests] == [s.endpoint for s in servers] * 4
        assert [server.status() for server in servers] == [{f"to-{n}": (4, 0, 0)} for n in range(2)]
        with servers[1].connect() as peer:
            assert sorted(peer.text("show unique jobs").split()) == ["u1", "u3", "u5", "u7"]


def test_job_that_was_given_to_a_dead_server_goes_to_no_other(gearmands):
    up, down = gearmands(), gearmands()
    with Pinning([up.address, down.address], submit_timeout=1) as client:
        client.submit_job("to-1", b"", background=True, poll_timeout=10)
        down.kill()
        with pytest.raises(ServerUnavailable):
            client.submit_job("to-1", b"", background=True, poll_timeout=10)
        client.submit_job("to-0", b"", background=True, poll_timeout=10)
        assert set(up.status()) == {"to-0"}


@pytest.mark.parametrize(
    ("answer", "error"), [(None, TypeError), (GearmanConnection("elsewhere"), ValueError)], ids=["none", "elsewhere"]
)
def test_server_that_is_none_of_the_clients_is_refused_and_the_request_is_as_it_was(gearmand, client, answer, error):
    class Astray(GearmanClient):
        def establish_request_connection(self, current_request):
            return answer

    request = request_for("task")
    with Astray([gearmand.address]) as astray, pytest.raises(error, match=r"establish_request_connection|elsewhere"):
        astray.submit_multiple_requests([request], poll_timeout=10)
    client.submit_multiple_requests([request], wait_until_complete=False, poll_timeout=10)
    assert request.state == "CREATED"


def test_request_that_could_not_be_sent_alone_can_be_submitted_again(gearmand, client):
    class Astray(GearmanClient):
        def establish_request_connection(self, current_request):
            return GearmanConnection("elsewhere")

    request = request_for("task")
    with Astray([gearmand.address]) as astray, pytest.raises(ValueError, match="elsewhere"):
        astray.send_job_request(request)
    request.job.task = "another-task"
    client.submit_multiple_requests([request], wait_until_complete=False, poll_timeout=5)
    assert (request.state, request.timed_out) == ("CREATED", False)
    assert set(gearmand.status()) == {"another-task"}


def test_eager_client_has_python_gearmans_interface_too():
    client = EagerClient()
    client.register_task("double", lambda job: job.data * 2)
    request = request_for("double", b"x")
    assert client.establish_request_connection(request) == client.connection_list[0]
    assert client.submit_multiple_requests([request])[0].result == b"xx"
    assert not client.get_job_status(request).status["known"]
    client.close()


# ---- questions that a server does not answer -------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"poll_timeout": 0.1}, {}], ids=["poll_timeout", "submit_timeout"])
def test_status_of_a_job_whose_server_is_down_raises_server_unavailable(gearmands, limit):
    up, down = gearmands(), gearmands()
    down.kill()
    with GearmanClient([down.address, up.address], submit_timeout=0.1) as client:
        wait_until(lambda: client.ping()[up.address] is not None, message="the server that is there")
        background = client.submit_job("task", b"", background=True, poll_timeout=10)
        # Often, because both time limits end in the same moment: it is no matter of which one is seen first.
        for _ in range(10):
            request = status_request(client, "H:nobody:1")
            with pytest.raises(ServerUnavailable, match=f"{down.address} could not be reached in time") as raised:
                client.get_job_status(request, **limit)
            assert set(raised.value.servers) == {down.address}
            assert not request.timed_out
            # The answer is not expected any more.
            assert client.wait_until_job_statuses_received([request]) == [request]
        # The others are waited for all the same.
        with pytest.raises(ServerUnavailable):
            client.get_job_statuses([request, background], poll_timeout=5)
        assert background.status["known"]


def test_status_of_a_job_whose_server_does_not_answer_times_out_and_can_be_waited_for(gearmand, client):
    request = client.submit_job("task", b"", background=True, poll_timeout=10)
    with gearmand.paused():
        for _ in range(5):
            assert client.get_job_status(request, poll_timeout=0.05).timed_out
        assert request.status == {}
    assert not client.wait_until_job_statuses_received([request], poll_timeout=10)[0].timed_out
    assert request.status["known"]


def test_connection_that_is_lost_before_the_status_came_raises_connection_lost(gearmand, client):
    request = client.submit_job("task", b"", background=True, poll_timeout=10)
    gearmand.pause()
    assert client.get_job_status(request, poll_timeout=0.05).timed_out
    gearmand.kill()
    with pytest.raises(ConnectionLost):
        client.wait_until_job_statuses_received([request], poll_timeout=10)
    assert client.wait_until_job_statuses_received([request], poll_timeout=10) == [request]
    with pytest.raises(ServerUnavailable):
        client.get_job_status(request, poll_timeout=0.05)


def test_establish_connection_names_the_server_that_does_not_answer(gearmand):
    with GearmanClient([gearmand.address], submit_timeout=2.0) as client:
        [connection] = client.connection_list
        assert client.establish_connection(connection) is connection
        with gearmand.paused(), pytest.raises(ServerUnavailable, match=f"{gearmand.address} does not answer"):
            client.establish_connection(connection)


def test_polling_again_and_again_leaves_nothing_behind(client):
    def stop(any_activity):
        return False

    client.establish_connection(client.connection_list[0])
    for go_on in (stop, lambda any_activity: True):
        for _ in range(20):
            client.poll_connections_until_stopped(client.connection_list, go_on, timeout=0.001)
    assert len(client._engine._activity) == 0
