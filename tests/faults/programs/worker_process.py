"""A worker process for fault tests: ``python -m tests.faults.programs.worker_process OPTIONS_JSON LOG SERVER...``.

Prints ``ready`` when it can take jobs. Writes one line for each task that has ended to LOG: a single write in append
mode, so that the lines of several processes do not mix. Tasks: "note" (data comes back), "slow" (runs until a file of
the name given as data exists, or for ever; if its unique is "asyncio", it uses signals by that first), "c" (never
returns from a call into C), "fork" (a child that leaves as its data says).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading

from gearman_pool import GearmanWorker
from tests.support.waiting import wait_until


def main() -> int:
    options = json.loads(sys.argv[1])
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    worker = GearmanWorker(sys.argv[3:], **options)

    def note(job):
        os.write(log, job.data + b"\n")
        return job.data

    async def use_signals_of_its_own():
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)

    def slow(job):
        if job.unique == "asyncio":
            asyncio.run(use_signals_of_its_own())
        job.send_data(b"started")
        wait_until(lambda: os.path.exists(job.data.decode()), 600)
        os.write(log, b"slow\n")
        return b"slow"

    def in_c(job):
        mutex = ctypes.create_string_buffer(256)
        lock = ctypes.CDLL(None).pthread_mutex_lock  # no signal ends it, and waiting takes no processor time
        lock(mutex)
        job.send_data(b"started")
        lock(mutex)

    def fork(job):
        pid = os.fork()
        if pid == 0:
            if job.data == b"exit":
                os._exit(0)
            if job.data == b"SIGTERM":
                threading.Event().wait(60)
                os._exit(1)
            return b"of the child"
        if job.data == b"SIGTERM":
            os.kill(pid, signal.SIGTERM)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return b"of the parent, child %d" % status

    worker.register_task("note", note)
    worker.register_task("slow", slow)
    worker.register_task("c", in_c)
    worker.register_task("fork", fork)

    def tell() -> None:
        worker.ready.wait()
        print("ready", flush=True)

    threading.Thread(target=tell, daemon=True).start()
    return 0 if worker.run() else 9


if __name__ == "__main__":
    sys.exit(main())
