"""Usage: worker_gear.py HOST PORT"""

from __future__ import annotations

import sys

import gear

worker = gear.Worker("peer")
worker.addServer(sys.argv[1], int(sys.argv[2]))
worker.waitForServer()
for name in ("reverse", "stream", "fail"):
    worker.registerFunction(name)
while True:
    job = worker.getJob()
    if job.name == "reverse":
        job.sendWorkComplete(job.arguments[::-1])
    elif job.name == "fail":
        job.sendWorkFail()
    else:
        count = int(job.arguments)
        for number in range(1, count + 1):
            job.sendWorkData(b"part %d" % number)
            job.sendWorkStatus(number, count)
        job.sendWorkComplete(b"done")
