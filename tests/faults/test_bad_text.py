"""S3: text that would break out of its place in the protocol is refused before anything is written."""

from __future__ import annotations

import pytest

from gearman_pool import JOB_CREATED, GearmanAdminClient, GearmanClient, GearmanWorker, JobReference
from gearman_pool.errors import GearmanError, ProtocolError
from gearman_pool.job import GearmanJob, GearmanJobRequest
from gearman_pool.testing import FaultProxy

from ..support.outcomes import wait_up
from ..support.running import running

#: Stands in every bad text, and must never be seen on the wire.
MARK = "Evil"

NUL = f"a\0{MARK}"
NEWLINE = f"a\nshow jobs {MARK}"
RETURN = f"a\r{MARK}"
SPACE = f"a {MARK}"
LONG = MARK * 200
LONG_UNIQUE = MARK * 16
SURROGATE = f"{MARK}\ud800"

BINARY = {"NUL": NUL, "too long": LONG, "lone surrogate": SURROGATE, "NUL in bytes": NUL.encode(), "empty": ""}
UNIQUE = {**BINARY, "too long": LONG_UNIQUE, "64 bytes, not characters": "\u00e9" * 32}
HANDLE = {**BINARY, "too long": LONG_UNIQUE}
ADMIN = {"NUL": NUL, "newline": NEWLINE, "carriage return": RETURN, "empty": "", "too long": MARK * 3000}
ONE_WORD = {**ADMIN, "space": SPACE}


def _request(client: GearmanClient, handle: object) -> GearmanJobRequest:
    request = GearmanJobRequest(GearmanJob(client.connection_list[0], handle, "task", None, b""))
    request.state = JOB_CREATED
    return request


CLIENT = {
    "submit task": (lambda client, text: client.submit(text), BINARY),
    "submit unique": (lambda client, text: client.submit("task", unique=text), UNIQUE),
    "submit_background task": (lambda client, text: client.submit_background(text), BINARY),
    "submit_background unique": (lambda client, text: client.submit_background("task", unique=text), UNIQUE),
    "submit_background at": (lambda client, text: client.submit_background(text, at=1), BINARY),
    "map": (lambda client, text: client.map(text, [b""]), BINARY),
    "submit_job task": (lambda client, text: client.submit_job(text, b""), BINARY),
    "submit_job unique": (
        # As in python-gearman, an empty one is none there.
        lambda client, text: client.submit_job("task", b"", unique=text, wait_until_complete=False),
        {name: text for name, text in UNIQUE.items() if text},
    ),
    "submit_multiple_jobs": (
        lambda client, text: client.submit_multiple_jobs([{"task": text, "data": b""}], wait_until_complete=False),
        BINARY,
    ),
    "status unique": (lambda client, text: client.status(unique=text), UNIQUE),
    "status reference's handle": (
        lambda client, text: client.status(JobReference(str(client.servers()[0].address), text, "")),
        {name: text for name, text in HANDLE.items() if isinstance(text, str)},
    ),
    "status reference's unique": (
        lambda client, text: client.status(JobReference(str(client.servers()[0].address), "H:a:1", text)),
        {name: text for name, text in UNIQUE.items() if isinstance(text, str) and text},
    ),
    "status reference's text": (lambda client, text: client.status(text), {"no reference": MARK, "empty": ""}),
    "get_job_status": (lambda client, text: client.get_job_status(_request(client, text)), HANDLE),
}


@pytest.fixture
def wire(gearmand):
    with FaultProxy(gearmand.address, record=True) as proxy:
        yield proxy


def _cases(table) -> list:
    return [
        pytest.param(call, text, id=f"{name}: {kind}")
        for name, (call, texts) in table.items()
        for kind, text in texts.items()
    ]


def _refuses(call, subject, text) -> None:
    with pytest.raises(ValueError) as raised:
        call(subject, text)
    # A ValueError that says what is wrong, and not one that some codec happened to raise.
    assert type(raised.value) is ValueError, raised.value
    assert len(str(raised.value)) < 300


def test_client_refuses_bad_text_before_anything_is_written(wire):
    with GearmanClient([wire.address]) as client:
        wait_up(client)
        for parameters in _cases(CLIENT):
            call, text = parameters.values
            try:
                _refuses(call, client, text)
            except BaseException as error:
                raise AssertionError(f"{parameters.id}: {error!r}") from error
        # What was written before the fence has arrived when the answer comes.
        assert client.ping(10)[wire.address] is not None
        assert client.stats().in_flight == 0
    assert MARK.encode() not in wire.recorded("to_server")
    assert b"SUBMIT" not in wire.recorded("to_server")


ADMIN_CALLS = {
    "send_maxqueue": (lambda admin, text: admin.send_maxqueue(text, 1), ONE_WORD),
    "cancel_job": (lambda admin, text: admin.cancel_job(text), ONE_WORD),
    "create_function": (lambda admin, text: admin.create_function(text), ONE_WORD),
    "drop_function": (lambda admin, text: admin.drop_function(text), ONE_WORD),
}


def test_admin_client_refuses_bad_text_before_anything_is_written(wire):
    with GearmanAdminClient([wire.address]) as admin:
        assert admin.get_pid()
        for parameters in _cases(ADMIN_CALLS):
            call, text = parameters.values
            try:
                _refuses(call, admin, text)
            except BaseException as error:
                raise AssertionError(f"{parameters.id}: {error!r}") from error
        for line in (f"status\nshutdown {MARK}", f"maxqueue a\0{MARK} 1", f"cancel job a\r\n{MARK}", MARK * 3000):
            with pytest.raises((ValueError, ProtocolError)):
                admin.current_handler.send_text_command(line)
        assert admin.get_pid()
    assert MARK.encode() not in wire.recorded("to_server")


CLIENT_ID = {**BINARY, "newline": NEWLINE, "carriage return": RETURN, "control character": f"{MARK}\x1b[2J"}

WORKER_CALLS = {
    "register_task": (lambda worker, text: worker.register_task(text, lambda job: b""), BINARY),
    "register_task with a timeout": (lambda worker, text: worker.register_task(text, lambda job: b"", 5.0), BINARY),
    "task": (lambda worker, text: worker.task(text)(lambda job: b""), BINARY),
    "set_client_id": (lambda worker, text: worker.set_client_id(text), CLIENT_ID),
    "unregister_task": (lambda worker, text: worker.unregister_task(text), BINARY),
    "client_id of a new worker": (lambda worker, text: GearmanWorker(["127.0.0.1:1"], client_id=text), CLIENT_ID),
}


def test_worker_refuses_bad_text_before_anything_is_written(wire):
    worker = GearmanWorker([wire.address], client_id="good name")
    worker.register_task("good", lambda job: job.data)
    cases = _cases(WORKER_CALLS)

    def refuse_all() -> None:
        for parameters in cases:
            call, text = parameters.values
            try:
                _refuses(call, worker, text)
            except BaseException as error:
                raise AssertionError(f"{parameters.id}: {error!r}") from error

    # Once before it works, when all waits for the greeting, and once while it does, when all is sent at once.
    refuse_all()
    with running(worker), GearmanClient([wire.address]) as client:
        refuse_all()
        # What is good is sent behind it: when the server knows it, it has had all that was written before.
        worker.set_client_id("better name")
        worker.register_task("better", lambda job: job.data)
        assert client.submit("better", b"x").result(10) == b"x"
        assert set(worker.worker_abilities) == {"good", "better"}
        assert worker.worker_client_id == "better name"
    sent = wire.recorded("to_server")
    for good in (b"good name", b"better name", b"\0\0\0\4good", b"\0\0\0\6better"):
        assert good in sent
    assert MARK.encode() not in sent


@pytest.mark.parametrize("prefix", [NUL, LONG, SURROGATE])
def test_prefix_is_refused_when_the_client_is_made(prefix):
    with pytest.raises(ValueError):
        GearmanClient(["127.0.0.1:1"], prefix=prefix)


def test_prefix_and_task_together_are_measured():
    with GearmanClient(["127.0.0.1:1"], prefix="p" * 300) as client, pytest.raises(ValueError, match="with its prefix"):
        client.submit("t" * 300)


@pytest.mark.parametrize(
    "at", [-1, 2**63, float("nan"), float("inf")], ids=["past the epoch", "64 bits", "not a number", "infinite"]
)
def test_moments_that_gearmand_never_answers_are_refused(at):
    with GearmanClient(["127.0.0.1:1"]) as client, pytest.raises(ValueError):
        client.submit_background("task", at=at)


@pytest.mark.parametrize("text", ["1.2.3.4\n:4730", "a\0b", "a b", "user:Evil@host", "host:4730/Evil", "host:Evil"])
def test_servers_with_bad_text_are_refused(text):
    for make in (GearmanClient, GearmanAdminClient, GearmanWorker):
        with pytest.raises(ValueError) as raised:
            make([text])
        assert not isinstance(raised.value, GearmanError)
    with GearmanClient(["127.0.0.1:1"]) as client, pytest.raises(ValueError):
        client.add_server(text)
