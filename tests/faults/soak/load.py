"""A load process of the soak: threads that share two clients and do all that clients can do, until told to end.

Prints a line of JSON with its counts every few seconds, and a last one when every job has its outcome.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gearman_pool import GearmanAdminClient, GearmanClient
from gearman_pool.errors import GearmanError

from .accounting import ACCEPTED, RIGHT, SENT, UNSENT, WRONG, Ledger, Outcome

__all__ = ["main"]

#: Nothing takes longer than this if nothing hangs, in seconds: all servers may be down or stopped for a while.
PATIENCE = 60.0

#: Seconds between lines.
_INTERVAL = 5.0

_BATCH = 50
_RETRIES = 2
_THREADS = 10
_LARGEST = 1 << 20

#: Processes that are forked from load process N have the numbers from (N + 1) * this on.
_CHILDREN = 100_000


class Load:
    """What the threads of a load process share.

    ``_lock`` guards ``counts``, ``faults``, ``_open``, ``_submitted``, ``_children``; the clients are replaced whole.
    """

    def __init__(self, directory: Path, number: int, seed: int, addresses: list[str]) -> None:
        self.number = number
        self.addresses = addresses
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.ended = threading.Event()
        self._ledger = Ledger(directory)
        self._journal = self._ledger.outcomes_of(number)
        self._seed = seed
        self._lock = threading.Lock()
        self._submitted = 0
        #: Jobs whose outcome has not been told.
        self._open: set[int] = set()
        self._children = 0
        self._clients = {retries: self._client(retries) for retries in (0, _RETRIES)}

    def _client(self, retries: int) -> GearmanClient:
        return GearmanClient(
            self.addresses, max_retries=retries, health_check_interval=1.0, health_check_timeout=1.0, submit_timeout=5.0
        )

    # ---- jobs that are accounted for ---------------------------------------------------------------------------

    def _next(self) -> int:
        with self._lock:
            self._submitted += 1
            return self._submitted - 1

    def _note(self, what: str, count: int = 1) -> None:
        with self._lock:
            self.counts[what] += count

    def fault(self, what: str) -> None:
        """Note something that must not be; the soak fails."""
        with self._lock:
            self.faults[what] += 1

    def _end(self, job: int, what: int, retries: int, server: int = 255) -> None:
        self._journal.outcome(Outcome(Ledger.number(self.number, job), what, retries, server, time.monotonic()))
        self._note("jobs")

    def _failed(self, job: int, error: BaseException, retries: int) -> None:
        if not isinstance(error, GearmanError):
            self.fault(f"{type(error).__name__} instead of a GearmanError: {error}")
        self._note(type(error).__name__)
        self._end(job, SENT if getattr(error, "maybe_sent", True) else UNSENT, retries)

    def _submit(self, retries: int, background: bool = False, **options: Any) -> tuple[int, bytes, Any] | None:
        job = self._next()
        data = Ledger.number(self.number, job).to_bytes(8, "little") + os.urandom(random.choice((0, 5, 200)))
        client = self._clients[retries]
        try:
            submit = client.submit_background if background else client.submit
            future = submit("count", data, **options)
        except Exception as error:  # saturated or closed
            self._failed(job, error, retries)
            return None
        with self._lock:
            self._open.add(job)
        future.add_done_callback(partial(self._told, job))
        return job, data, future

    def _told(self, job: int, future: Any) -> None:
        """Runs once for each job, when it has its outcome."""
        with self._lock:
            if job in self._open:
                self._open.remove(job)
            else:
                self.faults["a future resolved twice"] += 1

    def _settle(self, job: int, data: bytes, future: Any, retries: int) -> None:
        error: BaseException | None
        try:
            error = future.exception(PATIENCE)
        except GearmanError as raised:  # it was cancelled
            error = raised
        except TimeoutError as raised:
            self.fault(f"a future hangs: {raised}")
            faulthandler.dump_traceback()
            error = raised
        if error is not None:
            self._failed(job, error, retries)
        elif future.request.background:
            self._end(job, ACCEPTED, retries, self.addresses.index(future.result().server))
        else:
            self._end(job, RIGHT if future.result() == data else WRONG, retries)

    def _many(self, retries: int, background: bool = False, **options: Any) -> None:
        jobs = [self._submit(retries, background, **options) for _ in range(_BATCH)]
        for job in jobs:
            if job is not None:
                self._settle(*job, retries)

    # ---- what the threads do -----------------------------------------------------------------------------------

    def foreground(self) -> None:
        """Jobs that are sent once."""
        self._many(0, priority=random.choice((None, "HIGH", "LOW")))

    def retried(self) -> None:
        """Jobs that may be sent again."""
        self._many(_RETRIES)

    def background(self) -> None:
        """Jobs that the server keeps."""
        self._many(0, background=True)

    def cancelled(self) -> None:
        """Jobs that are cancelled right after they were submitted."""
        job = self._submit(0)
        if job is not None:
            job[2].cancel()
            self._settle(*job, 0)

    def timed_out(self) -> None:
        """Jobs that have next to no time."""
        job = self._submit(0, timeout=random.choice((0.0005, 0.005)))
        if job is not None:
            self._settle(*job, 0)

    def echoed(self) -> None:
        """Jobs of other implementations' workers, up to 1 MiB."""
        data = os.urandom(random.choice((0, 1, 1000, 100_000, _LARGEST)))
        self._try(lambda client: client.submit("echo", data).result(PATIENCE) == data, "echo")

    def mapped(self) -> None:
        """Results in order."""
        data = [b"%d" % number for number in range(_BATCH)]
        self._try(lambda client: list(client.map("echo", data, timeout=PATIENCE)) == data, "map")

    def streamed(self) -> None:
        """A worker's updates."""
        data = os.urandom(10_000)

        def whole(client: GearmanClient) -> bool:
            updates = client.submit("stream", data, max_retries=0).updates(PATIENCE)
            return b"".join(update.data for update in updates if update.kind == "data") == data

        self._try(whole, "stream")

    def looked(self) -> None:
        """Questions."""
        self._try(lambda client: bool(client.ping(1)) and bool(client.stats()) and bool(repr(client)), "ping")
        self._try(lambda client: client.status(client.submit("echo", b""), timeout=5) is not None, "status")

    def administered(self) -> None:
        """An admin client's questions."""
        address = random.choice(self.addresses)
        try:
            with GearmanAdminClient([address], poll_timeout=5) as admin:
                admin.get_version(), admin.get_status(), admin.get_workers()
            self._note("admin")
        except GearmanError as error:
            self._note(f"admin: {type(error).__name__}")

    def reconfigured(self) -> None:
        """A server is taken out and in again."""
        address = random.choice(self.addresses)
        client = self._clients[_RETRIES]
        try:
            client.remove_server(address, drain=random.random() < 0.5)
        except (ValueError, GearmanError):
            return
        finally:
            try:
                client.add_server(address)
            except GearmanError:
                self._note("closed meanwhile")
        self._note("servers changed")

    def renewed(self) -> None:
        """A client is closed, with jobs in flight, and another takes its place."""
        retries = random.choice((0, _RETRIES))
        with self._lock:
            old, self._clients[retries] = self._clients[retries], self._client(retries)
        old.close(random.choice((0, 1, PATIENCE)))
        self._note("clients closed")

    def forked(self) -> None:
        """A child that uses the clients it inherits, and one that ends without."""
        with self._lock:
            self._children += 1
            number = (self.number + 1) * _CHILDREN + self._children
        pid = os.fork()
        if not pid:
            self._be_a_child(number)
        deadline = time.monotonic() + 3 * PATIENCE
        while not (done := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                self.fault("a forked child hangs")
                os.kill(pid, 9)
            time.sleep(0.01)
        if done[1] and time.monotonic() <= deadline:
            self.fault(f"a forked child ended with {os.waitstatus_to_exitcode(done[1])}")
        self._note("forks")

    def _be_a_child(self, number: int) -> None:
        status = 1
        try:
            # What the parent's threads held at the moment of the fork stays so here.
            self._lock = threading.Lock()
            self.number, self._submitted, self.faults, self._open = number, 0, Counter(), set()
            self._journal = self._ledger.outcomes_of(number)
            for retries in (0, _RETRIES):
                for _ in range(5):
                    job = self._submit(retries)
                    if job is not None:
                        self._settle(*job, retries)
            self._ledger.close_books(number, self._submitted)
            for client in self._clients.values():
                client.close(0)
            status = 1 if self.faults else 0
            if self.faults:
                print(dict(self.faults), file=sys.stderr, flush=True)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _try(self, right: Callable[[GearmanClient], bool], what: str) -> None:
        try:
            if not right(self._clients[_RETRIES]):
                self.fault(f"wrong answer: {what}")
            self._note(what)
            self._note("jobs")
        except GearmanError as error:
            self._note(f"{what}: {type(error).__name__}")
        except TimeoutError as error:
            self.fault(f"{what} hangs: {error}")
            faulthandler.dump_traceback()
        except ValueError as error:
            # The server that was to be asked has been taken out meanwhile.
            self._note(f"{what}: {error!r:.40}")

    # ---- threads -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do it until ``ended`` is set."""
        works: list[tuple[Callable[[], None], float]] = [
            (self.foreground, 8),
            (self.retried, 5),
            (self.background, 4),
            (self.cancelled, 4),
            (self.timed_out, 4),
            (self.echoed, 6),
            (self.mapped, 2),
            (self.streamed, 4),
            (self.looked, 2),
            (self.administered, 1),
            (self.reconfigured, 0.3),
            (self.renewed, 0.1),
            (self.forked, 0.1),
        ]
        chooser = random.Random(f"{self._seed} {threading.get_ident()}")
        while not self.ended.is_set():
            (work,) = chooser.choices([work for work, _ in works], [weight for _, weight in works])
            try:
                work()
            except BaseException as error:
                traceback.print_exc()
                self.fault(f"{work.__name__}: {error!r:.200}")

    def report(self, last: bool = False) -> None:
        """Print the counts."""
        with self._lock:
            line = {"last": last, "counts": dict(self.counts), "faults": dict(self.faults)}
        print(json.dumps(line), flush=True)

    def close(self) -> None:
        """Close the clients and the books."""
        for client in self._clients.values():
            client.close(5)
            if client.stats().loop_errors:
                self.fault("an unexpected error in an I/O thread")
        self._ledger.close_books(self.number, self._submitted)
        if self._open:
            self.fault(f"futures that never told of their outcome: {len(self._open)}")
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("gearman_pool")]
        for name in left:
            self.fault(f"a thread is left: {name}")


def main() -> None:
    """Arguments: the ledger's directory, the process's number, the seed, the servers. A line on its input ends it."""
    directory, number, seed, *addresses = sys.argv[1:]
    faulthandler.enable()
    # Servers that come and go are what it is about.
    logging.getLogger("gearman_pool").setLevel(logging.ERROR)
    load = Load(Path(directory), int(number), int(seed), addresses)
    threads = [threading.Thread(target=load.run, name=f"load-{index}", daemon=True) for index in range(_THREADS)]
    for thread in threads:
        thread.start()
    threading.Thread(target=lambda: (sys.stdin.readline(), load.ended.set()), daemon=True).start()
    while not load.ended.wait(_INTERVAL):
        load.report()
    deadline = time.monotonic() + 4 * PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            load.fault(f"{thread.name} hangs")
    if any(thread.is_alive() for thread in threads):
        faulthandler.dump_traceback()
    load.close()
    load.report(last=True)


if __name__ == "__main__":
    main()
