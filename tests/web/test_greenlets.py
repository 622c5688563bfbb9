"""F13: gevent or eventlet has put greenlets in the place of threads, and they share one client."""

from __future__ import annotations

import json

import pytest

from ..support.figures import figure
from ..support.processes import run_program
from .applications import PROGRAMS, need


@pytest.mark.slow
@pytest.mark.parametrize("patched", ["before", "after", "without-threads"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets_share_a_client_as_threads_do(gearmand, c_worker, library, patched):
    need(library)
    # eventlet warns that it is deprecated.
    ended = run_program(["-W", "ignore", str(PROGRAMS / "greenlets.py"), library, patched, gearmand.address], 40)
    assert ended.code == 0, ended.errors
    found = json.loads(ended.output)
    figure(f"{library}, patched {patched}: 100 greenlets x 20 calls in {found['duration']:.2f} s, {found}")
    assert found["outcomes"] == {"right": 2005, "JobTimeout": 1}
    if patched != "without-threads":
        # There a waiting greenlet waits as a thread does, and all others with it.
        assert found["ticks"] > 5
    assert "Traceback" not in ended.errors
