"""A server that answers everything but jobs, and remembers what it was sent."""

from __future__ import annotations

import socket
import threading

from typing_extensions import Self

from ..support.raw import (
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

__all__ = ["SilentServer"]


class SilentServer:
    """Answers ECHO_REQ and OPTION_REQ; all else stays without an answer until ``speaking`` is set.

    It then answers each packet with a JOB_CREATED.
    """

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.speaking = False
        self.received: list[Packet] = []
        """What came, without the ECHO_REQ and OPTION_REQ."""
        self.connections: list[RawConnection] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and its connections."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._threads[0].join(10)
        for connection in self.connections:
            connection.close()
        for thread in self._threads[1:]:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(RawConnection.adopt(sock, None))
            self._threads.append(threading.Thread(target=self._serve, args=(self.connections[-1],)))
            self._threads[-1].start()

    def _serve(self, connection: RawConnection) -> None:
        try:
            while True:
                packet = connection.receive()
                if packet.command == ECHO_REQ:
                    connection.sock.sendall(pack_response(ECHO_RES, packet.body))
                elif packet.command == OPTION_REQ:
                    connection.sock.sendall(pack_response(OPTION_RES, packet.body))
                else:
                    self.received.append(packet)
                    if self.speaking:
                        connection.sock.sendall(pack_response(JOB_CREATED, b"H:here:%d" % len(self.received)))
        except (Closed, OSError):
            connection.close()
