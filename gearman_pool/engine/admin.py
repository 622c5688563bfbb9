"""The admin client's engine: commands of several threads, in turn on one connection, and the promises of their answers.

Threads: `AdminEngine.send`, `give_up`, `stop` and `end` may be called from any thread and take no lock; the rest runs
on the I/O thread. No command is sent twice.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

from ..errors import ClientClosed, ConnectionLost, GearmanError, ProtocolError, ServerError, ServerUnavailable
from ..events import ConnectionFailed, Event
from ..protocol.admin import AdminSession
from ..protocol.commands import Command
from ..protocol.packets import Packet, pack
from ..protocol.session import ERROR, REPLY, token_of
from ..protocol.session import Event as SessionEvent
from ..settings.addresses import ServerAddress
from ..settings.client_options import ClientOptions
from ..threads.waiting import Promise
from ..transport.connection import Connection, LostEntries
from ..transport.handler import Query
from .base import Engine

__all__ = ["CLOSED", "AdminEngine", "Answer"]

log: logging.Logger = logging.getLogger("gearman_pool.admin_client")

#: What is said of a command after the end.
CLOSED = "the admin client is closed; make a new one"

_FENCE = b"gearman_pool fence"


class Answer(Query):
    """A command, and the promise of its answer."""

    def __init__(self, server: str, kind: str | int, reply: int, packet: Packet) -> None:
        self.server = server
        self.kind = kind
        self.reply = reply
        self.packet = packet
        self.promise: Promise = Promise()

    @property
    def label(self) -> str:
        """What was sent, for errors."""
        return repr(self.kind) if isinstance(self.kind, str) else "an ECHO_REQ"

    def answered(self, connection: Connection, value: Any) -> None:
        self.promise.set(value)

    def refused(self, connection: Connection, code: str, text: str) -> None:
        why = f"{code} ({text})" if text else code
        message = f"{self.server} refused {self.label}: {why}"
        self.promise.fail(ServerError(message, code=code, text=text, server=self.server))

    def lost(self, error: GearmanError) -> None:
        # One error may be that of several answers, and each may be raised in another thread.
        if isinstance(error, ProtocolError):
            what = f"{self.server} did not answer {self.label} as gearmand does"
            text = f"{what} ({error}); it may not know the command"
            mine: GearmanError = ProtocolError(text, server=self.server, maybe_sent=True)
        else:
            mine = copy.copy(error)
        mine.__cause__ = error.__cause__
        self.promise.fail(mine)


class AdminEngine(Engine[AdminSession]):
    """One process's half of an admin client: a pool of one connection, and the commands that wait for it.

    Unlike jobs, commands do not wait out a server that is down: the next failed attempt to connect ends them.
    """

    def __init__(self, address: ServerAddress, options: ClientOptions) -> None:
        new_session = partial(AdminSession, options.max_packet_size)
        super().__init__("admin client", "gearman_pool-admin", (address,), options, new_session, log)
        self._waiting: deque[Answer] = deque()

    # ==== ANY THREAD ================================================================================================

    def send(self, answer: Answer) -> None:
        """Send a command as soon as there is a connection."""
        self.start()
        self.io.post(partial(self._send, answer))
        if self.pool.closing:
            # The loop ended between the look above and now, and perhaps nobody will see this command.
            answer.lost(ClientClosed(CLOSED))

    def give_up(self, answer: Answer) -> None:
        """Nobody waits for this answer any more."""
        self.io.post(partial(self._give_up, answer))

    # ==== THE CHILD OF A FORK =======================================================================================

    def after_fork_in_child(self) -> None:
        """Close what was inherited. Whoever waited was a thread of the parent."""
        super().after_fork_in_child()
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            self._leave_to_parent(answer)

    # ==== THE I/O THREAD ============================================================================================

    def _send(self, answer: Answer) -> None:
        connection = self.pool.choose(None)
        if self.pool.closing:
            answer.lost(ClientClosed(CLOSED))
        elif connection is None or self._waiting:
            # Behind those that wait: the connection may have come just now.
            self._waiting.append(answer)
        else:
            connection.submit((answer.packet, answer.reply, answer))
            # Some servers do not answer commands that they do not know. The next command's answer must not be taken for
            # the missing one: an ECHO_RES cannot be taken for any text, and tells so at once.
            connection.submit((pack(Command.ECHO_REQ, _FENCE), Command.ECHO_RES, None))

    def _give_up(self, answer: Answer) -> None:
        if answer in self._waiting:
            self._waiting.remove(answer)
            return
        for connection in self.pool.connections:
            if any(token is answer for token in connection.tokens()):
                text = f"{answer.server}: {answer.label} was not answered in time; the order of answers is in doubt"
                connection.lose(ConnectionLost(text, server=answer.server))

    def _turn(self) -> None:
        super()._turn()
        if self._waiting and self.pool.available:
            waiting, self._waiting = self._waiting, deque()
            for answer in waiting:
                self._send(answer)

    def _note_broken(self, error: BaseException) -> GearmanError:
        broken = super()._note_broken(error)
        self._fail_waiting(broken)
        return broken

    def _on_stop(self) -> None:
        super()._on_stop()
        self._fail_waiting(self._closed())
        self.callbacks.stop()

    def _closed(self) -> GearmanError:
        return ClientClosed(CLOSED)

    def _fail_waiting(self, error: GearmanError) -> None:
        waiting, self._waiting = self._waiting, deque()
        _fail(waiting, error)

    # ---- what the pool tells: see `Handler` ------------------------------------------------------------------------

    def on_events(self, connection: Connection, events: list[SessionEvent]) -> None:
        """Hand over the answers."""
        for kind, token, value in events:
            if token is None:
                continue
            if kind == REPLY:
                token.answered(connection, value)
            elif kind == ERROR:
                token.refused(connection, *value)

    def on_lost(self, connection: Connection, error: GearmanError, entries: LostEntries) -> None:
        """Fail what was sent. What has not left is sent on the next connection."""
        sent = list(map(token_of, entries.unanswered))
        _fail(sent, error)
        for _, _, token in entries.unsent:
            if isinstance(token, Answer) and not any(token is other for other in sent):
                self._send(token)

    def emit(self, event: Event) -> None:
        """Take a failed attempt to connect as the answer to all that wait for a connection. Nobody else is told."""
        if isinstance(event, ConnectionFailed):
            server = str(event.server)
            message = f"cannot reach the server: {event.error}"
            error = ServerUnavailable(message, servers={server: event.error}, server=server)
            error.__cause__ = self.pool.servers[0].last_error
            self._fail_waiting(error)


def _fail(tokens: Iterable[Any], error: GearmanError) -> None:
    for token in tokens:
        if isinstance(token, Query):
            token.lost(error)
