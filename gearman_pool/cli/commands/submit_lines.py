"""``gearman-pool submit --lines``: a job for each line of stdin, a window of them in flight.

The main thread reads and submits, another one prints. No result overtakes that of an earlier line.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
from collections.abc import Callable

from ...errors import GearmanError
from ...future import JobFuture
from ...job import JobReference
from ..exits import OK, code_of, text_of
from ..terminal.output import complain, json_payload, note, print_json, write_bytes

__all__ = ["submit_lines"]

#: With --progress: a line for so many jobs, where stderr is not a terminal.
_STEP = 1000


def submit_lines(args: argparse.Namespace, submit: Callable[[bytes], JobFuture], abandon: Callable[[], object]) -> int:
    """Submit each line of stdin and print the results in the lines' order.

    This thread reads and submits; another one prints, so that results come out while stdin is waited for.

    Args:
        args: The command line.
        submit: Submits a line's job.
        abandon: Fails all jobs in flight, so that the other thread ends when this one is interrupted.

    Returns:
        The exit code: that of the first job that failed.
    """
    printer = _Printer(args)
    printer.start()
    try:
        for line in sys.stdin.buffer:
            printer.room.acquire()
            if printer.error is not None:
                break
            printer.futures.put(submit(line.rstrip(b"\r\n")))
    except BaseException:  # Ctrl+C too
        printer.quiet = True
        abandon()
        raise
    finally:
        printer.futures.put(None)
        printer.join()
    if printer.error is not None:
        raise printer.error
    return printer.code


class _Printer(threading.Thread):
    """Prints results. ``room`` counts how many more jobs may be in flight; the rest is this thread's, read at its end.

    ``quiet`` is set by the other thread before it fails all jobs.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(name="gearman_pool-cli-printer")
        self.futures: queue.SimpleQueue[JobFuture | None] = queue.SimpleQueue()
        #: Taken by the other thread for each job, given back by this one.
        self.room = threading.Semaphore(args.window)
        self.error: BaseException | None = None
        self.code = OK
        self.quiet = False
        self._args = args
        self._done = 0

    def run(self) -> None:
        while (future := self.futures.get()) is not None:
            try:
                if self.error is None:
                    self._wait_and_print(future)
            except Exception as error:  # the reader of stdout has gone
                self.error = error
            self.room.release()
        if self._args.progress and self.error is None and not self.quiet:
            self._draw(end=True)

    def _wait_and_print(self, future: JobFuture) -> None:
        try:
            result = future.result()
        except GearmanError as error:
            if not self.quiet:
                self._fail(error)
            return
        finally:
            self._done += 1
        if self._args.json:
            self._print_json(result)
        elif isinstance(result, JobReference):
            write_bytes(f"{result}\n".encode())
        else:
            # In one write: the reader of a pipe must not see half a line.
            write_bytes(b"".join([*future.request.data_updates, result, b"\n"]))
        if self._args.progress:
            self._draw()

    def _print_json(self, result: JobReference | bytes) -> None:
        line = {"line": self._done}
        if isinstance(result, JobReference):
            print_json({**line, "reference": str(result)}, indent=None)
        else:
            print_json({**line, **json_payload("result", result)}, indent=None)

    def _fail(self, error: GearmanError) -> None:
        self.code = self.code or code_of(error)
        complain(f"line {self._done + 1}: {text_of(error)}")
        if self._args.json:
            print_json({"line": self._done + 1, "error": text_of(error)}, indent=None)

    def _draw(self, end: bool = False) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{self._done} jobs done" + ("\n" if end else ""))
            sys.stderr.flush()
        elif end or self._done % _STEP == 0:
            note(f"{self._done} jobs done")
