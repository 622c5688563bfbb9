"""A program that forks again and again while its threads use a client, and checks both sides of each fork.

Usage: ``python -m tests.faults.programs.fork_storm FORKS DEADLINE SERVER...``. Prints one line of JSON.

Each child uses its inherited client at once, finds its copies of the parent's jobs ended with `ForkedProcess`, and ends
in one of several ways. Every tenth child forks in its turn.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import sys
import threading
import time
import warnings

from gearman_pool import GearmanClient
from gearman_pool.errors import ForkedProcess, GearmanError

#: What a child's exit status means.
FINE, WRONG_ANSWER, WRONG_COPY, RAISED, GRANDCHILD = 0, 11, 12, 13, 14

#: A child that has not ended after this many seconds hangs.
CHILD_DEADLINE = 15.0


class Parent:
    """The parent's half: threads that call, and jobs that stay in flight over all forks."""

    def __init__(self, client: GearmanClient) -> None:
        self.client = client
        self.stop = threading.Event()
        self.calls = [0] * 8
        self.wrong: list[object] = []
        self.errors: list[str] = []
        self.threads = [threading.Thread(target=self._call, args=(number,)) for number in range(8)]

    def _call(self, thread: int) -> None:
        while not self.stop.is_set():
            payload = b"parent %d/%d" % (thread, self.calls[thread])
            try:
                result = self.client.submit("echo", payload).result(20)
            except (GearmanError, TimeoutError) as error:
                self.errors.append(repr(error))
            else:
                if result != payload:
                    self.wrong.append((payload, result))
            self.calls[thread] += 1


def child(client: GearmanClient, inherited: list, number: int, depth: int = 0) -> int:
    """What a child does; returns its exit status."""
    # Not dump_traceback_later(), which waits in a child for the parent's watchdog thread.
    signal.alarm(int(CHILD_DEADLINE) - 1)
    for future in inherited:
        # Without waiting: the copies have their outcome when the fork returns.
        if not future.done() or not isinstance(future.exception(0), ForkedProcess):
            print(f"child {number}: a copy of the parent's job is {future}", file=sys.stderr)
            return WRONG_COPY
    payload = b"child %d of %d" % (number, os.getpid())
    if client.submit("echo", payload).result(10) != payload:
        return WRONG_ANSWER
    if client.submit_background("queued by children", payload).result(10).handle is None:
        return WRONG_ANSWER
    if number % 10 == 0 and depth == 0:
        mine = [client.submit("nobody", b"of the child")]
        grandchild = os.fork()
        if grandchild == 0:
            end(client, mine, number, depth + 1)
        if os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) != FINE:
            return GRANDCHILD
        if mine[0].done() or client.submit("echo", b"again").result(10) != b"again":
            return WRONG_ANSWER
    return FINE


def end(client: GearmanClient, inherited: list, number: int, depth: int) -> None:
    """Run the child's part and end in a way that depends on its number. Never returns."""
    status = RAISED
    try:
        started = time.monotonic()
        status = child(client, inherited, number, depth)
        took = time.monotonic() - started
        # One write below the pipe's limit is not mixed with those of others.
        os.write(1, b"child %d %.6f\n" % (number, took))
        way = number % 4
        if way == 1:
            client.close(0.2)
        elif way == 2:
            del client
            gc.collect()
    except BaseException as error:
        print(f"child {number}: {error!r}", file=sys.stderr)
    finally:
        if number % 4 == 3 and status == FINE:
            # The interpreter's whole exit, hooks included. The parent's threads do not exist here.
            sys.exit(FINE)
        os._exit(status)


def wait(pid: int) -> int | None:
    """Wait for a child; None if it hangs."""
    deadline = time.monotonic() + CHILD_DEADLINE
    pause = threading.Event()
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        pause.wait(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def main(forks: int, deadline: float, servers: list[str]) -> None:
    """Fork, and print what came of it."""
    # An alarm that nobody takes back prints where every thread stands and ends the process. Forks do not inherit it.
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(int(deadline))
    warnings.simplefilter("ignore", DeprecationWarning)  # of fork itself, with threads
    client = GearmanClient(servers)
    statuses: dict[str, int] = {}
    owner = os.getpid()
    # Before the first use.
    for number in range(5):
        pid = os.fork()
        if pid == 0:
            end(client, [], number, 0)
        code = wait(pid)
        statuses[str(code)] = statuses.get(str(code), 0) + 1
    parent = Parent(client)
    held = [client.submit("nobody", b"held %d" % number) for number in range(20)]
    while not all(future.job.handle for future in held):
        client.ping(1)
    for thread in parent.threads:
        thread.start()
    forked = 5
    slowest_fork = 0.0
    while forked < forks:
        # Some of each kind: accepted long ago, on their way, and hardly submitted.
        inherited = [*held, *(client.submit("nobody", b"fresh") for _ in range(3))]
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            end(client, inherited, forked, 0)
        slowest_fork = max(slowest_fork, time.monotonic() - started)
        code = wait(pid)
        statuses[str(code)] = statuses.get(str(code), 0) + 1
        forked += 1
    parent.stop.set()
    for thread in parent.threads:
        thread.join(25)
    assert os.getpid() == owner
    stats = client.stats()
    figures = {
        "forks": forked,
        "statuses": statuses,
        "parent_calls": sum(parent.calls),
        "parent_wrong": len(parent.wrong),
        "parent_errors": parent.errors[:5],
        "parent_hung": sum(thread.is_alive() for thread in parent.threads),
        "held_done": sum(future.done() for future in held),
        "connections_lost": stats.connections_lost,
        "connections_opened": stats.connections_opened,
        "loop_errors": stats.loop_errors,
        "slowest_fork": slowest_fork,
        "alive": client.submit("echo", b"still there").result(10) == b"still there",
    }
    print(json.dumps(figures), flush=True)
    client.close(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
