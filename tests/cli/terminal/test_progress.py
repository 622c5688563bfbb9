"""How far a job has come, as ``gearman-pool submit --progress`` draws it."""

from __future__ import annotations

import pytest

from ..running import Terminal, without_rich


@pytest.mark.parametrize("rich", [True, False])
def test_progress_is_drawn_on_a_terminal(gearmand, raw_worker, rich, tmp_path):
    more = {} if rich else without_rich(tmp_path)
    with Terminal("submit", "raw", "x", "--progress", server=gearmand, **more) as terminal:
        job = raw_worker.next_job(30)
        job.send_status(1, 2)
        terminal.wait_for("50%.*1/2")
        job.complete(b"the result")
        assert terminal.end() == 0
    assert "the result" in terminal.text
