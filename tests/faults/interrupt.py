"""A program that raises exceptions into callers from outside and checks that nobody else is harmed.

Usage: ``python -m tests.faults.interrupt SERVER SECONDS``. Prints one line of JSON: how many exceptions were raised and
calls made, how many answers were wrong, and whether the client still works at the end.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time

from gearman_pool import GearmanClient
from gearman_pool.errors import GearmanError

VICTIMS = 3
WITNESSES = 3


class FromOutsideError(BaseException):
    """What is raised into the callers."""


class Record:
    """What has happened; each counter is changed by one thread alone."""

    def __init__(self) -> None:
        self.stop = False
        self.wrong: list[tuple[bytes, bytes]] = []
        self.calls = [0] * (VICTIMS + WITNESSES + 1)
        self.errors = [0] * (VICTIMS + WITNESSES + 1)
        self.raised = 0


def call(client: GearmanClient, record: Record, number: int) -> None:
    """Submit one job and check that the answer is its own."""
    payload = b"%d-%d-%d" % (number, record.calls[number], random.getrandbits(60))
    record.calls[number] += 1
    try:
        result = client.submit("echo", payload).result(20)
    except GearmanError:
        record.errors[number] += 1
        return
    if result != payload:
        record.wrong.append((payload, result))


def witness(client: GearmanClient, record: Record, number: int) -> None:
    """Call in peace."""
    while not record.stop:
        call(client, record, number)


def victim(client: GearmanClient, record: Record, number: int) -> None:
    """Call, and be interrupted."""
    while not record.stop:
        try:
            while not record.stop:
                call(client, record, number)
        except FromOutsideError:
            continue


def torment(client: GearmanClient, record: Record, victims: list[threading.Thread]) -> None:
    """Raise into the victims at random moments; one that an exception has ended is replaced."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    while not record.stop:
        for number, thread in enumerate(victims):
            if thread.is_alive():
                raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(FromOutsideError))
                record.raised += 1
            else:
                victims[number] = threading.Thread(target=victim, args=(client, record, number))
                victims[number].start()
        time.sleep(random.random() * 0.0004)


def main(server: str, seconds: float) -> int:
    """Run the whole and return the exit status."""
    faulthandler.dump_traceback_later(seconds + 40, exit=True)
    # A victim may be struck where it handles the blow before; it is replaced.
    threading.excepthook = lambda _: None
    record = Record()
    client = GearmanClient([server], max_retries=0, reconnect_backoff=(0.001, 0.01))
    client.ping()

    def alarm(*_: object) -> None:
        record.raised += 1
        raise FromOutsideError

    victims = [threading.Thread(target=victim, args=(client, record, n)) for n in range(VICTIMS)]
    witnesses = [threading.Thread(target=witness, args=(client, record, VICTIMS + n)) for n in range(WITNESSES)]
    for thread in (*victims, *witnesses):
        thread.start()
    tormentor = threading.Thread(target=torment, args=(client, record, victims))
    tormentor.start()
    signal.signal(signal.SIGALRM, alarm)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            # One alarm for each time around, so that none strikes outside of this block.
            signal.setitimer(signal.ITIMER_REAL, 0.00002 + random.random() * 0.002)
            for _ in range(50):
                call(client, record, VICTIMS + WITNESSES)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except FromOutsideError:
            continue
    record.stop = True
    tormentor.join(30)
    for thread in (*witnesses, *victims):
        thread.join(30)
    alive = client.submit("echo", b"still there").result(10) == b"still there"
    print(
        json.dumps(
            {
                "raised": record.raised,
                "calls": sum(record.calls),
                "witnesses": sum(record.calls[VICTIMS : VICTIMS + WITNESSES]),
                "errors": sum(record.errors),
                "wrong": len(record.wrong),
                "hung": sum(thread.is_alive() for thread in (*witnesses, *victims)),
                "alive": alive,
                "connections_lost": client.stats().connections_lost,
                "loop_errors": client.stats().loop_errors,
            }
        ),
        flush=True,
    )
    # Interrupted victims may have left locks of the standard library's own taken, such as those of threading.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
