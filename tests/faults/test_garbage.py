"""F6: a server sends what is not the protocol: its connection is closed, and the others feel nothing."""

from __future__ import annotations

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionLost, ProtocolError

from ..support.raw import JOB_CREATED, WORK_COMPLETE, pack_response
from .scripted import ScriptedServer
from .support import wait_up


def test_results_that_came_before_the_garbage_count():
    """One read brings two results and then garbage; no job hangs, and none that was answered is lost."""
    submitted = []

    def script(connection, packet) -> None:
        submitted.append(packet)
        if len(submitted) == 3:
            created = b"".join(pack_response(JOB_CREATED, b"H:%d" % number) for number in range(3))
            done = b"".join(pack_response(WORK_COMPLETE, b"H:%d" % number, b"%d" % number) for number in range(2))
            connection.sock.sendall(created + done + b"\0garbage")

    with ScriptedServer(script) as server, GearmanClient([server.address]) as client:
        wait_up(client)
        futures = [client.submit("task") for _ in range(3)]
        assert [future.result(10) for future in futures[:2]] == [b"0", b"1"]
        error = futures[2].exception(10)
        assert isinstance(error, ConnectionLost)
        assert error.maybe_sent
        assert isinstance(error.__cause__, ProtocolError)
