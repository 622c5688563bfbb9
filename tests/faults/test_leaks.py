"""S2 and S4: nothing that arrives is run, and what is secret appears in no log, repr, error or pickle of one."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import logging
import os
import pickle
import traceback

import pytest
import trustme

from gearman_pool import (
    BytesEncoder,
    GearmanAdminClient,
    GearmanClient,
    GearmanWorker,
    JSONEncoder,
    ServerAddress,
)
from gearman_pool.errors import ClientSaturated, EncodeError, GearmanError, JobException
from gearman_pool.options import make_ssl_context, servers_from_env

from ..support.listening import Keeping
from ..support.outcomes import wait_accepted, wait_up
from ..support.processes import ROOT
from ..support.scripted import ScriptedServer
from ..support.waiting import wait_until

PAYLOAD = b"TopSecretPayload"
RESULT = b"TopSecretResult"
SECRETS = ("TopSecret", "hunter2")


class _Bomb:
    """Unpickling it would leave a trace."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return os.putenv, ("GEARMAN_POOL_BOMB", "went off")


@pytest.mark.parametrize("encoder", [BytesEncoder, JSONEncoder])
def test_default_encoders_run_nothing_of_what_arrives(gearmand, raw_worker, encoder):
    """S2: a pickle that comes as a result is bytes, or no JSON."""
    bomb = pickle.dumps(_Bomb())
    with GearmanClient([gearmand.address], data_encoder=encoder) as client:
        future = client.submit("raw")
        raw_worker.next_job().complete(bomb)
        if encoder is BytesEncoder:
            assert future.result(15) == bomb
        else:
            with pytest.raises(Exception, match=r"JSON|decode|utf-8"):
                future.result(15)


def test_package_never_imports_pickle():
    """S2: only a user's own encoder can bring it in."""
    names = ("pickle", "marshal", "shelve")
    for path in (ROOT / "gearman_pool").rglob("*.py"):
        lines = path.read_text().splitlines()
        assert not [line for line in lines if line.strip().startswith(tuple(f"import {name}" for name in names))], path
        assert not [line for line in lines if line.strip().startswith(tuple(f"from {name} " for name in names))], path


class _Witness:
    """Gathers every text that could end in a log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._texts: list[str] = []
        self._caplog = caplog
        caplog.set_level(logging.DEBUG)

    def see(self, *things: object) -> None:
        for thing in things:
            self._texts += [repr(thing), str(thing)]
            if isinstance(thing, BaseException):
                self._see_error(thing)

    def _see_error(self, error: BaseException) -> None:
        self._texts += traceback.format_exception(type(error), error, error.__traceback__)
        if isinstance(error, JobException):
            # What the worker said is the one thing that is there to be read, and only there.
            error = copy.copy(error)
            error.data = None
        self._texts.append(repr(pickle.dumps(error)))
        self._texts.append(repr(vars(error)))

    def check(self) -> None:
        texts = [*self._texts, self._caplog.text]
        for record in self._caplog.records:
            texts += [record.getMessage(), repr(record.args)]
        for secret in SECRETS:
            found = [text for text in texts if secret in text]
            assert not found, found[0]


@pytest.fixture
def witness(caplog):
    return _Witness(caplog)


def _submit_and_see(client: GearmanClient, witness: _Witness, **options) -> GearmanError | None:
    future = client.submit("raw", PAYLOAD, **options)
    error = future.exception(15)
    witness.see(future, future.request, future.job, client, *client.servers(), client.stats())
    if error is not None:
        witness.see(error)
    return error


def test_payloads_and_results_appear_nowhere(gearmand, raw_worker, witness):
    keeping = Keeping()
    with GearmanClient([gearmand.address], listeners=[keeping], policy="failover") as client:
        future = client.submit("raw", PAYLOAD, on_data=lambda data: 1 / 0, on_status=lambda *numbers: 1 / 0)
        future.add_done_callback(lambda done: 1 / 0)
        job = raw_worker.next_job()
        witness.see(future, future.request, future.job, client)
        job.send_data(RESULT)
        job.send_warning(RESULT)
        job.send_status(1, 2)
        job.complete(RESULT)
        assert future.result(15) == RESULT
        witness.see(future, future.request, future.job)
        reference = client.submit_background("nobody", PAYLOAD).result(15)
        witness.see(reference, client.status(reference), pickle.dumps(reference))
        failing, raising = client.submit("raw", PAYLOAD), client.submit("raw", PAYLOAD)
        raw_worker.next_job().fail()
        raw_worker.next_job().exception(RESULT)
        for other in (failing, raising):
            witness.see(other.exception(15), other, other.request)
        assert raising.exception().data == RESULT
        timed_out = client.submit("nobody", PAYLOAD, timeout=0.05)
        witness.see(timed_out.exception(15))
        cancelled = client.submit("nobody", PAYLOAD)
        wait_accepted(cancelled)
        assert cancelled.cancel()
        try:
            cancelled.result()
        except concurrent.futures.CancelledError as error:
            witness.see(error)
        try:
            client.submit("raw", PAYLOAD).result(0.05)
        except TimeoutError as error:
            witness.see(error)
        lost = client.submit("raw", PAYLOAD)
        wait_accepted(lost)
        gearmand.kill()
        witness.see(lost.exception(15))
        gearmand.start()
        wait_up(client)
        witness.see(client.submit("nobody", PAYLOAD), client, *client.servers())
        client.close(0)
    wait_until(lambda: keeping.events)
    witness.see(*keeping.events)
    witness.check()


def test_errors_of_submitting_hold_no_payload(gearmand, witness):
    class Broken(BytesEncoder):
        @classmethod
        def encode(cls, encodable_object: object) -> bytes:
            raise RuntimeError("cannot encode")

    for encoder, data in (
        (BytesEncoder, [PAYLOAD]),
        (JSONEncoder, {PAYLOAD}),
        (JSONEncoder, PAYLOAD),
        (Broken, PAYLOAD),
    ):
        with GearmanClient([gearmand.address], data_encoder=encoder) as client, pytest.raises(EncodeError) as raised:
            client.submit("raw", data)
        witness.see(raised.value)
    with GearmanClient([gearmand.address], max_in_flight=1, submit_timeout=0.05) as client:
        client.submit("nobody", PAYLOAD)
        with pytest.raises(ClientSaturated) as saturated:
            client.submit("nobody", PAYLOAD)
        witness.see(saturated.value)
        client.close(0)
    with GearmanClient(["127.0.0.1:1"], submit_timeout=0.1) as client:
        _submit_and_see(client, witness)
    witness.check()


@pytest.mark.parametrize(
    "garbage", [b"\0RES" + RESULT, RESULT, RESULT + b"\n", b"\0RES\0\0\0\x0d\0\0\0\x0fTopSecretResult", b"\0" + RESULT]
)
def test_protocol_errors_hold_none_of_the_bytes(garbage, witness):
    def script(connection, packet) -> None:
        connection.sock.sendall(garbage)

    with ScriptedServer(script) as server, GearmanClient([server.address], submit_timeout=0.2) as client:
        wait_up(client)
        assert _submit_and_see(client, witness) is not None
    witness.check()


def test_results_that_cannot_be_decoded_hold_no_result(gearmand, raw_worker, witness):
    with GearmanClient([gearmand.address], data_encoder=JSONEncoder) as client:
        future = client.submit("raw", {"key": PAYLOAD.decode()})
        raw_worker.next_job().complete(RESULT)
        with pytest.raises(Exception) as raised:
            future.result(15)
        witness._texts += traceback.format_exception(raised.value)
        witness.see(future, future.request)
    witness.check()


def test_tasks_that_fail_log_no_payload(gearmand, witness):
    worker = GearmanWorker([gearmand.address])

    @worker.task("fails")
    def fails(job) -> bytes:
        secret = job.data  # a local variable, which must stay where it is
        raise RuntimeError(f"the task fails with {len(secret)} bytes")

    @worker.task("odd")
    def odd(job) -> object:
        return {"no bytes": job.data}

    with GearmanClient([gearmand.address]) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        working = pool.submit(worker.work)
        try:
            for task in ("fails", "odd"):
                error = client.submit(task, PAYLOAD).exception(15)
                witness.see(error)
                assert b"TopSecret" not in error.data
            witness.see(worker, worker.stats())
        finally:
            worker.stop()
            working.result(15)
            worker.close()
    witness.check()


@pytest.mark.parametrize(
    "servers",
    [
        "gearman://user:hunter2@host:4730/",
        "gearman://hunter2@host/",
        "gearman://host:hunter2/",
        "gearmans://user:hunter2@host/?ca=TopSecret.pem",
        "user:hunter2@host",
        ["user:hunter2@host:4730"],
        [("user:hunter2@host", 4730)],
        [{"host": "user:hunter2@host"}],
    ],
)
def test_passwords_in_servers_are_never_shown(servers, witness):
    for make in (GearmanClient, GearmanAdminClient, GearmanWorker):
        with pytest.raises((ValueError, TypeError)) as raised:
            make(servers)
        witness._texts += traceback.format_exception(raised.value)[-1:]
        witness._texts.append(repr(pickle.dumps(raised.value)))
    with contextlib.suppress(ValueError):
        servers_from_env({"GEARMAN_SERVERS": servers} if isinstance(servers, str) else {})
    witness.check()


def test_key_files_are_never_shown(tmp_path, witness):
    ca = trustme.CA()
    leaf = ca.issue_cert("127.0.0.1")
    names = {name: tmp_path / f"TopSecret{name}.pem" for name in ("ca", "cert", "key", "missing", "garbage")}
    ca.cert_pem.write_to_path(names["ca"])
    leaf.cert_chain_pems[0].write_to_path(names["cert"])
    leaf.private_key_pem.write_to_path(names["key"])
    names["garbage"].write_text("hunter2")
    text = {name: str(path) for name, path in names.items()}
    for files in (
        (text["missing"], None, None),
        (text["garbage"], None, None),
        (text["ca"], text["missing"], None),
        (text["ca"], text["cert"], text["missing"]),
        (text["ca"], text["cert"], text["garbage"]),
    ):
        with pytest.raises(ValueError) as raised:
            make_ssl_context(*files)
        witness._texts += traceback.format_exception(raised.value)[-1:]
    context = make_ssl_context(text["ca"], text["cert"], text["key"])
    dsn = f"gearmans://127.0.0.1:1/?ca={text['ca']}&cert={text['cert']}&key={text['key']}&submit_timeout=0.1"
    for client in (
        GearmanClient(dsn),
        GearmanClient([ServerAddress("127.0.0.1", 1, context)], submit_timeout=0.1),
        GearmanClient(
            [
                {
                    "host": "127.0.0.1",
                    "port": 1,
                    "keyfile": text["key"],
                    "certfile": text["cert"],
                    "ca_certs": text["ca"],
                }
            ],
            submit_timeout=0.1,
        ),
    ):
        with client:
            witness.see(client.submit("raw", PAYLOAD).exception(15), client, client.options, *client.servers())
    witness.check()
