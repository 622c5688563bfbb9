"""python-gearman's public names, one by one: here with signature and default, or named in the docs as missing."""

from __future__ import annotations

import array
import builtins
import copy
import gc
import inspect
import logging
import pickle
import re
import warnings
import weakref
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
from gearman_pool.connection import GearmanConnection
from gearman_pool.errors import ServerUnavailable
from tests.support.raw import pack
from tests.support.running import running
from tests.support.waiting import wait_until

DOCS = (Path(__file__).parents[2] / "docs" / "python_gearman.rst").read_text()

CONSTANTS = {
    "": {
        "PRIORITY_NONE": None,
        "PRIORITY_LOW": "LOW",
        "PRIORITY_HIGH": "HIGH",
        "JOB_UNKNOWN": "UNKNOWN",
        "JOB_PENDING": "PENDING",
        "JOB_CREATED": "CREATED",
        "JOB_FAILED": "FAILED",
        "JOB_COMPLETE": "COMPLETE",
    },
    "constants": {
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
    "client": {
        "RANDOM_UNIQUE_BYTES": 16,
        "PRIORITY_NONE": None,
        "PRIORITY_LOW": "LOW",
        "PRIORITY_HIGH": "HIGH",
        "JOB_UNKNOWN": "UNKNOWN",
        "JOB_PENDING": "PENDING",
        "JOB_COMPLETE": "COMPLETE",
    },
    "job": {
        "PRIORITY_NONE": None,
        "JOB_UNKNOWN": "UNKNOWN",
        "JOB_PENDING": "PENDING",
        "JOB_CREATED": "CREATED",
        "JOB_FAILED": "FAILED",
        "JOB_COMPLETE": "COMPLETE",
    },
    "worker": {"POLL_TIMEOUT_IN_SECONDS": 60.0},
    "admin_client": {
        "ECHO_STRING": "ping? pong!",
        "DEFAULT_ADMIN_CLIENT_TIMEOUT": 10.0,
        "GEARMAN_COMMAND_ECHO_REQ": 16,
        "GEARMAN_SERVER_COMMAND_STATUS": "status",
        "GEARMAN_SERVER_COMMAND_VERSION": "version",
        "GEARMAN_SERVER_COMMAND_WORKERS": "workers",
        "GEARMAN_SERVER_COMMAND_MAXQUEUE": "maxqueue",
        "GEARMAN_SERVER_COMMAND_SHUTDOWN": "shutdown",
        "GEARMAN_SERVER_COMMAND_GETPID": "getpid",
        "GEARMAN_SERVER_COMMAND_SHOW_JOBS": "show jobs",
        "GEARMAN_SERVER_COMMAND_SHOW_UNIQUE_JOBS": "show unique jobs",
        "GEARMAN_SERVER_COMMAND_CANCEL_JOB": "cancel job",
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
        check_job_lock(command_handler)
        handle_error(current_connection)
        add_connection(hostport_tuple)
        add_ssl_connection(host, port, keyfile, certfile, ca_certs)
        establish_connection(current_connection)
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
        add_connection(hostport_tuple)
        add_ssl_connection(host, port, keyfile, certfile, ca_certs)
        establish_connection(current_connection)
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
    gearman.util: """
        disambiguate_server_parameter(hostport_tuple)
        unlist(given_list)
    """,
    gearman.util.Stopwatch: """
        __init__(time_remaining)
        get_time_remaining()
        has_time_remaining(time_comparison=None)
    """,
    gearman.protocol: """
        get_command_name(cmd_type)
        submit_cmd_for_background_priority(background, priority)
        parse_binary_command(in_buffer, is_response=True)
        pack_binary_command(cmd_type, cmd_args, is_response=False)
        parse_text_command(in_buffer)
        pack_text_command(cmd_type, cmd_args)
    """,
}

#: What a client, a worker and an admin client have in common there.
MANAGER = """
    command_handler_class connection_class job_class job_request_class data_encoder connection_list
    handler_to_connection_map connection_to_handler_map handler_initial_state shutdown add_connection
    add_ssl_connection establish_connection poll_connections_once handle_connection_activity
    poll_connections_until_stopped handle_read handle_write handle_error read_command send_command on_gearman_error
    """

#: Every name of python-gearman's, by the module and, behind the colon, the class that has it.
NAMES = {
    "": """
        GearmanAdminClient GearmanClient GearmanWorker DataEncoder PRIORITY_NONE PRIORITY_LOW PRIORITY_HIGH JOB_PENDING
        JOB_CREATED JOB_FAILED JOB_COMPLETE JOB_UNKNOWN NullHandler gearman_root_logger __version__
        admin_client admin_client_handler client client_handler command_handler compat connection connection_manager
        constants errors io job protocol util worker worker_handler
        """,
    "client": """
        GearmanClient GearmanConnectionManager GearmanClientCommandHandler GearmanJobRequest ConnectionError
        ExceededConnectionAttempts ServerUnavailable RANDOM_UNIQUE_BYTES gearman_logger
        """,
    "client:GearmanClient": MANAGER
    + """
        submit_job submit_multiple_jobs submit_multiple_requests wait_until_jobs_accepted wait_until_jobs_completed
        get_job_status get_job_statuses wait_until_job_statuses_received establish_request_connection send_job_request
        random_unique_bytes request_to_rotating_connection_queue
        """,
    "worker": """
        GearmanWorker GearmanConnectionManager GearmanWorkerCommandHandler ConnectionError POLL_TIMEOUT_IN_SECONDS
        gearman_logger
        """,
    "worker:GearmanWorker": MANAGER
    + """
        register_task unregister_task set_client_id work establish_worker_connections after_poll after_job
        wait_until_updates_sent send_job_status send_job_complete send_job_failure send_job_exception send_job_data
        send_job_warning create_job on_job_execute on_job_exception on_job_complete set_job_lock has_job_lock
        check_job_lock worker_abilities worker_client_id randomized_connections command_handler_holding_job_lock
        """,
    "admin_client": """
        GearmanAdminClient GearmanConnectionManager GearmanAdminClientCommandHandler ConnectionError
        InvalidAdminClientState ServerUnavailable unlist gearman_logger
        """,
    "admin_client:GearmanAdminClient": MANAGER
    + """
        establish_admin_connection ping_server send_maxqueue send_shutdown get_status get_version get_workers
        wait_until_server_responds get_pid cancel_job get_jobs get_unique_jobs current_connection current_handler
        poll_timeout
        """,
    "job": "GearmanJob GearmanJobRequest",
    "job:GearmanJob": "connection handle task unique data to_dict",
    "job:GearmanJobRequest": """
        gearman_job priority background connection_attempts max_connection_attempts result exception warning_updates
        data_updates status state timed_out initialize_request reset job complete status_updates server_status
        """,
    "connection": "GearmanConnection",
    "connection:GearmanConnection": """
        connect_cooldown_seconds gearman_host gearman_port connected use_ssl gearman_socket fileno get_address readable
        writable connect close set_socket read_command read_commands_from_buffer read_data_from_socket send_command
        send_commands_to_buffer send_data_to_socket throw_exception
        """,
    "connection_manager": "DataEncoder NoopEncoder GearmanConnectionManager GearmanConnection",
    "connection_manager:NoopEncoder": "encode decode _enforce_byte_string",
    "connection_manager:GearmanConnectionManager": MANAGER,
    "errors": """
        GearmanError ConnectionError ServerUnavailable ProtocolError UnknownCommandError ExceededConnectionAttempts
        InvalidClientState InvalidWorkerState InvalidAdminClientState
        """,
    "io": "READ WRITE ERROR get_connection_poller",
    "command_handler:GearmanCommandHandler": """
        initial_state on_io_error decode_data encode_data fetch_commands send_command recv_command recv_error
        """,
    "client_handler:GearmanClientCommandHandler": """
        send_job_request send_get_status_of_job recv_job_created recv_work_data recv_work_warning recv_work_status
        recv_work_complete recv_work_fail recv_work_exception recv_status_res
        """,
    "worker_handler:GearmanWorkerCommandHandler": """
        set_abilities set_client_id send_job_status send_job_complete send_job_failure send_job_exception send_job_data
        send_job_warning recv_noop recv_no_job recv_job_assign_uniq recv_job_assign
        """,
    "admin_client_handler:GearmanAdminClientCommandHandler": """
        response_ready pop_response send_text_command send_echo_request recv_echo_res recv_text_command
        recv_server_status recv_server_version recv_server_workers recv_server_maxqueue recv_server_shutdown
        recv_server_getpid recv_server_show_jobs recv_server_cancel_job recv_server_show_unique_jobs
        """,
    "util": "Stopwatch disambiguate_server_parameter select unlist",
    "util:Stopwatch": "get_time_remaining has_time_remaining",
    "protocol": """
        NULL_CHAR MAGIC_RES_STRING MAGIC_REQ_STRING COMMAND_HEADER_SIZE GEARMAN_PARAMS_FOR_COMMAND
        GEARMAN_COMMAND_TO_NAME get_command_name submit_cmd_for_background_priority parse_binary_command
        pack_binary_command parse_text_command pack_text_command
        GEARMAN_SERVER_COMMAND_STATUS GEARMAN_SERVER_COMMAND_VERSION GEARMAN_SERVER_COMMAND_WORKERS
        GEARMAN_SERVER_COMMAND_MAXQUEUE GEARMAN_SERVER_COMMAND_SHUTDOWN GEARMAN_SERVER_COMMAND_GETPID
        GEARMAN_SERVER_COMMAND_SHOW_JOBS GEARMAN_SERVER_COMMAND_SHOW_UNIQUE_JOBS GEARMAN_SERVER_COMMAND_CANCEL_JOB
        GEARMAN_COMMAND_CAN_DO GEARMAN_COMMAND_CANT_DO GEARMAN_COMMAND_RESET_ABILITIES GEARMAN_COMMAND_PRE_SLEEP
        GEARMAN_COMMAND_NOOP GEARMAN_COMMAND_SUBMIT_JOB GEARMAN_COMMAND_JOB_CREATED GEARMAN_COMMAND_GRAB_JOB
        GEARMAN_COMMAND_NO_JOB GEARMAN_COMMAND_JOB_ASSIGN GEARMAN_COMMAND_WORK_STATUS GEARMAN_COMMAND_WORK_COMPLETE
        GEARMAN_COMMAND_WORK_FAIL GEARMAN_COMMAND_GET_STATUS GEARMAN_COMMAND_ECHO_REQ GEARMAN_COMMAND_ECHO_RES
        GEARMAN_COMMAND_SUBMIT_JOB_BG GEARMAN_COMMAND_ERROR GEARMAN_COMMAND_STATUS_RES GEARMAN_COMMAND_SUBMIT_JOB_HIGH
        GEARMAN_COMMAND_SET_CLIENT_ID GEARMAN_COMMAND_CAN_DO_TIMEOUT GEARMAN_COMMAND_ALL_YOURS
        GEARMAN_COMMAND_WORK_EXCEPTION GEARMAN_COMMAND_OPTION_REQ GEARMAN_COMMAND_OPTION_RES GEARMAN_COMMAND_WORK_DATA
        GEARMAN_COMMAND_WORK_WARNING GEARMAN_COMMAND_GRAB_JOB_UNIQ GEARMAN_COMMAND_JOB_ASSIGN_UNIQ
        GEARMAN_COMMAND_SUBMIT_JOB_HIGH_BG GEARMAN_COMMAND_SUBMIT_JOB_LOW GEARMAN_COMMAND_SUBMIT_JOB_LOW_BG
        GEARMAN_COMMAND_TEXT_COMMAND
        """,
}

#: python-gearman's classes that drove sockets, and where what there is of one stands here.
HOMES = {"admin_client_handler:GearmanAdminClientCommandHandler": "admin_client:AdminCommandHandler"}

#: What one of client, worker and admin client has, and the others have not. The docs say which.
ONLY_ONE = {"poll_connections_until_stopped": "client:GearmanClient", "handle_error": "worker:GearmanWorker"}


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


@pytest.mark.parametrize("module", CONSTANTS, ids=lambda module: module or "gearman")
def test_constants_have_python_gearmans_values(module):
    owner = found(module)
    assert {name: getattr(owner, name, "missing") for name in CONSTANTS[module]} == CONSTANTS[module]


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


def found(place):
    """What has the names of this place; None if there is no such thing here."""
    module, _, kind = HOMES.get(place, place).partition(":")
    owner = getattr(gearman, module, None) if module else gearman
    return getattr(owner, kind, None) if kind else owner


@pytest.fixture
def holders(instances):
    """What has the names of each place: an instance, where there is one."""
    by_class = {
        "GearmanClient": instances["client"],
        "GearmanWorker": instances["worker"],
        "GearmanAdminClient": instances["admin"],
        "GearmanJob": instances["job"],
        "GearmanJobRequest": instances["request"],
        "GearmanConnection": instances["connection"],
    }
    return {place: by_class.get(place.partition(":")[2], found(place)) for place in NAMES}


def missing(holder, place):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return {name for name in NAMES[place].split() if not hasattr(holder, name)}


def listed(place):
    """What the page on python-gearman lists as missing from this place."""
    module, _, kind = place.partition(":")
    labels = {kind or module or "gearman"}
    if NAMES[place].startswith(MANAGER):
        labels.add("GearmanConnectionManager")
    items = re.findall(r"^\* ``(\w+)``[^:]*:(.*?)(?=^\* |^\S|\Z)", DOCS, re.MULTILINE | re.DOTALL)
    return {name for label, text in items if label in labels for name in re.findall(r"``(\w+)``", text)}


@pytest.mark.parametrize("place", NAMES, ids=lambda place: place or "gearman")
def test_each_name_of_python_gearmans_is_here_or_named_in_the_docs(holders, place):
    assert missing(holders[place], place) - listed(place) == set()


@pytest.mark.parametrize("place", NAMES, ids=lambda place: place or "gearman")
def test_docs_name_nothing_as_missing_that_is_here(holders, place):
    here = set(NAMES[place].split()) - missing(holders[place], place)
    assert listed(place) & here == {name for name, owner in ONLY_ONE.items() if owner == place}


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
    with gearman.GearmanClient([up.address, down.address], submit_timeout=2) as client:
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


def test_connection_says_whether_it_is_connected(gearmands):
    up, down = gearmands(), gearmands()
    down.kill()
    with gearman.GearmanClient([up.address, down.address]) as client:
        first, second = client.connection_list
        assert (first.connected, second.connected) == (False, False)
        job = client.submit_job("nobody", b"", background=True, poll_timeout=10).job
        assert (first.connected, second.connected, job.connection.connected) == (True, False, True)
        assert not GearmanConnection(*up.endpoint).connected
        assert not pickle.loads(pickle.dumps(first)).connected
        assert copy.copy(first) == pickle.loads(pickle.dumps(first)) == first
        up.kill()
        wait_until(lambda: not job.connection.connected, message="the loss is noticed")
    up.start()
    with gearman.GearmanAdminClient([up.address]) as admin:
        connection = admin.current_connection
        assert not connection.connected
        assert admin.establish_connection(connection) is connection
        assert connection.connected
    assert not connection.connected
    # It keeps nobody alive.
    owners = [weakref.ref(client), weakref.ref(admin)]
    del client, admin
    gc.collect()
    assert [owner() for owner in owners] == [None, None]
    assert (connection.connected, job.connection.connected) == (False, False)


def test_admin_client_has_one_connection_and_takes_no_other(gearmand):
    with gearman.GearmanAdminClient([gearmand.address]) as admin:
        assert admin.connection_list == [admin.current_connection]
        assert admin.add_connection(gearmand.endpoint) == admin.current_connection
        for refused in (admin.add_connection, admin.establish_connection):
            with pytest.raises(ValueError, match="elsewhere:4730"):
                refused("elsewhere" if refused == admin.add_connection else GearmanConnection("elsewhere"))
        assert admin.log.name == "gearman_pool.admin_client"
        assert admin.data_encoder is gearman.NoopEncoder


def test_worker_tells_what_it_works_with(gearmand):
    worker = gearman.GearmanWorker([gearmand.address, ("127.0.0.1", 1)])
    up, down = worker.connection_list
    seen = {}

    @worker.task("look")
    def look(job):
        seen.update(
            locked=worker.has_job_lock(),
            connected=worker.establish_worker_connections(),
            connection=job.connection,
            is_connected=[connection.connected for connection in worker.connection_list],
            holding=worker.command_handler_holding_job_lock,
            checked=[worker.check_job_lock(connection) for connection in worker.connection_list],
            established=worker.establish_connection(up),
        )

    assert (up.get_address(), down.get_address()) == (gearmand.endpoint, ("127.0.0.1", 1))
    assert sorted(worker.randomized_connections, key=str) == sorted([up, down], key=str)
    assert worker.establish_worker_connections() == []
    assert not worker.has_job_lock()
    assert worker.command_handler_holding_job_lock is None
    assert not worker.check_job_lock(up)
    with running(worker), gearman.GearmanClient([gearmand.address]) as client:
        assert client.submit("look").result(20) == b""
        wait_until(lambda: not worker.has_job_lock(), message="the job is done")
    assert seen == {
        "locked": True,
        "connected": [up],
        "connection": up,
        "is_connected": [True, False],
        "holding": up,
        "checked": [True, False],
        "established": up,
    }
    assert worker.worker_abilities == {"look": look}
    assert worker.worker_client_id is None
    assert worker.log.name == "gearman_pool.worker"


def test_worker_takes_jobs_from_servers_that_are_added(gearmands):
    first, second, third = (gearmands() for _ in range(3))
    worker = gearman.GearmanWorker([first.address])
    worker.register_task("name", lambda job: str(job.connection).encode())
    connections = [worker.add_connection(second.endpoint)]
    with running(worker):
        connections.append(worker.add_connection(third.address))
        assert worker.add_connection(third.address) == connections[1]
        for connection in worker.connection_list:
            with gearman.GearmanClient([connection.get_address()]) as client:
                assert client.submit("name").result(20) == str(connection).encode()
    assert worker.connection_list[1:] == connections


def test_worker_establishes_a_connection_or_says_why_not(gearmands):
    up, down = gearmands(), gearmands()
    down.kill()
    worker = gearman.GearmanWorker([up.address, down.address], connect_timeout=0.5)
    first, second = worker.connection_list
    with pytest.raises(ServerUnavailable, match="does not run"):
        worker.establish_connection(first)
    worker.register_task("task", str)
    with running(worker):
        assert worker.establish_connection(first) is first
        with pytest.raises(ServerUnavailable, match=f"{down.address} does not answer .* refused"):
            worker.establish_connection(second)
        with pytest.raises(ValueError, match="elsewhere"):
            worker.establish_connection(GearmanConnection("elsewhere"))


def test_worker_is_told_of_connections_that_are_lost(gearmand):
    heard = []

    class Worker(gearman.GearmanWorker):
        def handle_error(self, current_connection):
            heard.append(current_connection)
            super().handle_error(current_connection)

    worker = Worker([gearmand.address], reconnect_backoff=(0.05, 0.1))
    worker.register_task("task", lambda job: b"r")
    with running(worker):
        assert heard == []
        gearmand.restart()
        wait_until(lambda: heard, message="the hook is called")
        with gearman.GearmanClient([gearmand.address]) as client:
            assert client.submit("task").result(20) == b"r"
    assert set(heard) == set(worker.connection_list)


# ---- util and protocol -----------------------------------------------------------------------------------------------


def test_stopwatch_counts_down_on_the_monotonic_clock(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    watch = gearman.util.Stopwatch(1000.0)
    assert 900 < watch.get_time_remaining() <= 1000
    assert watch.has_time_remaining()
    assert watch.has_time_remaining(watch.stop_time - 1)
    assert not watch.has_time_remaining(watch.stop_time)
    over = gearman.util.Stopwatch(-1.0)
    assert (over.get_time_remaining(), over.has_time_remaining()) == (0.0, False)
    endless = gearman.util.Stopwatch(None)
    assert (endless.get_time_remaining(), endless.has_time_remaining(), endless.stop_time) == (None, True, None)


@pytest.mark.parametrize(
    ("given", "server"),
    [
        ("host", ("host", 4730)),
        ("host:4731", ("host", 4731)),
        (("host", "4731"), ("host", 4731)),
        ("::1", ("::1", 4730)),
        ("[::1]:4731", ("::1", 4731)),
        (("::1", 4731), ("::1", 4731)),
    ],
)
def test_server_parameter_is_disambiguated(given, server):
    assert gearman.util.disambiguate_server_parameter(given) == server


def test_unlist_gives_the_only_item():
    assert gearman.util.unlist([7]) == 7
    assert gearman.util.unlist([]) is None
    with pytest.raises(ValueError, match="2 items"):
        gearman.util.unlist([1, 2])


def test_protocol_names_are_those_of_the_command_table():
    protocol = gearman.protocol
    assert (protocol.NULL_CHAR, protocol.MAGIC_REQ_STRING, protocol.MAGIC_RES_STRING) == (b"\0", b"\0REQ", b"\0RES")
    assert protocol.COMMAND_HEADER_SIZE == 12
    assert (protocol.GEARMAN_COMMAND_CAN_DO, protocol.GEARMAN_COMMAND_SUBMIT_JOB_LOW_BG) == (1, 34)
    assert (protocol.GEARMAN_COMMAND_GET_STATUS_UNIQUE, protocol.GEARMAN_COMMAND_TEXT_COMMAND) == (41, 9999)
    assert protocol.get_command_name(16) == "GEARMAN_COMMAND_ECHO_REQ"
    assert protocol.get_command_name(99) == 99
    parameters = protocol.GEARMAN_PARAMS_FOR_COMMAND
    assert parameters[protocol.GEARMAN_COMMAND_JOB_ASSIGN_UNIQ] == ["job_handle", "task", "unique", "data"]
    assert parameters[protocol.GEARMAN_COMMAND_ERROR] == ["error_code", "error_text"]
    assert parameters[protocol.GEARMAN_COMMAND_OPTION_REQ] == ["option_name"]
    assert parameters[9999] == ["raw_text"]
    assert protocol.submit_cmd_for_background_priority(True, gearman.PRIORITY_HIGH) == 32
    with pytest.raises(AttributeError, match="GEARMAN_COMMAND_NONE"):
        _ = protocol.GEARMAN_COMMAND_NONE


@pytest.mark.parametrize("is_response", [True, False])
def test_binary_commands_are_packed_and_parsed(is_response):
    protocol = gearman.protocol
    arguments = {"task": "größe", "unique": b"u", "data": b"with\0NUL"}
    packet = protocol.pack_binary_command(protocol.GEARMAN_COMMAND_SUBMIT_JOB, arguments, is_response)
    parsed = {"task": "größe".encode(), "unique": b"u", "data": b"with\0NUL"}
    for buffer in (packet, bytearray(packet + b"\0RES"), array.array("b", packet)):
        assert protocol.parse_binary_command(buffer, is_response) == (7, parsed, len(packet))
    for length in range(len(packet)):
        assert protocol.parse_binary_command(packet[:length], is_response) == (None, None, 0)
    with pytest.raises(gearman.errors.ProtocolError, match="starts with"):
        protocol.parse_binary_command(packet, not is_response)
    large = protocol.pack_binary_command(protocol.GEARMAN_COMMAND_ECHO_REQ, {"data": b"x" * 100_000})
    assert protocol.parse_binary_command(large, False)[1] == {"data": b"x" * 100_000}


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (99, {}),
        (9999, {"raw_text": b"status"}),
        (1, {}),
        (1, {"task": b"a", "data": b""}),
        (1, {"task": 7}),
        (7, {"task": b"a\0b", "unique": b"", "data": b""}),
    ],
)
def test_binary_commands_that_cannot_be_are_refused(command, arguments):
    with pytest.raises(gearman.errors.ProtocolError):
        gearman.protocol.pack_binary_command(command, arguments)


@pytest.mark.parametrize("packet", [pack(99), pack(4, b"too much"), pack(7, b"too", b"few")])
def test_binary_packets_that_cannot_be_are_refused(packet):
    with pytest.raises(gearman.errors.ProtocolError):
        gearman.protocol.parse_binary_command(packet, is_response=False)


def test_text_commands_are_packed_and_parsed():
    protocol = gearman.protocol
    assert protocol.parse_text_command(b"OK\nmore") == (9999, {"raw_text": b"OK"}, 3)
    assert protocol.parse_text_command(b"OK") == (None, None, 0)
    assert protocol.pack_text_command(9999, {"raw_text": "status\n"}) == b"status\n"
    for refused in (
        lambda: protocol.parse_text_command(b"O\0K\n"),
        lambda: protocol.pack_text_command(7, {"raw_text": "status"}),
        lambda: protocol.pack_text_command(9999, {}),
    ):
        with pytest.raises(gearman.errors.ProtocolError):
            refused()


def test_noop_encoder_enforces_byte_strings_for_encoders_that_are_derived_from_it():
    for payload in (b"bytes", bytearray(b"bytes"), "text"):
        gearman.NoopEncoder._enforce_byte_string(payload)
    with pytest.raises(TypeError, match="int"):
        gearman.NoopEncoder._enforce_byte_string(7)
