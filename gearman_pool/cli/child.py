"""One worker process under the supervisor: runs the worker, and reports."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import selectors
import socket
import sys
import sysconfig
import threading

from ..worker import GearmanWorker
from .exits import FAILED, OK, CommandError, text_of
from .loading import make_worker
from .reports import Report, send_report

__all__ = ["run_child"]

log: logging.Logger = logging.getLogger("gearman_pool.cli")

#: Seconds between two looks at the worker.
_INTERVAL = 0.2


def run_child(args: argparse.Namespace) -> int:
    """Run the worker of a command line until it is told to stop, and return the exit code."""
    with socket.socket(fileno=args.child_fd) as sock:
        # A program that a task starts must not keep it open: its end tells the supervisor of this process's end.
        sock.set_inheritable(False)
        try:
            worker = make_worker(args)
        except CommandError as error:
            log.debug("no worker", exc_info=error)
            with contextlib.suppress(OSError):
                send_report(sock, Report(error=text_of(error), files=_files(args)))
            return error.code
        if worker.worker_client_id is None:
            worker.set_client_id(f"{socket.gethostname()}:{os.getpid()}")
        reporter = _Reporter(worker, sock, args)
        reporter.start()
        try:
            return OK if worker.run() else FAILED
        finally:
            reporter.end()


class _Reporter(threading.Thread):
    """Sends a report whenever something has changed, and stops the worker when the supervisor is gone."""

    def __init__(self, worker: GearmanWorker, sock: socket.socket, args: argparse.Namespace) -> None:
        super().__init__(name="gearman_pool-cli-reporter", daemon=True)
        self._worker = worker
        self._sock = sock
        self._args = args
        self._sent: Report | None = None
        self._ended = threading.Event()

    def end(self) -> None:
        """Send the last report, and end the thread."""
        self._ended.set()
        self.join()
        self._report()

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            while not self._ended.is_set() and self._report():
                # Nothing is ever sent to a worker process: the socket is readable when the supervisor has died.
                if selector.select(_INTERVAL):
                    log.warning("the supervisor has gone; stopping")
                    self._worker.stop()
                    return

    def _report(self) -> bool:
        """Send a report if it says something new; return whether there is somebody to send it to."""
        stats = self._worker.stats()
        report = Report(
            ready=self._worker.ready.is_set(),
            held=stats.held,
            servers_up=sum(server.state == "UP" for server in stats.servers),
            jobs_done=stats.jobs_done,
            jobs_failed=stats.jobs_failed,
            jobs_timed_out=stats.jobs_timed_out,
            results_lost=stats.results_lost,
            files=_files(self._args),
        )
        if report != self._sent:
            self._sent = report
            try:
                send_report(self._sock, report)
            except OSError:
                self._worker.stop()
                return False
        return True


def _files(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the files of the modules that are loaded, without those of Python itself, if they are to be watched."""
    if not args.reload:
        return ()
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    libraries = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    return tuple(sorted(f for f in files if f and f.endswith(".py") and not f.startswith(libraries)))
