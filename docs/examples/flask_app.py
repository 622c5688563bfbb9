"""A Flask application with one Gearman client for all threads of each process.

Run it, with ``GEARMAN_SERVERS`` set, with
``gunicorn --preload --workers 2 --worker-class gthread --threads 8 flask_app:app``.
"""

from __future__ import annotations

import os

from flask import Flask, Response, request

from gearman_pool import GearmanClient, GearmanError, JobReference

app = Flask(__name__)

# At module level: it starts with its first use, in each worker process by itself.
client = GearmanClient.from_env(max_retries=int(os.environ.get("MAX_RETRIES", "0")))


@app.errorhandler(GearmanError)
def no_result(error: GearmanError) -> tuple[str, int]:
    """Say what kind of error it was; its text goes to the log."""
    app.logger.warning("%s: %s", type(error).__name__, error)
    return type(error).__name__, 503


@app.post("/run/<task>")
def run(task: str) -> Response:
    """Run a job and return its result."""
    return Response(client.submit(task, request.get_data(), timeout=20).result(), mimetype="application/octet-stream")


@app.post("/later/<task>")
def later(task: str) -> str:
    """Leave a job to be done, and return what to ask for it by."""
    return str(client.submit_background(task, request.get_data()).result(timeout=5))


@app.get("/status/<path:reference>")
def status(reference: str) -> dict[str, object]:
    """Return how a job stands."""
    found = client.status(JobReference.parse(reference))
    return {"known": found.known, "running": found.running, "progress": found.fraction}


@app.post("/stream/<task>")
def stream(task: str) -> Response:
    """Pass on what a worker sends while it works."""
    future = client.submit(task, request.get_data(), timeout=60)
    return Response(update.data for update in future.updates(30) if update.kind == "data")
