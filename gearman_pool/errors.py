"""Every exception that this package raises of its own accord.

All are `GearmanError`. Where the standard library has a name for the case, the exception is that one too: code that
catches ``TimeoutError`` or the built-in ``ConnectionError`` need not know this module. Only arguments that can never be
right raise a bare ``ValueError`` or ``TypeError``.

::

    GearmanError
        ConnectionError             also the built-in ConnectionError
            ConnectTimeout          also TimeoutError
            ConnectionLost
            TLSError
            ForkedProcess
        ServerUnavailable           .servers
        ClientSaturated
        ClientClosed
        ThreadUnavailable           also RuntimeError
        JobTimeout                  also TimeoutError
        JobFailed
            JobException            .data
        JobLost
        JobCancelled                also concurrent.futures.CancelledError
        ServerError                 .code, .text
            QueueFull
        ProtocolError
            UnknownCommandError
        EncodeError                 also TypeError and ValueError
        DecodeError                 also ValueError
        ExceededConnectionAttempts
        InvalidClientState
        InvalidWorkerState
        InvalidAdminClientState
"""

from __future__ import annotations

import builtins
import concurrent.futures
import sys
from collections.abc import Mapping
from typing import Any

__all__ = [
    "GearmanError",
    "ConnectionError",
    "ConnectTimeout",
    "ConnectionLost",
    "TLSError",
    "ForkedProcess",
    "ServerUnavailable",
    "ClientSaturated",
    "ClientClosed",
    "ThreadUnavailable",
    "AnyTimeout",
    "JobTimeout",
    "JobFailed",
    "JobException",
    "JobLost",
    "JobCancelled",
    "ServerError",
    "QueueFull",
    "ProtocolError",
    "UnknownCommandError",
    "EncodeError",
    "DecodeError",
    "ExceededConnectionAttempts",
    "InvalidClientState",
    "InvalidWorkerState",
    "InvalidAdminClientState",
]


class GearmanError(Exception):
    """Base of all errors of this package.

    Every one can be pickled and copied with its attributes; the cause and the traceback stay behind, as with any
    exception.

    Args:
        message: What happened and what can be done about it.
        server: The address of the server it happened with, such as ``"10.0.0.1:4730"``; None where there was none.
        task: The name of the job's task; None where it is not about a job.
        unique: The job's unique; None where it is not about a job.
        maybe_sent: Whether the job may have reached a server, so that it may run, or have run.
        retryable: Whether the same call may succeed later with nothing changed; what its class says if None.
            Whether the job may then run twice is what ``maybe_sent`` tells.

    Example::

        try:
            result = client.submit("resize", image).result(timeout=5)
        except GearmanError as error:
            if not error.retryable or error.maybe_sent:
                raise
    """

    #: What ``retryable`` is for errors of this class unless the one who raises knows better.
    retryable: bool = False

    def __init__(
        self,
        message: str = "",
        *,
        server: str | None = None,
        task: str | None = None,
        unique: str | None = None,
        maybe_sent: bool = False,
        retryable: bool | None = None,
    ) -> None:
        # Only the message goes to args, and all else to __dict__: that is what pickle and copy build the copy from, so
        # no subclass may have a required argument besides the message.
        super().__init__(message)
        self.server = server
        self.task = task
        self.unique = unique
        self.maybe_sent = maybe_sent
        if retryable is not None:
            self.retryable = retryable


class ConnectionError(GearmanError, builtins.ConnectionError):  # noqa: A001 - python-gearman's name
    """A connection could not be made, or was lost. It is the built-in ``ConnectionError`` too."""

    retryable = True


class ConnectTimeout(ConnectionError, TimeoutError):
    """No connection came about within ``connect_timeout``."""


class ConnectionLost(ConnectionError):
    """The connection was lost while a job was on it.

    With ``maybe_sent`` the job may have run, or may be running still; submitting it again may run it twice.
    """


class TLSError(ConnectionError):
    """The TLS handshake failed: wrong CA, wrong name, an expired certificate, or a peer that speaks no TLS."""

    retryable = False


class ForkedProcess(ConnectionError):
    """The job belongs to the parent of this process, which alone gets its result."""

    retryable = False


class ServerUnavailable(GearmanError):
    """No server could be reached in time.

    Args:
        servers: The text of the last error of each server, by its address.

    The other arguments are those of `GearmanError`.
    """

    retryable = True

    def __init__(self, message: str = "", *, servers: Mapping[str, str] | None = None, **about: Any) -> None:
        super().__init__(message, **about)
        self.servers: dict[str, str] = dict(servers or {})


class ClientSaturated(GearmanError):
    """``max_in_flight`` or ``max_outbound_bytes`` was used up for the whole ``submit_timeout``. Nothing was sent."""

    retryable = True


class ClientClosed(GearmanError):
    """The client is closed, or was closed before the job was done."""


class ThreadUnavailable(GearmanError, RuntimeError):
    """The background thread cannot be started, or would not run. Nothing was sent.

    Either the system has no room for another thread, which can pass, or uWSGI was started in a way in which threads do
    no good, which cannot: the text says which and what to do about it, and ``retryable`` tells the two apart.
    """

    retryable = True


# Code written for Python 3.10 catches concurrent.futures.TimeoutError, which is the built-in one only since 3.11.
if sys.version_info >= (3, 11):
    AnyTimeout = TimeoutError
else:

    class AnyTimeout(TimeoutError, concurrent.futures.TimeoutError):
        """What waiting for a future raises when the time is up; the job goes on."""


class JobTimeout(GearmanError, AnyTimeout):
    """The job's own ``timeout`` ran out. It has ended here, but a worker may still run it."""


class JobFailed(GearmanError):
    """The worker said that the job failed (WORK_FAIL), without a word why."""


class JobException(JobFailed):
    """The worker said that the job raised an exception (WORK_EXCEPTION).

    Args:
        data: What the worker said of the exception.

    The other arguments are those of `GearmanError`.
    """

    def __init__(self, message: str = "", *, data: Any = None, **about: Any) -> None:
        super().__init__(message, **about)
        self.data = data


class JobLost(GearmanError):
    """The server no longer knows the job and never said how it ended. It may have run."""

    retryable = True


class JobCancelled(GearmanError, concurrent.futures.CancelledError):
    """The job was cancelled. It is ``concurrent.futures.CancelledError`` too.

    It has not run, and will not, unless ``maybe_sent``: then it was dropped by a server, whose protocol cannot exclude
    that a worker took the job in that very moment.
    """


class ServerError(GearmanError):
    """The server refused a request (ERROR, or ``ERR`` to a text command).

    Args:
        code: The server's word for what was wrong, such as ``"JOB_NOT_FOUND"``.
        text: The server's explanation, which may be empty.

    The other arguments are those of `GearmanError`.
    """

    def __init__(self, message: str = "", *, code: str = "", text: str = "", **about: Any) -> None:
        super().__init__(message, **about)
        self.code = code
        self.text = text

    @staticmethod
    def from_reply(
        code: str, text: str, *, server: str | None = None, task: str | None = None, unique: str | None = None
    ) -> ServerError:
        """Return the error for a server's reply: `QueueFull` for ``QUEUE_ERROR``, else a plain `ServerError`.

        Args:
            code: The reply's code.
            text: The reply's text.
            server: The server's address.
            task: The task of the job that was refused, if it was one.
            unique: Its unique.

        Example::

            raise ServerError.from_reply("QUEUE_ERROR", "Job queue is full", server="10.0.0.1:4730", task="resize")
        """
        kind, advice = _REPLIES.get(code, (ServerError, ""))
        who = server or "the server"
        what = "the request" if task is None else f"a job of task {task!r}"
        message = f"{who} refused {what}: {code}"
        if text:
            message += f" ({text})"
        if advice:
            message += f"; {advice}"
        return kind(message, code=code, text=text, server=server, task=task, unique=unique)


class QueueFull(ServerError):
    """The server holds as many jobs of this task as it may (``maxqueue``), or could not store the job."""

    retryable = True


_REPLIES: dict[str, tuple[type[ServerError], str]] = {
    "QUEUE_ERROR": (QueueFull, "submit it again when workers have caught up, or raise the server's limit (maxqueue)"),
}


class ProtocolError(GearmanError):
    """The peer sent something that is not the Gearman protocol; its connection is closed."""


class UnknownCommandError(ProtocolError):
    """The peer sent a command that does not exist, or that it has no right to send."""


class EncodeError(GearmanError, TypeError, ValueError):
    """The encoder could not make bytes of a payload. Nothing was sent.

    It is both ``TypeError`` and ``ValueError``, because encoders raise either for what they do not take.
    """


class DecodeError(GearmanError, ValueError):
    """The encoder could not make a result of what the worker sent. The job is done; its bytes are in
    ``future.request.result_data``, and what the encoder raised is the cause.
    """


class ExceededConnectionAttempts(GearmanError):
    """A request was sent as often as its ``max_retries`` allows, and no server accepted it."""


class InvalidClientState(GearmanError):
    """The client, a job or a future was asked for what it cannot do in its state."""


class InvalidWorkerState(GearmanError):
    """The worker was asked for what it cannot do in its state."""


class InvalidAdminClientState(GearmanError):
    """The admin client was asked for what it cannot do in its state."""
