"""Health checks. What a server that freezes later does stands in tests/faults/test_frozen_server.py."""

from __future__ import annotations

import socket

from gearman_pool import GearmanClient

from ..support.waiting import wait_until


def test_server_that_accepts_and_says_nothing_never_counts_as_up(gearmand):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with GearmanClient([address, gearmand.address], health_check_timeout=1.0) as client:
            assert [client.submit_background("x").result(10).server for _ in range(10)] == [gearmand.address] * 10
            wait_until(lambda: client.servers()[0].state == "DOWN", message="down")
            assert "no answer to a health check" in client.servers()[0].last_error
