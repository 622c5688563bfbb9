"""``gearman-pool work --health-port``, against real gearmand."""

from __future__ import annotations

import os
import re
import signal
import socket
import urllib.error
import urllib.request

import pytest

from tests.support.waiting import wait_until

from ..running import PATIENCE
from .working import ask, work


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def fetch(address, path):
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_health_endpoints_follow_the_server(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:make", "--health-port", "0", "--processes", "2") as running:
        address = running.wait_for(r"health checks at http://(\S+?)/", "stderr")[1]
        wait_until(lambda: fetch(address, "/readyz") == (200, "2 of 2 processes are ready\n"), PATIENCE)
        ask(client)
        wait_until(lambda: 'jobs_total{outcome="done"} 1\n' in fetch(address, "/metrics")[1], PATIENCE)
        for line in fetch(address, "/metrics")[1].splitlines():
            assert re.fullmatch(r'# (HELP|TYPE) \S+ .+|[a-z_]+(\{[a-z_]+="[a-z_]+"\})? \d+', line)
        os.kill(int(ask(client)), signal.SIGKILL)
        wait_until(lambda: "restarts_total 1\n" in fetch(address, "/metrics")[1], PATIENCE)
        gearmand.kill()
        wait_until(lambda: fetch(address, "/readyz")[0] == 503, PATIENCE)
        assert fetch(address, "/livez") == (200, "ok\n")
        gearmand.start()
        wait_until(lambda: fetch(address, "/readyz")[0] == 200, PATIENCE)
        assert fetch(address, "/elsewhere")[0] == 404
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on the loopback interface")
def test_health_endpoints_listen_on_ipv6(folder, gearmand):
    with work(folder, gearmand, "jobs_app:make", "--health-port", "[::1]:0") as running:
        address = running.wait_for(r"health checks at http://(\[::1\]:\d+)/", "stderr")[1]
        assert fetch(address, "/livez") == (200, "ok\n")
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


def test_a_health_port_that_is_taken_is_2(folder, gearmand):
    with work(folder, gearmand, "jobs_app:make", "--health-port", str(gearmand.port)) as running:
        assert running.end() == 2
        assert f"cannot listen on 127.0.0.1:{gearmand.port} for --health-port" in running.err
