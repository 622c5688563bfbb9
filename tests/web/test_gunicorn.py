"""A web application under gunicorn, with one client at module level."""

from __future__ import annotations

import pytest

from ..support.figures import figure
from ..support.waiting import wait_until
from .applications import EXAMPLES, PROGRAMS, Load, ask, gunicorn, load_while_a_server_is_away, need

KINDS = {"sync": (), "gthread": ("--threads", "8"), "gevent": ()}

#: A worker that has just been forked can miss the signal to end; the master then waits until this time is over.
PATIENCE = ["--graceful-timeout", "2"]


@pytest.fixture(autouse=True)
def _packages(request):
    need("gunicorn")
    parameters = request.node.callspec.params.values() if hasattr(request.node, "callspec") else ()
    for name in ("gevent", "flask", "django"):
        if name in parameters or f"{name}_app" in parameters:
            need(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "kind", "preload", "max_retries"),
    [
        ("flask_app", "gthread", True, 0),
        ("django_app", "gthread", False, 2),
        ("shared_client", "sync", True, 2),
        ("shared_client", "sync", False, 0),
        ("shared_client", "gevent", True, 0),
        ("shared_client", "gevent", False, 2),
    ],
)
def test_no_request_hangs_and_every_answer_is_right_while_a_server_is_killed_and_comes_back(
    gearmands, c_workers, tmp_path, module, kind, preload, max_retries
):
    first, second = gearmands(), gearmands()
    c_workers(second)
    options = ["--worker-class", kind, *KINDS[kind], *(["--preload"] if preload else [])]
    folder = PROGRAMS if module == "shared_client" else EXAMPLES
    servers = [first.address, second.address]
    application = gunicorn(folder, module, servers, tmp_path / "log", *options, MAX_RETRIES=str(max_retries))
    load, log = load_while_a_server_is_away(application, first, c_workers)
    figure(f"{module}, {kind}: {dict(load.outcomes)}, longest {load.longest:.2f} s")
    assert set(load.outcomes) <= ({"right"} if max_retries else {"right", "ConnectionLost"}), log[-3000:]
    assert load.longest < 10
    assert "Traceback" not in log


@pytest.mark.slow
@pytest.mark.parametrize("module", ["flask_app", "django_app"])
def test_application_uses_jobs_of_all_kinds(gearmand, php_worker, tmp_path, module):
    application = gunicorn(EXAMPLES, module, [gearmand.address], tmp_path / "log", "--threads", "8", *PATIENCE)
    try:
        status, reference, _ = ask(application.port, "POST", "/later/nobody", b"x")
        assert status == 200
        _, body, _ = ask(application.port, "GET", f"/status/{reference.decode()}")
        assert b'"known":true' in body.replace(b" ", b"")
        assert ask(application.port, "POST", "/stream/stream", b"3")[:2] == (200, b"part 1part 2part 3")
        assert ask(application.port, "POST", "/run/fail")[:2] == (503, b"JobFailed")
    finally:
        application.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_client_that_the_master_used_works_in_its_workers_and_in_those_that_replace_them(
    gearmand, c_worker, tmp_path, kind
):
    options = ["--preload", "--worker-class", kind, *KINDS[kind], "--max-requests", "40", "--max-requests-jitter", "10"]
    options += PATIENCE
    servers = [gearmand.address]
    application = gunicorn(PROGRAMS, "shared_client", servers, tmp_path / "log", *options, USED_WHEN_LOADED="1")
    load = Load(application)
    try:
        # Workers end after 40 to 50 requests, and the master, whose connection lives, forks others.
        wait_until(
            lambda: len(load.processes) >= 3,
            40,
            message=lambda: (
                f"processes: {load.processes}, {dict(load.outcomes)}\n{(tmp_path / 'log').read_text()[-3000:]}"
            ),
        )
        load.stop()
        # The master's connection is as it was, and its jobs still stand.
        assert gearmand.jobs("nobody") == 20
    finally:
        log = application.close()
    figure(f"{kind}: {dict(load.outcomes)} by {len(load.processes)} processes, longest {load.longest:.2f} s")
    assert set(load.outcomes) == {"right"}, log[-3000:]
    assert "Traceback" not in log
