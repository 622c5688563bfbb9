"""Usage: client_gear.py HOST PORT UNIQUE; prints one line of JSON, as client.php does."""

from __future__ import annotations

import json
import sys
import time

import gear

host, port, unique = sys.argv[1:]
client = gear.Client("peer")
client.addServer(host, int(port))
client.waitForServer()


def run(task: str, data: bytes, precedence: int = gear.PRECEDENCE_NORMAL, unique: str | None = None) -> gear.Job:
    job = gear.Job(task.encode(), data, unique.encode() if unique else None)
    client.submitJob(job, precedence=precedence)
    deadline = time.monotonic() + 20
    while not job.complete and time.monotonic() < deadline:
        time.sleep(0.005)
    return job


stream = run("stream", b"3")
later = gear.Job(b"later", b"left")
client.submitJob(later, background=True)
failed = run("fail", b"")
print(
    json.dumps(
        {
            "reverse": run("reverse", b"Hello World!").data[0].decode(),
            "high": run("reverse", b"high", gear.PRECEDENCE_HIGH).data[0].decode(),
            # It keeps data, warnings and the result in one list.
            "data": [data.decode() for data in stream.data],
            "failed": int(failed.failure),
            "handle": later.handle.decode(),
            "slow": run("slow", b"same", unique=unique).data[0].decode(),
        }
    ),
    flush=True,
)
client.shutdown()
