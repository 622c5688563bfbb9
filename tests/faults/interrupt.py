"""A program that raises exceptions into callers from outside and checks that nobody else is harmed.

Usage: ``python -m tests.faults.interrupt SERVER SECONDS [LEAST]``. Goes on until LEAST exceptions have come and the
witnesses have made an eighth as many calls, but for five times SECONDS at the most. Prints one line of JSON: how many
exceptions were raised and how many came, the calls made, how many answers were wrong, and whether the client still
works at the end.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from types import FrameType

import gearman_pool
from gearman_pool import GearmanClient
from gearman_pool.errors import GearmanError

PACKAGE = str(Path(gearman_pool.__file__).parent)

VICTIMS = 3
WITNESSES = 3

#: How long one call may take before it counts as hung, in seconds.
PATIENCE = 20


class FromOutsideError(BaseException):
    """What is raised into the callers."""


class Record:
    """What has happened; each counter is changed by one thread alone, and the lists are only appended to."""

    def __init__(self) -> None:
        self.stop = False
        self.wrong: list[tuple[object, object]] = []
        self.hung: list[str] = []
        self.calls = [0] * (VICTIMS + WITNESSES + 1)
        self.received = [0] * (VICTIMS + WITNESSES + 1)
        self.raised = 0
        #: Errors of the witnesses, by name.
        self.errors: Counter[str] = Counter()
        #: Clients of a victim's own, interrupted while they were closed.
        self.clients: list[GearmanClient] = []

    @property
    def witnessed(self) -> int:
        """How many calls the witnesses have made."""
        return sum(self.calls[VICTIMS : VICTIMS + WITNESSES])


class Caller:
    """One thread's calls."""

    def __init__(self, client: GearmanClient, server: str, record: Record, number: int, closes: bool = False) -> None:
        self.client, self.server, self.record, self.number = client, server, record, number
        #: Clients of one's own start threads, and at that moment PyThreadState_SetAsyncExc takes the new thread, which
        #: bears its creator's number until it runs, for the old one; `Thread.start` then waits for it for ever. So this
        #: is left to the main thread, which signals strike.
        self.closes_from = 0.99 if closes else 1.0

    def _payload(self) -> bytes:
        self.record.calls[self.number] += 1
        return b"%d-%d-%d" % (self.number, self.record.calls[self.number], random.getrandbits(60))

    def _compare(self, expected: object, found: object) -> None:
        if found != expected:
            self.record.wrong.append((expected, found))

    def call(self) -> None:
        """Submit one job and check that the answer is its own."""
        payload = self._payload()
        self._compare(payload, self.client.submit("echo", payload).result(PATIENCE))

    def burst(self) -> None:
        """Many jobs at once: most of the time goes into sending, where a blow does most."""
        payloads = [self._payload() for _ in range(40)]
        futures = [self.client.submit("echo", payload) for payload in payloads]
        for payload, future in zip(payloads, futures, strict=True):
            self._compare(payload, future.result(PATIENCE))

    def map(self) -> None:
        """Several jobs, in order."""
        payloads = [self._payload() for _ in range(5)]
        self._compare(payloads, list(self.client.map("echo", payloads, timeout=PATIENCE)))

    def updates(self) -> None:
        """Wait for what the worker sends, which is nothing but the end."""
        self._compare([], list(self.client.submit("echo", self._payload()).updates(PATIENCE)))

    def status(self) -> None:
        """Ask for a job that nobody takes, and cancel it."""
        future = self.client.submit("nobody", self._payload(), timeout=PATIENCE)
        status = self.client.status(future, timeout=PATIENCE)
        if status.running:
            self.record.wrong.append(("a job that waits", status))
        future.cancel()

    def close(self) -> None:
        """A client of one's own, for one job."""
        client = GearmanClient([self.server])
        self.record.clients.append(client)
        payload = self._payload()
        self._compare(payload, client.submit("echo", payload).result(PATIENCE))
        client.close(1)

    def witness(self) -> None:
        """Call in peace."""
        while not self.record.stop:
            try:
                self.call()
            except GearmanError as error:
                self.record.errors[type(error).__name__] += 1
            except TimeoutError as error:
                self.record.hung.append(str(error))

    def victim(self, depth: int = 4) -> None:
        """Call, and be interrupted.

        A blow can strike where the one before is handled; then the next outer level handles it. No victim may end by
        one: the next blow could strike another thread, which has got the number of the ended one.
        """
        while not self.record.stop:
            try:
                if depth:
                    self.victim(depth - 1)
                else:
                    self.work()
            except FromOutsideError:
                self.record.received[self.number] += 1

    def work(self) -> None:
        """Do something or other."""
        chance = random.random()
        rare = (self.map, self.updates, self.status)
        plain = self.call if chance < 0.5 else self.burst
        work = plain if chance < 0.9 else random.choice(rare) if chance < self.closes_from else self.close
        try:
            work()
        except GearmanError:
            pass  # its connection was given up for another victim
        except TimeoutError as error:
            self.record.hung.append(str(error))


def torment(record: Record, victims: list[threading.Thread]) -> None:
    """Raise into the victims at random moments."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    while not record.stop:
        for thread in victims:
            if thread.is_alive():
                raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(FromOutsideError))
                record.raised += 1
        time.sleep(random.random() * 0.0004)


def _torment_oneself(record: Record, caller: Caller, seconds: float, least: int) -> None:
    """Call on the main thread, and be interrupted by a signal's handler."""

    def alarm(*_: object) -> None:
        record.raised += 1
        raise FromOutsideError

    signal.signal(signal.SIGALRM, alarm)
    started = time.monotonic()
    while True:
        elapsed = time.monotonic() - started
        enough = sum(record.received) >= least and record.witnessed >= least / 8
        if elapsed > seconds and (enough or elapsed > 5 * seconds):
            return
        try:
            # One alarm for each time around, so that none strikes outside of this block.
            signal.setitimer(signal.ITIMER_REAL, 0.00002 + random.random() * 0.002)
            for _ in range(50):
                caller.work()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except FromOutsideError:
            record.received[caller.number] += 1


def _threads_left(client: GearmanClient) -> list[str]:
    """The threads of the library that are left after a while, beside that of ``client``."""
    mine = f"gearman_pool-{client.options.name}"
    deadline = time.monotonic() + 15
    while True:
        gc.collect()
        # Those that run the library's code: who starts a thread and is struck in `Thread.start` can leave a lock taken
        # that the new thread waits for before it runs anything.
        frames = sys._current_frames()
        names = [thread.name for thread in threading.enumerate() if _is_in_the_library(frames.get(thread.ident or 0))]
        # Threads for callbacks end by themselves after a while without work.
        left = [name for name in names if not name.startswith(mine) and not name.endswith(("-callback", "-notice"))]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def _is_in_the_library(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return True
        frame = frame.f_back
    return False


def main(server: str, seconds: float, least: int = 0) -> None:
    """Run the whole, and end the process."""
    faulthandler.dump_traceback_later(5 * seconds + 60, exit=True)
    # A victim's own client may never get to its close.
    warnings.simplefilter("ignore", ResourceWarning)
    logging.disable(logging.WARNING)
    record = Record()
    client = GearmanClient([server], max_retries=0, reconnect_backoff=(0.001, 0.01), name="shared")
    client.ping()
    others = [Caller(client, server, record, number) for number in range(VICTIMS + WITNESSES)]
    own = Caller(client, server, record, VICTIMS + WITNESSES, closes=True)
    victims = [threading.Thread(target=caller.victim, daemon=True) for caller in others[:VICTIMS]]
    witnesses = [threading.Thread(target=caller.witness, daemon=True) for caller in others[VICTIMS:]]
    for thread in (*victims, *witnesses):
        thread.start()
    tormentor = threading.Thread(target=torment, args=(record, victims))
    tormentor.start()
    _torment_oneself(record, own, seconds, least)
    record.stop = True
    tormentor.join(30)
    for thread in (*witnesses, *victims):
        thread.join(30)
    if any(thread.is_alive() for thread in (*witnesses, *victims)):
        faulthandler.dump_traceback()
    alive = client.submit("echo", b"still there").result(10) == b"still there"
    # Whatever a call was interrupted in, calling it again ends it.
    for left in record.clients:
        left.close(0)
    stats = client.stats()
    print(
        json.dumps(
            {
                "raised": record.raised,
                "received": sum(record.received),
                "calls": sum(record.calls),
                "witnesses": record.witnessed,
                "errors": dict(record.errors),
                "wrong": len(record.wrong),
                "hung": len(record.hung) + sum(thread.is_alive() for thread in (*witnesses, *victims)),
                "alive": alive,
                "clients": len(record.clients),
                "threads left": _threads_left(client),
                "connections_lost": stats.connections_lost,
                "loop_errors": stats.loop_errors,
            }
        ),
        flush=True,
    )
    # Interrupted victims may have left locks of the standard library's own taken, such as those of threading.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), *map(int, sys.argv[3:]))
