"""Servers that do what a test says, to show what no real server would."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping

from typing_extensions import Self

from .raw import (
    ECHO_REQ,
    ECHO_RES,
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    Closed,
    Packet,
    RawConnection,
    pack_response,
)

__all__ = ["ScriptedServer", "SilentServer", "SocketServer"]

#: Gets the connection and a packet that is no part of the greeting or of a health check.
Script = Callable[[RawConnection, Packet], object]


class SocketServer:
    """Hands each connection to ``serve`` on a thread of its own, and closes it when that returns or finds it closed.

    Listens on a loopback port from the constructor on; leaving the ``with`` block ends it and its connections.
    """

    def __init__(self, serve: Callable[[RawConnection], object]) -> None:
        self.connections: list[RawConnection] = []
        """All that have come, in their order."""
        self._serve = serve
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for connection in self.connections:
            connection.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = RawConnection.adopt(sock, None)
            self.connections.append(connection)
            thread = threading.Thread(target=self._run, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: RawConnection) -> None:
        try:
            self._serve(connection)
        except (Closed, OSError):
            pass
        finally:
            connection.close()


class ScriptedServer(SocketServer):
    """Greets as gearmand does: answers OPTION_REQ and ECHO_REQ, and hands every other packet to the script.

    With ``greets=False`` the script gets those two as well; without a script no packet else is answered. ``texts`` are
    the answers to text commands: one that is not there gets none, and None in place of an answer closes the connection.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        greets: bool = True,
        texts: Mapping[bytes, bytes | None] | None = None,
    ) -> None:
        self._script = script
        self._greets = greets
        self._texts = texts or {}
        super().__init__(self._answer)

    def _answer(self, connection: RawConnection) -> None:
        while True:
            if connection.next_is_text():
                answer = self._texts.get(connection.line(), b"")
                if answer is None:
                    return
                connection.sock.sendall(answer)
                continue
            packet = connection.receive()
            if self._greets and packet.command == OPTION_REQ:
                connection.sock.sendall(pack_response(OPTION_RES, packet.body))
            elif self._greets and packet.command == ECHO_REQ:
                connection.sock.sendall(pack_response(ECHO_RES, packet.body))
            elif self._script is not None:
                self._script(connection, packet)


class SilentServer(ScriptedServer):
    """Greets, and leaves all else without an answer until ``speaking`` is set: then each packet gets a JOB_CREATED."""

    def __init__(self) -> None:
        self.speaking = False
        self.received: list[Packet] = []
        """What came, without the greetings and health checks."""
        super().__init__(self._hear)

    def _hear(self, connection: RawConnection, packet: Packet) -> None:
        self.received.append(packet)
        if self.speaking:
            connection.sock.sendall(pack_response(JOB_CREATED, b"H:here:%d" % len(self.received)))
