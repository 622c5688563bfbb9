"""What the servers are told of a worker: its tasks, with their time limits, and its name.

All that belongs to the I/O thread; nothing here blocks or calls a task. Who registers a task elsewhere has the engine
post it here.
"""

from __future__ import annotations

from typing import Any

from ...protocol.session import TEXT_LINE
from ...protocol.text import pack_text_command
from ...protocol.worker import WorkerSession
from ...transport.connection import Connection
from ...transport.handler import Query
from ...transport.pool import Pool
from .held_jobs import Ability, HeldJobs, fence
from .slots import JobSource, Slots

__all__ = ["Abilities"]

#: From this major version on gearmand's own time limit for jobs can be relied on (its issue 301).
_TIMEOUT_VERSION = 2

#: How much longer than the worker the server waits for a task, in seconds: it steps in only where this process cannot.
_SERVER_GRACE = 1.0


class Abilities:
    """The tasks of one run of a worker, and what each server knows of them.

    A task without a time limit is told at once. For one with a limit the server is asked for its version first.

    Args:
        abilities: The tasks by their names on the wire.
        client_id: What the worker is called in the servers' lists; None for nothing.
        max_packet_size: For the connections' sessions.
    """

    def __init__(
        self,
        pool: Pool,
        held: HeldJobs,
        slots: Slots,
        abilities: dict[bytes, Ability],
        client_id: bytes | None,
        max_packet_size: int,
    ) -> None:
        #: The tasks by their names on the wire, those included that are being taken back.
        self.table: dict[bytes, Ability] = dict(abilities)
        self._pool = pool
        self._held = held
        self._slots = slots
        self._client_id = client_id
        self._max_packet_size = max_packet_size

    def new_session(self) -> WorkerSession:
        """Return the session of a new connection, which begins with the name and the tasks without time limits."""
        plain = [(task, 0) for task, ability in self.table.items() if ability.timeout is None]
        plain = [item for item in plain if item[0] not in self._held.leaving]
        return WorkerSession(self._max_packet_size, self._client_id, plain)

    def greet(self, connection: Connection[WorkerSession]) -> None:
        """Ask a server that does not know all tasks for its version, if a time limit is among them."""
        missing = [task for task in self.table if task not in connection.session.abilities]
        if any(self.table[task].timeout is not None for task in missing):
            packet = pack_text_command("version")
            connection.submit((packet, TEXT_LINE, _VersionQuery(self)))
        self._note(connection)

    def version_known(self, connection: Connection[WorkerSession], version: bytes) -> None:
        """Tell a server of the tasks with time limits, in the way that its version can bear."""
        session = connection.session
        reliable = _major(version) >= _TIMEOUT_VERSION
        for task, ability in self.table.items():
            if task not in session.abilities:
                limit = 0 if ability.timeout is None or not reliable else _milliseconds(ability.timeout)
                connection.submit(session.can_do(task, limit))
        self._note(connection)
        self._slots.expect_jobs(connection)
        self._slots.publish()

    def register(self, task: bytes, ability: Ability) -> None:
        """Tell the servers of a task."""
        self._held.leaving.discard(task)
        self.table[task] = ability
        for connection in self._pool.connections:
            session = connection.session
            if task in session.abilities:
                continue
            if ability.timeout is None:
                connection.submit(session.can_do(task))
                self._slots.expect_jobs(connection)
            elif connection in self._slots.sources:
                self.greet(connection)
        self._note_all()

    def unregister(self, task: bytes) -> None:
        """Take a task back, as soon as no job of it is here."""
        if task in self.table:
            self._held.leaving.add(task)
            self.take_back()

    def take_back(self) -> None:
        """Send CANT_DO for tasks of which no job is here: gearmand gives one that runs to another worker as well."""
        for task in self._held.leaving - {assignment.task for assignment in list(self._held.unsent)}:
            self._held.leaving.discard(task)
            del self.table[task]
            for connection in self._pool.connections:
                session = connection.session
                if task not in session.abilities:
                    continue
                connection.submit(session.cant_do(task))
                source = self._slots.sources.get(connection)
                if source is not None:
                    # Answers come in order: what is assigned of the task before the fence's was so before the CANT_DO,
                    # even if the task is registered again by then.
                    source.taken_back.append(task)
                    fence(_TakenBack(source, task), [connection])
        self._note_all()

    def set_client_id(self, client_id: bytes) -> None:
        """Tell the servers a new name."""
        self._client_id = client_id
        for connection in self._pool.connections:
            connection.submit(WorkerSession.client_id(client_id))

    def _note(self, connection: Connection[WorkerSession]) -> None:
        """Note whether a server knows all tasks now."""
        source = self._slots.sources.get(connection)
        if source is not None:
            known = connection.session.abilities
            source.told = all(task in known for task in self.table)

    def _note_all(self) -> None:
        for connection in self._slots.sources:
            self._note(connection)
        self._slots.publish()


class _VersionQuery(Query):
    """Asks for the server's version."""

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities

    def answered(self, connection: Connection[WorkerSession], value: Any) -> None:
        self._abilities.version_known(connection, value)

    def refused(self, connection: Connection[WorkerSession], code: str, text: str) -> None:
        self._abilities.version_known(connection, b"")


class _TakenBack(Query):
    """Asks whether the server has read the CANT_DO of a task."""

    def __init__(self, source: JobSource, task: bytes) -> None:
        self._source = source
        self._task = task

    def answered(self, connection: Connection[WorkerSession], value: Any) -> None:
        self._source.taken_back.remove(self._task)


def _major(version: bytes) -> int:
    """Return the first number of ``OK 2.0.1``; 0 if there is none."""
    digits = version.removeprefix(b"OK ").partition(b".")[0]
    return int(digits) if digits.isdigit() and len(digits) < 5 else 0


def _milliseconds(timeout: float) -> int:
    return max(1000, round((timeout + _SERVER_GRACE) * 1000))
