"""Usage: client_pygearman.py HOST PORT UNIQUE; prints one line of JSON, as client.php does."""

from __future__ import annotations

import json
import sys

from gearman import GearmanClient

host, port, unique = sys.argv[1:]
client = GearmanClient([f"{host}:{port}"])
# Without an explicit time its submit does not wait for results at all.
stream = client.submit_job("stream", b"3", poll_timeout=20)
background = client.submit_job("later", b"left", background=True, poll_timeout=20)
handle = background.job.handle
print(
    json.dumps(
        {
            "reverse": client.submit_job("reverse", b"Hello World!", poll_timeout=20).result.decode(),
            "high": client.submit_job("reverse", b"high", priority="HIGH", poll_timeout=20).result.decode(),
            "complete": [stream.result.decode()],
            "data": [data.decode() for data in stream.data_updates],
            "warning": [data.decode() for data in stream.warning_updates],
            "failed": int(client.submit_job("fail", b"", poll_timeout=20).state == "FAILED"),
            "handle": handle if isinstance(handle, str) else handle.decode(),
            "known": client.get_job_status(background, poll_timeout=20).status["known"],
            "slow": client.submit_job("slow", b"same", unique=unique, poll_timeout=20).result.decode(),
        }
    )
)
