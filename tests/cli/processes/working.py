"""Runs ``gearman-pool work`` in a folder with a module of workers, and looks at its processes."""

from __future__ import annotations

import re
from pathlib import Path

from ..running import PATIENCE, Running

__all__ = ["APP", "alive", "ask", "started", "work"]


APP = """
import os, sys, time
from gearman_pool import GearmanWorker

def make(servers):
    worker = GearmanWorker(servers)
    @worker.task("pid")
    def pid(job):
        return b"%d" % os.getpid()
    @worker.task("nap")
    def nap(job):
        job.send_data(b"begun")
        time.sleep(float(job.data))
        return b"rested"
    return worker

def lingering(servers):
    import threading
    threading.Thread(target=threading.Event().wait, name="of the user").start()
    return make(servers)

def upper(job):
    return job.data.upper()

nothing = 42
own = GearmanWorker([os.environ.get("OWN_SERVER", "127.0.0.1:1")])
own.register_task("own", upper)
idle = GearmanWorker(["127.0.0.1:1"])
homeless = GearmanWorker()
homeless.register_task("own", upper)
"""


def work(folder, gearmand, *arguments, **more):
    return Running("work", *arguments, server=gearmand, cwd=folder, **more)


def ask(client, task="pid", data=b"", **options):
    return client.submit(task, data, timeout=PATIENCE, **options).result()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started(running):
    """The numbers of the processes that were started so far."""
    return [int(number) for number in re.findall(r"process (\d+) started", running.err)]
