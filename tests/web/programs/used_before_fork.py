"""A WSGI application whose client gunicorn's master has used, and still has jobs with, when it forks its workers."""

from __future__ import annotations

import os

from gearman_pool import GearmanClient
from gearman_pool.errors import ForkedProcess

MASTER = os.getpid()
client = GearmanClient.from_env()
assert client.submit("echo", b"in the master").result(10) == b"in the master"
held = [client.submit("nobody", b"%d" % number) for number in range(20)]


def app(environ, start_response):
    """Echo the query through a job; the master's jobs must have ended here."""
    payload = environ["QUERY_STRING"].encode()
    copies = all(isinstance(future.exception(0), ForkedProcess) for future in held)
    fine = copies and os.getpid() != MASTER and client.submit("echo", payload).result(20) == payload
    start_response("200 OK" if fine else "500 Wrong", [("Content-Type", "text/plain")])
    return [payload]
