"""F17: an exception that is raised into a caller from outside harms that call alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys

#: As long as each test run takes; `INTERRUPT_SECONDS=60` in the environment shows the figure of the promise.
SECONDS = int(os.environ.get("INTERRUPT_SECONDS", "5"))


def test_exceptions_from_outside_harm_nobody_else(gearmand, c_worker):
    command = [sys.executable, "-m", "tests.faults.interrupt", gearmand.address, str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 50, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    print(figures)
    assert figures["raised"] > 500
    assert figures["witnesses"] > 500
    assert (figures["wrong"], figures["hung"], figures["loop_errors"], figures["alive"]) == (0, 0, 0, True)
