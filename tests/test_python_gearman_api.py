"""python-gearman's public names, one by one: here with signature and default, or named in the docs as missing."""

from __future__ import annotations

import builtins
import inspect
import logging
import re
from collections import deque
from pathlib import Path

import pytest

import gearman_pool as gearman
import gearman_pool.admin_client
import gearman_pool.client
import gearman_pool.constants
import gearman_pool.errors
import gearman_pool.job
import gearman_pool.worker
from gearman_pool.errors import ServerUnavailable
from gearman_pool.python_gearman import GearmanConnection

from .support.running import running
from .support.waiting import wait_until

DOCS = (Path(__file__).parents[1] / "docs" / "python_gearman.rst").read_text()

CONSTANTS = {
    gearman.constants: {
        "_DEBUG_MODE_": False,
        "DEFAULT_GEARMAN_PORT": 4730,
        "PRIORITY_NONE": None,
        "PRIORITY_LOW": "LOW",
        "PRIORITY_HIGH": "HIGH",
        "JOB_UNKNOWN": "UNKNOWN",
        "JOB_PENDING": "PENDING",
        "JOB_CREATED": "CREATED",
        "JOB_FAILED": "FAILED",
        "JOB_COMPLETE": "COMPLETE",
    },
    gearman.client: {"RANDOM_UNIQUE_BYTES": 16, "JOB_UNKNOWN": "UNKNOWN", "JOB_COMPLETE": "COMPLETE"},
    gearman.worker: {"POLL_TIMEOUT_IN_SECONDS": 60.0},
    gearman.admin_client: {"ECHO_STRING": "ping? pong!", "DEFAULT_ADMIN_CLIENT_TIMEOUT": 10.0},
    gearman: {
        "PRIORITY_NONE": None,
        "PRIORITY_LOW": "LOW",
        "PRIORITY_HIGH": "HIGH",
        "JOB_UNKNOWN": "UNKNOWN",
        "JOB_PENDING": "PENDING",
        "JOB_CREATED": "CREATED",
        "JOB_FAILED": "FAILED",
        "JOB_COMPLETE": "COMPLETE",
    },
}

EXPORTS = [
    "GearmanAdminClient",
    "GearmanClient",
    "GearmanWorker",
    "DataEncoder",
    "NullHandler",
    "gearman_root_logger",
    "__version__",
]

ERRORS = [
    "ConnectionError",
    "ServerUnavailable",
    "ProtocolError",
    "UnknownCommandError",
    "ExceededConnectionAttempts",
    "InvalidClientState",
    "InvalidWorkerState",
    "InvalidAdminClientState",
]

#: Each as python-gearman has it, without self. What is more than that must be optional.
SIGNATURES = {
    gearman.GearmanClient: """
        __init__(host_list=None, random_unique_bytes=16)
        submit_job(task, data, unique=None, priority=None, background=False, wait_until_complete=True, max_retries=0,
                   poll_timeout=None)
        submit_multiple_jobs(jobs_to_submit, background=False, wait_until_complete=True, max_retries=0,
                             poll_timeout=None)
        submit_multiple_requests(job_requests, wait_until_complete=True, poll_timeout=None)
        wait_until_jobs_accepted(job_requests, poll_timeout=None)
        wait_until_jobs_completed(job_requests, poll_timeout=None)
        get_job_status(current_request, poll_timeout=None)
        get_job_statuses(job_requests, poll_timeout=None)
        wait_until_job_statuses_received(job_requests, poll_timeout=None)
        establish_request_connection(current_request)
        send_job_request(current_request)
        shutdown()
        add_connection(hostport_tuple)
        add_ssl_connection(host, port, keyfile, certfile, ca_certs)
        establish_connection(current_connection)
        poll_connections_until_stopped(submitted_connections, callback_fxn, timeout=None)
    """,
    gearman.GearmanWorker: """
        __init__(host_list=None)
        register_task(task, callback_function)
        unregister_task(task)
        set_client_id(client_id)
        work(poll_timeout=60.0)
        shutdown()
        establish_worker_connections()
        after_poll(any_activity)
        after_job()
        wait_until_updates_sent(multiple_gearman_jobs, poll_timeout=None)
        send_job_status(current_job, numerator, denominator, poll_timeout=None)
        send_job_complete(current_job, data, poll_timeout=None)
        send_job_failure(current_job, poll_timeout=None)
        send_job_exception(current_job, data, poll_timeout=None)
        send_job_data(current_job, data, poll_timeout=None)
        send_job_warning(current_job, data, poll_timeout=None)
        create_job(command_handler, job_handle, task, unique, data)
        on_job_execute(current_job)
        on_job_exception(current_job, exc_info)
        on_job_complete(current_job, job_result)
        has_job_lock()
    """,
    gearman.GearmanAdminClient: """
        __init__(host_list=None, poll_timeout=10.0)
        establish_admin_connection()
        ping_server()
        send_maxqueue(task, max_size)
        send_shutdown(graceful=True)
        get_status()
        get_version()
        get_workers()
        wait_until_server_responds(expected_type)
        get_pid()
        cancel_job(handle)
        get_jobs()
        get_unique_jobs()
        shutdown()
    """,
    gearman.job.GearmanJob: """
        __init__(connection, handle, task, unique, data)
        to_dict()
    """,
    gearman.job.GearmanJobRequest: """
        __init__(gearman_job, initial_priority=None, background=False, max_attempts=1)
        initialize_request()
        reset()
    """,
    gearman.DataEncoder: """
        encode(encodable_object)
        decode(decodable_string)
    """,
    GearmanConnection: """
        __init__(host=None, port=4730, keyfile=None, certfile=None, ca_certs=None)
        get_address()
    """,
}

#: What an instance has.
ATTRIBUTES = {
    "client": "connection_list job_class job_request_class data_encoder random_unique_bytes log",
    "worker": "connection_list job_class data_encoder worker_abilities worker_client_id",
    "admin": "connection_list poll_timeout current_handler",
    "job": "connection handle task unique data",
    "request": "gearman_job priority background connection_attempts max_connection_attempts result exception "
    "warning_updates data_updates status state timed_out job complete connection_failed unique",
    "connection": "gearman_host gearman_port use_ssl",
}

#: What drove python-gearman's sockets, by class or module. The page on python-gearman names each.
WITHOUT_COUNTERPART = {
    "GearmanClient": "command_handler_class connection_class request_to_rotating_connection_queue "
    "handler_to_connection_map connection_to_handler_map handler_initial_state poll_connections_once "
    "handle_connection_activity handle_read handle_write handle_error read_command send_command on_gearman_error",
    "GearmanWorker": "set_job_lock check_job_lock command_handler_holding_job_lock randomized_connections",
    "GearmanConnection": "connect_cooldown_seconds connected gearman_socket fileno readable writable connect close "
    "set_socket read_command read_commands_from_buffer read_data_from_socket send_command send_commands_to_buffer "
    "send_data_to_socket throw_exception",
    "modules": "admin_client_handler client_handler command_handler compat connection connection_manager io util "
    "worker_handler",
}


def rows(text):
    """The lines of a table as (name, [(parameter, default or empty)])."""
    for name, inside in re.findall(r"(\w+)\(([^)]*)\)", text):
        namespace = {}
        exec(f"def function({inside}): pass", namespace)
        parameters = inspect.signature(namespace["function"]).parameters.values()
        yield name, [(parameter.name, parameter.default) for parameter in parameters]


SIGNATURE_ROWS = [(kind, *row) for kind, text in SIGNATURES.items() for row in rows(text)]


@pytest.mark.parametrize(
    ("kind", "name", "expected"), SIGNATURE_ROWS, ids=[f"{kind.__name__}.{name}" for kind, name, _ in SIGNATURE_ROWS]
)
def test_method_can_be_called_as_python_gearmans(kind, name, expected):
    parameters = list(inspect.signature(getattr(kind, name)).parameters.values())
    parameters = [parameter for parameter in parameters if parameter.name not in ("self", "cls")]
    ours = [(parameter.name, parameter.default) for parameter in parameters[: len(expected)]]
    assert ours == expected
    for parameter in parameters[: len(expected)]:
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    for parameter in parameters[len(expected) :]:
        assert parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD, parameter


@pytest.mark.parametrize("module", CONSTANTS, ids=lambda module: module.__name__)
def test_constants_have_python_gearmans_values(module):
    assert {name: getattr(module, name, "missing") for name in CONSTANTS[module]} == CONSTANTS[module]


def test_package_exports_python_gearmans_names():
    assert [name for name in EXPORTS if not hasattr(gearman, name)] == []
    assert gearman.NullHandler is logging.NullHandler
    assert gearman.gearman_root_logger.name == "gearman_pool"


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_python_gearmans(name):
    error = getattr(gearman.errors, name)
    assert issubclass(error, gearman.errors.GearmanError)
    assert str(error("text")) == "text"
    if name == "ConnectionError":
        assert issubclass(error, builtins.ConnectionError)


@pytest.fixture
def instances():
    client = gearman.GearmanClient(["localhost", ("otherhost", 4731)])
    job = gearman.job.GearmanJob(None, None, "task", "unique", b"data")
    return {
        "client": client,
        "worker": gearman.GearmanWorker(["localhost"]),
        "admin": gearman.GearmanAdminClient(["localhost"]),
        "job": job,
        "request": gearman.job.GearmanJobRequest(job),
        "connection": client.connection_list[1],
    }


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_attributes_are_there_before_anything_happened(instances, kind):
    assert [name for name in ATTRIBUTES[kind].split() if not hasattr(instances[kind], name)] == []


@pytest.mark.parametrize("kind", WITHOUT_COUNTERPART)
def test_what_has_no_counterpart_is_named_in_the_docs(kind):
    assert [name for name in WITHOUT_COUNTERPART[kind].split() if f"``{name}``" not in DOCS] == []


def test_new_request_is_as_python_gearmans(instances):
    request = instances["request"]
    assert (request.state, request.complete, request.timed_out, request.connection_failed) == (
        "UNKNOWN",
        False,
        False,
        False,
    )
    assert (request.result, request.exception, request.status) == (None, None, {})
    assert request.warning_updates == request.data_updates == deque()
    assert (request.priority, request.background) == (None, False)
    assert (request.connection_attempts, request.max_connection_attempts) == (0, 1)
    assert request.job is request.gearman_job is instances["job"]
    assert request.unique == "unique"
    with pytest.warns(DeprecationWarning, match=r"2\.0\.1"):
        assert request.status_updates == deque()
    with pytest.warns(DeprecationWarning, match=r"2\.0\.1"):
        assert request.server_status == {}


def test_job_as_a_dict(instances):
    assert instances["job"].to_dict() == {"task": "task", "job_handle": None, "unique": "unique", "data": b"data"}


def test_connection_says_which_server_it_is(instances):
    connection = instances["connection"]
    assert (connection.gearman_host, connection.gearman_port, connection.use_ssl) == ("otherhost", 4731, False)
    assert connection.get_address() == ("otherhost", 4731)
    assert connection == GearmanConnection("otherhost", 4731)
    assert hash(connection) == hash(GearmanConnection("otherhost", 4731))
    assert connection != GearmanConnection("otherhost")
    assert GearmanConnection("otherhost").gearman_port == 4730
    with pytest.raises(ServerUnavailable, match="no host"):
        GearmanConnection()


def test_reset_request_can_be_submitted_as_another_job(gearmand, raw_workers):
    worker = raw_workers(gearmand, "raw", lambda job: job.complete(job.data))
    with gearman.GearmanClient([gearmand.address]) as client:
        request = client.submit_job("raw", b"1", unique="first", poll_timeout=10)
        handle = request.job.handle
        assert (request.complete, request.connection_attempts) == (True, 1)
        request.reset()
        assert (request.state, request.result, request.connection_attempts) == ("UNKNOWN", None, 0)
        assert (request.job.handle, request.job.connection) == (None, None)
        request.job.data = b"2"
        client.submit_multiple_requests([request], poll_timeout=10)
        assert (request.result, request.job.handle) != (b"1", handle)
        assert [job.data for job in worker.taken] == [b"1", b"2"]


def test_request_made_by_hand_is_sent_step_by_step(gearmand, raw_worker):
    with gearman.GearmanClient([gearmand.address]) as client:
        client.ping()
        job = gearman.job.GearmanJob(None, None, "raw", "mine", "data")
        request = gearman.job.GearmanJobRequest(job, initial_priority=gearman.PRIORITY_HIGH)
        assert client.establish_request_connection(request) == client.connection_list[0]
        assert client.send_job_request(request) is request
        client.wait_until_jobs_accepted([request], poll_timeout=10)
        assert (request.state, job.connection) == ("CREATED", client.connection_list[0])
        taken = raw_worker.next_job()
        assert (taken.unique, taken.data) == (b"mine", b"data")
        taken.complete(b"r")
        assert client.wait_until_jobs_completed([request], poll_timeout=10) == [request]
        assert request.result == b"r"


def test_statuses_of_several_jobs_at_once(gearmand, raw_worker):
    with gearman.GearmanClient([gearmand.address]) as client:
        jobs = [{"task": task, "data": b""} for task in ("raw", "nobody")]
        requests = client.submit_multiple_jobs(jobs, wait_until_complete=False, poll_timeout=10)
        raw_worker.next_job()
        answered = client.get_job_statuses(requests, poll_timeout=10)
        assert answered == requests
        assert [(r.status["known"], r.status["running"]) for r in requests] == [(True, True), (True, False)]
        first = requests[0].status
        assert set(first) == {
            "handle",
            "known",
            "running",
            "numerator",
            "denominator",
            "time_received",
            "last_time_received",
        }
        assert first["handle"] == requests[0].job.handle
        assert isinstance(first["time_received"], float)
        assert client.get_job_status(requests[0]).status["last_time_received"] == first["time_received"]
        # Nothing is asked any more: it returns at once.
        assert client.wait_until_job_statuses_received(requests) == requests
        client.close(0)


def test_establish_connection_waits_for_that_server_or_says_why_not(gearmands):
    up, down = gearmands(), gearmands()
    down.kill()
    with gearman.GearmanClient([up.address, down.address], submit_timeout=0.5) as client:
        first, second = client.connection_list
        assert client.establish_connection(first) is first
        with pytest.raises(ServerUnavailable, match=down.address):
            client.establish_connection(second)
        with pytest.raises(ValueError, match="not a server of this client"):
            client.establish_connection(GearmanConnection("elsewhere"))


def test_servers_can_be_added_the_old_way(gearmand):
    with gearman.GearmanClient() as client:
        connection = client.add_connection(gearmand.endpoint)
        assert connection.get_address() == gearmand.endpoint
        assert client.submit_job("nobody", b"", background=True, poll_timeout=10).job.connection == connection
        assert client.connection_list == [connection]


def test_encoders_refuse_what_they_cannot_take():
    assert gearman.DataEncoder.encode("as it is") == "as it is"
    assert gearman.NoopEncoder.encode(b"bytes") == b"bytes"
    with pytest.raises(TypeError):
        gearman.NoopEncoder.encode(7)


def test_subclass_may_bring_its_own_classes(gearmand, echo_worker):
    class Job(gearman.job.GearmanJob):
        pass

    class Request(gearman.job.GearmanJobRequest):
        pass

    class Client(gearman.GearmanClient):
        job_class = Job
        job_request_class = Request

    with Client([gearmand.address]) as client:
        request = client.submit_job("echo", b"x", poll_timeout=10)
        assert (type(request), type(request.job), request.result) == (Request, Job, b"x")
        assert type(client.submit("echo", b"y").request) is Request


def test_worker_tells_what_it_works_with(gearmand):
    worker = gearman.GearmanWorker([gearmand.address, ("127.0.0.1", 1)])
    seen = []

    @worker.task("look")
    def look(job):
        seen.append((worker.has_job_lock(), worker.establish_worker_connections(), job.connection))

    up, down = worker.connection_list
    assert (up.get_address(), down.get_address()) == (gearmand.endpoint, ("127.0.0.1", 1))
    assert worker.establish_worker_connections() == []
    assert not worker.has_job_lock()
    with running(worker), gearman.GearmanClient([gearmand.address]) as client:
        assert client.submit("look").result(20) == b""
        wait_until(lambda: not worker.has_job_lock(), message="the job is done")
    assert seen == [(True, [up], up)]
    assert worker.worker_abilities == {"look": look}
    assert worker.worker_client_id is None
