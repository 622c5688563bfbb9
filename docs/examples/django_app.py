"""A Django application, in one file, with one Gearman client for all threads of each process.

Run it, with ``GEARMAN_SERVERS`` set, with
``gunicorn --preload --workers 2 --worker-class gthread --threads 8 django_app:app``.
"""

from __future__ import annotations

import os

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from gearman_pool import GearmanClient, GearmanError, JobReference

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY=os.urandom(32).hex(), MIDDLEWARE=[])
    django.setup()

# At module level: it starts with its first use, in each worker process by itself.
client = GearmanClient.from_env(max_retries=int(os.environ.get("MAX_RETRIES", "0")))


def run(request: HttpRequest, task: str) -> HttpResponse:
    """Run a job and return its result."""
    try:
        return HttpResponse(client.submit(task, request.body, timeout=20).result())
    except GearmanError as error:
        return HttpResponse(type(error).__name__, status=503)


def later(request: HttpRequest, task: str) -> HttpResponse:
    """Leave a job to be done, and return what to ask for it by."""
    return HttpResponse(str(client.submit_background(task, request.body).result(timeout=5)))


def status(request: HttpRequest, reference: str) -> HttpResponse:
    """Return how a job stands."""
    found = client.status(JobReference.parse(reference))
    return JsonResponse({"known": found.known, "running": found.running, "progress": found.fraction})


def stream(request: HttpRequest, task: str) -> StreamingHttpResponse:
    """Pass on what a worker sends while it works."""
    future = client.submit(task, request.body, timeout=60)
    return StreamingHttpResponse(update.data for update in future.updates(30) if update.kind == "data")


urlpatterns = [
    path("run/<str:task>", run),
    path("later/<str:task>", later),
    path("status/<path:reference>", status),
    path("stream/<str:task>", stream),
]

app = WSGIHandler()
