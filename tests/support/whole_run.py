"""One run of the tests from nothing: packages, environment, pytest, and what came of it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from . import debian
from .environment import ROOT, Environment, SetupFailed

__all__ = ["left_out", "main", "summary"]

#: Most tests wait for servers and processes, so there may be more of them at once than processors.
_TESTS_PER_PROCESSOR = 2
_MOST_AT_ONCE = 16


def main(arguments: Sequence[str]) -> int:
    """Run all tests, or what the arguments for pytest name; return pytest's exit code, or 2 if nothing could be run."""
    started = time.monotonic()
    debian.install()
    needs = debian.missing()
    if needs:
        print(f"Not there: {', '.join(need.what for need in needs)}. What needs them is left out; to have it:")
        print(f"    {debian.install_line(needs)}", flush=True)
    environment = Environment()
    try:
        environment.make()
    except SetupFailed as error:
        print(f"\nNo test was run. {error}")
        if needs:
            print(f"Run this, and then the tests again:\n    {debian.install_line(needs)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="gearman-pool-tests-") as folder:
        report = Path(folder, "report.xml")
        code = _run_pytest(environment.python, arguments, report)
        counts, reasons = summary(report)
    print("\n".join(["", counts, *left_out(reasons, needs, environment.left_out)]))
    print(f"Took {time.monotonic() - started:.0f} s. The tests' environment: {Path(environment.python).parents[1]}")
    return code


def _run_pytest(python: str, arguments: Sequence[str], report: Path) -> int:
    at_once = min(_MOST_AT_ONCE, _TESTS_PER_PROCESSOR * (os.cpu_count() or 1))
    command = [python, "-m", "pytest", "-n", str(at_once), f"--junit-xml={report}", *arguments]
    print(f"$ {' '.join(command)}", flush=True)
    # Programs that the tests start are found by name too, such as gunicorn.
    path = os.pathsep.join([str(Path(python).parent), os.environ.get("PATH", os.defpath)])
    child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PATH": path})
    # Ctrl-C reaches pytest by itself; what has passed by then is told all the same.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return child.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def summary(report: Path) -> tuple[str, Counter[str]]:
    """Return a line that counts what came of the tests, and the reasons for which some left themselves out."""
    if not report.exists():
        return "pytest left no report.", Counter()
    cases = list(ET.parse(report).getroot().iter("testcase"))
    skipped = [found.get("message", "") for case in cases if (found := case.find("skipped")) is not None]
    # A test that fails and whose clean-up fails too stands there twice.
    bad = {_name(case) for case in cases if case.find("failure") is not None or case.find("error") is not None}
    passed = {_name(case) for case in cases if case.find("skipped") is None} - bad
    return f"{len(passed)} passed, {len(bad)} failed, {len(skipped)} skipped", Counter(skipped)


def _name(case: ET.Element) -> tuple[str | None, str | None]:
    return case.get("classname"), case.get("name")


def left_out(reasons: Counter[str], needs: Sequence[debian.Need], requirements: Sequence[str]) -> list[str]:
    """Return lines that say what was left out, why, and how to have it."""
    lines = [f"  {count} {'test' if count == 1 else 'tests'}: {reason}" for reason, count in sorted(reasons.items())]
    lines += [f"  what needs {need.what}" for need in needs]
    lines += [f"  what needs Python's {requirement}, which pip could not install" for requirement in requirements]
    if not lines:
        return ["Nothing was left out."]
    lines.insert(0, "Left out:")
    if needs:
        lines += ["To have it:", f"    {debian.install_line(needs)}"]
    return lines
