"""One worker process under the supervisor: runs the worker, and reports.

The main thread runs the worker, a thread of its own keeps the line to the supervisor. A worker process never goes on
without its supervisor.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import sysconfig
import threading
import traceback
from time import monotonic

from ...worker import GearmanWorker
from ..exits import FAILED, OK, CommandError, text_of
from .loading import make_worker
from .reports import EXIT_PATIENCE, Report, send_report

__all__ = ["run_child"]

log: logging.Logger = logging.getLogger("gearman_pool.cli")

#: Seconds between two looks at the worker.
_INTERVAL = 0.2

#: How long the worker itself has for giving up, beyond its shutdown timeout, in seconds.
_LAST_WORDS = 1.0


def run_child(args: argparse.Namespace) -> int:
    """Run the worker of a command line until it is told to stop, and return the exit code."""
    with socket.socket(fileno=args.child_fd) as sock:
        # A program that a task starts must not keep it open: its end tells the supervisor of this process's end.
        sock.set_inheritable(False)
        line = _Line(sock, args)
        line.start()
        try:
            worker = make_worker(args)
        except CommandError as error:
            log.debug("no worker", exc_info=error)
            with contextlib.suppress(OSError):
                send_report(sock, Report(error=text_of(error), files=_files(args, error)))
            line.code = error.code
            line.end()
            return error.code
        if worker.worker_client_id is None:
            worker.set_client_id(f"{socket.gethostname()}:{os.getpid()}")
        # Until run() takes it over and when it has given it back, nothing can be finished any more.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(line.code))
        line.begin(worker)
        try:
            if worker.run():
                line.code = OK
        finally:
            line.end()
        return line.code


class _Line(threading.Thread):
    """The line to the supervisor: sends a report whenever something has changed, and stops the worker when told to.

    So it does when the supervisor has gone. It ends the process where nothing else does: while there is no worker yet,
    when a task goes on beyond the shutdown timeout, and when a thread of the user's keeps the process from exiting.

    Attributes:
        code: The process's exit code, if it ends now.
    """

    def __init__(self, sock: socket.socket, args: argparse.Namespace) -> None:
        super().__init__(name="gearman_pool-cli-line", daemon=True)
        self.code = OK
        self._sock = sock
        self._args = args
        self._worker: GearmanWorker | None = None
        # Guards ``_worker``, so that the process does not end for want of a worker that begins just now, and what is
        # sent. `GearmanWorker.stats` takes the lock of the worker's counts with this one held; none is held before it.
        self._lock = threading.Lock()
        self._sent: Report | None = None
        self._connected = True
        self._deadline = float("inf")
        #: Set by `end`, when the worker has ended.
        self._ended = threading.Event()

    def begin(self, worker: GearmanWorker) -> None:
        """Report of this worker from now on. To be called before it runs: the supervisor then knows of its jobs."""
        with self._lock:
            self._worker = worker
            self._report(worker)
        self.code = FAILED

    def end(self) -> None:
        """Send the last report, and see to it that the process exits."""
        self._ended.set()
        self.join()
        patience = EXIT_PATIENCE
        if self._worker is not None:
            self._report(self._worker)
            patience = min(patience, self._worker.shutdown_timeout)
        last = threading.Timer(patience, self._exit)
        last.name = "gearman_pool-cli-exit"
        last.daemon = True
        last.start()

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            while not self._ended.is_set():
                with self._lock:
                    if self._worker is not None:
                        self._report(self._worker)
                if monotonic() >= self._deadline:
                    log.error("a task goes on beyond the shutdown timeout; ending the process")
                    os._exit(FAILED)
                if not self._connected:
                    self._ended.wait(_INTERVAL)
                elif selector.select(_INTERVAL):
                    self._hear()

    def _hear(self) -> None:
        """Stop, for the supervisor says so, or has gone."""
        try:
            self._connected = bool(self._sock.recv(4096))
        except OSError:
            self._connected = False
        if not self._connected:
            log.warning("the supervisor has gone; stopping")
        with self._lock:
            if self._worker is None:
                os._exit(OK)
            self._worker.stop()
            self._deadline = min(self._deadline, monotonic() + self._worker.shutdown_timeout + _LAST_WORDS)

    def _report(self, worker: GearmanWorker) -> None:
        """Send a report if it says something new, and there is somebody to send it to."""
        stats = worker.stats()
        report = Report(
            begun=True,
            ready=worker.ready.is_set(),
            held=stats.held,
            servers_up=sum(server.state == "UP" for server in stats.servers),
            jobs_done=stats.jobs_done,
            jobs_failed=stats.jobs_failed,
            jobs_timed_out=stats.jobs_timed_out,
            results_lost=stats.results_lost,
            files=_files(self._args),
            shutdown_timeout=worker.shutdown_timeout,
        )
        if report != self._sent:
            self._sent = report
            # What has gone wrong is found by `_hear`.
            with contextlib.suppress(OSError):
                send_report(self._sock, report)

    def _exit(self) -> None:
        threads = [t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
        text = "the process does not exit by itself (threads that go on: %s); ending it"
        log.warning(text, ", ".join(threads) or "-")
        os._exit(self.code)


def _files(args: argparse.Namespace, error: BaseException | None = None) -> tuple[str, ...]:
    """Return the files of the modules that are loaded, without those of Python itself, if they are to be watched.

    And those that an error comes from: a module that could not be imported is not among those that are loaded.
    """
    if not args.reload:
        return ()
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    while error is not None:
        files.update(frame.filename for frame in traceback.extract_tb(error.__traceback__))
        files.add(getattr(error, "filename", None))  # of a SyntaxError
        error = error.__cause__
    libraries = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    return tuple(sorted(f for f in files if f and f.endswith(".py") and not f.startswith(libraries)))
