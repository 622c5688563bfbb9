"""A WSGI application with one client at module level.

With ``USED_WHEN_LOADED`` set the client is used while the application is loaded, and still has jobs then. With
gunicorn's ``--preload``, and under uWSGI without ``--lazy-apps``, that is in the master, which then forks its workers.
"""

from __future__ import annotations

import os

from gearman_pool import GearmanClient, GearmanError
from gearman_pool.errors import ForkedProcess

LOADED_IN = os.getpid()
client = GearmanClient.from_env(max_retries=int(os.environ.get("MAX_RETRIES", "0")))
held = []
if "USED_WHEN_LOADED" in os.environ:
    assert client.submit("echo", b"when loaded").result(10) == b"when loaded"
    held = [client.submit("nobody", b"%d" % number) for number in range(20)]


def app(environ, start_response):
    """Echo the body through a job; jobs that another process holds must have ended here."""
    forked = os.getpid() != LOADED_IN
    headers = [("X-Process", str(os.getpid())), ("X-Forked", str(forked))]
    if forked and not all(isinstance(future.exception(0), ForkedProcess) for future in held):
        start_response("500 Wrong", headers)
        return [b"a job of the parent's has no end here"]
    payload = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    try:
        result = client.submit("echo", payload, timeout=20).result()
    except GearmanError as error:
        start_response("503 No result", [*headers, ("X-Error", str(error))])
        return [type(error).__name__.encode()]
    start_response("200 OK", headers)
    return [result]
