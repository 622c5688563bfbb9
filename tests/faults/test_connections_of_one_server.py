"""F1 and F2 with ``connections_per_server``: one of a server's connections freezes, breaks or fails."""

from __future__ import annotations

import threading

from gearman_pool import GearmanClient
from gearman_pool.events import ConnectionClosed, ConnectionFailed

from ..support.listening import Keeping
from ..support.raw import ECHO_REQ, ECHO_RES, JOB_CREATED, OPTION_REQ, OPTION_RES, Packet, RawConnection, pack_response
from ..support.scripted import ScriptedServer, SilentServer
from ..support.waiting import wait_until

#: So long that no connection comes back while a test looks.
NEVER = (36_000.0, 36_000.0)


class _Freezing:
    """The script of a server that answers nothing on its first connection while that is ``frozen``."""

    def __init__(self) -> None:
        self.frozen = threading.Event()
        self.connections: list[RawConnection] = []
        #: Which connection each job came on.
        self.taken: list[RawConnection] = []
        self._owed: list[bytes] = []
        self._lock = threading.Lock()

    def __call__(self, connection: RawConnection, packet: Packet) -> None:
        with self._lock:
            if packet.command == OPTION_REQ:
                self.connections.append(connection)
                answer = pack_response(OPTION_RES, packet.body)
            elif packet.command == ECHO_REQ:
                answer = pack_response(ECHO_RES, packet.body)
            else:
                self.taken.append(connection)
                answer = pack_response(JOB_CREATED, b"H:here:%d" % len(self.taken))
            if self.frozen.is_set() and connection is self.connections[0]:
                self._owed.append(answer)
            else:
                connection.sock.sendall(answer)

    def thaw(self) -> None:
        """Send what the first connection has missed, in order, and go on."""
        with self._lock:
            self.frozen.clear()
            self.connections[0].sock.sendall(b"".join(self._owed))


def test_new_jobs_avoid_a_connection_that_has_missed_one_check_until_it_answers():
    script = _Freezing()
    with (
        ScriptedServer(script, greets=False) as server,
        GearmanClient(
            [server.address], connections_per_server=2, health_check_interval=0.5, health_check_timeout=6
        ) as client,
    ):
        wait_until(lambda: client.ping() and client.servers()[0].connections == 2, message="both are up")

        def avoided() -> bool:
            # More than one: both connections would have their share.
            before = len(script.taken)
            for _ in range(4):
                client.submit("nobody")
            wait_until(lambda: len(script.taken) == before + 4, message="the jobs are at the server")
            return script.connections[0] not in script.taken[before:]

        assert not avoided()
        script.frozen.set()
        wait_until(avoided, 5, interval=0.3, message="new jobs take the other connection")
        assert avoided()
        script.thaw()
        wait_until(lambda: not avoided(), 5, interval=0.3, message="it is used again")
        assert client.stats().connections_lost == 0
        client.close(0)


def test_server_stays_up_when_one_of_its_connections_is_lost():
    heard = Keeping()
    with (
        SilentServer() as server,
        GearmanClient([server.address], connections_per_server=2, reconnect_backoff=NEVER, listeners=[heard]) as client,
    ):
        server.speaking = True
        wait_until(lambda: client.ping() and client.servers()[0].connections == 2, message="both are up")
        server.connections[0].close()
        wait_until(lambda: heard.of(ConnectionClosed), message="the loss is noticed")
        (info,) = client.servers()
        assert (info.state, info.connections) == ("UP", 1)
        assert client.submit_background("x").result(10).server == server.address
        # It is to be replaced all the same.
        assert info.retry_in


def test_lost_connection_is_replaced_while_another_one_works():
    with (
        SilentServer() as server,
        GearmanClient([server.address], connections_per_server=2, reconnect_backoff=(0.01, 0.1)) as client,
    ):
        wait_until(lambda: client.ping() and client.servers()[0].connections == 2, message="both are up")
        server.connections[0].close()
        wait_until(
            lambda: client.stats().connections_opened == 3 and client.servers()[0].connections == 2,
            message="two connections again",
        )
        assert client.stats().connections_lost == 1


def test_server_stays_up_when_a_further_connection_to_it_fails():
    heard = Keeping()
    first: list[RawConnection] = []
    one_is_up = threading.Event()

    def take_one(connection: RawConnection, packet: Packet) -> None:
        """As a server, or a firewall, that takes one connection of each client."""
        if not first:
            first.append(connection)
        if connection is not first[0]:
            assert one_is_up.wait(10)
            connection.close()
        elif packet.command == OPTION_REQ:
            connection.sock.sendall(pack_response(OPTION_RES, packet.body))
        elif packet.command == ECHO_REQ:
            connection.sock.sendall(pack_response(ECHO_RES, packet.body))
        else:
            connection.sock.sendall(pack_response(JOB_CREATED, b"H:here:1"))

    with (
        ScriptedServer(take_one, greets=False) as server,
        GearmanClient([server.address], connections_per_server=2, reconnect_backoff=NEVER, listeners=[heard]) as client,
    ):
        wait_until(lambda: client.ping() and client.servers()[0].state == "UP", message="one is up")
        one_is_up.set()
        wait_until(lambda: heard.of(ConnectionFailed), message="the failure is noticed")
        (info,) = client.servers()
        assert (info.state, info.connections) == ("UP", 1)
        assert client.submit_background("x").result(10).server == server.address
