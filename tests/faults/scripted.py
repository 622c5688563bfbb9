"""A server that greets as gearmand does and then does what a test says, to show what no real server would."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping

from typing_extensions import Self

from ..support.raw import (
    ECHO_REQ,
    ECHO_RES,
    OPTION_REQ,
    OPTION_RES,
    Closed,
    Packet,
    RawConnection,
    pack_response,
)

__all__ = ["ScriptedServer"]

#: Gets the connection and a packet that is no part of the greeting or of a health check.
Script = Callable[[RawConnection, Packet], object]


class ScriptedServer:
    """Answers OPTION_REQ and ECHO_REQ, and hands every other packet to the script, on a thread for each connection.

    With ``greets=False`` the script gets those two as well. ``texts`` are the answers to text commands; one that is not
    there gets none. ``connected`` counts the connections.
    """

    def __init__(self, script: Script, *, greets: bool = True, texts: Mapping[bytes, bytes] | None = None) -> None:
        self.connected = 0
        self._script = script
        self._greets = greets
        self._texts = texts or {}
        self._connections: list[RawConnection] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for connection in self._connections:
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
            self._connections.append(connection)
            self.connected += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: RawConnection) -> None:
        try:
            while True:
                if connection.next_is_text():
                    connection.sock.sendall(self._texts.get(connection.line(), b""))
                    continue
                packet = connection.receive()
                if self._greets and packet.command == OPTION_REQ:
                    connection.sock.sendall(pack_response(OPTION_RES, packet.body))
                elif self._greets and packet.command == ECHO_REQ:
                    connection.sock.sendall(pack_response(ECHO_RES, packet.body))
                else:
                    self._script(connection, packet)
        except (Closed, OSError):
            pass
