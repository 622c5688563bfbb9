"""Usage: worker_pygearman.py HOST PORT"""

from __future__ import annotations

import sys
from typing import Any

from gearman import GearmanWorker

worker = GearmanWorker([f"{sys.argv[1]}:{sys.argv[2]}"])


def stream(worker: Any, job: Any) -> bytes:
    count = int(job.data)
    for number in range(1, count + 1):
        worker.send_job_data(job, b"part %d" % number)
        worker.send_job_status(job, number, count)
    return b"done"


def fail(worker: Any, job: Any) -> bytes:
    raise ValueError("on purpose")


# It knows its functions by bytes alone.
worker.register_task(b"reverse", lambda worker, job: job.data[::-1])
worker.register_task(b"stream", stream)
worker.register_task(b"fail", fail)
worker.work()
