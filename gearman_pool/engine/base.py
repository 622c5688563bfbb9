"""`Engine`: one process's half of a client, a worker or an admin client.

An engine has the I/O thread, the pool and the threads that users' code runs on. A fork leaves it behind, and the child
makes another. What the roles differ in, their engines add.

Threads: `start`, `end` and what a role's engine has under the banner ANY THREAD may be called from any thread; those
take no lock that another thread holds for long. All other methods run on the I/O thread, except `after_fork_in_child`,
which runs in the child of a fork, where there is no other thread. No user code runs here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic

from ..errors import ForkedProcess, GearmanError
from ..events import Counters, Event
from ..protocol.session import Entry, token_of
from ..protocol.session import Event as SessionEvent
from ..settings.addresses import ServerAddress
from ..settings.client_options import ClientOptions
from ..threads.callbacks import CallbackThreads
from ..transport.connection import Connection, LostEntries, S
from ..transport.handler import Query
from ..transport.io_thread import IOThread
from ..transport.pool import Pool
from .announcer import Announcer

__all__ = ["Engine"]


class Engine(Generic[S]):
    """One process's half of a client, a worker or an admin client.

    Args:
        role: What texts call its owner: ``"client"``.
        threads: The first part of its threads' names.
        addresses: The servers.
        options: The owner's options.
        new_session: Makes the state machine of a new connection.
        log: What its owner logs to.
    """

    def __init__(
        self,
        role: str,
        threads: str,
        addresses: tuple[ServerAddress, ...],
        options: ClientOptions,
        new_session: Callable[[], S],
        log: logging.Logger,
    ) -> None:
        name = f"{threads}-{options.name}" if options.name else threads
        self.options = options
        self.counters: Counters = Counters()
        self.io: IOThread = IOThread(name, self._turn, self._has_work, self._on_loop_error, self._on_stop)
        #: For users' code.
        self.callbacks: CallbackThreads = CallbackThreads(f"{name}-callback", self.io.post_later)
        self.announcer: Announcer = Announcer(self.callbacks, options.listeners, log)
        self.pool: Pool[S] = Pool(self.io, addresses, options, new_session, self, self.counters)
        #: Whether a fork has left this engine behind. Written by the one thread of the child.
        self.forked: bool = False
        self._role = role

    # ==== ANY THREAD ================================================================================================

    def start(self) -> None:
        """Start the I/O thread if it does not run.

        Raises:
            ClientClosed, ThreadUnavailable: it cannot be started; the text says why.
        """
        self.io.ensure_running()

    def stop(self) -> None:
        """Have the I/O thread end now, whatever is in flight. Does not wait."""
        self.io.post(self.io.stop)

    def end(self, timeout: float) -> bool:
        """Stop, and wait for the end of the I/O thread, for so many seconds; return whether it has ended."""
        self.stop()
        return self._wait_ended(timeout)

    def _wait_ended(self, timeout: float) -> bool:
        ended = self.io.wait_stopped(timeout)
        if not self.io.running:
            # The loop never ran, so nobody else ends what was left.
            self._on_stop()
        return ended

    # ==== THE CHILD OF A FORK =======================================================================================

    def after_fork_in_child(self) -> None:
        """Close what was inherited. What was in flight is the parent's, and its copies here end at once."""
        self.forked = True
        for lost in self.pool.close_after_fork():
            for token in (*map(token_of, (*lost.unsent, *lost.unanswered)), *lost.accepted):
                self._leave_to_parent(token)

    def _leave_to_parent(self, token: object) -> None:
        if isinstance(token, Query):
            token.lost(ForkedProcess("the question was asked by the parent process, which gets the answer"))

    # ==== THE I/O THREAD ============================================================================================

    def _turn(self) -> None:
        """Do what is to be done once in each turn of the loop."""
        self.pool.turn()

    def _has_work(self) -> bool:
        return self.pool.has_work()

    def _on_loop_error(self, error: BaseException) -> None:
        """Fail what is in flight with what nobody thought of, and let the loop go on."""
        broken = self._note_broken(error)
        for connection in self.pool.connections:
            connection.lose(broken)

    def _note_broken(self, error: BaseException) -> GearmanError:
        self.counters.loop_errors += 1
        self.announcer.log(logging.ERROR, "an unexpected error in the I/O thread; please report it", error=error)
        text = f"an unexpected error in the {self._role}'s I/O thread: {error!r}; please report it"
        return GearmanError(text, maybe_sent=True)

    def _on_stop(self) -> None:
        """End whatever is left when the loop has ended. Called twice, and on another thread if the loop never ran."""
        error = self._closed()
        self.pool.close(error)
        self.io.run_leftovers()
        # What the leftovers have put in line.
        self.pool.close(error)

    def _closed(self) -> GearmanError:
        """Return the error for what is left at the end."""
        raise NotImplementedError

    # ---- what the pool tells: see `Handler` ------------------------------------------------------------------------

    def on_events(self, connection: Connection[S], events: list[SessionEvent]) -> None:
        """Do what the session's events say."""
        raise NotImplementedError

    def on_lost(self, connection: Connection[S], error: GearmanError, entries: LostEntries) -> None:
        """Do what is to be done with what a lost connection held."""
        raise NotImplementedError

    def on_unroutable(self, entry: Entry, error: GearmanError) -> None:
        """Tell whoever has asked that no server could be had in time."""
        token: Any = token_of(entry)
        if isinstance(token, Query):
            token.lost(error)

    def emit(self, event: Event) -> None:
        """Log what happened to a connection, and tell the listeners, elsewhere."""
        self.announcer.connection(event)
